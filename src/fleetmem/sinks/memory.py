"""The names of series that live, kept in the state folder: after a restart, those that ended meanwhile get their zeros.

    series-RUN-PROCESS.log       of each process; RUN grows with each start
    series-RUN-PROCESS.part      the next generation, until it has all hosts: then it takes the place of the other one

A file holds, per sink and host, all names that live, as the zeros that would end them, and after that what has begun
and ended since. When it has grown, all hosts are written again, some at a time. Files of runs before are read at the
start, and deleted when each process of this run has a file.
"""

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from fleetmem.errors import reason_of
from fleetmem.runtime.side_thread import SideThread, start_thread
from fleetmem.runtime.stop_budget import MEMORY_CLOSE_SECONDS, MEMORY_DRAIN_SECONDS
from fleetmem.sinks.formats import statsd_zeros
from fleetmem.state.folder import HeldError, StateFolder
from fleetmem.state.journal import DamagedError, Format, Journal, pack, read_packed, set_aside, unpack

log = logging.getLogger(__name__)

FORMAT = Format("series", 1)
OWN = ""
"""Stands for the collector's own counters among hosts: no host is called so."""

_NAME = re.compile(r"series-(\d+)-(\d+)\.(log|part)")
_TICK_SECONDS = 0.25
_CHANGES_SECONDS = 3.0  # between two blocks of what has begun and ended
_ALL_TICKS = 120  # in which all hosts are written again
_LEAST_HOSTS = 8  # per tick
_RETRY_SECONDS = 10.0
_LOAD_SECONDS = 10.0
_SMALL_BYTES = 4 * 1024 * 1024  # a file is not written again below that
_MERGE_BYTES = 8 * 1024  # of what is read for a host, before it becomes one piece
_MAX_PENDING_BYTES = 16 * 1024 * 1024

Owner = tuple[str, str]
"""A sink and a host."""

_quoted = json.encoder.encode_basestring_ascii  # `json.dumps` of a list of three texts takes five times as long


class MemorySpec(NamedTuple):
    """Where the names are kept: plain and picklable.

    Attributes:
        folder: of this collector.
        run: grows with each start.
        process: 0 is the main process.
        processes: of this collector, which share the folder.
    """

    folder: Path
    run: int
    process: int = 0
    processes: int = 1


class Series(Protocol):
    """A sink, as the memory sees it."""

    def owners(self) -> Iterable[str]:
        """Returns the hosts that have series."""

    def series_of(self, owner: str) -> bytes:
        """Returns lines of all series of a host that live, or have still to be ended; their values do not matter."""


