"""Host keys: which are known, what to do with others, and where new ones are recorded."""

import asyncio
import logging
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fleetmem.connect.backoff import OwnError
from fleetmem.connect.openssh.algorithms import CERTIFICATE
from fleetmem.connect.openssh.known_hosts import CERT_AUTHORITY, REVOKED, Entry, KnownHostsFile
from fleetmem.connect.ssh import asyncssh
from fleetmem.connect.ssh_settings import HostKeyPolicy
from fleetmem.connect.target import Target, Trust, entry_name
from fleetmem.errors import ConfigError, HostError, Kind, Stage, reason_of
from fleetmem.runtime.bounded_file import read_bytes

log = logging.getLogger(__name__)

_LIMIT_SECONDS = 30.0
"""For all that it takes to decide about a key: reading, searching and recording."""

_KRL_BEGIN = b"SSHKRL"  # PROTOCOL.krl of OpenSSH


def fingerprint(key: asyncssh.SSHKey) -> str:
    """Returns a key as `ssh-keygen -l` shows it: algorithm and SHA256."""
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


class Known(NamedTuple):
    """What is known about a host: its good keys, authorities that may sign them, and keys that are never accepted."""

    keys: list[asyncssh.SSHKey]
    authorities: list[asyncssh.SSHKey]
    revoked: list[asyncssh.SSHKey]

    def algorithms(self, target: Target) -> list[str]:
        """Returns the kinds of keys to ask the host for, those first by which it is known.

        Certificates only where an authority is known. Of any other one ssh takes the key inside as if it was plain; and
        a server that has a certificate has the plain key, too.
        """
        offered = target.access.algorithms
        names = [name for name in offered.host_keys if self.authorities or not name.endswith(CERTIFICATE)]
        if not offered.has_host_key_order:
            known = {name.decode() for key in self.keys for name in key.sig_algorithms}
            names.sort(key=lambda name: not name.endswith(CERTIFICATE) and name not in known)
        return names or list(offered.host_keys)


class AskAgainError(OwnError):
    """A host showed a key of a kind that is not known, and it took a search to find out that one of another kind is.

    The next login asks for that one first, as ssh does.
    """


class HostKeys:
    """The known host keys of a fleet: each file is read once.

    Matching is by host name and port only, as OpenSSH does since 8.5 (CheckHostIP no): addresses get reused.
    """

    def __init__(self, previous: "HostKeys | None" = None) -> None:
        self._files: dict[Path, KnownHostsFile] = {}
        self._files_before = dict(previous._files) if previous else {}
        self._revoked: dict[Path, list[Entry]] = {}

    def prepare(self, trust: Trust) -> None:
        """Reads the files.

        Raises:
            ConfigError: those with revoked keys cannot be read: without them no host is safe.
        """
        for path in (*trust.paths, *trust.system_paths):
            self._file(path)
        for path in trust.revoked_paths:
            if path not in self._revoked:
                self._revoked[path] = _read_revoked(path)

    def known(self, target: Target) -> Known:
        """Returns what is known about a host."""
        entries = list(self._about(target))
        revoked = _keys(self._revoked_entries(target))
        return Known(
            keys=[key for key in _keys(entry for entry in entries if not entry.marker) if key not in revoked],
            authorities=_keys(entry for entry in entries if entry.marker == CERT_AUTHORITY),
            revoked=revoked,
        )

    def is_known(self, target: Target, key: asyncssh.SSHKey) -> bool:
        """Whether a key is one of a host's, as far as is known at once. Where it is not, `decide` has to.

        Raises:
            HostError: (host_key_changed) the key is revoked.
        """
        trust = target.access.trust
        if trust.policy is HostKeyPolicy.INSECURE:
            return True
        if revoked := [entry for entry in self._revoked_entries(target) if entry.key == key]:
            raise _revoked(revoked)
        if any(entry.key == key for entry in self._own(target)):
            return True
        name, files = target.known_as, [self._file(path) for path in _paths(trust)]
        if any(file.find_key(name, key_text(key)) for file in files):
            return True
        is_certain = all(file.is_searched(name) for file in files)
        return is_certain and not self._own(target) and any(entry.key == key for entry in self._plain(target))

    async def decide(self, target: Target, key: asyncssh.SSHKey) -> None:
        """Decides about a key that a host has shown to be its own, beside the event loop; records a new one.

        Raises:
            HostError: (host_key_changed, host_key_unknown) it is refused.
        """
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                await self._decide(target, key)
        except OSError as error:  # TimeoutError is one
            why = str(error) or f"not done within {_LIMIT_SECONDS:.0f} s"
            message = f"host key {fingerprint(key)} of {target.known_as} cannot be looked up: {why}"
            raise OwnError(Stage.LOGIN, Kind.HOST_KEY_UNKNOWN, message) from error

    async def _decide(self, target: Target, key: asyncssh.SSHKey) -> None:
        if self.is_known(target, key):
            return
        trust = target.access.trust
        files = [self._file(path) for path in _paths(trust)]
        for file in files:  # somebody may just have removed or recorded a key
            await file.refresh()
        if self.is_known(target, key):
            return
        had_searched = all(file.is_searched(target.known_as) for file in files)
        for name in (target.known_as, target.address.lower()):
            for file in files:
                await file.search(name)
        self._check(target, key, had_searched=had_searched)
        if self.is_known(target, key):
            return
        if trust.policy is HostKeyPolicy.STRICT:
            paths = ", ".join(map(str, trust.paths))
            shown = f"host key {fingerprint(key)} of {target.known_as} is not in {paths}"
            raise HostError(Stage.LOGIN, Kind.HOST_KEY_UNKNOWN, shown)
        if trust.paths:
            await self._file(trust.paths[0]).record(target.known_as, key_text(key))
            self._check(target, key, had_searched=True)

    def _check(self, target: Target, key: asyncssh.SSHKey, *, had_searched: bool) -> None:
        """Refuses a key where others are known for its host, but not this one.

        Raises:
            HostError: (host_key_changed) that is so.
        """
        entries = self._own(target)
        if not entries or any(entry.key == key for entry in entries):
            return
        kinds = {entry.key.get_algorithm() for entry in entries if entry.key}
        message = _changed(target, key, entries)
        if not had_searched and key.get_algorithm() not in kinds:
            raise AskAgainError(Stage.LOGIN, Kind.HOST_KEY_CHANGED, message)
        raise HostError(Stage.LOGIN, Kind.HOST_KEY_CHANGED, message)

    def revoked(self, target: Target) -> HostError:
        """Returns what to say of a host with a certificate whose key, or authority, is revoked."""
        return _revoked(self._revoked_entries(target))

    def _own(self, target: Target) -> list[Entry]:
        """Returns the keys of a host, by the name that it is known as."""
        return [entry for entry in self._find(target.access.trust, target.known_as) if not entry.marker and entry.key]

    def _plain(self, target: Target) -> list[Entry]:
        return [entry for entry in self._about(target) if not entry.marker]

    def _about(self, target: Target) -> Iterator[Entry]:
        """Yields the lines about a host; where there is none for its port, those of its name alone, as with ssh."""
        trust = target.access.trust
        entries = self._find(trust, target.known_as)
        if not entries and target.known_as == entry_name(target.address, target.port):
            entries = self._find(trust, target.address.lower())
        yield from entries

    def _revoked_entries(self, target: Target) -> list[Entry]:
        entries = [entry for entry in self._about(target) if entry.marker == REVOKED]
        return entries + [entry for path in target.access.trust.revoked_paths for entry in self._revoked[path]]

    def _find(self, trust: Trust, name: str) -> list[Entry]:
        return [entry for path in _paths(trust) for entry in self._file(path).find(name)]

    def _file(self, path: Path) -> KnownHostsFile:
        if path not in self._files:
            self._files[path] = KnownHostsFile(path, self._files_before.pop(path, None))
        return self._files[path]


