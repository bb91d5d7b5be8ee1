"""Host keys: which are known, what to do with others, and where new ones are recorded."""

import fcntl
import logging
import os
from pathlib import Path

import asyncssh

from fleetmem.connect.settings import HostKeyPolicy
from fleetmem.errors import HostError, Kind, Stage, reason_of

log = logging.getLogger("fleetmem.connect")

_SSH_PORT = 22
_SYSTEM_PATH = Path("/etc/ssh/ssh_known_hosts")

# asyncssh's answer shape: host keys, CA keys, revoked keys, then the same for X.509, which is not used.
_Match = tuple[
    list[asyncssh.SSHKey],
    list[asyncssh.SSHKey],
    list[asyncssh.SSHKey],
    list[object],
    list[object],
    list[object],
    list[object],
]


def fingerprint(key: asyncssh.SSHKey) -> str:
    """Returns a key as `ssh-keygen -l` shows it: algorithm and SHA256."""
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


class HostKeys:
    """The known host keys of a fleet, read once.

    Matching is by host name and port only, as OpenSSH does since 8.5 (CheckHostIP no): addresses get reused.
    """

    def __init__(self, path: Path, policy: HostKeyPolicy) -> None:
        self._path = path.expanduser()
        self._policy = policy
        self._known = asyncssh.SSHKnownHosts()
        self._is_writable = True
        for known_path in (self._path, _SYSTEM_PATH):
            self._read(known_path)

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("known hosts %s cannot be read: %s", path, reason_of(error))
            return
        for number, line in enumerate(text.splitlines(), 1):
            try:
                self._known.load(line)
            except ValueError as error:  # one bad line must not take all the others with it
                log.warning("known hosts %s line %d is skipped: %s", path, number, error)

    def match(self, host: str, _address: str, port: int | None) -> _Match:
        """Returns what is known for a host, in the shape that asyncssh's `known_hosts` callable has to return."""
        return self._known.match(entry_name(host, port or _SSH_PORT), "", None)  # type: ignore[return-value]

    def verify(self, host: str, port: int, key: asyncssh.SSHKey) -> None:
        """Decides about a key that is not among the known ones of its host.

        Raises:
            HostError: (host_key_changed, host_key_unknown) it is refused.
        """
        if self._policy is HostKeyPolicy.INSECURE:
            return
        name = entry_name(host, port)
        known = self.match(host, "", port)[0]
        if key in known:  # recorded since this connection was made: later key exchanges ask again, after an hour say
            return
        if known:
            old = ", ".join(fingerprint(known_key) for known_key in known)
            raise HostError(
                Stage.LOGIN,
                Kind.HOST_KEY_CHANGED,
                f"host key is {fingerprint(key)}, but {self._path} has {old} for {name}",
            )
        if self._policy is HostKeyPolicy.STRICT:
            raise HostError(
                Stage.LOGIN, Kind.HOST_KEY_UNKNOWN, f"host key {fingerprint(key)} of {name} is not in {self._path}"
            )
        self._record(f"{name} {key.export_public_key().decode().strip()}")

    def _record(self, line: str) -> None:
        self._known.load(line)
        if not self._is_writable:
            return
        try:
            self._append(line)
        except OSError as error:
            self._is_writable = False
            log.warning("new host keys are not recorded: %s: %s", self._path, reason_of(error))

    def _append(self, line: str) -> None:
        """Appends a line whole, with other collectors and ssh at work on the same file."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            ends_open = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write((b"\n" if ends_open else b"") + line.encode() + b"\n")


def entry_name(host: str, port: int) -> str:
    """Returns a host as known_hosts files name it (sshd(8)): plain for port 22, `[host]:port` otherwise."""
    return host if port == _SSH_PORT else f"[{host}]:{port}"


class Verifier(asyncssh.SSHClient):
    """Asks `HostKeys` during a login; keeps the refusal, which asyncssh would reduce to a sentence."""

    def __init__(self, host_keys: HostKeys) -> None:
        self._host_keys = host_keys
        self.refusal: HostError | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Decides about a key that is not among the known ones."""
        try:
            self._host_keys.verify(host, port, key)
        except HostError as error:
            self.refusal = error
        return self.refusal is None
