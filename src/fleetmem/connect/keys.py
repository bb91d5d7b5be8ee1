"""Files of private keys, each with its certificate: read once, and again when they have changed."""

import logging
from collections.abc import Callable
from pathlib import Path

import asyncssh

from fleetmem.errors import UsageError, reason_of

log = logging.getLogger("fleetmem.connect")

AskPassphrase = Callable[[Path], str | None]
"""Asks the user for the passphrase of a key; None when nobody can be asked."""

IsInAgent = Callable[[bytes], bool | None]
"""Whether the agent has a private key; None where it does not say, and may have it."""

_PASSPHRASE_TRIES = 3


class KeyFile:
    """A file with a private key (PEM, PKCS#8 or OpenSSH format), or with a public one whose private key the agent has.

    Attributes:
        path: which.
        pairs: what can be signed with here, with its certificate (`<path>-cert.pub`) first, then without; none where it
            takes the agent: for encrypted keys that it has, keys on FIDO tokens, and public ones.
        public_data: the public key, by which the agent's are known; None where nothing tells it.
        passphrase: what it is encrypted with, None where it is not, or nobody has typed it.
        problem: why nothing can be signed with it, neither here nor by the agent; None where it can.
    """

    def __init__(self, path: Path, ask_passphrase: AskPassphrase, is_in_agent: IsInAgent) -> None:
        """Reads it.

        Args:
            path: which.
            ask_passphrase: for an encrypted key that the agent does not have.
            is_in_agent: whether the agent has the private key of a public one.

        Raises:
            UsageError: it is missing, no key, or its passphrase is wrong.
        """
        self.path = path
        self.pairs: tuple[asyncssh.SSHKeyPair, ...] = ()
        self.public_data: bytes | None = None
        self.problem: str | None = None
        self.passphrase: str | None = None
        self._stamp = self._look()
        public = _read_public(path)
        if public:
            self.public_data = public.public_data
            if public.get_algorithm().startswith("sk-"):
                return
            if not _is_private(path):
                if is_in_agent(public.public_data) is False:
                    self.problem = f"key {path} is a public key, and no agent has its private one; give a private key"
                return
        self._read(ask_passphrase, is_in_agent)

    def refresh(self) -> None:
        """Reads it again where it, or its certificate, has changed: some certificates are renewed each hour."""
        stamp = self._look()
        if stamp == self._stamp or not self.pairs:
            return
        self._stamp = stamp
        try:
            self.pairs = tuple(asyncssh.load_keypairs(str(self.path), self.passphrase))
        except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError, OSError) as error:
            log.warning("key %s has changed and cannot be read: %s; the one before it stays", self.path, error)
            return
        self.public_data = self.pairs[-1].key_public_data

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Returns what changes when the files do."""
        return tuple(file_stamp(path) for path in (self.path, Path(f"{self.path}-cert.pub")))

    def _read(self, ask_passphrase: AskPassphrase, is_in_agent: IsInAgent) -> None:
        for tries_left in reversed(range(_PASSPHRASE_TRIES + 1)):
            try:
                self.pairs = tuple(asyncssh.load_keypairs(str(self.path), self.passphrase))
            except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError) as error:
                # With a passphrase, PEM and PKCS#8 keys say "unable to decrypt"; without one, "needs a passphrase" and
                # "is no key" differ in nothing but the text.
                if self.passphrase is not None:
                    if not tries_left:
                        raise UsageError(f"key {self.path}: wrong passphrase") from error
                elif "passphrase" not in str(error).lower():
                    raise UsageError(
                        f"key {self.path}: {error}; give a private key in PEM or OpenSSH format"
                    ) from error
                elif self.public_data and is_in_agent(self.public_data):
                    return
            except OSError as error:
                raise UsageError(f"key {self.path}: {reason_of(error)}") from error
            else:
                return
            self.passphrase = ask_passphrase(self.path)
            if self.passphrase is None and self.public_data and is_in_agent(self.public_data) is None:
                return  # the agent is asked again at each login, and named where it still does not say
            if self.passphrase is None:
                self.problem = (
                    f"key {self.path} is encrypted and nobody is there to type its passphrase: "
                    "load it with ssh-add, or run in a terminal"
                )
                return


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """Returns what changes when a file does; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _is_private(path: Path) -> bool:
    return b"PRIVATE KEY" in path.read_bytes()


def _read_public(path: Path) -> asyncssh.SSHKey | None:
    """Returns the public key that a file has or that lies beside it; OpenSSH's format tells it without a passphrase."""
    for candidate in (path, Path(f"{path}.pub")):
        try:
            return asyncssh.read_public_key(str(candidate))
        except (asyncssh.KeyImportError, OSError):
            continue
    return None