def key_text(key: asyncssh.SSHKey) -> str:
    """Returns a key as a line of known_hosts has it: kind and base64."""
    return " ".join(key.export_public_key().decode().split()[:2])


def _paths(trust: Trust) -> tuple[Path, ...]:
    return (*trust.paths, *trust.system_paths)


def _keys(entries: Iterable[Entry]) -> list[asyncssh.SSHKey]:
    return [entry.key for entry in entries if entry.key]


def _revoked(entries: list[Entry]) -> HostError:
    """Returns what to say of a revoked key. It counts as a changed one: a key that must not be trusted."""
    places = ", ".join(f"{entry} revokes {fingerprint(entry.key)}" for entry in entries if entry.key)
    message = f"the host showed a key that may be in the wrong hands: {places}; nothing was sent to it"
    return HostError(Stage.LOGIN, Kind.HOST_KEY_CHANGED, message)


def _changed(target: Target, key: asyncssh.SSHKey, entries: list[Entry]) -> str:
    """Returns what to say of a changed key: both fingerprints, where the old one stands, and how to remove it."""
    name = target.known_as
    old = ", ".join(f"{entry} has {fingerprint(entry.key)}" for entry in entries if entry.key)
    removable = [entry for entry in entries if entry.path and not entry.has_patterns]
    paths = dict.fromkeys(str(entry.path) for entry in removable)
    commands = " && ".join(f"ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(path)}" for path in paths)
    mend = f"; if you know why, remove it: {commands}" if commands else "; if you know why, edit that line"
    return f"host key is {fingerprint(key)}, but {old} for {name}{mend}"


def _read_revoked(path: Path) -> list[Entry]:
    """Returns the keys of a file that RevokedHostKeys names: one a line, as in authorized_keys.

    Raises:
        ConfigError: it cannot be read, or is a key revocation list, which only ssh can read.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise ConfigError(f"RevokedHostKeys {path}: {reason_of(error)}") from error
    if data.startswith(_KRL_BEGIN):
        raise ConfigError(
            f"RevokedHostKeys {path}: a key revocation list is not read here; give the public keys, one a line"
        )
    lines = enumerate(data.decode("utf-8", "replace").splitlines(), 1)
    words = [(number, line.split()) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [Entry("*", REVOKED, " ".join(word[:2]), path, number) for number, word in words]
