"""Rotated files: their names, their compression, and how many of them are kept."""

import gzip
import importlib.util
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

from fleetmem.errors import UsageError, reason_of
from fleetmem.runtime.side_thread import start_thread
from fleetmem.runtime.stop_budget import ARCHIVE_SECONDS

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1024 * 1024


class Compression(StrEnum):
    """What becomes of rotated files."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def suffix(self) -> str:
        """What is added to their names."""
        return {Compression.NONE: "", Compression.GZIP: ".gz", Compression.ZSTD: ".zst"}[self]


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is rotated, and what becomes of it then.

    Attributes:
        max_bytes: before it would grow beyond that, None for never. A line that is longer has a file of its own.
        every_seconds: at multiples of that, in UTC (3600: at full hours), None for never.
        keep: so many rotated files, the last ones; 0 for all.
        compression: of rotated files.
    """

    max_bytes: int | None = None
    every_seconds: float | None = None
    keep: int = 0
    compression: Compression = Compression.NONE

    def is_time(self, begun_unix_seconds: float, now_unix_seconds: float) -> bool:
        """Whether a multiple of the period has come since a file was begun."""
        period = self.every_seconds
        return period is not None and now_unix_seconds // period > begun_unix_seconds // period


class Rotated(NamedTuple):
    """A rotated file.

    Attributes:
        stamp: when it was rotated, as in its name.
        number: tells those of one second apart.
        path: of the file.
        is_packed: whether it is compressed.
    """

    stamp: str
    number: int
    path: Path
    is_packed: bool


class RotatedFiles:
    """The rotated files beside a path.

    Args:
        path: of the file that is written to.
        rotation: what becomes of rotated files.

    Raises:
        UsageError: the compression needs a package that is not installed.
    """

    def __init__(self, path: Path, rotation: Rotation) -> None:
        if rotation.compression is Compression.ZSTD and importlib.util.find_spec("zstandard") is None:
            raise UsageError(
                f"file {path}: zstd needs a package: pip install 'fleetmem[zstd]', or let rotated files be gzip"
            )
        self._path = path
        self._rotation = rotation
        stem, suffix = re.escape(path.stem), re.escape(path.suffix)
        self._name = re.compile(rf"{stem}-(\d{{8}}T\d{{6}}Z)(?:-(\d+))?{suffix}(\.gz|\.zst)?(\.tmp)?")
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_asked = False

    def free_path(self, unix_seconds: float) -> Path:
        """Returns the name of a file that is rotated now; no file has it, compressed or not."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(unix_seconds))
        taken = [rotated.number for rotated in self.files() if rotated.stamp == stamp]
        number = f"-{max(taken) + 1}" if taken else ""
        return self._path.with_name(f"{self._path.stem}-{stamp}{number}{self._path.suffix}")

    def files(self) -> list[Rotated]:
        """Returns all rotated files, the oldest first."""
        return sorted(rotated for rotated, is_unfinished in self._scan() if not is_unfinished)

    def tidy_soon(self) -> None:
        """Compresses and deletes, in a thread of its own; what a killed process left undone, too."""
        if self._rotation.compression is Compression.NONE and not self._rotation.keep:
            return
        with self._lock:
            self._is_asked = True
            if self._thread is None and not self._stopping.is_set():
                try:
                    self._thread = start_thread(self._work, "archive")
                except OSError as error:
                    log.warning("%s: compressed and deleted with the next rotation: %s", self._path, reason_of(error))

    def wait(self, seconds: float) -> None:
        """Waits until all is tidy."""
        thread = self._thread
        if thread:
            thread.join(seconds)

    def stop(self) -> None:
        """Lets go of a file that is being compressed: it stays as it is, until the next start."""
        self._stopping.set()
        self.wait(ARCHIVE_SECONDS)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._is_asked or self._stopping.is_set():
                    self._thread = None
                    return
                self._is_asked = False
            try:
                self._tidy()
            except OSError as error:
                log.error("file %s: rotated files are as they were: %s", self._path, reason_of(error))

    def _tidy(self) -> None:
        for rotated, is_unfinished in self._scan():
            if is_unfinished:
                rotated.path.unlink(missing_ok=True)
        packed = {(rotated.stamp, rotated.number) for rotated in self.files() if rotated.is_packed}
        for rotated in self.files():
            if rotated.is_packed or self._stopping.is_set():
                continue
            if (rotated.stamp, rotated.number) in packed:  # killed between the last two steps
                rotated.path.unlink(missing_ok=True)
            elif self._rotation.compression is not Compression.NONE:
                self._pack(rotated.path)
        if self._rotation.keep:
            for rotated in self.files()[: -self._rotation.keep]:
                rotated.path.unlink(missing_ok=True)

    def _pack(self, path: Path) -> None:
        """Compresses a file. Only the whole gets the name without `.tmp`; then the original is deleted."""
        target = path.with_name(path.name + self._rotation.compression.suffix)
        unfinished = target.with_name(target.name + ".tmp")
        try:
            if self._copy_packed(path, unfinished):
                unfinished.rename(target)
                path.unlink(missing_ok=True)
                return
        except OSError as error:
            log.error("file %s: not compressed: %s; it stays as it is", path, reason_of(error))
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)

    def _copy_packed(self, path: Path, target: Path) -> bool:
        """Returns whether all of it was copied."""
        with path.open("rb") as source, target.open("wb") as file:
            os.fchmod(file.fileno(), os.fstat(source.fileno()).st_mode & 0o777)
            with _packer(self._rotation.compression, file) as packer:
                while chunk := source.read(_CHUNK_BYTES):
                    if self._stopping.is_set():
                        return False
                    packer.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return True

    def _scan(self) -> Iterator[tuple[Rotated, bool]]:
        """Yields rotated files, and whether each is one that compression has not finished."""
        for path in list(self._path.parent.iterdir()):
            match = self._name.fullmatch(path.name)
            if match:
                yield Rotated(match[1], int(match[2] or 0), path, bool(match[3])), bool(match[4])


class _Packer(Protocol):
    def write(self, data: bytes, /) -> int:
        """Takes data."""


def _packer(compression: Compression, file: BinaryIO) -> AbstractContextManager[_Packer]:
    if compression is Compression.ZSTD:
        import zstandard

        writer = zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False)
        return cast("AbstractContextManager[_Packer]", writer)
    return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file)
