"""The one door through which asyncssh's and the OS's errors become `HostError`.

asyncssh has no single root: its TimeoutError is also an OSError, key errors are ValueErrors.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fleetmem.connect.backoff import UnsentError
from fleetmem.connect.guard import Flood
from fleetmem.connect.ssh import asyncssh
from fleetmem.errors import HostError, Kind, Stage, reason_of

# What asyncssh and the OS raise when the world misbehaves; anything else is a bug and surfaces.
_WORLD_ERRORS = (asyncssh.Error, OSError, UnicodeError, asyncio.IncompleteReadError)
# What a name server that is away comes to, unlike a name that it does not know.
_NO_NAME_SERVER = frozenset({socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY})
# This machine has no memory, no port or no network for a connection.
_UNSENT = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENETUNREACH})

_T = TypeVar("_T")


async def within(
    timeout_seconds: float,
    stage: Stage,
    work: Awaitable[_T],
    *,
    used_seconds: float = 0.0,
    take_limit: Callable[[asyncio.Timeout], None] = lambda _limit: None,
) -> _T:
    """Awaits the work of a stage within its limit.

    Args:
        timeout_seconds: the limit.
        stage: which.
        work: what is to be done.
        used_seconds: of the limit, already.
        take_limit: called with the limit, for work that waits for others now and then, which is not to count.

    Raises:
        HostError: it took longer, or the world did something to it.
    """
    try:
        async with asyncio.timeout(timeout_seconds - used_seconds) as limit:
            take_limit(limit)
            return await work
    except _WORLD_ERRORS as error:
        raise translate(error, stage, timeout_seconds) from error


def translate(error: Exception, stage: Stage, timeout_seconds: float) -> HostError:
    """Returns what an error at a stage means.

    Args:
        error: anything that asyncssh, asyncio or the OS raises.
        stage: what was going on.
        timeout_seconds: the limit of that stage, for the message.

    Raises:
        Exception: the same error, when it is none that the world causes.
    """
    match error:
        case TimeoutError() if error.errno is None:  # asyncio's; ETIMEDOUT is the same class
            return _timed_out(stage, timeout_seconds)
        case socket.gaierror() if error.errno in _NO_NAME_SERVER:
            return UnsentError(Stage.RESOLVE, Kind.UNRESOLVABLE, f"name does not resolve: {error.strerror}")
        case socket.gaierror():
            return HostError(Stage.RESOLVE, Kind.UNRESOLVABLE, f"name does not resolve: {error.strerror}")
        case asyncssh.HostKeyNotVerifiable():
            return HostError(stage, Kind.HOST_KEY_UNKNOWN, error.reason)
        case asyncssh.PermissionDenied() | asyncssh.IllegalUserName():
            return HostError(stage, Kind.AUTH_FAILED, "the host refused every key and method offered")
        case asyncssh.ChannelOpenError() if stage is not Stage.COMMAND:  # a login through a jump host
            hint = (
                " (AllowTcpForwarding, PermitOpen)" if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED else ""
            )
            return HostError(Stage.CONNECT, Kind.UNREACHABLE, f"the jump host cannot reach it: {error.reason}{hint}")
        case asyncssh.ChannelOpenError():
            return HostError(stage, Kind.COMMAND_FAILED, f"the host refused to run a command: {error.reason}")
        case Flood():
            return HostError(stage, Kind.BAD_FRAME, error.reason)
        case asyncssh.DisconnectError() if "too many authentication failures" in error.reason.lower():  # sshd's words
            return HostError(stage, Kind.AUTH_FAILED, "the host refused so many keys that it hung up")
        case asyncssh.KeyExchangeFailed():
            return HostError(stage, Kind.DISCONNECTED, f"key exchange failed: {error.reason}")
        case asyncssh.DisconnectError():
            return HostError(stage, Kind.DISCONNECTED, lost(error.reason))
        case asyncio.IncompleteReadError() | ConnectionResetError() | BrokenPipeError():
            return HostError(stage, Kind.DISCONNECTED, f"connection lost: {error}")
        case OSError() if error.errno in (errno.EMFILE, errno.ENFILE):
            message = f"{reason_of(error)} on this machine: raise its limit (ulimit -n, LimitNOFILE)"
            return UnsentError(stage, Kind.UNREACHABLE, message)
        case OSError() if stage is Stage.RESOLVE or error.errno in _UNSENT:
            return UnsentError(stage, Kind.UNREACHABLE, reason_of(error))
        case OSError():
            return HostError(stage, Kind.UNREACHABLE, reason_of(error))
        case UnicodeError():  # a host name that IDNA refuses: empty label, label too long
            return HostError(Stage.RESOLVE, Kind.UNRESOLVABLE, f"not a host name: {error}")
        case _:
            raise error  # not of this world: a bug of ours


def lost(reason: str) -> str:
    """Returns what to say of a connection that ended; asyncssh has no other words where nobody said why."""
    return f"connection lost: {reason}" if reason and reason.lower() != "connection lost" else "connection lost"


def _timed_out(stage: Stage, timeout_seconds: float) -> HostError:
    limit = f"{timeout_seconds:g} s"
    match stage:
        case Stage.RESOLVE:
            return UnsentError(stage, Kind.UNRESOLVABLE, f"name look-up took more than {limit}")
        case Stage.CONNECT:
            return HostError(stage, Kind.CONNECT_TIMEOUT, f"no TCP connection within {limit}")
        case Stage.LOGIN:
            return HostError(stage, Kind.LOGIN_TIMEOUT, f"no login within {limit} of connecting")
        case _:
            return HostError(stage, Kind.COMMAND_TIMEOUT, f"no answer from the probe within {limit}")
