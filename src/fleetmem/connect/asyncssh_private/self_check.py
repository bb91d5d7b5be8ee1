"""Whether asyncssh is as `pipelined` knows it: the names that are used, and a login in memory that uses them."""

import asyncio
import inspect
import socket
from collections.abc import Iterator
from contextlib import suppress
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from fleetmem.connect.ssh import asyncssh
from fleetmem.runtime.side_thread import start_thread

if TYPE_CHECKING:
    from fleetmem.connect.asyncssh_private.pipelined import PipelinedConnection

_LOGIN_SECONDS = 5.0  # it takes 0.01 s
_TEXT = b"one and the same"
_OURS = frozenset(
    {
        *("_offer", "_words", "_algorithms", "_gate", "_key"),
        *("_is_at_the_last", "_is_accept_due", "_ahead", "_heard_at"),
        *("_begin_decided", "_send_ahead", "forget_login", "lighten", "take_apart", "is_stuffed", "session_keys"),
    }
)
"""Names of `PipelinedConnection` that asyncssh's connection does not have."""


class MisfitError(Exception):
    """asyncssh is another one than `pipelined` was written for."""


def find_fault() -> str | None:
    """Returns what about asyncssh is not as it is expected, in a few words; None where it all is.

    It takes a few milliseconds, and no event loop: it has its own, in a thread.
    """
    faults: list[str] = []

    def check() -> None:
        try:
            asyncio.run(_check())
        except Exception as error:  # noqa: BLE001 - whatever it is, plain connections go without it
            faults.append(f"{type(error).__name__}: {error}")

    try:
        thread = start_thread(check, "asyncssh self-check")
    except OSError as error:
        return f"its self-check cannot be run: {error}"
    thread.join(2 * _LOGIN_SECONDS)
    if thread.is_alive():
        return "its self-check does not end"
    return faults[0] if faults else None


async def _check() -> None:
    from fleetmem.connect.asyncssh_private import pipelined  # here: not all that it imports may be there

    check_overrides(pipelined.PipelinedConnection)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # one warning says it
    async with asyncio.timeout(_LOGIN_SECONDS):
        await _log_in_to_ourselves(pipelined)


def check_overrides(class_: "type[PipelinedConnection]") -> None:
    """Compares the methods that take the place of asyncssh's with those.

    Raises:
        MisfitError: asyncssh has no such method any more, so nobody would call ours, or calls it in another way.
    """
    for name, ours in vars(class_).items():
        if name in _OURS or name.startswith("__") or not isinstance(ours, FunctionType):
            continue
        theirs = getattr(asyncssh.SSHClientConnection, name, None)
        if theirs is None:
            raise MisfitError(f"its connection has no {name}")
        if _parameters(theirs) != _parameters(ours):
            raise MisfitError(f"its connection's {name} takes {inspect.signature(theirs)}")


def _parameters(function: FunctionType) -> tuple[int, tuple[str, ...], int]:
    """Returns how many parameters go by place, the names of those that do not, and whether it takes `*` and `**`."""
    code = function.__code__
    by_name = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return code.co_argcount, by_name, code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)


def check_names(module: ModuleType, owners: tuple[object, ...]) -> None:
    """Looks for each private name that a module uses.

    Args:
        module: `pipelined`.
        owners: the objects of asyncssh that may have it.

    Raises:
        MisfitError: none of them does.
    """
    used = {name for code in _codes(module) for name in code.co_names if name.startswith("_")}
    theirs = {name for name in used if not name.startswith("__")} - _OURS - vars(module).keys()
    missing = sorted(name for name in theirs if not any(hasattr(owner, name) for owner in owners))
    if missing:
        raise MisfitError(f"nothing of it has {', '.join(missing)}")


def _codes(module: ModuleType) -> Iterator[CodeType]:
    """Yields the code of the functions and methods of a module."""
    for found in list(vars(module).values()):
        for each in vars(found).values() if inspect.isclass(found) else (found,):
            function = each.fget if isinstance(each, property) else each
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                yield function.__code__


