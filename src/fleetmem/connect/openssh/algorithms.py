"""Algorithms to offer: ours, or those that the ssh configuration lists, in the words of asyncssh."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from asyncssh.encryption import get_default_encryption_algs, get_encryption_algs
from asyncssh.kex import get_default_kex_algs, get_kex_algs
from asyncssh.mac import get_default_mac_algs, get_mac_algs
from asyncssh.packet import PacketDecodeError, SSHPacket, String
from asyncssh.public_key import (
    decode_ssh_certificate,
    get_certificate_algs,
    get_default_public_key_algs,
    get_public_key_algs,
)

from fleetmem.connect.openssh.config_file import matches_list

CERTIFICATE = "-cert-v01@openssh.com"
"""How the names of algorithms of certificates end."""

# As ssh prefers them, so that a new host is recorded by the key that ssh would record (`ssh -G`, OpenSSH 9.2). The kind
# that a host retires first comes last.
_HOST_KEYS_OF_SSH = (
    b"ssh-ed25519",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"sk-ssh-ed25519@openssh.com",
    b"sk-ecdsa-sha2-nistp256@openssh.com",
    b"rsa-sha2-512",
    b"rsa-sha2-256",
)

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
        ca_signatures: kinds of signatures on host certificates that are good, None for all.
        rsa_bits: that an RSA key has at least, the host's or ours.
    """

    ciphers: tuple[str, ...]
    macs: tuple[str, ...]
    key_exchanges: tuple[str, ...]
    host_keys: tuple[str, ...]
    has_host_key_order: bool
    signatures: tuple[str, ...]
    ca_signatures: tuple[str, ...] | None = None
    rsa_bits: int = 0

    def objection(self, key_data: bytes) -> str | None:
        """Returns what the ssh configuration has against a host key or certificate, None where it has nothing."""
        bits = rsa_bits(key_data)
        if bits is not None and bits < self.rsa_bits:
            return f"host key of {bits} bits; RequiredRSASize wants {self.rsa_bits}"
        if self.ca_signatures is None or CERTIFICATE.encode() not in key_data[:64]:
            return None
        signature = _ca_signature(key_data)
        if signature in self.ca_signatures:
            return None
        return f"host certificate is signed with {signature}, which is not among CASignatureAlgorithms"


def rsa_bits(key_data: bytes) -> int | None:
    """Returns the size of a public RSA key, or of that in a certificate; None for other kinds, and for none at all."""
    packet = SSHPacket(key_data)
    try:
        kind = packet.get_string()
        if kind not in (b"ssh-rsa", b"ssh-rsa-cert-v01@openssh.com"):
            return None
        if kind != b"ssh-rsa":
            packet.get_string()  # a nonce
        packet.get_mpint()
        return packet.get_mpint().bit_length()
    except PacketDecodeError:
        return None


def _ca_signature(certificate_data: bytes) -> str:
    """Returns the algorithm of the signature that ends a certificate (PROTOCOL.certkeys of OpenSSH)."""
    try:
        certificate: Any = decode_ssh_certificate(certificate_data)
        authority = String(certificate.signing_key.public_data)
        signature = SSHPacket(certificate_data[certificate_data.rfind(authority) + len(authority) :]).get_string()
        return SSHPacket(signature).get_string().decode("ascii", "replace")
    except (ValueError, AttributeError):  # no certificate: asyncssh refuses it
        return "nothing"


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
    """Returns the kinds of host keys and host certificates, likewise: in the order of ssh, then what only we know."""
    certificates = _in_order_of_ssh(get_certificate_algs())
    keys, usual = _in_order_of_ssh(get_public_key_algs()), set(get_default_public_key_algs())
    return _choose(text, [*certificates, *keys], [*certificates, *(name for name in keys if name in usual)])


def _in_order_of_ssh(names: Iterable[bytes]) -> list[bytes]:
    """Returns names of kinds of keys, or of certificates, with those first that ssh asks for first."""
    mark = CERTIFICATE.encode()
    places = {name: place for place, name in enumerate(_HOST_KEYS_OF_SSH)}
    plain = {name: name.removesuffix(mark) + b"@openssh.com" * name.startswith(b"sk-") for name in names}
    return sorted(plain, key=lambda name: min(places.get(each, len(places)) for each in (name, plain[name])))


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
