import asyncio
import errno
import socket

import asyncssh
import pytest

from fleetmem.connect.backoff import UnsentError
from fleetmem.connect.translate import translate, within
from fleetmem.errors import HostError, Kind, Stage

_TOO_MANY = 2  # SSH_DISCONNECT_PROTOCOL_ERROR, with which sshd says so
_BY_APPLICATION = asyncssh.DISC_BY_APPLICATION
_NAME_UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(
    ("error", "stage", "expected_stage", "kind", "message"),
    [
        (TimeoutError(), Stage.RESOLVE, Stage.RESOLVE, Kind.UNRESOLVABLE, "name look-up took more than 2.5 s"),
        (TimeoutError(), Stage.CONNECT, Stage.CONNECT, Kind.CONNECT_TIMEOUT, "no TCP connection within 2.5 s"),
        (TimeoutError(), Stage.LOGIN, Stage.LOGIN, Kind.LOGIN_TIMEOUT, "no login within 2.5 s of connecting"),
        (TimeoutError(), Stage.COMMAND, Stage.COMMAND, Kind.COMMAND_TIMEOUT, "no answer from the probe within 2.5 s"),
        (
            TimeoutError(errno.ETIMEDOUT, "x"),
            Stage.CONNECT,
            Stage.CONNECT,
            Kind.UNREACHABLE,
            "connection timed out",
        ),
        (_NAME_UNKNOWN, Stage.CONNECT, Stage.RESOLVE, Kind.UNRESOLVABLE, "name does not resolve: Name or service"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), Stage.CONNECT, Stage.CONNECT, Kind.UNREACHABLE, "refused"),
        (OSError(errno.EHOSTUNREACH, "x"), Stage.CONNECT, Stage.CONNECT, Kind.UNREACHABLE, "no route to host"),
        (OSError(errno.EMFILE, "x"), Stage.CONNECT, Stage.CONNECT, Kind.UNREACHABLE, "too many open files"),
        (OSError("no address"), Stage.CONNECT, Stage.CONNECT, Kind.UNREACHABLE, "no address"),
        (ConnectionResetError("reset"), Stage.LOGIN, Stage.LOGIN, Kind.DISCONNECTED, "connection lost: reset"),
        (BrokenPipeError("pipe"), Stage.COMMAND, Stage.COMMAND, Kind.DISCONNECTED, "connection lost: pipe"),
        (asyncio.IncompleteReadError(b"", 9), Stage.LOGIN, Stage.LOGIN, Kind.DISCONNECTED, "connection lost: 0 bytes"),
        (asyncssh.HostKeyNotVerifiable("odd"), Stage.LOGIN, Stage.LOGIN, Kind.HOST_KEY_UNKNOWN, "odd"),
        (asyncssh.PermissionDenied("x"), Stage.LOGIN, Stage.LOGIN, Kind.AUTH_FAILED, "refused every key and method"),
        (asyncssh.IllegalUserName("x"), Stage.LOGIN, Stage.LOGIN, Kind.AUTH_FAILED, "refused every key"),
        (asyncssh.ConnectionLost("gone"), Stage.LOGIN, Stage.LOGIN, Kind.DISCONNECTED, "connection lost: gone"),
        (asyncssh.KeyExchangeFailed("kex"), Stage.LOGIN, Stage.LOGIN, Kind.DISCONNECTED, "key exchange failed: kex"),
        (asyncssh.ProtocolError("p"), Stage.COMMAND, Stage.COMMAND, Kind.DISCONNECTED, "connection lost: p"),
        (asyncssh.DisconnectError(_BY_APPLICATION, "bye"), Stage.LOGIN, Stage.LOGIN, Kind.DISCONNECTED, "lost: bye"),
        (
            asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "no route"),
            Stage.CONNECT,
            Stage.CONNECT,
            Kind.UNREACHABLE,
            "the jump host cannot reach it: no route",
        ),
        (
            asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "prohibited"),
            Stage.CONNECT,
            Stage.CONNECT,
            Kind.UNREACHABLE,
            "the jump host cannot reach it: prohibited (AllowTcpForwarding, PermitOpen)",
        ),
        (
            asyncssh.DisconnectError(_TOO_MANY, "Too many authentication failures"),
            Stage.LOGIN,
            Stage.LOGIN,
            Kind.AUTH_FAILED,
            "refused so many keys that it hung up",
        ),
        (
            asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "no"),
            Stage.COMMAND,
            Stage.COMMAND,
            Kind.COMMAND_FAILED,
            "refused to run a command: no",
        ),
        (UnicodeError("label too long"), Stage.CONNECT, Stage.RESOLVE, Kind.UNRESOLVABLE, "not a host name: label"),
    ],
)
def test_translate(error: Exception, stage: Stage, expected_stage: Stage, kind: Kind, message: str) -> None:
    """Each error of asyncssh and the OS has its kind, its stage, and words for a person."""
    translated = translate(error, stage, 2.5)
    assert (translated.stage, translated.kind) == (expected_stage, kind)
    assert message in translated.message