async def _log_in_to_ourselves(pipelined: ModuleType) -> None:
    """Logs in to a server in memory as to a host, sends something there and back, and leaves.

    Raises:
        MisfitError: something of it did not come, or a name that is used on the way is not there.
        Exception: whatever asyncssh makes of names that are not there.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    key = asyncssh.generate_private_key("ssh-ed25519")
    serving = asyncio.create_task(_serve(theirs, key))
    session = _CheckSession()
    try:
        connection = await _connect(pipelined.PipelinedConnector(), ours, key, session)
        channel = await session.opened
        check_names(pipelined, (_untouched(), channel))
        await session.exchange(_TEXT)
        connection.lighten()
        await session.exchange(_TEXT)
        connection.close()
        await connection.wait_closed()
        connection.take_apart()
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError, asyncssh.Error, OSError):
            await serving
        ours.close()
        theirs.close()


async def _serve(sock: socket.socket, key: asyncssh.SSHKey) -> None:
    """Serves one connection until it ends."""
    server = await asyncssh.run_server(
        sock,
        config=None,
        server_factory=_CheckServer,
        server_host_keys=[key],
        gss_host=None,  # else it asks the name server for this machine's name, and a dead one lets it wait for 10 s
    )
    try:
        await server.wait_closed()
    finally:
        server.abort()


async def _connect(
    connector: Any, sock: socket.socket, key: asyncssh.SSHKey, session: "_CheckSession"
) -> "PipelinedConnection":
    from fleetmem.connect.connector import LoginRequest
    from fleetmem.connect.host_words import HostWords
    from fleetmem.connect.openssh.algorithms import Algorithms

    client = _CheckClient(key)
    opening: list[asyncio.Task[Any]] = []

    def begin(connection: asyncssh.SSHClientConnection) -> None:
        opening.append(asyncio.create_task(connection.create_session(lambda: session, "check", encoding=None)))
        opening[0].add_done_callback(_look_at)

    options: dict[str, Any] = {
        "host": "self-check",
        "port": 22,
        "username": "self-check",
        "kex_algs": ["curve25519-sha256"],
        "encryption_algs": ["aes128-gcm@openssh.com"],
        "config": None,
        "client_factory": lambda: client,
        "known_hosts": ([], [], []),
        "client_keys": None,
        "agent_path": None,
    }
    offer: Any = _Offer()
    request = LoginRequest(options, Algorithms(), offer, HostWords(), client, sock, None, begin)
    connection: PipelinedConnection = await connector.connect(request)
    await opening[0]
    return connection


def _look_at(task: asyncio.Task[Any]) -> None:
    """Keeps asyncio from complaining of a channel that nobody waited for: the login has failed, and says why."""
    if not task.cancelled():
        task.exception()


def _untouched() -> asyncssh.SSHClientConnection:
    """Returns a connection of asyncssh's own, which has its names and none of ours."""
    options = asyncssh.SSHClientConnectionOptions(config=None, known_hosts=None, client_keys=None, agent_path=None)
    return asyncssh.SSHClientConnection(asyncio.get_running_loop(), options)


class _Offer:
    """Lets the key sign at once. The channel waits for the login: asyncssh's own server, up to 2.23, hangs up at it."""

    signs_unasked = True
    is_likely = False

    def note_accepted(self) -> list[str]:
        """Nothing more is wanted."""
        return []


class _CheckClient(asyncssh.SSHClient):
    """Takes any host key, and has a key."""

    is_undecided = False

    def __init__(self, key: asyncssh.SSHKey) -> None:
        self._keys = list(asyncssh.load_keypairs([key]))

    async def decide(self) -> None:
        """It is decided."""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Takes it."""
        return True

    async def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        """Returns the key, once."""
        return self._keys.pop() if self._keys else None


class _CheckSession(asyncssh.SSHClientSession[bytes]):
    """Sends and receives.

    Attributes:
        opened: the channel, once it is open.
    """

    def __init__(self) -> None:
        self.opened: asyncio.Future[asyncssh.SSHClientChannel[bytes]] = asyncio.get_running_loop().create_future()
        self._received: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """It is open."""
        self.opened.set_result(chan)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Something has come."""
        self._received.put_nowait(data)

    async def exchange(self, text: bytes) -> None:
        """Sends a text, which has to come back. Raises MisfitError where another one does."""
        self.opened.result().write(text)
        if (answer := await self._received.get()) != text:
            raise MisfitError(f"{text!r} came back as {answer!r}")


class _CheckServer(asyncssh.SSHServer):
    """Lets in whoever has a key."""

    def public_key_auth_supported(self) -> bool:
        """Takes keys."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Takes any."""
        return True

    def session_requested(self) -> "asyncssh.SSHServerSession[bytes]":
        """Returns what sends back."""
        return _Echo()


class _Echo(asyncssh.SSHServerSession[bytes]):
    """Sends back what it is sent."""

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """It is open."""
        self._channel = chan
        chan.set_encoding(None)

    def exec_requested(self, command: str) -> bool:
        """Takes any command."""
        return True

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Sends it back."""
        self._channel.write(data)
