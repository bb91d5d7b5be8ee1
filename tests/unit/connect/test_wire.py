import asyncssh.packet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.connect import wire


@given(st.integers(0, 2**32 - 1), st.binary(), st.integers(-(2**80), 2**80), st.integers(0, 255))
def test_what_asyncssh_writes_is_read(number: int, text: bytes, big: int, byte: int) -> None:
    """Numbers of a byte, of four bytes and of any size, and strings, one behind the other; written alike."""
    packet = asyncssh.packet
    reader = wire.WireReader(packet.UInt32(number) + packet.String(text) + packet.MPInt(big) + bytes([byte]))
    assert (reader.uint32(), reader.string(), reader.mpint(), reader.byte()) == (number, text, big, byte)
    assert wire.uint32(number) == packet.UInt32(number)
    assert wire.string(text) == packet.String(text)


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\0\0\0\2x", b"\xff\xff\xff\xff"])
def test_what_breaks_off_is_an_error(data: bytes) -> None:
    """Nothing is made up for what is missing."""
    with pytest.raises(wire.WireError):
        wire.WireReader(data).string()
