"""known_hosts files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): read once, looked at again where they may have changed.

Keys stay text until their host is asked for: a file may hold those of 10,000 hosts. Lines whose names are hashed are
found by their key, and only those are hashed; all of them only for a key that is not found, by another process.
"""

import asyncio
import binascii
import errno
import fcntl
import hmac
import logging
import os
import stat
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from fleetmem.connect.openssh.config_file import matches_list
from fleetmem.connect.openssh.hashed_names import HASH_BYTES, search
from fleetmem.connect.ssh import asyncssh
from fleetmem.errors import reason_of
from fleetmem.runtime.bounded_file import LIMIT_BYTES, read_bytes
from fleetmem.runtime.side_thread import call_aside

log = logging.getLogger(__name__)

CERT_AUTHORITY = "@cert-authority"
REVOKED = "@revoked"

_REMEMBERED_BYTES = 64
_CHEAP_LINES = 500  # 0.7 ms to hash
_NAMES_AT_ONCE = 16
_LOOK_SECONDS = 5.0
_LOCK_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.05
_WRITE_SECONDS = 10.0
_PATIENCE_SECONDS = 1.0
"""A login waits so long for its host's key to be recorded; it may be later."""

_AGAIN_SECONDS = 30.0


class Entry(NamedTuple):
    """One line.

    Attributes:
        names: the hosts that it is about, as the line has them: names, patterns, or a hash.
        marker: `@cert-authority`, `@revoked`, or empty.
        key_text: kind of key and base64.
        path: the file; None for what could not be written to any.
        line: its number.
    """

    names: str
    marker: str
    key_text: str
    path: Path | None
    line: int

    def __str__(self) -> str:
        """Returns where it stands."""
        return f"{self.path} line {self.line}" if self.path else "what was seen before"

    @property
    def key(self) -> asyncssh.SSHKey | None:
        """The key; None where it is of a kind that asyncssh does not know."""
        return _import_key(self.key_text)

    @property
    def has_patterns(self) -> bool:
        """Whether it is about names that it does not spell out."""
        return any(sign in self.names for sign in "*?!")

    @property
    def is_hashed(self) -> bool:
        """Whether its name is hashed."""
        return self.names.startswith("|")


class _Position(NamedTuple):
    """How far a file has been read: which one, bytes, the last of them, and lines."""

    file_id: tuple[int, int]
    read_bytes: int
    last_bytes: bytes
    lines: int


class _News(NamedTuple):
    """What a look at a file has found: up to where, its new lines, and whether it is another file than before."""

    position: _Position | None
    entries: list[Entry]
    is_another: bool


