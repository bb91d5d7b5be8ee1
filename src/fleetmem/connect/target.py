"""What a login needs to know of a host: plain values, as `targets` has resolved them."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from fleetmem.connect.openssh.algorithms import Algorithms
from fleetmem.connect.ssh_settings import AGENT_ANSWER_SECONDS, SSH_PORT, HostKeyPolicy


class KeyOrigin(Enum):
    """Who names the files with keys, and so what happens when one cannot be used."""

    TOLD = "flags or configuration: an error"
    INVENTORY = "the inventory: a failure of its hosts"
    CONFIGURED = "the ssh configuration: a warning"
    USUAL = "nobody: nothing"


@dataclass(frozen=True, slots=True)
class Identities:
    """With what to log in.

    Attributes:
        paths: files with private keys, or with public ones whose private keys the agent has.
        certificate_paths: certificates for them, beside those that lie beside the keys.
        agent_path: socket of the agent, None for none.
        origin: where they were named.
        is_only: whether the agent's other keys are not to be offered.
    """

    paths: tuple[Path, ...]
    certificate_paths: tuple[Path, ...]
    agent_path: str | None
    origin: KeyOrigin
    is_only: bool


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose host keys are accepted.

    Attributes:
        policy: what happens to unknown ones.
        paths: known_hosts files; new keys are recorded in the first one.
        system_paths: further known_hosts files.
        revoked_paths: files with keys that are never accepted.
    """

    policy: HostKeyPolicy
    paths: tuple[Path, ...]
    system_paths: tuple[Path, ...]
    revoked_paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """How to log in: the part of a target that many hosts have in common.

    Attributes:
        identities: the keys to log in with.
        trust: which host keys are accepted.
        algorithms: what is offered to the host.
        family: of addresses to connect to (socket.AF_*).
        bind_address: to connect from.
        bind_interface: to connect through.
        connect_timeout_seconds: for the TCP connection, name look-up included.
        login_timeout_seconds: for key exchange and authentication.
        command_timeout_seconds: for one sample.
        keepalive_seconds: how often a silent connection is asked whether it lives; 0 for never.
        keepalive_count: unanswered ones that end it.
        is_compressed: whether what is sent is compressed.
        has_tcp_keepalive: whether the kernel asks, too.
        rekey_bytes: new session keys after so much; None for asyncssh's default.
        rekey_seconds: new session keys after that time; None for asyncssh's default.
        has_gssapi: whether a Kerberos ticket may be offered.
        has_gssapi_exchange: whether it may do for the host's key.
    """

    identities: Identities
    trust: Trust
    algorithms: Algorithms
    family: int
    bind_address: str | None
    bind_interface: str | None
    connect_timeout_seconds: float
    login_timeout_seconds: float
    command_timeout_seconds: float
    keepalive_seconds: float
    keepalive_count: int
    is_compressed: bool
    has_tcp_keepalive: bool
    rekey_bytes: int | None
    rekey_seconds: float | None
    has_gssapi: bool
    has_gssapi_exchange: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A host, or a jump host, and all that is to be known to log in to it.

    Attributes:
        alias: the name it was asked for by.
        address: what to connect to.
        port: TCP port.
        user: login name.
        known_as: its name in known_hosts.
        certified_as: its name in host certificates.
        jumps: the jump hosts on the way, the first one first; each has those before it as its own.
        proxy_command: the command, expanded, whose standard input and output are the connection; None for none.
        access: how to log in.
        written: how a person writes it: a jump host as it was given, another host by its name.
    """

    alias: str
    address: str
    port: int
    user: str
    known_as: str
    certified_as: str
    jumps: tuple["Target", ...]
    proxy_command: str | None
    access: Access = field(repr=False)
    written: str = field(compare=False)

    @property
    def server(self) -> tuple[str, str, int]:
        """Who is logged in, and where: what makes a jump host the same one."""
        return self.user, self.address, self.port

    @property
    def longest_sample_seconds(self) -> float:
        """What a sample may take, with logins at the jump hosts and at the host itself, and what an agent may take."""
        hops = [hop.access for hop in (*self.jumps, self)]
        logins_seconds = sum(hop.connect_timeout_seconds + hop.login_timeout_seconds for hop in hops)
        agent_seconds = sum(AGENT_ANSWER_SECONDS for hop in hops if hop.identities.agent_path)
        return logins_seconds + agent_seconds + self.access.command_timeout_seconds

    def __str__(self) -> str:
        return self.written


def entry_name(host: str, port: int) -> str:
    """Returns a host as known_hosts files name it (sshd(8)): plain for port 22, `[host]:port` otherwise; lower case."""
    return host.lower() if port == SSH_PORT else f"[{host.lower()}]:{port}"
