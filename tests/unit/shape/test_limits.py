import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.model import CommandMemory, Detail, ProcessMemory, Shaped
from fleetmem.shape.limits import OTHER, Limits, shape
from fleetmem.units import percent_of
from unit.builders import MEMORY, TOTAL_BYTES, all_limits, others, process, processes, snapshot

_SMALL, _MIDDLE, _LARGE = process(1, "a", 10, 100), process(2, "b", 20, 200), process(3, "b", 30, 300)


def _shape(limits: Limits) -> Shaped:
    return shape(snapshot(_SMALL, _MIDDLE, _LARGE), limits)


def test_no_limits_keep_everything() -> None:
    """By default every process is kept as it is, and there is no `other`."""
    shaped = _shape(Limits())
    assert shaped == Shaped(MEMORY, 3, frozenset({Detail.PROCESS}), (_SMALL, _MIDDLE, _LARGE), (), None, None, {})
    assert all(kept is given_ for kept, given_ in zip(shaped.processes, (_SMALL, _MIDDLE, _LARGE), strict=True))


def test_top_keeps_the_largest() -> None:
    """The largest by RSS come first; the sum of the rest is `other`."""
    shaped = _shape(Limits(top=1))
    assert shaped.processes == (_LARGE,)
    assert shaped.other_processes == CommandMemory(OTHER, 2, 30, 300, percent_of(30, TOTAL_BYTES))
    assert shaped.process_count == 3


def test_top_larger_than_the_host() -> None:
    """With fewer processes than asked for nothing is left out."""
    shaped = _shape(Limits(top=3))
    assert (len(shaped.processes), shaped.other_processes) == (3, None)


def test_min_rss_keeps_what_is_as_large() -> None:
    """The limit itself is kept, what is smaller is added up."""
    shaped = _shape(Limits(min_rss_bytes=20))
    assert shaped.processes == (_MIDDLE, _LARGE)
    assert shaped.other_processes == CommandMemory(OTHER, 1, 10, 100, percent_of(10, TOTAL_BYTES))


def test_everything_left_out() -> None:
    """A limit that nothing meets leaves `other` alone."""
    shaped = _shape(Limits(min_rss_bytes=10**6))
    assert shaped.processes == ()
    assert shaped.other_processes is not None
    assert shaped.other_processes.procs == 3


def test_both_limits() -> None:
    """`top` counts among those that `min_rss` keeps."""
    assert _shape(Limits(top=2, min_rss_bytes=25)).processes == (_LARGE,)


def test_detail_command() -> None:
    """Processes of one name become one row, in the order in which the names were seen."""
    shaped = _shape(Limits(detail=Detail.COMMAND))
    assert shaped.processes == ()
    assert shaped.details == {Detail.COMMAND}
    assert shaped.commands == (
        CommandMemory("a", 1, 10, 100, percent_of(10, TOTAL_BYTES)),
        CommandMemory("b", 2, 50, 500, percent_of(50, TOTAL_BYTES)),
    )


def test_limits_of_commands_count_processes() -> None:
    """What is left out by command counts the processes of the commands, not the commands."""
    shaped = shape(snapshot(_SMALL, _MIDDLE, _LARGE, process(4, "c", 1000)), Limits(Detail.COMMAND, top=1))
    assert [row.command for row in shaped.commands] == ["c"]
    assert shaped.other_commands is not None
    assert shaped.other_commands.procs == 3


def test_a_host_without_processes() -> None:
    """Nothing in, nothing out, and no `other` of nothing."""
    assert shape(snapshot(), Limits(top=1)) == Shaped(MEMORY, 0, frozenset({Detail.PROCESS}), (), (), None, None, {})


def test_equal_rows_are_all_counted() -> None:
    """Rows that are equal in every field are still several."""
    shaped = shape(snapshot(_SMALL, _SMALL, process(1, "a", 10, 100)), Limits(top=2))
    assert len(shaped.processes) == 2
    assert shaped.other_processes is not None
    assert shaped.other_processes.procs == 1


@given(processes(), all_limits())
def test_totals_add_up(rows: tuple[ProcessMemory, ...], limits: Limits) -> None:
    """Whatever the limits: what is kept and `other` together are the host."""
    shaped = shape(snapshot(*rows), limits)
    kept: list[ProcessMemory | CommandMemory] = [*shaped.processes, *shaped.commands]
    parts = [*kept, *others(shaped)]
    assert sum(part.rss_bytes for part in parts) == sum(row.rss_bytes for row in rows)
    assert sum(part.vsz_bytes for part in parts) == sum(row.vsz_bytes for row in rows)
    assert sum(part.procs for part in parts) == shaped.process_count == len(rows)


@given(processes(), all_limits())
def test_limits_hold(rows: tuple[ProcessMemory, ...], limits: Limits) -> None:
    """No more than `top` rows, none below `min_rss`, and nothing larger left out by `top`."""
    shaped = shape(snapshot(*rows), limits)
    rows_kept: list[ProcessMemory | CommandMemory] = [*shaped.processes, *shaped.commands]
    kept = [row.rss_bytes for row in rows_kept]
    assert limits.top is None or len(kept) <= limits.top
    assert all(rss_bytes >= limits.min_rss_bytes for rss_bytes in kept)
    if limits.detail is Detail.PROCESS and kept:
        left_out = [row.rss_bytes for row in rows if row not in shaped.processes]
        assert max(left_out, default=0) <= max(min(kept), limits.min_rss_bytes)


@pytest.mark.parametrize("detail", list(Detail))
@given(rows=processes(), top=st.none() | st.integers(1, 3))
def test_percent_is_of_the_host(detail: Detail, rows: tuple[ProcessMemory, ...], top: int | None) -> None:
    """Every row, `other` included, says its share of the host's memory."""
    shaped = shape(snapshot(*rows), Limits(detail, top))
    rows_kept: list[ProcessMemory | CommandMemory] = [*shaped.processes, *shaped.commands]
    for row in [*rows_kept, *others(shaped)]:
        assert row.mem_percent == percent_of(row.rss_bytes, TOTAL_BYTES)
