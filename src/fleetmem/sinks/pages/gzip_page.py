"""A long text in parts that are written at the same time, as one gzip stream. Pure.

Prometheus wants all samples of a family together, and a host is known whole: its samples belong to many families. So
each family is compressed by itself as it comes, and the parts are joined at the end. The plain text is never there as a
whole: it is twenty times as long, and each client would hold one.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

_LEVEL = 3
_GZIP = 16 + zlib.MAX_WBITS
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"  # an empty one
_POLYNOMIAL = 0xEDB88320
_PLAIN_BLOCK_BYTES = 256 * 1024


class Part:
    """Text that is compressed as it is written."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
        self._blocks: list[bytes] = []
        self.checksum = 0
        self.size_bytes = 0

    def write(self, text: bytes) -> None:
        """Appends text."""
        self.checksum = zlib.crc32(text, self.checksum)
        self.size_bytes += len(text)
        if packed := self._packer.compress(text):
            self._blocks.append(packed)

    def end(self) -> list[bytes]:
        """Returns the compressed text; nothing may follow it but another part."""
        return [*self._blocks, self._packer.flush(zlib.Z_FULL_FLUSH)]


class GzipPage:
    """Parts, one behind the other. Never changes.

    Args:
        parts: in their order; they are ended.

    Attributes:
        blocks: the gzip stream.
        packed_bytes: its size.
        plain_bytes: the size of the text.
    """

    def __init__(self, parts: Iterable[Part]) -> None:
        self.blocks = [_HEADER]
        checksum = self.plain_bytes = 0
        for part in parts:
            self.blocks += part.end()
            checksum = _joined(checksum, part.checksum, part.size_bytes)
            self.plain_bytes += part.size_bytes
        self.blocks.append(_LAST_BLOCK + struct.pack("<II", checksum, self.plain_bytes & 0xFFFFFFFF))
        self.packed_bytes = sum(map(len, self.blocks))

    def plain(self) -> Iterator[bytes]:
        """Yields the text in pieces of a bounded size."""
        packer = zlib.decompressobj(_GZIP)
        for block in self.blocks:
            waiting = block
            while waiting:
                if text := packer.decompress(waiting, _PLAIN_BLOCK_BYTES):
                    yield text
                waiting = packer.unconsumed_tail
        if text := packer.flush():
            yield text


def _joined(first: int, second: int, second_bytes: int) -> int:
    """Returns the CRC-32 of two texts, one behind the other, from that of each (crc32_combine of zlib).

    A zero byte behind a text changes its CRC by a linear function over bits: a matrix, which is squared for two bytes,
    four, eight and so on.
    """
    matrix = [_POLYNOMIAL, *(1 << bit for bit in range(31))]  # one zero bit
    for _ in range(3):
        matrix = _squared(matrix)
    while second_bytes:
        if second_bytes & 1:
            first = _times(matrix, first)
        matrix, second_bytes = _squared(matrix), second_bytes >> 1
    return first ^ second


def _squared(matrix: list[int]) -> list[int]:
    return [_times(matrix, row) for row in matrix]


def _times(matrix: list[int], vector: int) -> int:
    result = 0
    for row in matrix:
        if not vector:
            break
        if vector & 1:
            result ^= row
        vector >>= 1
    return result