class KnownHostsFile:
    """One file. It is used in the event loop, and read and written in threads.

    Args:
        path: which.
        before: the same file as it was known before a reload; what was found out about it is kept.
    """

    def __init__(self, path: Path, before: "KnownHostsFile | None" = None) -> None:
        """Reads it, where it is there."""
        self.path = path
        self._position: _Position | None = None
        self._exact: dict[str, list[Entry]] = {}
        self._patterns: list[Entry] = []
        self._hashed: list[Entry] = []
        self._hashed_by_key: defaultdict[str, list[Entry]] = defaultdict(list)
        self._hashed_markers: list[Entry] = []
        self._searched: dict[str, tuple[int, list[Entry]]] = {}
        self._remembered: dict[str, Entry] = dict(before._remembered) if before else {}
        self._unwritten: dict[str, str] = dict(before._unwritten) if before else {}
        self._wanted: set[str] = set()
        self._searching: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._told: set[str] = set()
        try:
            self._use(_look(path, None))
        except OSError as error:
            self._tell(error)
        if before and before._position == self._position:
            self._searched = dict(before._searched)

    def find(self, name: str) -> list[Entry]:
        """Returns the lines about a host, named as known_hosts names it: `web01`, `[web01]:2222`.

        Of hashed lines those with markers, and the others once they have been searched.
        """
        remembered = [self._remembered[name]] if name in self._remembered else []
        return self._lines_about(name) + remembered

    def _lines_about(self, name: str) -> list[Entry]:
        found = self._exact.get(name, []) + self._find_hashed(name)
        return found + [entry for entry in self._patterns if matches_list(name, entry.names.lower())]

    def find_key(self, name: str, key_text: str) -> list[Entry]:
        """Returns the hashed lines about a host that have a key, where so few lines have it that this takes no time."""
        entries = self._hashed_by_key.get(key_text, ())
        return [entry for entry in entries if _is_about(entry, name)] if len(entries) <= _CHEAP_LINES else []

    def is_searched(self, name: str) -> bool:
        """Whether `find` returns all lines about a host."""
        return len(self._hashed) - self._searched.get(name, (0, []))[0] <= _CHEAP_LINES

    def _find_hashed(self, name: str) -> list[Entry]:
        searched, found = self._searched.get(name, (0, []))
        if searched == len(self._hashed):
            return found
        if not self.is_searched(name):
            return [entry for entry in self._hashed_markers if _is_about(entry, name)]
        found = found + [entry for entry in self._hashed[searched:] if _is_about(entry, name)]
        self._searched[name] = len(self._hashed), found
        return found

    async def search(self, name: str) -> None:
        """Searches all hashed lines for a host; those who come meanwhile are searched for together.

        Raises:
            OSError: it took too long, or there is no process for it.
        """
        while not self.is_searched(name):
            self._wanted.add(name)
            if self._searching is None:
                self._searching = asyncio.create_task(self._search())
                self._searching.add_done_callback(_look_at)
            await asyncio.shield(self._searching)

    async def _search(self) -> None:
        names, lines = sorted(self._wanted)[:_NAMES_AT_ONCE], self._hashed
        size = len(lines)
        try:
            found = await search(names, [entry.names for entry in lines[:size]])
        finally:
            self._wanted.difference_update(names)
            self._searching = None
        if lines is self._hashed:  # otherwise it is another file by now
            for name in names:
                self._searched[name] = size, [lines[index] for index in found[name]]

    async def refresh(self) -> None:
        """Reads what others have written since, beside the event loop.

        Raises:
            TimeoutError: it cannot be read for now.
        """
        look = partial(_look, self.path, self._position)
        try:
            self._use(await call_aside(look, name=f"known hosts {self.path}", limit_seconds=_LOOK_SECONDS))
        except TimeoutError:
            raise
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        text = f"known hosts {self.path} cannot be read: {reason_of(error)}"
        if text not in self._told:
            log.warning("%s", text)
        self._told.add(text)

    def _use(self, news: _News) -> None:
        if news.is_another:
            self._exact, self._patterns, self._hashed, self._hashed_markers = {}, [], [], []
            self._hashed_by_key, self._searched = defaultdict(list), {}
        self._position = news.position
        for entry in news.entries:
            if entry.is_hashed:
                self._hashed.append(entry)
                if entry.marker:
                    self._hashed_markers.append(entry)
                else:
                    self._hashed_by_key[entry.key_text].append(entry)
            elif entry.has_patterns:
                self._patterns.append(entry)
            else:
                for name in entry.names.lower().split(","):
                    self._exact.setdefault(name, []).append(entry)

    async def record(self, name: str, key_text: str) -> None:
        """Knows a key from now on, and writes it, unless another collector was faster: then that one's counts.

        A file that is locked or full holds nobody up: the key is written later.
        """
        if self.path == Path(os.devnull):  # as ssh: what is written there has never been seen
            return
        self._remembered[name] = Entry(name, "", key_text, None, 0)
        self._unwritten[name] = key_text
        self._begin_to_write()
        if self._writing:
            await asyncio.wait({self._writing}, timeout=_PATIENCE_SECONDS)

    def _begin_to_write(self) -> None:
        if self._writing is None and self._unwritten:
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while batch := self._still_unwritten():
                append = partial(_append, self.path, self._position, batch)
                name = f"known hosts {self.path}: recording keys"
                self._use(await call_aside(append, name=name, limit_seconds=_WRITE_SECONDS))
                self._forget(batch)
        except OSError as error:
            text = f"new host keys are not recorded: {self.path}: {reason_of(error)}"
            if text not in self._told:
                log.warning("%s; they hold for this run, and are written later where that can be done", text)
            self._told.add(text)
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._begin_to_write)
        finally:
            self._writing = None

    def _still_unwritten(self) -> dict[str, str]:
        """Returns the keys to write, without those that a look has found in the file meanwhile."""
        self._forget([name for name in self._unwritten if _knows(self._lines_about(name), name)])
        return dict(self._unwritten)

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            del self._unwritten[name], self._remembered[name]


