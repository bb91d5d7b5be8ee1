"""Private keys: read once for the whole fleet, a passphrase asked for once."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncssh

from fleetmem.errors import UsageError, reason_of

log = logging.getLogger("fleetmem.connect")

AskPassphrase = Callable[[Path], str | None]
"""Asks the user for the passphrase of a key; None when nobody can be asked."""

_PASSPHRASE_TRIES = 3

DEFAULT_KEY_PATHS = tuple(Path("~/.ssh") / name for name in ("id_ed25519", "id_ecdsa", "id_rsa"))
"""Keys that are tried where none is configured."""


def load_keys(paths: Sequence[Path], ask_passphrase: AskPassphrase) -> list[asyncssh.SSHKeyPair]:
    """Reads private keys, in PEM, PKCS#8 or OpenSSH format, each with its certificate where `<key>-cert.pub` is there.

    Raises:
        UsageError: a file is missing, no key, or its passphrase is not to be had.
    """
    return [pair for path in paths for pair in _load_key(path.expanduser(), ask_passphrase)]


def load_default_keys() -> list[asyncssh.SSHKeyPair]:
    """Reads the keys in `~/.ssh` that need no passphrase; encrypted ones are the agent's business."""
    pairs: list[asyncssh.SSHKeyPair] = []
    for path in map(Path.expanduser, DEFAULT_KEY_PATHS):
        if path.is_file() and os.access(path, os.R_OK):
            try:
                pairs += _load_key(path, lambda _path: None, is_skipped_when_encrypted=True)
            except UsageError as error:  # nobody asked for this one
                log.warning("%s; it is skipped", error)
    return pairs


def _load_key(
    path: Path, ask_passphrase: AskPassphrase, *, is_skipped_when_encrypted: bool = False
) -> Sequence[asyncssh.SSHKeyPair]:
    passphrase: str | None = None
    for tries_left in reversed(range(_PASSPHRASE_TRIES + 1)):
        try:
            return asyncssh.load_keypairs(str(path), passphrase)
        except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError) as error:
            # With a passphrase, PEM and PKCS#8 keys say "unable to decrypt"; without one, "needs a passphrase" and "is
            # no key" differ in nothing but the text.
            if passphrase is not None:
                if not tries_left:
                    raise UsageError(f"key {path}: wrong passphrase") from error
            elif "passphrase" not in str(error).lower():
                raise UsageError(f"key {path}: {error}; give a private key in PEM or OpenSSH format") from error
            elif is_skipped_when_encrypted:
                return []
        except OSError as error:
            raise UsageError(f"key {path}: {reason_of(error)}") from error
        passphrase = ask_passphrase(path)
        if passphrase is None:
            raise UsageError(
                f"key {path} is encrypted and nobody is there to type its passphrase: "
                "load it with ssh-add and leave -k out, or run in a terminal"
            )
    raise AssertionError("unreachable")
