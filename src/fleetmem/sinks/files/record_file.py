"""A file of whole lines that is rotated. Blocks: for a thread."""

import errno
import fcntl
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

from fleetmem.errors import SinkError, reason_of
from fleetmem.sinks.files.archive import RotatedFiles, Rotation
from fleetmem.sinks.steady_clock import SteadyClock

log = logging.getLogger(__name__)

_CHUNK_BYTES = 64 * 1024
_BELIEVED_SECONDS = 7200.0  # of a jump of the clock: one file more costs little
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_NO_LOCKS_HERE = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class RecordFile:
    """Appends lines to a file, and begins another when it is time.

    Others may move the file away or empty it (logrotate), and a process that was killed may have left half a line.

    Args:
        path: of the file; its folder has to be there.
        header: what every file begins with.
        rotation: when another file is begun, and what becomes of the old one.

    Raises:
        UsageError: the compression needs a package that is not installed.
    """

    def __init__(self, path: Path, header: bytes, rotation: Rotation) -> None:
        self.archive = RotatedFiles(path, rotation)
        self._path = path
        self._header = header
        self._rotation = rotation
        self._file: int | None = None
        self._begun_unix_seconds = 0.0  # or, of a file that was there, when it was written to last
        self._written = b""
        self._rotation_problem: str | None = None
        self._clock = SteadyClock(_BELIEVED_SECONDS)

    def write(self, text: bytes) -> None:
        """Appends whole lines.

        Raises:
            SinkError: not all of it was written. What was is not written again when the same text comes next, and no
                half line stays in the file.
        """
        rest = text.removeprefix(self._written)
        try:
            while rest:
                now = self._clock.unix_seconds()
                file = self._ready(rest, now)
                rest = rest[self._append(file, rest) :]
        except (OSError, SinkError) as error:
            self._written = text[: len(text) - len(rest)]
            self._close()
            raise self._explained(error) from error
        self._written = b""

    def flush(self) -> None:
        """Waits until the disk has it.

        Raises:
            SinkError: it does not.
        """
        try:
            if self._file is not None:
                os.fsync(self._file)
        except OSError as error:
            self._close()
            raise self._explained(error) from error

    def close(self) -> None:
        """Closes the file; rotated ones that are being compressed stay as they are, until the next start."""
        self._close()
        self.archive.stop()

    def _append(self, file: int, text: bytes) -> int:
        """Writes as many lines as the file is to hold, at least one; returns how many bytes of the text that is."""
        size_bytes = os.fstat(file).st_size
        head = b"" if size_bytes else self._header
        length = self._fitting(text, size_bytes + len(head))
        try:
            _write_all(file, head + text[:length])
        except OSError:
            with suppress(OSError):  # else the next start, or the next try, finds the half line
                os.ftruncate(file, size_bytes)
            raise
        return length

    def _fitting(self, text: bytes, size_bytes: int) -> int:
        most = self._rotation.max_bytes
        if most is None or size_bytes + len(text) <= most:
            return len(text)
        return (text.rfind(b"\n", 0, max(0, most - size_bytes)) + 1) or text.index(b"\n") + 1

    def _ready(self, text: bytes, now_unix_seconds: float) -> int:
        """Returns the file to which the first of these lines goes."""
        file = self._opened(now_unix_seconds)
        size_bytes = os.fstat(file).st_size
        if size_bytes <= len(self._header):
            return file
        most, line_bytes = self._rotation.max_bytes, text.index(b"\n") + 1
        self._begun_unix_seconds = min(self._begun_unix_seconds, now_unix_seconds)  # the clock may have been ahead
        is_full = most is not None and size_bytes + line_bytes > most
        if not is_full and not self._rotation.is_time(self._begun_unix_seconds, now_unix_seconds):
            return file
        return self._opened(now_unix_seconds) if self._rotate(now_unix_seconds) else file

    def _rotate(self, now_unix_seconds: float) -> bool:
        try:
            self._path.rename(self.archive.free_path(now_unix_seconds))
        except OSError as error:  # too large is better than lost
            problem = f"file {self._path}: not rotated, it grows on: {reason_of(error)}; is its folder writable?"
            if problem != self._rotation_problem:
                log.error("%s", problem)
            self._rotation_problem = problem
            return False
        self._rotation_problem = None
        self._close()
        return True

    def _opened(self, now_unix_seconds: float) -> int:
        """Returns the file that has the path now."""
        while True:
            if self._file is None:
                self._open(now_unix_seconds)
            elif _has_path(self._file, self._path):
                return self._file
            else:
                self._close()

    def _open(self, now_unix_seconds: float) -> None:
        file = os.open(self._path, _FLAGS, 0o666)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise SinkError("not a regular file; give the path of one")
            _lock(file)
            is_ours = self._mend(file)
        except BaseException:
            os.close(file)
            raise
        self._file = file
        self._begun_unix_seconds = status.st_mtime if status.st_size else now_unix_seconds
        if not is_ours:
            aside = _free_path(self._path, now_unix_seconds)
            log.warning("file %s: what is there is not ours, it is called %s now", self._path, aside.name)
            self._path.rename(aside)
            self._close()
        self.archive.tidy_soon()

    def _mend(self, file: int) -> bool:
        """Cuts off a line that was not written to its end; returns whether ours can follow what is there."""
        size_bytes = os.fstat(file).st_size
        begin = os.pread(file, len(self._header), 0)
        if begin != self._header:
            if not self._header.startswith(begin):
                return False
            os.ftruncate(file, 0)
            return True
        end = _end_of_lines(file, size_bytes)
        if end < size_bytes:
            if not end:
                return False
            log.warning("file %s: the last line was not written to its end: it is cut off", self._path)
            os.ftruncate(file, end)
        return True

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):
                os.close(file)

    def _explained(self, error: OSError | SinkError) -> SinkError:
        folder = self._path.parent
        match getattr(error, "errno", None):
            case errno.ENOENT | errno.ENOTDIR:
                reason = f"there is no folder {folder}; make it, writable for this user"
            case errno.EACCES | errno.EPERM:
                reason = f"{reason_of(error)}; let this user write to it, and to its folder"
            case errno.ENOSPC | errno.EDQUOT:
                reason = f"{reason_of(error)}; free some, or keep fewer or compressed files"
            case errno.EISDIR:
                reason = "it is a folder; give the path of a file"
            case _:
                reason = reason_of(error)
        return SinkError(f"file {self._path}: {reason}")


def _free_path(path: Path, unix_seconds: float) -> Path:
    """Returns a name for something that is none of our rotated files: it is neither compressed nor deleted."""
    aside = path.with_name(f"{path.name}.aside-{int(unix_seconds)}")
    while aside.exists():
        aside = aside.with_name(f"{aside.name}-1")
    return aside


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _has_path(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: int) -> None:
    """Sees to it that nobody else of us writes: two that rotate and cut off lines would damage the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SinkError("another fleetmem writes to it; give each of them a file of its own") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise


def _end_of_lines(file: int, size_bytes: int) -> int:
    """Returns where the last whole line ends, 0 when there is none."""
    begin = size_bytes
    while begin:
        end, begin = begin, max(0, begin - _CHUNK_BYTES)
        found = os.pread(file, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
    return 0
