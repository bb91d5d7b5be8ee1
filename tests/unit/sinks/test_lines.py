from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.model import PROCESS_MEASURES
from fleetmem.process_table import RowKeys
from fleetmem.sinks import formats
from fleetmem.sinks.lines import ProcessLines, RowLines
from fleetmem.sinks.naming import FleetNames, Place
from unit.builders import WEB

FORMATS = [*formats.STATSD.values(), formats.carbon_plain, formats.carbon_tagged]


def _keys(rows: list[tuple[int, int]]) -> RowKeys:
    """Returns the keys of rows: what they are called by, and what they say."""
    return RowKeys(array("q", map(hash, rows)), array("q", [name + 1 for name, _value in rows]))


def _lines(row: tuple[int, int]) -> bytes:
    return b"%d:%d\n" % row


_ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=10, unique_by=lambda row: row[0])


@pytest.mark.slow
@given(st.lists(_ROWS, max_size=8))
def test_any_history(history: list[list[tuple[int, int]]]) -> None:
    """The text is that of the rows in their order; only new ones are written; what began and what ended is told."""
    lines, before = RowLines(), list[tuple[int, int]]()
    for rows in history:
        written: list[int] = []

        def write(places: list[int], rows: list[tuple[int, int]] = rows, written: list[int] = written) -> list[bytes]:
            written += places
            return [_lines(rows[place]) for place in places]

        keys = _keys(rows)
        ended = lines.update(keys, lines.keys.changes_to(keys), write)
        assert lines.text == b"".join(map(_lines, rows))
        assert len(lines) == len(rows)
        assert {rows[place] for place in written} == set(rows) - set(before)
        names, names_before = {name for name, _ in rows}, {name for name, _ in before}
        assert ended.gone == b"".join(_lines(row) for row in before if row[0] not in names)
        assert ended.new == b"".join(_lines(row) for row in rows if row[0] not in names_before)
        before = rows


def test_another_scale_changes_every_row() -> None:
    """Where what the rows depend on has changed, nothing is kept, and no series ends."""
    keys = _keys([(1, 2), (3, 4)])
    lines = RowLines()
    lines.update(keys, lines.keys.changes_to(keys), lambda places: [b"old\n" for _ in places])
    scaled = keys._replace(scale=5)
    ended = lines.update(scaled, lines.keys.changes_to(scaled), lambda places: [b"new\n" for _ in places])
    assert (bytes(lines.text), ended.gone, ended.new) == (b"new\nnew\n", b"", b"")


@pytest.mark.parametrize("format_", FORMATS)
def test_short_lines_say_the_same(format_: formats.Format) -> None:
    """Lines that were written short are, in full, those of the format; and they are a good deal shorter."""
    host = FleetNames("fleetmem", [WEB.name]).host(WEB.name)

    def wrap(place: Place) -> formats.Wrap:
        return format_("fleetmem", place)

    lines = ProcessLines(host.process_called, wrap)
    values = 1048576, 2097152, "0.012207"
    full = (wrap(host.process("nginx", 4711)).template(PROCESS_MEASURES) % values).encode("ascii")
    (short,) = lines.short([("nginx", 4711, *values)])
    assert lines.full(short * 2) == full * 2
    assert len(short) < len(full) / 2
