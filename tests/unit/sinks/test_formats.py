import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.sinks.formats import (
    STATSD,
    Dialect,
    Format,
    carbon_plain,
    carbon_tagged,
    cut_lines,
    with_time,
)
from fleetmem.sinks.naming import HostNames
from unit.builders import command_names

_PLACE = HostNames("web01").process("nginx", 7)


@pytest.mark.parametrize(
    ("dialect", "line"),
    [
        (Dialect.PLAIN, "p.process.web01.nginx.7.rss_bytes:1|g\n"),
        (Dialect.DOGSTATSD, "p.process.rss_bytes:1|g|#host:web01,command:nginx,pid:7\n"),
        (Dialect.INFLUX, "p.process.rss_bytes,host=web01,command=nginx,pid=7:1|g\n"),
        (Dialect.GRAPHITE, "p.process.rss_bytes;host=web01;command=nginx;pid=7:1|g\n"),
    ],
)
def test_statsd(dialect: Dialect, line: str) -> None:
    """One gauge a line, in each receiver's way to say host, command and pid."""
    assert STATSD[dialect]("p", _PLACE).template(["rss_bytes"]) % 1 == line


def test_every_dialect_has_a_format() -> None:
    """None is only a word in the configuration."""
    assert set(STATSD) == set(Dialect)


def test_carbon() -> None:
    """Name, value, whole seconds: exactly three fields."""
    text = (carbon_plain("p", _PLACE).template(["a", "b"]) % (1, 0.5)).encode()
    assert with_time(text, 1_700_000_000.99) == (
        b"p.process.web01.nginx.7.a 1 1700000000\np.process.web01.nginx.7.b 0.5 1700000000\n"
    )
    tagged = (carbon_tagged("p", _PLACE).template(["a"]) % 1).encode()
    assert with_time(tagged, 5) == b"p.process.a;host=web01;command=nginx;pid=7 1 5\n"


@given(command_names(), st.sampled_from([*STATSD.values(), carbon_plain, carbon_tagged]))
def test_no_name_breaks_a_line(command: str, format_: Format) -> None:
    """Whatever a process is called: one ASCII line, its signs where the protocol has them and nowhere else."""
    ours, plain = (format_("p", HostNames("web01").process(name, 7)) for name in (command, "x"))
    line, usual = (wrap.template(["rss_bytes"]) for wrap in (ours, plain))
    assert line.isascii()
    signs = re.compile(r"[A-Za-z0-9_]+")
    assert signs.sub("", line) == signs.sub("", usual)


_LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=60)


@given(_LINES, st.integers(31, 200))
def test_cut_lines(lines: list[bytes], max_bytes: int) -> None:
    """Pieces join back to the text, fit, end with a line, and are as few as whole lines allow."""
    text = b"".join(lines)
    pieces = cut_lines(text, max_bytes)
    assert b"".join(pieces) == text
    assert all(0 < len(piece) <= max_bytes and piece.endswith(b"\n") for piece in pieces)
    for piece, following in pairwise(pieces):
        assert len(piece) + following.index(b"\n") + 1 > max_bytes


def test_cut_lines_at_the_limit() -> None:
    """A piece may be exactly as long as allowed."""
    assert cut_lines(b"abc\ndef\n", 8) == [b"abc\ndef\n"]
    assert cut_lines(b"abc\ndef\n", 7) == [b"abc\n", b"def\n"]
    assert cut_lines(b"abc\ndef\n", 4) == [b"abc\n", b"def\n"]


@pytest.mark.parametrize("text", [b"abcdefgh\n", b"a\nabcdefgh\nb\n", b"abcdefghi"])
def test_a_line_that_is_too_long(text: bytes) -> None:
    """A line is never cut: one that does not fit is a bug that shows itself."""
    with pytest.raises(ValueError, match="a line is longer than 8 bytes: b'abcdefgh"):
        cut_lines(text, 8)
