import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from fleetmem.sinks.pages.gzip_page import GzipPage, Part, _joined


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_are_joined(first: bytes, second: bytes) -> None:
    """As if the two texts were one."""
    assert _joined(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


@given(st.lists(st.lists(st.binary(max_size=2000), max_size=5), max_size=5))
def test_parts_are_one_stream(texts: list[list[bytes]]) -> None:
    """Written in turns, read one behind the other, by anybody who knows gzip."""
    parts = [Part() for _ in texts]
    for turn in range(5):
        for part, pieces in zip(parts, texts, strict=True):
            if turn < len(pieces):
                part.write(pieces[turn])
    page = GzipPage(parts)
    plain = b"".join(piece for pieces in texts for piece in pieces)
    packed = b"".join(page.blocks)
    assert gzip.decompress(packed) == plain
    assert zlib.decompressobj(31).decompress(packed) == plain
    assert b"".join(page.plain()) == plain
    assert (page.plain_bytes, page.packed_bytes) == (len(plain), len(packed))


def test_a_page_is_read_in_pieces() -> None:
    """A megabyte that is packed into nearly nothing does not come back at once."""
    part = Part()
    for _ in range(10):
        part.write(b"x" * 1_000_000)
    page = GzipPage([part])
    pieces = list(page.plain())
    assert max(map(len, pieces)) <= 256 * 1024
    assert sum(map(len, pieces)) == page.plain_bytes == 10_000_000
    assert page.packed_bytes < 100_000
