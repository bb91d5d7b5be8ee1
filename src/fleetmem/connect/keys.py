"""Files of private keys, each with its certificate: read once, and again when they have changed."""

import logging
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fleetmem.connect.refresh import Refresh
from fleetmem.connect.ssh import asyncssh
from fleetmem.errors import UsageError, reason_of
from fleetmem.runtime.bounded_file import read_bytes

log = logging.getLogger(__name__)

AskPassphrase = Callable[[Path], str | None]
"""Asks the user for the passphrase of a key; None when nobody can be asked."""

IsInAgent = Callable[[bytes], bool | None]
"""Whether the agent has a private key; None where it does not say, and may have it."""

Stamp = tuple[int, ...]

_PASSPHRASE_TRIES = 3
_MOST_BYTES = 1 << 20
_LOOK_SECONDS = 2.0
_PRIVATE = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?-----END [A-Z0-9 ]*PRIVATE KEY-----", re.DOTALL)
_KEY_ERRORS = (asyncssh.KeyEncryptionError, asyncssh.KeyImportError)


class _Found(NamedTuple):
    """What a look at a key's files has found.

    Attributes:
        stamp: of them.
        pairs: what they hold now; None where nothing has changed.
        problem: why they cannot be read.
    """

    stamp: tuple[Stamp | None, ...]
    pairs: tuple[asyncssh.SSHKeyPair, ...] | None
    problem: str | None


class KeyFile:
    """A file with a private key (PEM, PKCS#8 or OpenSSH format), or with a public one whose private key the agent has.

    Attributes:
        path: which.
        pairs: what can be signed with here: first with its certificate (`<path>-cert.pub`), then without. None where
            the agent signs: with encrypted keys that it has, keys on FIDO tokens, and public ones.
        public_data: the public key, by which the agent's are known; None where nothing tells it.
        passphrase: what it is encrypted with, None where it is not, or nobody has typed it.
        problem: why nothing can be signed with it, neither here nor by the agent; None where it can.
        refresh: reads it again where it, or its certificate, has changed: some certificates are renewed each hour.
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
        self.refresh = Refresh(self._look, self._use, f"key {path}")
        self._told: str | None = None
        self._stamp = self._stamps()
        try:
            data = read_bytes(path, _MOST_BYTES)
        except OSError as error:
            raise UsageError(f"key {path}: {reason_of(error)}") from error
        public = _public_key(path, data)
        if public:
            self.public_data = public.public_data
            if public.get_algorithm().startswith("sk-"):
                return
            if b"PRIVATE KEY" not in data:
                if is_in_agent(public.public_data) is False:
                    self.problem = f"key {path} is a public key, and no agent has its private one; give a private key"
                return
        self._decrypt(data, ask_passphrase, is_in_agent)

    def refresh_now(self) -> None:
        """Does what `refresh` does where there is no event loop, or beside it."""
        self._use(self._look())

    def _look(self) -> _Found:
        stamp = self._stamps()
        if stamp == self._stamp or not self.pairs:
            return _Found(stamp, None, None)
        try:
            return _Found(stamp, self._pairs(read_bytes(self.path, _MOST_BYTES, _LOOK_SECONDS)), None)
        except OSError as error:
            return _Found(self._stamp, None, reason_of(error))  # it may come back as it was: not seen yet
        except _KEY_ERRORS as error:
            return _Found(stamp, None, str(error))

    def _use(self, found: _Found) -> None:
        self._stamp = found.stamp
        if found.problem and found.problem != self._told:
            log.warning("key %s has changed and cannot be read: %s; the one before it stays", self.path, found.problem)
        if found.pairs or found.problem:
            self._told = found.problem
        if found.pairs:
            self.pairs = found.pairs
            self.public_data = found.pairs[-1].key_public_data

    def _stamps(self) -> tuple[Stamp | None, ...]:
        """Returns what changes when the files do."""
        return tuple(file_stamp(path) for path in (self.path, beside(self.path)))

    def _pairs(self, data: bytes) -> tuple[asyncssh.SSHKeyPair, ...]:
        """Returns what can be signed with. Raises asyncssh's errors where it is no key, or cannot be decrypted."""
        certificate, _problem = read_certificate(beside(self.path))
        certificates = [certificate] if certificate else []
        blocks = _PRIVATE.findall(data) or [data]
        keys = [asyncssh.import_private_key(block, self.passphrase) for block in blocks]
        return tuple(asyncssh.load_keypairs(keys, certlist=certificates))

    def _decrypt(self, data: bytes, ask_passphrase: AskPassphrase, is_in_agent: IsInAgent) -> None:
        for tries_left in reversed(range(_PASSPHRASE_TRIES + 1)):
            try:
                self.pairs = self._pairs(data)
            except _KEY_ERRORS as error:
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


