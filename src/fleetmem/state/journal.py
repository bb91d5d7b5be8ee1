"""Files that grow by append: a header with kind and version, then compressed blocks, each with its checksum.

A kill at any moment costs at most the last block. All of this blocks: it is for a thread.
"""

import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

MAX_BLOCK_BYTES = 64 * 1024 * 1024
"""Of a block, compressed or not: a damaged length must not fill the memory."""

_BLOCK = struct.Struct(">II")  # length and checksum of what follows
_LEVEL = 1
_MAX_HEADER_BYTES = 128


class Format(NamedTuple):
    """What a file holds; a file of another version is not read."""

    kind: str
    version: int

    @property
    def header(self) -> bytes:
        """The first line of the file."""
        return f"fleetmem {self.kind} {self.version}\n".encode("ascii")


class DamagedError(Exception):
    """A file that cannot be read to its end, and why."""


class Journal:
    """A file that is written; a file that is there already is written again.

    Args:
        path: the file.
        format_: what it holds.

    Attributes:
        size_bytes: of the file.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, format_: Format) -> None:
        self.path = path
        self.size_bytes = 0
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        try:
            self._write(format_.header)
        except BaseException:
            self.close()
            raise

    def append(self, content: bytes) -> None:
        """Adds a block. Raises OSError; the file is of no more use then."""
        self.append_packed(pack(content))

    def append_packed(self, packed: bytes) -> None:
        """Adds a block that is compressed already, as `read_packed` returns it. Raises OSError as `append` does."""
        self._write(_BLOCK.pack(len(packed), zlib.crc32(packed)) + packed)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self.size_bytes += len(data)

    def rename(self, path: Path) -> None:
        """Gives the file another name, in place of what has it. Raises OSError."""
        self.path.replace(path)
        self.path = path

    def close(self) -> None:
        """Closes the file."""
        with suppress(OSError):
            os.close(self._file)


def pack(content: bytes) -> bytes:
    """Returns a block's content, compressed."""
    return zlib.compress(content, _LEVEL)


def unpack(packed: bytes) -> bytes:
    """Returns a block's content.

    Raises:
        DamagedError: it is none.
    """
    try:
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(packed, MAX_BLOCK_BYTES)
    except zlib.error as error:
        raise DamagedError(str(error)) from error
    if not unpacking.eof:
        raise DamagedError(f"a block of more than {MAX_BLOCK_BYTES} bytes")
    return content


def read_packed(path: Path, format_: Format) -> Iterator[bytes]:
    """Yields the blocks of a file, as they are in it; a last one that is not whole is left out.

    Raises:
        DamagedError: it is a file of another kind or version, or it is damaged from here on.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(format_.header)) != format_.header:
            file.seek(0)
            found = file.readline(_MAX_HEADER_BYTES).decode("ascii", "replace").strip()
            raise DamagedError(f"it begins with {found[:40]!r}, not with {format_.header.decode().strip()!r}")
        while len(head := file.read(_BLOCK.size)) == _BLOCK.size:
            length, checksum = _BLOCK.unpack(head)
            if length > MAX_BLOCK_BYTES:
                raise DamagedError(f"a block of {length} bytes")
            packed = file.read(length)
            if len(packed) < length:
                return
            if zlib.crc32(packed) != checksum:
                raise DamagedError("a checksum is wrong")
            yield packed


def set_aside(path: Path, reason: str) -> None:
    """Renames a file that cannot be used, so that it can be looked at; of these only the newest stays."""
    aside = path.with_name(f"{path.name}.damaged-{time.time():.0f}")
    try:
        for old in path.parent.glob("*.damaged-*"):
            old.unlink()
        path.replace(aside)
    except OSError as error:
        log.error("%s cannot be used (%s), nor renamed: %s", path, reason, error)
    else:
        log.error("%s cannot be used: %s; it is %s now, and what it held is forgotten", path, reason, aside.name)
