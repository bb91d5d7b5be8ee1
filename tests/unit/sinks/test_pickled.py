import io
import pickle
import struct
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.sinks.pickled import MAX_FRAME_POINTS, MAX_PAYLOAD_BYTES, frames
from fleetmem.units import format_number


class SafeUnpickler(pickle.Unpickler):
    """As carbon's: nothing but plain types."""

    def find_class(self, _module: str, name: str) -> NoReturn:
        """Refuses."""
        raise pickle.UnpicklingError(f"{name} is no plain type")


def read(data: bytes) -> list[list[Any]]:
    """Reads frames the way carbon does: a length of 4 bytes, big end first, a pickle; no frame of 1 MiB or more."""
    found = []
    while data:
        (length,) = struct.unpack("!L", data[:4])
        payload, data = data[4 : 4 + length], data[4 + length :]
        assert len(payload) == length < 2**20
        assert payload[:2] == b"\x80\x02"
        found.append(SafeUnpickler(io.BytesIO(payload)).load())
        assert len(found[-1]) <= MAX_FRAME_POINTS
    return found


def lines(points: list[Any]) -> bytes:
    """Returns points as lines of the plaintext protocol."""
    return b"".join(
        f"{name} {format_number(value)} {unix_seconds}\n".encode("ascii") for name, (unix_seconds, value) in points
    )


_names = st.from_regex(r"[a-z][a-z0-9_]{0,9}(\.[a-z0-9_]{1,9}){0,3}", fullmatch=True)
_values = st.integers(0, 2**63) | st.integers(0, 10**9).map(lambda millionths: millionths / 10**6)
_points = st.tuples(_names, st.tuples(st.integers(0, 2**32 - 1), _values))


@pytest.mark.slow
@given(st.lists(_points, max_size=30), st.integers(1, 60))
def test_carbon_reads_the_lines_again(points: list[Any], times: int) -> None:
    """What carbon reads from the frames are the points of the lines, in order, whatever their number."""
    text = lines(points) * times
    found = [point for frame in read(frames(text)) for point in frame]
    assert lines(found) == text
    assert all(type(name) is str and type(seconds) is int for name, (seconds, _value) in found)


def test_integers_stay_exact() -> None:
    """Bytes are whole numbers beyond what a float holds; what has a fraction is a float."""
    ((big, part),) = read(frames(b"a 9007199254740993 1700000000\nb 12.5 1700000000\n"))
    assert big == ("a", (1_700_000_000, 9_007_199_254_740_993))
    assert part == ("b", (1_700_000_000, 12.5))


def test_a_frame_has_500_points() -> None:
    """1001 points are three frames; none at all is none."""
    assert [len(frame) for frame in read(frames(b"a 1 2\n" * 1001))] == [500, 500, 1]
    assert frames(b"") == b""


def test_a_frame_stays_below_a_mebibyte() -> None:
    """Long names make frames of fewer points, in order."""
    text = b"".join(b"%s%d 1 2\n" % (b"x" * 10_000, number) for number in range(300))
    found = read(frames(text))
    assert len(found) > 1
    assert lines([point for frame in found for point in frame]) == text


def test_a_line_longer_than_a_frame() -> None:
    """It cannot be sent, and says which it is."""
    with pytest.raises(ValueError, match=r"longer than a frame of 1048575 bytes: 'xxx"):
        frames(b"x" * MAX_PAYLOAD_BYTES + b" 1 2\n")


def test_the_longest_frame() -> None:
    """The limit is met to the byte."""
    overhead = len(frames(b"x" * 500_000 + b" 1 2\n")) - 4 - 500_000
    longest = b"x" * (MAX_PAYLOAD_BYTES - overhead)
    assert len(frames(longest + b" 1 2\n")) == 4 + MAX_PAYLOAD_BYTES
    with pytest.raises(ValueError, match="longer than a frame"):
        frames(longest + b"x 1 2\n")