@pytest.mark.parametrize("bug", [KeyError("x"), ValueError("x"), asyncssh.KeyImportError("x"), AttributeError("x")])
def test_a_bug_surfaces(bug: Exception) -> None:
    """What the world does not do is not turned into a failed host."""
    with pytest.raises(type(bug)) as caught:
        translate(bug, Stage.LOGIN, 1)
    assert caught.value is bug


def test_within_returns_what_the_work_gives() -> None:
    """In time and without an error, nothing is added."""

    async def work() -> int:
        return 7

    assert asyncio.run(within(1, Stage.LOGIN, work())) == 7


def test_within_ends_what_takes_too_long() -> None:
    """The limit of a stage is a failure of that stage, and the work is cancelled."""
    cancelled = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(HostError) as caught:
        asyncio.run(within(0.01, Stage.LOGIN, work()))
    assert caught.value.kind is Kind.LOGIN_TIMEOUT
    assert cancelled == [True]


def test_within_translates_and_keeps_the_cause() -> None:
    """The original error stays attached for -vv."""
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "x")

    async def work() -> None:
        raise refused

    with pytest.raises(HostError) as caught:
        asyncio.run(within(1, Stage.CONNECT, work()))
    assert caught.value.__cause__ is refused


def test_within_lets_a_bug_through() -> None:
    """A KeyError is ours and not the host's."""

    async def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(within(1, Stage.CONNECT, work()))


@pytest.mark.parametrize(
    ("error", "stage"),
    [
        (TimeoutError(), Stage.RESOLVE),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), Stage.RESOLVE),
        (OSError("no more threads may be started"), Stage.RESOLVE),
        (OSError(errno.EMFILE, "x"), Stage.CONNECT),
        (OSError(errno.ENFILE, "x"), Stage.LOGIN),
        (OSError(errno.ENETUNREACH, "x"), Stage.CONNECT),
        (OSError(errno.EADDRNOTAVAIL, "x"), Stage.CONNECT),
    ],
)
def test_what_has_not_left_this_machine(error: Exception, stage: Stage) -> None:
    """A name server, descriptors, ports or a network that we have not: no reason to stay away from the host."""
    assert isinstance(translate(error, stage, 2.5), UnsentError)


@pytest.mark.parametrize(
    ("error", "stage"),
    [
        (TimeoutError(), Stage.CONNECT),
        (_NAME_UNKNOWN, Stage.RESOLVE),
        (OSError(errno.EHOSTUNREACH, "x"), Stage.CONNECT),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), Stage.CONNECT),
    ],
)
def test_what_a_host_or_its_network_answers(error: Exception, stage: Stage) -> None:
    """Silence, a refusal or a name that nobody has is about the host, and has the longer waits."""
    assert not isinstance(translate(error, stage, 2.5), UnsentError)