def _look(path: Path, before: _Position | None) -> _News:
    """Returns what is new in a file, all of it where it is another one. Runs in a thread.

    Raises:
        OSError: it cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return _look_once(path, status, before)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return _News(None, [], is_another=True)
    try:
        return _read(path, descriptor, before)
    finally:
        os.close(descriptor)


def _look_once(path: Path, status: os.stat_result, before: _Position | None) -> _News:
    """Returns what a pipe holds, which can be read but once; nothing for /dev/null."""
    position = _Position((status.st_dev, status.st_ino), 0, b"", 0)
    if before and before.file_id == position.file_id:
        return _News(before, [], is_another=False)
    text = b"" if path == Path(os.devnull) else read_bytes(path)
    return _News(position, _parse_all(text, path, 0), is_another=True)


def _read(path: Path, descriptor: int, before: _Position | None) -> _News:
    status = os.fstat(descriptor)
    file_id, size = (status.st_dev, status.st_ino), status.st_size
    if size > LIMIT_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    position = before or _Position(file_id, 0, b"", 0)
    begin = max(0, position.read_bytes - _REMEMBERED_BYTES)
    last_bytes = os.pread(descriptor, position.read_bytes - begin, begin)
    ends_open = size > position.read_bytes > 0 and not last_bytes.endswith(b"\n")
    is_another = file_id != position.file_id or last_bytes != position.last_bytes or ends_open
    if is_another:
        position = _Position(file_id, 0, b"", 0)
    text = b""
    while part := os.pread(descriptor, size - position.read_bytes - len(text), position.read_bytes + len(text)):
        text += part
    entries = _parse_all(text, path, position.lines)
    lines = position.lines + len(text.decode("utf-8", "replace").splitlines())
    last_bytes = (position.last_bytes + text)[-_REMEMBERED_BYTES:]
    return _News(_Position(file_id, position.read_bytes + len(text), last_bytes, lines), entries, is_another=is_another)


def _append(path: Path, before: _Position | None, keys: Mapping[str, str]) -> _News:
    """Appends lines whole, each on a line of its own, but none about a host that the file knows by now; in a thread.

    Raises:
        OSError: it cannot be written, or is locked by somebody who keeps it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is no file")
        _lock(descriptor)
        news = _read(path, descriptor, before)
        missing = [f"{name} {key}\n" for name, key in keys.items() if not _knows(news.entries, name)]
        _write_whole(descriptor, "".join(missing).encode())
        rest = _read(path, descriptor, news.position)
        entries = rest.entries if rest.is_another else [*news.entries, *rest.entries]
        return _News(rest.position, entries, is_another=news.is_another or rest.is_another)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > until:
            raise OSError(f"another program has kept it locked for {_LOCK_SECONDS:.0f} s")
        time.sleep(_LOCK_POLL_SECONDS)


def _write_whole(descriptor: int, lines: bytes) -> None:
    """Appends all of it, or nothing: a disk may be full in the middle of a line."""
    size = os.fstat(descriptor).st_size
    ends_open = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    text = (b"\n" if ends_open and lines else b"") + lines
    written = os.write(descriptor, text) if text else 0
    if written < len(text):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _knows(entries: Iterable[Entry], name: str) -> bool:
    """Whether lines are about a host; among very many hashed ones nobody looks here, as the next login will."""
    plain = [entry for entry in entries if not entry.is_hashed]
    hashed = [entry for entry in entries if entry.is_hashed]
    searched = plain + (hashed if len(hashed) <= _CHEAP_LINES else [])
    return any(not entry.marker and _is_about(entry, name) for entry in searched)


def _is_about(entry: Entry, name: str) -> bool:
    if entry.is_hashed:
        salt, digest = parse_hash(entry.names)
        return hmac.digest(salt, name.encode(), "sha1") == digest
    if entry.has_patterns:
        return matches_list(name, entry.names.lower())
    return name in entry.names.lower().split(",")


def _parse_all(text: bytes, path: Path, lines_before: int) -> list[Entry]:
    """Returns the lines of a text; one that nobody can read must not take all the others with it."""
    entries = []
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), lines_before + 1):
        try:
            entry = _parse(line, path, number)
        except ValueError as error:
            log.warning("known hosts %s line %d is skipped: %s", path, number, error)
            continue
        if entry:
            entries.append(entry)
    return entries


def _parse(line: str, path: Path, number: int) -> Entry | None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    if marker not in ("", CERT_AUTHORITY, REVOKED):
        raise ValueError(f"there is no marker {marker}")
    if len(words) < 3:
        raise ValueError("expected names, kind of key, and key")
    names, kind, key, *_comment = words
    try:
        binascii.a2b_base64(key, strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"the key is no base64: {error}") from error
    if names.startswith("|"):
        parse_hash(names)
    return Entry(names, marker, f"{kind} {key}", path, number)


def parse_hash(names: str) -> tuple[bytes, bytes]:
    """Returns salt and HMAC-SHA1 of `|1|salt|hash`.

    Raises:
        ValueError: it is none.
    """
    try:
        _, version, *parts = names.split("|")
        if version != "1":
            raise ValueError(f"hashes of version {version} are not known")
        salt, digest = map(binascii.a2b_base64, parts)
    except binascii.Error as error:
        raise ValueError(f"the hash is no base64: {error}") from error
    if len(salt) != HASH_BYTES or len(digest) != HASH_BYTES:
        raise ValueError("the hash has another length than those of ssh")
    return salt, digest


@lru_cache(maxsize=1024)
def _import_key(text: str) -> asyncssh.SSHKey | None:
    try:
        return asyncssh.import_public_key(text)
    except asyncssh.KeyImportError as error:
        log.warning("known hosts: a key is skipped: %s: %.60s", error, text)
        return None


def _look_at(task: "asyncio.Task[None]") -> None:
    """Lets asyncio know that the error of a task is known, where those who waited for it are gone."""
    if not task.cancelled():
        task.exception()