class _Changes:
    """What has begun and ended, in the order in which it came.

    There is no object for each: thousands that live for seconds bring on one garbage collection after the other.

    Attributes:
        size_bytes: of all lines.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._keys: list[str] = []
        self._hosts: list[str] = []
        self._begun: list[bytes] = []
        self._ended: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._keys)

    def add(self, key: str, host: str, begun: bytes, ended: bytes) -> None:
        """Takes lines of a sink and host that have begun, and zeros of those that have ended."""
        self._keys.append(key)
        self._hosts.append(host)
        self._begun.append(begun)
        self._ended.append(ended)
        self.size_bytes += len(begun) + len(ended)

    def block(self) -> bytes:
        """Returns all of it, as it is written."""
        texts: dict[Owner, list[bytes]] = {}
        for key, host, *lines in zip(self._keys, self._hosts, self._begun, self._ended, strict=True):
            texts.setdefault((key, host), []).extend(map(_signed, (b"+", b"-"), lines))
        parts: list[bytes] = []
        for owner, changes in texts.items():
            parts += [_head("changes", owner), *changes, b"\n"]
        return b"".join(parts)


class SeriesMemory:
    """Keeps the names of all sinks of this process.

    Args:
        spec: where.
        lock: the folder's, in the main process.

    Attributes:
        address: where, for people.
        spec: see above.
        processes: of this collector, which share the folder.
    """

    def __init__(self, spec: MemorySpec, lock: StateFolder | None = None) -> None:
        self.address = str(spec.folder)
        self.processes = spec.processes
        self.spec = spec
        self._lock = lock
        self._thread = SideThread("state")
        self._loaded: dict[Owner, bytes] = {}  # packed
        self._sinks: dict[str, Series] = {}
        self._journal: Journal | None = None
        self._begins = True  # with the next write
        self._is_begun = False  # the file of this generation has its last name
        self._known: set[Owner] = set()  # those that the file has
        self._due: dict[Owner, None] = {}
        self._changes = _Changes()
        self._whole_bytes = 0
        self._problem: str | None = None
        self._load()

    @property
    def process(self) -> int:
        """Which one this is; 0 is the main process."""
        return self.spec.process

    # --- for sinks ---------------------------------------------------------------------------------------------------

    def attach(self, key: str, sink: Series) -> None:
        """Lets a sink be asked for its series."""
        self._sinks[key] = sink
        self._due |= {(key, host): None for host in sink.owners()}

    def remembered(self) -> set[str]:
        """Returns the sinks of which something is remembered from before the start."""
        return {key for key, _host in self._loaded}

    def owners(self, key: str) -> list[str]:
        """Returns the hosts of which something is remembered from before the start."""
        return [host for its_key, host in self._loaded if its_key == key]

    def recall(self, key: str, host: str) -> bytes:
        """Returns the zeros of the series that a host had before the start, once."""
        packed = self._loaded.pop((key, host), None)
        if packed is None:
            return b""
        with suppress(DamagedError):
            return unpack(packed)
        return b""

    def note(self, key: str, host: str, begun: bytes, ended: bytes) -> None:
        """Takes lines of series that have begun, and zeros of those that are ended, the last of their zeros sent."""
        owner = key, host
        if owner not in self._known:
            self._due[owner] = None
        elif begun or ended:
            self._changes.add(key, host, begun, ended)
            if self._changes.size_bytes > _MAX_PENDING_BYTES:  # the disk does not keep up
                self._forget_file()

    def detach(self, key: str, sink: Series) -> None:
        """Asks a sink no more."""
        if self._sinks.get(key) is sink:
            del self._sinks[key]

    def release(self) -> None:
        """Lets go of the folder where nothing comes of it."""
        if self._lock:
            self._lock.release()

    def forget(self, key: str) -> None:
        """Forgets what is remembered of a sink from before the start."""
        for host in self.owners(key):
            del self._loaded[key, host]

    # --- a service ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Writes what is new, some of it at a time."""
        written_at = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            is_time = time.monotonic() - written_at >= _CHANGES_SECONDS
            if is_time:
                written_at = time.monotonic()
            if self._is_begun and not self._due and self._has_grown:
                self._forget_file()
            if not await self._write(
                max(_LEAST_HOSTS, (len(self._known) + len(self._due)) // _ALL_TICKS), has_changes=is_time
            ):
                await asyncio.sleep(_RETRY_SECONDS)

    async def drain(self) -> None:
        """Writes all that is new."""
        with suppress(TimeoutError):
            async with asyncio.timeout(MEMORY_DRAIN_SECONDS):
                await self._write(len(self._due), has_changes=True)

    async def close(self) -> None:
        """Writes what came at last, and lets go of file and folder."""
        with suppress(TimeoutError):
            async with asyncio.timeout(MEMORY_CLOSE_SECONDS):
                await self._write(len(self._due), has_changes=True)
        self._thread.end()
        if self._lock:
            self._lock.release()

    async def _write(self, hosts: int, *, has_changes: bool) -> bool:
        """Writes so many hosts, and what has changed of others; returns whether that was possible."""
        begins, self._begins = self._begins, False
        if not begins and not self._due and not (has_changes and self._changes):
            return True
        whole = [(owner, self._series_of(owner)) for owner in list(self._due)[:hosts]]
        changes = _Changes()
        if has_changes:
            changes, self._changes = self._changes, changes
        for owner, _lines in whole:
            self._due.pop(owner, None)
            self._known.add(owner)
        is_last = not self._due
        try:
            await self._thread.call(lambda: self._write_blocks(whole, changes, begins=begins, is_last=is_last))
        except OSError as error:
            self._fail(f"{self.address}: {reason_of(error)}")
            return False
        except HeldError as error:
            self._fail(str(error))
            return False
        if self._problem:
            log.warning("state: %s can be written again", self.address)
            self._problem = None
        return True

    @property
    def _has_grown(self) -> bool:
        size_bytes = self._journal.size_bytes if self._journal else 0
        return size_bytes > max(_SMALL_BYTES, 3 * self._whole_bytes)

    def _series_of(self, owner: Owner) -> bytes:
        sink = self._sinks.get(owner[0])
        return sink.series_of(owner[1]) if sink else b""

    def _forget_file(self) -> None:
        """Lets the next write begin a file, with all hosts."""
        self._begins = True
        self._known.clear()
        self._changes = _Changes()
        self._due = {(key, host): None for key, sink in self._sinks.items() for host in sink.owners()}

    def _fail(self, reason: str) -> None:
        if self._problem is None:
            log.warning("state: %s; series that end while fleetmem is restarted may stay in StatsD", reason)
        self._problem = reason
        self._forget_file()

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _write_blocks(
        self, whole: list[tuple[Owner, bytes]], changes: _Changes, *, begins: bool, is_last: bool
    ) -> None:
        journal = self._journal
        if begins and journal:
            journal.close()
            journal = self._journal = None
        if journal is None:
            self._is_begun = False
            if self._lock:
                self._lock.claim()
            self.spec.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._journal = journal = Journal(self._path("part"), FORMAT)
            for owner, packed in list(self._loaded.items()):
                journal.append_packed(pack(_head("whole", owner) + unpack(packed)))
                self._known.add(owner)
        for owner, lines in whole:
            journal.append(_head("whole", owner) + statsd_zeros(lines))
        if changes:
            journal.append(changes.block())
        if is_last and not self._is_begun:
            journal.rename(self._path("log"))
            self._is_begun = True
            self._whole_bytes = journal.size_bytes
            self._delete_old()

    def _path(self, suffix: str) -> Path:
        return self.spec.folder / f"series-{self.spec.run}-{self.spec.process}.{suffix}"

    def _delete_old(self) -> None:
        """Deletes the files of runs before, when each process of this one has its own."""
        run = self.spec.run
        files = _files(self.spec.folder)
        here = {process for its_run, process, suffix, _path in files if its_run == run and suffix == "log"}
        if here >= set(range(self.processes)):
            for its_run, _process, _suffix, path in files:
                if its_run < run:
                    path.unlink(missing_ok=True)

    # --- at the start ------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Reads what is remembered, within a limit."""
        found: dict[Owner, bytes] = {}
        has_ended = threading.Event()

        def load() -> None:
            try:
                found.update(read_series(self.spec.folder))
            except OSError as error:
                log.warning("state: %s: %s", self.address, reason_of(error))
            finally:
                has_ended.set()

        try:
            start_thread(load, "state")
        except OSError as error:
            log.warning("state: %s: %s", self.address, error)
            return
        if has_ended.wait(_LOAD_SECONDS):
            self._loaded = found
        else:
            log.warning("state: %s: not read within %g s; what lived before is forgotten", self.address, _LOAD_SECONDS)


class SinkMemory:
    """What one sink has to do with it.

    Args:
        memory: of this process.
        key: what the sink sends to, whatever the order of sinks.
    """

    def __init__(self, memory: SeriesMemory, key: str) -> None:
        self._memory = memory
        self._key = key

    @property
    def is_main(self) -> bool:
        """Whether this is the main process: it ends what is nobody's any more."""
        return self._memory.process == 0

    @property
    def samples(self) -> bool:
        """Whether hosts are sampled in this process."""
        return self._memory.process > 0 or self._memory.processes == 1

    def attach(self, sink: Series) -> None:
        """Lets the sink be asked for its series."""
        self._memory.attach(self._key, sink)

    def detach(self, sink: Series) -> None:
        """Asks it no more."""
        self._memory.detach(self._key, sink)

    def owners(self) -> list[str]:
        """Returns the hosts of which something is remembered from before the start."""
        return self._memory.owners(self._key)

    def recall(self, host: str) -> bytes:
        """Returns the zeros of the series that a host had before the start, once."""
        return self._memory.recall(self._key, host)

    def note(self, host: str, begun: bytes, ended: bytes) -> None:
        """Takes lines of series that have begun, and zeros of those that are ended, the last of their zeros sent."""
        self._memory.note(self._key, host, begun, ended)


def next_run(folder: Path) -> int:
    """Returns a number above those of all runs that have files there."""
    runs: list[int] = []
    with suppress(OSError):
        runs = [run for run, _process, _suffix, _path in _files(folder)]
    return max([int(time.time()), *(run + 1 for run in runs)])


def read_series(folder: Path) -> dict[Owner, bytes]:
    """Returns the zeros of all series that lived, packed; a file that is damaged is set aside.

    Raises:
        OSError: the folder cannot be read.
    """
    found: dict[Owner, bytes] = {}
    for _run, _process, _suffix, path in sorted(_files(folder), key=lambda file: (file[0], file[2] == "part", file[1])):
        pieces = _Pieces()
        try:
            for packed in read_packed(path, FORMAT):
                pieces.add(unpack(packed))
        except (DamagedError, ValueError) as error:
            set_aside(path, str(error))
        except OSError as error:
            log.warning("state: %s: %s", path, reason_of(error))
        pieces.merge_into(found)
    return {owner: packed for owner, packed in found.items() if packed}


def _files(folder: Path) -> list[tuple[int, int, str, Path]]:
    if not folder.is_dir():
        return []
    matches = [(path, _NAME.fullmatch(path.name)) for path in folder.iterdir()]
    return [(int(match[1]), int(match[2]), match[3], path) for path, match in matches if match]


class _Pieces:
    """What one file says of each host, in little memory."""

    def __init__(self) -> None:
        self._whole: dict[Owner, bytes] = {}
        self._changes: dict[Owner, list[bytes]] = {}

    def add(self, block: bytes) -> None:
        """Takes a block. Raises ValueError where it is none."""
        while block:
            head, _newline, rest = block.partition(b"\n")
            what, key, host = json.loads(head)
            owner = (str(key), str(host))
            if what == "whole":
                self._whole[owner] = pack(rest) if rest else b""
                self._changes.pop(owner, None)
                return
            body, _end, block = rest.partition(b"\n\n")
            changes = self._changes.setdefault(owner, [])
            changes.append(body + b"\n")
            if sum(map(len, changes)) > _MERGE_BYTES and owner in self._whole:
                self._whole[owner] = _apply(self._whole[owner], changes)
                del self._changes[owner]

    def merge_into(self, found: dict[Owner, bytes]) -> None:
        """Puts it over what older files say."""
        found.update(self._whole)
        for owner, changes in self._changes.items():
            found[owner] = _apply(found.get(owner, b""), changes)


def _apply(packed: bytes, changes: Iterable[bytes]) -> bytes:
    lines = dict.fromkeys(unpack(packed).splitlines(keepends=True)) if packed else {}
    for text in changes:
        for line in text.splitlines(keepends=True):
            if line[:1] == b"+":
                lines[statsd_zeros(line[1:])] = None
            else:
                lines.pop(line[1:], None)
    return pack(b"".join(lines)) if lines else b""


def _head(what: str, owner: Owner) -> bytes:
    return f'["{what}", {_quoted(owner[0])}, {_quoted(owner[1])}]\n'.encode("ascii")


def _signed(sign: bytes, lines: bytes) -> bytes:
    """Returns whole lines, each behind a sign."""
    return sign + lines[:-1].replace(b"\n", b"\n" + sign) + b"\n" if lines else b""
