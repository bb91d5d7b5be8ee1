"""Frames of carbon's pickle protocol, made from lines of its plaintext protocol. Pure.

Carbon takes in a frame at once where it takes lines one by one, which costs it a good deal less.
"""

import pickle  # written only: carbon is who reads it
import struct

MAX_FRAME_POINTS = 500
"""What carbon's own relays send at most."""

MAX_PAYLOAD_BYTES = 2**20 - 1
"""Carbon drops the connection at a longer one."""

_USUAL_PAYLOAD_BYTES = 64 * 1024  # the rest of a frame must fit a buffer that is full (see `tcp`)

_PROTOCOL = 2  # the newest that a carbon on Python 2 reads
_LENGTH = struct.Struct("!L")

Point = tuple[str, tuple[int, int | float]]


def frames(text: bytes) -> bytes:
    """Returns lines `name value unixtime` as frames, one after the other, in the same order.

    Raises:
        ValueError: a line is none of the plaintext protocol, or alone longer than a frame can be.
    """
    points = [_point(line) for line in text.decode("ascii").splitlines()]
    return b"".join(
        [_frames(points[start : start + MAX_FRAME_POINTS]) for start in range(0, len(points), MAX_FRAME_POINTS)]
    )


def end_of_frame(data: bytes, at: int) -> int:
    """Returns where the frame ends that holds the byte before a position; 0 for position 0."""
    end = 0
    while end < at:
        end += _LENGTH.size + _LENGTH.unpack_from(data.ljust(end + _LENGTH.size, b"\0"), end)[0]
    return end


def _point(line: str) -> Point:
    name, value, unix_seconds = line.split()
    return name, (int(unix_seconds), _number(value))


def _number(text: str) -> int | float:
    try:
        return int(text)  # exact, however many bytes of memory a host has
    except ValueError:
        return float(text)


def _frames(points: list[Point]) -> bytes:
    payload = pickle.dumps(points, _PROTOCOL)
    if len(payload) <= (_USUAL_PAYLOAD_BYTES if len(points) > 1 else MAX_PAYLOAD_BYTES):
        return _LENGTH.pack(len(payload)) + payload
    if len(points) == 1:
        raise ValueError(f"a line is longer than a frame of {MAX_PAYLOAD_BYTES} bytes: {points[0][0][:60]!r}...")
    half = len(points) // 2
    return _frames(points[:half]) + _frames(points[half:])
