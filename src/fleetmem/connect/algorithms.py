"""Algorithms to offer: ours, or those that the ssh configuration lists, in the words of asyncssh."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from asyncssh.encryption import get_default_encryption_algs, get_encryption_algs
from asyncssh.kex import get_default_kex_algs, get_kex_algs
from asyncssh.mac import get_default_mac_algs, get_mac_algs
from asyncssh.public_key import get_certificate_algs, get_default_public_key_algs, get_public_key_algs

from fleetmem.connect.ssh_config import matches_list

CERTIFICATE = "-cert-v01@openssh.com"
"""How the names of algorithms of certificates end."""

# AES-GCM first: one call into OpenSSL per packet, where chacha20-poly1305 sets up four contexts in Python.
_FAST_CIPHERS = (b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com")


@dataclass(frozen=True, slots=True)
class Algorithms:
    """What is offered to a host, the best first.

    Attributes:
        ciphers: of the connection.
        macs: likewise; none for ciphers that need none.
        key_exchanges: likewise.
        host_keys: kinds of keys, and of certificates, by which the host may prove that it is itself.
        has_host_key_order: whether the ssh configuration says their order; otherwise those of known keys come first.
        signatures: kinds of signatures that our keys may make.
    """

    ciphers: tuple[str, ...]
    macs: tuple[str, ...]
    key_exchanges: tuple[str, ...]
    host_keys: tuple[str, ...]
    has_host_key_order: bool
    signatures: tuple[str, ...]


@lru_cache(maxsize=64)
def ciphers(text: str) -> tuple[str, ...]:
    """Returns the ciphers of a list of the ssh configuration; empty is ours. Raises ValueError where none is known."""
    fast_first = dict.fromkeys([*_FAST_CIPHERS, *get_default_encryption_algs()])
    return _choose(text, get_encryption_algs(), fast_first)


@lru_cache(maxsize=64)
def macs(text: str) -> tuple[str, ...]:
    """Returns the message authentication codes, likewise."""
    return _choose(text, get_mac_algs(), get_default_mac_algs())


@lru_cache(maxsize=64)
def key_exchanges(text: str) -> tuple[str, ...]:
    """Returns the key exchanges, likewise."""
    return _choose(text, get_kex_algs(), get_default_kex_algs())


@lru_cache(maxsize=64)
def host_keys(text: str) -> tuple[str, ...]:
    """Returns the kinds of host keys and host certificates, likewise."""
    certificates, keys = get_certificate_algs(), get_default_public_key_algs()
    return _choose(text, [*certificates, *get_public_key_algs()], [*certificates, *keys])


@lru_cache(maxsize=64)
def signatures(text: str) -> tuple[str, ...]:
    """Returns the kinds of signatures, likewise. A certificate's is that of its key."""
    known = get_public_key_algs()
    return _choose(text.replace(CERTIFICATE, ""), known, known)


def _choose(text: str, known: Sequence[bytes], default: Iterable[bytes]) -> tuple[str, ...]:
    """Returns what a list means (ssh_config(5), Ciphers): `+` adds to the default, `-` takes away, `^` puts first."""
    usual = [name.decode() for name in default]
    sign, patterns = (text[0], text[1:]) if text[:1] in ("+", "-", "^") else ("", text)
    named = [name.decode() for pattern in patterns.split(",") for name in known if matches_list(name.decode(), pattern)]
    chosen = {
        "": named if text else usual,
        "+": [*usual, *named],
        "-": [name for name in usual if name not in named],
        "^": [*named, *usual],
    }[sign]
    if not chosen:
        raise ValueError(text)
    return tuple(dict.fromkeys(chosen))
