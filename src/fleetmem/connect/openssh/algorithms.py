"""Algorithms to offer: ours, or those that the ssh configuration lists, in the words of asyncssh.

asyncssh is imported once somebody asks which there are: most ssh configurations list none.
"""

import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fleetmem.connect import wire
from fleetmem.connect.openssh.config_file import matches_list

if TYPE_CHECKING:
    from fleetmem.connect.ssh import asyncssh

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

_OLD_HOST_KEYS = frozenset({b"ssh-dss"})  # only where the ssh configuration asks for them


@dataclass(frozen=True, slots=True)
class Algorithms:
    """What is offered to a host, the best first.

    Attributes:
        cipher_list: what the ssh configuration lists, empty where it lists nothing. So are the other lists.
        ca_signature_list: kinds of signatures on host certificates that are good, None for all.
        rsa_bits: that an RSA key has at least, the host's or ours.
    """

    cipher_list: str = ""
    mac_list: str = ""
    key_exchange_list: str = ""
    host_key_list: str = ""
    signature_list: str = ""
    ca_signature_list: str | None = None
    rsa_bits: int = 0

    @property
    def ciphers(self) -> tuple[str, ...]:
        """Ciphers of the connection."""
        return ciphers(self.cipher_list)

    @property
    def macs(self) -> tuple[str, ...]:
        """Message authentication codes, for ciphers that need one."""
        return macs(self.mac_list)

    @property
    def key_exchanges(self) -> tuple[str, ...]:
        """Key exchanges."""
        return key_exchanges(self.key_exchange_list)

    @property
    def host_keys(self) -> tuple[str, ...]:
        """Kinds of keys, and of certificates, by which the host may prove that it is itself."""
        return host_keys(self.host_key_list)

    @property
    def has_host_key_order(self) -> bool:
        """Whether the ssh configuration says the order of `host_keys`; otherwise those of known keys come first."""
        return bool(self.host_key_list) and self.host_key_list[0] not in "+-"

    @property
    def signatures(self) -> tuple[str, ...]:
        """Kinds of signatures that our keys may make."""
        return signatures(self.signature_list)

    @property
    def ca_signatures(self) -> tuple[str, ...] | None:
        """Kinds of signatures on host certificates that are good; None for all."""
        return None if self.ca_signature_list is None else signatures(self.ca_signature_list)

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
    packet = wire.WireReader(key_data)
    try:
        kind = packet.string()
        if kind not in (b"ssh-rsa", b"ssh-rsa-cert-v01@openssh.com"):
            return None
        if kind != b"ssh-rsa":
            packet.string()  # a nonce
        packet.mpint()
        return packet.mpint().bit_length()
    except wire.WireError:
        return None


def _ca_signature(certificate_data: bytes) -> str:
    """Returns the algorithm of the signature that ends a certificate (PROTOCOL.certkeys of OpenSSH)."""
    try:
        certificate: Any = import_certificate(certificate_data)
        authority = wire.string(certificate.signing_key.public_data)
        signature = wire.WireReader(certificate_data[certificate_data.rfind(authority) + len(authority) :]).string()
        return wire.WireReader(signature).string().decode("ascii", "replace")
    except (ValueError, AttributeError):  # no certificate: asyncssh refuses it
        return "nothing"


def import_certificate(data: bytes) -> "asyncssh.SSHCertificate":
    """Returns a certificate as it goes over the wire. Raises ValueError where it is none."""
    from fleetmem.connect.ssh import asyncssh

    kind = wire.WireReader(data).string()
    return asyncssh.import_certificate(kind + b" " + binascii.b2a_base64(data))


@dataclass(frozen=True, slots=True)
class Supported:
    """What asyncssh has with the libraries that are here, and what of it it offers by itself.

    Attributes:
        ciphers: all, and the usual ones. So are the others.
        public_keys: kinds of keys and signatures.
        certificates: kinds of host certificates.
    """

    ciphers: tuple[Sequence[bytes], Sequence[bytes]]
    macs: tuple[Sequence[bytes], Sequence[bytes]]
    key_exchanges: tuple[Sequence[bytes], Sequence[bytes]]
    public_keys: Sequence[bytes]
    certificates: Sequence[bytes]


@lru_cache(maxsize=1)
def supported() -> Supported:
    """Returns what asyncssh has: its options say it, where nothing and where everything is asked for."""
    every = {f"{kind}_algs": "*" for kind in ("encryption", "mac", "kex", "signature")}
    usual, everything = _options(), _options(**every)
    certificates = [
        name.removesuffix(b"@openssh.com") + CERTIFICATE.encode()
        for name in everything.signature_algs
        if not name.endswith(b"@ssh.com")
    ]
    return Supported(
        ciphers=(everything.encryption_algs, usual.encryption_algs),
        macs=(everything.mac_algs, usual.mac_algs),
        key_exchanges=(everything.kex_algs, usual.kex_algs),
        public_keys=everything.signature_algs,
        certificates=[name for name in certificates if _is_host_key(name)],
    )


def _options(**options: Any) -> Any:
    from fleetmem.connect.ssh import asyncssh

    return asyncssh.SSHClientConnectionOptions(
        config=None, known_hosts=None, client_keys=None, agent_path=None, username="", **options
    )


def _is_host_key(name: bytes) -> bool:
    try:
        _options(server_host_key_algs=[name.decode()])
    except ValueError:
        return False
    return True


@lru_cache(maxsize=64)
def ciphers(text: str) -> tuple[str, ...]:
    """Returns the ciphers of a list of the ssh configuration; empty is ours. Raises ValueError where none is known."""
    known, usual = supported().ciphers
    return _choose(text, known, dict.fromkeys([*_FAST_CIPHERS, *usual]))


@lru_cache(maxsize=64)
def macs(text: str) -> tuple[str, ...]:
    """Returns the message authentication codes that a list of ssh means."""
    return _choose(text, *supported().macs)


@lru_cache(maxsize=64)
def key_exchanges(text: str) -> tuple[str, ...]:
    """Returns the key exchanges that a list of ssh means."""
    return _choose(text, *supported().key_exchanges)


@lru_cache(maxsize=64)
def host_keys(text: str) -> tuple[str, ...]:
    """Returns the kinds of host keys and host certificates: in the order of ssh, then what only we know."""
    certificates, keys = (_in_order_of_ssh(names) for names in (supported().certificates, supported().public_keys))
    return _choose(
        text, [*certificates, *keys], [*certificates, *(name for name in keys if name not in _OLD_HOST_KEYS)]
    )


def _in_order_of_ssh(names: Iterable[bytes]) -> list[bytes]:
    """Returns names of kinds of keys, or of certificates, with those first that ssh asks for first."""
    mark = CERTIFICATE.encode()
    places = {name: place for place, name in enumerate(_HOST_KEYS_OF_SSH)}
    plain = {name: name.removesuffix(mark) + b"@openssh.com" * name.startswith(b"sk-") for name in names}
    return sorted(plain, key=lambda name: min(places.get(each, len(places)) for each in (name, plain[name])))


@lru_cache(maxsize=64)
def signatures(text: str) -> tuple[str, ...]:
    """Returns the kinds of signatures that a list of ssh means. A certificate's is that of its key."""
    known = supported().public_keys
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