class BrokenKey:
    """A file that an inventory names as a key, and that is none; it is tried again before each login that needs it.

    Args:
        path: which.
        problem: see below.
        read: reads it. Raises UsageError where it still cannot be used.
        use: takes it once it can be.

    Attributes:
        problem: why it cannot be used.
        refresh: tries it again.
    """

    def __init__(self, path: Path, problem: str, read: Callable[[], KeyFile], use: Callable[[KeyFile], None]) -> None:
        self.problem = problem
        self.refresh = Refresh(self._look, self._use, f"key {path}")
        self._read = read
        self._mend = use

    def _look(self) -> KeyFile | str:
        try:
            file = self._read()
        except UsageError as error:
            return str(error)
        return file.problem or file

    def _use(self, found: KeyFile | str) -> None:
        if isinstance(found, KeyFile):
            self._mend(found)
        else:
            self.problem = found


class CertificateFile:
    """A file with a certificate, which need not be there.

    Attributes:
        certificate: the one in it; None for none.
        refresh: reads it again where it has changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.certificate: asyncssh.SSHCertificate | None = None
        self.refresh = Refresh(self._look, self._use, f"certificate {path}")
        self._stamp: Stamp | None = None

    def _look(self) -> tuple[Stamp | None, asyncssh.SSHCertificate | None, str | None]:
        stamp = file_stamp(self.path)
        if stamp is None or stamp == self._stamp:
            return stamp, self.certificate if stamp else None, None
        return stamp, *read_certificate(self.path)

    def _use(self, found: tuple[Stamp | None, asyncssh.SSHCertificate | None, str | None]) -> None:
        stamp, certificate, problem = found
        self._stamp, self.certificate = stamp, certificate
        if problem:
            log.warning("certificate %s cannot be read: %s", self.path, problem)


def beside(path: Path) -> Path:
    """Returns where the certificate of a key lies, as ssh-keygen puts it."""
    return Path(f"{path}-cert.pub")


def read_certificate(path: Path) -> tuple[asyncssh.SSHCertificate | None, str | None]:
    """Returns the certificate in a file, None where there is none; and what is wrong with one that is there."""
    try:
        return asyncssh.import_certificate(read_bytes(path, _MOST_BYTES, _LOOK_SECONDS)), None
    except FileNotFoundError:
        return None, None
    except (asyncssh.KeyImportError, OSError) as error:
        return None, reason_of(error)


def file_stamp(path: Path) -> Stamp | None:
    """Returns what changes when a file does, or who may read it; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _public_key(path: Path, data: bytes) -> asyncssh.SSHKey | None:
    """Returns the public key that a file has or that lies beside it; OpenSSH's format tells it without a passphrase."""
    try:
        return asyncssh.import_public_key(data)
    except asyncssh.KeyImportError:
        pass
    try:
        return asyncssh.import_public_key(read_bytes(Path(f"{path}.pub"), _MOST_BYTES, _LOOK_SECONDS))
    except (asyncssh.KeyImportError, OSError):
        return None


def open_mode(path: Path) -> int | None:
    """Returns the mode of our own file that others may read or write, as ssh minds it; None for any other."""
    try:
        status = path.stat()
    except OSError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    return mode if status.st_uid == os.getuid() and mode & 0o077 else None
