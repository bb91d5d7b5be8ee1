"""How to reach hosts: plain, picklable values, no open file and no socket."""

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from fleetmem.errors import UsageError

SSH_PORT = 22
CONNECT_SECONDS = 5.0
AGENT_ANSWER_SECONDS = 3.0
"""An agent that takes longer to say which keys it has does not answer."""

KEEPALIVE_SECONDS = 15.0
"""3 unanswered ones end a connection whose host went away without a word."""

_HIGHEST_PORT = 65535


class HostKeyPolicy(StrEnum):
    """What to do with a host key that is not in known_hosts. A changed key is refused by all but `insecure`."""

    ACCEPT_NEW = "accept-new"
    STRICT = "strict"
    INSECURE = "insecure"


class JumpSpec(NamedTuple):
    """A jump host as `[user@]host[:port]` says it; None for what it does not say.

    Attributes:
        user: login name.
        host: name or address.
        port: TCP port.
        key_paths: private keys for it alone, where an inventory names them.
    """

    user: str | None
    host: str
    port: int | None
    key_paths: tuple[Path, ...] = ()

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How to reach a host. What is None, or empty, is left to the ssh configuration, and then to a default.

    Attributes:
        user: login name; at last the local user's.
        port: TCP port; at last 22.
        key_paths: private keys; at last the agent's and the usual ones in `~/.ssh`.
        jumps: jump hosts that it is reached through, the first one first; empty for none.
        known_hosts_path: host keys are read from here, and new ones recorded here; at last `~/.ssh/known_hosts`.
        host_key_policy: what to do with unknown and changed host keys; at last `accept-new`.
        connect_timeout_seconds: for the TCP connection, name look-up included; at last 5.
        login_timeout_seconds: for key exchange and authentication; at last 5.
        command_timeout_seconds: for one sample.
        keepalive_seconds: between keepalives on an idle connection, 0 for none; at last 15.
        is_compressed: whether what is sent is compressed; at last not.
    """

    user: str | None = None
    port: int | None = None
    key_paths: tuple[Path, ...] = ()
    jumps: tuple[JumpSpec, ...] | None = None
    known_hosts_path: Path | None = None
    host_key_policy: HostKeyPolicy | None = None
    connect_timeout_seconds: float | None = None
    login_timeout_seconds: float | None = None
    command_timeout_seconds: float = 5.0
    keepalive_seconds: float | None = None
    is_compressed: bool | None = None


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """How much may go on at the same time, over all hosts.

    Attributes:
        max_handshakes: logins at the same time.
        max_connects: TCP connections being made at the same time.
        handshakes_per_second: logins begun in a second, 0 for no limit.
        jump_handshakes: logins at the same time through one jump host.
        jump_handshakes_per_second: logins begun in a second through one jump host, 0 for no limit.
        most_refusals: hosts that may refuse the same user and keys while none has let them in.
    """

    max_handshakes: int = 64
    max_connects: int = 512
    handshakes_per_second: float = 150.0
    jump_handshakes: int = 8
    jump_handshakes_per_second: float = 50.0
    most_refusals: int = 5

    def share(self, processes: int) -> "LoginLimits":
        """Returns the part of one of several processes that log in to the same fleet; one login at least."""
        return LoginLimits(
            max_handshakes=max(1, self.max_handshakes // processes),
            max_connects=max(1, self.max_connects // processes),
            handshakes_per_second=self.handshakes_per_second / processes,
            jump_handshakes=max(1, self.jump_handshakes // processes),
            jump_handshakes_per_second=self.jump_handshakes_per_second / processes,
            most_refusals=self.most_refusals and max(1, self.most_refusals // processes),
        )


@dataclass(frozen=True, slots=True)
class ReachSettings:
    """How to reach a fleet.

    Attributes:
        ssh: what holds for jump hosts, and for hosts that nothing else is said of.
        limits: how many connections and logins there may be at a time.
        config_paths: ssh client configuration, the stronger file first.
    """

    ssh: SshSettings = SshSettings()
    limits: LoginLimits = LoginLimits()
    config_paths: tuple[Path, ...] = ()


def parse_jumps(text: str) -> tuple[JumpSpec, ...]:
    """Returns the jump hosts of `[user@]host[:port],...`, as `ssh -J` takes them; none for `none`.

    Raises:
        UsageError: it is not that.
    """
    if text.strip().lower() == "none":
        return ()
    return tuple(_parse_jump(part.strip()) for part in text.split(","))


def _parse_jump(text: str) -> JumpSpec:
    user, at, rest = text.removeprefix("ssh://").removesuffix("/").rpartition("@")
    match = re.fullmatch(r"\[([^\[\]\s]+)\](?::(\d{1,5}))?|(\w[\w.-]*)(?::(\d{1,5}))?|([^\[\]\s]+)", rest)
    ipv6 = match[1] or match[5] if match else None
    port = match[2] or match[4] if match else None
    is_wrong = (ipv6 and not is_ipv6(ipv6)) or (port and not 0 < int(port) <= _HIGHEST_PORT)
    if not match or (at and not user) or is_wrong:
        raise UsageError(
            f"jump host {text!r}: expected [user@]host[:port], with IPv6 as [::1]:22; commas between several"
        )
    return JumpSpec(user or None, ipv6 or match[3], int(port) if port else None)


def is_ipv6(text: str) -> bool:
    """Whether a text is an IPv6 address, without brackets."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
