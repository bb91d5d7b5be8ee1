"""Files that people name: read within limits of bytes and time, whatever they turn out to be.

A path may be a pipe that nobody writes to, a device without an end or a file of a terabyte. A disk that hangs still
blocks the calling thread, so the event loop reads files in another one.
"""

import errno
import os
import select
import stat
import time
from pathlib import Path

LIMIT_BYTES = 64 << 20
LIMIT_SECONDS = 5.0

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PORTION_BYTES = 1 << 20
_MEBIBYTE_BYTES = 1 << 20


def read_bytes(path: Path, limit_bytes: int = LIMIT_BYTES, limit_seconds: float = LIMIT_SECONDS) -> bytes:
    """Returns what a file or a pipe holds, up to its end.

    Args:
        path: a file, a named pipe, `/dev/stdin` or the `/dev/fd/63` of a process substitution.
        limit_bytes: the most that is accepted.
        limit_seconds: how long a pipe may take to its end.

    Raises:
        OSError: the file cannot be read, or is no file, or exceeds a limit; its text says which.
    """
    deadline = time.monotonic() + limit_seconds
    _check_kind(path.stat().st_mode)
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        _check_kind(status.st_mode)
        if stat.S_ISREG(status.st_mode) and status.st_size > limit_bytes:
            raise _too_large(limit_bytes)
        return _read_to_end(_PortionReader(descriptor, status.st_mode, limit_seconds, deadline), limit_bytes)
    finally:
        os.close(descriptor)


def read_text(
    path: Path,
    limit_bytes: int = LIMIT_BYTES,
    limit_seconds: float = LIMIT_SECONDS,
    errors: str = "strict",
) -> str:
    """Returns what a file or a pipe holds, as UTF-8, with every line end as a line feed.

    Args:
        path: as for `read_bytes`.
        limit_bytes: as for `read_bytes`.
        limit_seconds: as for `read_bytes`.
        errors: what becomes of bytes that are not UTF-8, as for `bytes.decode`.

    Raises:
        OSError: as for `read_bytes`.
        UnicodeDecodeError: the bytes are not UTF-8 and `errors` is `strict`.
    """
    text = read_bytes(path, limit_bytes, limit_seconds).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_head(path: Path, size_bytes: int) -> bytes:
    """Returns how a file begins; nothing of a pipe or a device, which may be read only once.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    if not path.is_file():
        return b""
    descriptor = os.open(path, _FLAGS)
    try:
        return os.read(descriptor, size_bytes) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)


class _PortionReader:
    """Reads an open file portion by portion; waits for a pipe until the deadline."""

    def __init__(self, descriptor: int, mode: int, limit_seconds: float, deadline: float) -> None:
        self._descriptor = descriptor
        self._limit_seconds = limit_seconds
        self._deadline = deadline
        self._is_without_writer = stat.S_ISFIFO(mode) and _has_name(descriptor)

    def next_portion(self) -> bytes:
        """Returns a portion, which is empty at the end.

        Raises:
            OSError: the file cannot be read.
            TimeoutError: the end did not come in time.
        """
        if self._is_without_writer:  # a read of such a pipe returns nothing, as at the end
            self._wait()
            self._is_without_writer = False
        while True:
            if time.monotonic() > self._deadline:
                raise self._late()
            try:
                return os.read(self._descriptor, _PORTION_BYTES)
            except BlockingIOError:
                self._wait()

    def _wait(self) -> None:
        """Waits until there is something to read, or the last writer of a pipe has gone."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if not poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
            raise self._late()

    def _late(self) -> TimeoutError:
        return TimeoutError(f"its end did not come within {self._limit_seconds:g} s: does anybody write to it?")


def _read_to_end(reader: _PortionReader, limit_bytes: int) -> bytes:
    content = bytearray()
    while portion := reader.next_portion():
        content += portion
        if len(content) > limit_bytes:
            raise _too_large(limit_bytes)
    return bytes(content)


def _has_name(descriptor: int) -> bool:
    """Returns whether somebody may still open a pipe to write: not one of `|` or a process substitution."""
    try:
        return not str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("pipe:")
    except OSError:
        return True


def _check_kind(mode: int) -> None:
    """Raises for what cannot be read as a file, before it is opened: a device may do something when it is opened.

    Raises:
        OSError: it is a directory, a socket or a disk.
    """
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISSOCK(mode):
        raise OSError("it is a socket, not a file")
    if stat.S_ISBLK(mode):
        raise OSError("it is a disk, not a file")


def _too_large(limit_bytes: int) -> OSError:
    limit = f"{limit_bytes / _MEBIBYTE_BYTES:g} MiB" if limit_bytes >= _MEBIBYTE_BYTES else f"{limit_bytes} bytes"
    return OSError(f"it holds more than {limit}")
