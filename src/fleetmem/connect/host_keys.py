"""Host keys: which are known, what to do with others, and where new ones are recorded."""

import logging
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import asyncssh

from fleetmem.connect.algorithms import CERTIFICATE
from fleetmem.connect.known_hosts import CERT_AUTHORITY, REVOKED, Entry, KnownHostsFile
from fleetmem.connect.settings import HostKeyPolicy
from fleetmem.connect.target import Target, Trust, entry_name
from fleetmem.errors import ConfigError, HostError, Kind, Stage, reason_of

log = logging.getLogger("fleetmem.connect")

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


class HostKeys:
    """The known host keys of a fleet: each file is read once.

    Matching is by host name and port only, as OpenSSH does since 8.5 (CheckHostIP no): addresses get reused.
    """

    def __init__(self) -> None:
        self._files: dict[Path, KnownHostsFile] = {}
        self._revoked: dict[Path, list[Entry]] = {}
        self._told: set[Path] = set()

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

    def verify(self, target: Target, key: asyncssh.SSHKey) -> None:
        """Decides about a key that a host has shown to be its own.

        Raises:
            HostError: (host_key_changed, host_key_unknown) it is refused.
        """
        policy = target.access.trust.policy
        if policy is HostKeyPolicy.INSECURE:
            return
        if revoked := [entry for entry in self._revoked_entries(target) if entry.key == key]:
            raise _revoked(revoked)
        if self._is_known(target, key):
            return
        if self._refresh(target.access.trust) and self._is_known(target, key):
            return
        if policy is HostKeyPolicy.STRICT:
            files = ", ".join(map(str, target.access.trust.paths))
            shown = f"host key {fingerprint(key)} of {target.known_as} is not in {files}"
            raise HostError(Stage.LOGIN, Kind.HOST_KEY_UNKNOWN, shown)
        self._record(target, key)

    def revoked(self, target: Target) -> HostError:
        """Returns what to say of a host with a certificate whose key, or authority, is revoked."""
        return _revoked(self._revoked_entries(target))

    def _is_known(self, target: Target, key: asyncssh.SSHKey) -> bool:
        """Whether a key is among those of a host.

        Raises:
            HostError: (host_key_changed) others are known for it, but not this one.
        """
        entries = [
            entry for entry in self._find(target.access.trust, target.known_as) if not entry.marker and entry.key
        ]
        if any(entry.key == key for entry in entries):
            return True
        if entries and not self._refresh(target.access.trust):
            raise HostError(Stage.LOGIN, Kind.HOST_KEY_CHANGED, _changed(target, key, entries))
        if entries:
            return self._is_known(target, key)
        return any(entry.key == key for entry in self._about(target) if not entry.marker)

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
        return [entry for path in (*trust.paths, *trust.system_paths) for entry in self._file(path).find(name)]

    def _file(self, path: Path) -> KnownHostsFile:
        if path not in self._files:
            self._files[path] = KnownHostsFile(path)
        return self._files[path]

    def _refresh(self, trust: Trust) -> bool:
        """Looks whether others have changed the files since; somebody may just have removed or recorded a key."""
        changes = [self._file(path).refresh() for path in (*trust.paths, *trust.system_paths)]
        return any(changes)

    def _record(self, target: Target, key: asyncssh.SSHKey) -> None:
        """Records a new key, unless another collector was faster; one that knows another key wins.

        Raises:
            HostError: (host_key_changed) it does.
        """
        text = " ".join(key.export_public_key().decode().split()[:2])
        path = target.access.trust.paths[0] if target.access.trust.paths else Path("/dev/null")
        file = self._file(path)
        try:
            with file.locked() as appender:
                if not self._is_known(target, key):
                    appender.append(target.known_as, text)
        except OSError as error:
            if path not in self._told:
                log.warning("new host keys are not recorded: %s: %s", path, reason_of(error))
            self._told.add(path)
        if not self._is_known(target, key):
            file.remember(target.known_as, text)


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
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"RevokedHostKeys {path}: {reason_of(error)}") from error
    if data.startswith(_KRL_BEGIN):
        raise ConfigError(
            f"RevokedHostKeys {path}: a key revocation list is not read here; give the public keys, one a line"
        )
    lines = enumerate(data.decode("utf-8", "replace").splitlines(), 1)
    words = [(number, line.split()) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [Entry("*", REVOKED, " ".join(word[:2]), path, number) for number, word in words]
