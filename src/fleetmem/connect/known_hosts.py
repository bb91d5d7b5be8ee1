"""known_hosts files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): read once, looked at again where they may have changed.

Keys stay text until their host is asked for: a file may hold those of 10,000 hosts.
"""

import binascii
import fcntl
import hmac
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import asyncssh

from fleetmem.connect.ssh_config import matches_list
from fleetmem.errors import reason_of

log = logging.getLogger("fleetmem.connect")

CERT_AUTHORITY = "@cert-authority"
REVOKED = "@revoked"

_REMEMBERED_BYTES = 64


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


class KnownHostsFile:
    """One file."""

    def __init__(self, path: Path) -> None:
        """Reads it, where it is there."""
        self.path = path
        self._exact: dict[str, list[Entry]] = {}
        self._hashed: list[tuple[bytes, bytes, Entry]] = []
        self._patterns: list[Entry] = []
        self._found: dict[str, list[Entry]] = {}
        self._remembered: list[Entry] = []
        self._is_told = False
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        self._exact, self._hashed, self._patterns, self._found = {}, [], [], {}
        self._file_id: tuple[int, int] | None = None
        self._read_bytes = self._lines = 0
        self._last_bytes = b""
        for entry in self._remembered:
            self._index(entry)

    def find(self, name: str) -> list[Entry]:
        """Returns the lines about a host, named as known_hosts names it: `web01`, `[web01]:2222`."""
        if name not in self._found:
            found = list(self._exact.get(name, ()))
            found += [
                entry for salt, digest, entry in self._hashed if hmac.digest(salt, name.encode(), "sha1") == digest
            ]
            found += [entry for entry in self._patterns if matches_list(name, entry.names.lower())]
            self._found[name] = found
        return self._found[name]

    def refresh(self) -> bool:
        """Reads what others have written since; returns whether there was anything."""
        try:
            with self.path.open("rb") as file:
                return self._read(file.fileno())
        except FileNotFoundError:
            had_entries = self._file_id is not None
            self._forget()
            return had_entries
        except OSError as error:
            if not self._is_told:
                log.warning("known hosts %s cannot be read: %s", self.path, reason_of(error))
            self._is_told = True
            return False

    def remember(self, name: str, key_text: str) -> None:
        """Knows a key from now on, without writing it anywhere."""
        self._remembered.append(Entry(name, "", key_text, None, 0))
        self._index(self._remembered[-1])

    @contextmanager
    def locked(self) -> Iterator["Appender"]:
        """Keeps other collectors from recording anything, and reads what they have.

        Raises:
            OSError: the file cannot be written.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._read(descriptor)
            yield Appender(self, descriptor)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> bool:
        """Reads what is new in the file, all of it where it is another one; returns whether there was anything."""
        status = os.fstat(descriptor)
        file_id = (status.st_dev, status.st_ino)
        begin = max(0, self._read_bytes - _REMEMBERED_BYTES)
        last_bytes = os.pread(descriptor, self._read_bytes - begin, begin)
        ends_open = status.st_size > self._read_bytes and not last_bytes.endswith(b"\n")
        is_another = file_id != self._file_id or last_bytes != self._last_bytes or ends_open
        if is_another:
            self._forget()
            self._file_id = file_id
        size = status.st_size
        if size <= self._read_bytes:
            return is_another
        text = os.pread(descriptor, size - self._read_bytes, self._read_bytes)
        for line in text.decode("utf-8", "replace").splitlines():
            self._lines += 1
            self._take(line)
        self._read_bytes += len(text)
        self._last_bytes = (self._last_bytes + text)[-_REMEMBERED_BYTES:]
        return True

    def _take(self, line: str) -> None:
        """Takes one line; one that nobody can read must not take all the others with it."""
        try:
            entry = _parse(line, self.path, self._lines)
            if entry:
                self._index(entry)
        except ValueError as error:
            log.warning("known hosts %s line %d is skipped: %s", self.path, self._lines, error)

    def _index(self, entry: Entry) -> None:
        if entry.names.startswith("|"):
            self._hashed.append((*_parse_hash(entry.names), entry))
        elif entry.has_patterns:
            self._patterns.append(entry)
        else:
            for name in entry.names.lower().split(","):
                self._exact.setdefault(name, []).append(entry)
                self._found.pop(name, None)
            return
        self._found.clear()


class Appender:
    """Appends to a file that is locked."""

    def __init__(self, file: KnownHostsFile, descriptor: int) -> None:
        self._file = file
        self._descriptor = descriptor

    def append(self, name: str, key_text: str) -> None:
        """Appends a line whole, on a line of its own."""
        size = os.fstat(self._descriptor).st_size
        ends_open = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        os.write(self._descriptor, (b"\n" if ends_open else b"") + f"{name} {key_text}\n".encode())
        self._file._read(self._descriptor)


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
    return Entry(names, marker, f"{kind} {key}", path, number)


def _parse_hash(names: str) -> tuple[bytes, bytes]:
    """Returns salt and HMAC-SHA1 of `|1|salt|hash`."""
    try:
        _, version, salt, digest = names.split("|")
        if version != "1":
            raise ValueError(f"hashes of version {version} are not known")
        return binascii.a2b_base64(salt), binascii.a2b_base64(digest)
    except binascii.Error as error:
        raise ValueError(f"the hash is no base64: {error}") from error


@lru_cache(maxsize=1024)
def _import_key(text: str) -> asyncssh.SSHKey | None:
    try:
        return asyncssh.import_public_key(text)
    except asyncssh.KeyImportError as error:
        log.warning("known hosts: a key is skipped: %s: %.60s", error, text)
        return None
