from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.sinks.formats import cut_lines, graphite, graphite_at, statsd

_POINTS = [("a.b", "1"), ("a.c", "0.5")]


def test_statsd() -> None:
    """One gauge a line, nothing behind the `g`, a newline at the end of each."""
    assert statsd(_POINTS) == b"a.b:1|g\na.c:0.5|g\n"
    assert statsd([]) == b""


def test_graphite() -> None:
    """Name, value, whole seconds: exactly three fields."""
    assert graphite_at(graphite(_POINTS), 1_700_000_000.99) == b"a.b 1 1700000000\na.c 0.5 1700000000\n"
    assert graphite([]) == b""


def test_other_text_than_ascii_is_a_bug() -> None:
    """Names are folded before; what is not ASCII here never reaches a receiver."""
    with pytest.raises(UnicodeEncodeError):
        statsd([("é", "1")])
    with pytest.raises(UnicodeEncodeError):
        graphite([("é", "1")])


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
