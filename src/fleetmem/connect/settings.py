"""How to reach hosts: plain, picklable values, no open file and no socket."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class HostKeyPolicy(StrEnum):
    """What to do with a host key that is not in known_hosts. A changed key is refused by all but `insecure`."""

    ACCEPT_NEW = "accept-new"
    STRICT = "strict"
    INSECURE = "insecure"


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How to reach hosts.

    Attributes:
        user: login name where neither the host nor the ssh configuration says one; None is the local user's.
        port: TCP port, likewise; None is 22.
        key_paths: private keys; empty means the ssh configuration's, the agent's and the usual ones in `~/.ssh`.
        jump: `[user@]host[:port]` of a jump host that every host is reached through, or None.
        config_path: ssh client configuration, None for none.
        known_hosts_path: host keys are read from here, and new ones recorded here.
        host_key_policy: see there.
        connect_timeout_seconds: for the TCP connection, name look-up included.
        login_timeout_seconds: for key exchange and authentication.
        command_timeout_seconds: for one sample.
        max_handshakes: logins at the same time, over all hosts.
        max_connects: TCP connections being made at the same time, over all hosts.
    """

    user: str | None = None
    port: int | None = None
    key_paths: tuple[Path, ...] = ()
    jump: str | None = None
    config_path: Path | None = None
    known_hosts_path: Path = Path("~/.ssh/known_hosts")
    host_key_policy: HostKeyPolicy = HostKeyPolicy.ACCEPT_NEW
    connect_timeout_seconds: float = 5.0
    login_timeout_seconds: float = 5.0
    command_timeout_seconds: float = 5.0
    max_handshakes: int = 64
    max_connects: int = 512
