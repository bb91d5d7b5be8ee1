"""What an SSH connection runs over: a TCP connection, or the standard input and output of a ProxyCommand."""

import asyncio
import errno
import os
import signal
import socket
import time
from contextlib import suppress
from typing import Any, cast

from fleetmem.connect.target import Target
from fleetmem.connect.translate import within
from fleetmem.errors import HostError, Kind, Stage
from fleetmem.runtime import children

_KEPT_BYTES = 500
_LAST_WORDS_SECONDS = 0.5
_HANGUP_SECONDS = 2.0  # between a hangup and a kill


async def open_socket(target: Target) -> socket.socket:
    """Returns a connected socket.

    Raises:
        HostError: the name does not resolve, or nothing answers, within the limit of both together.
    """
    limit_seconds, started = target.access.connect_timeout_seconds, time.monotonic()
    look_up = asyncio.get_running_loop().getaddrinfo(
        target.address,
        target.port,
        family=target.access.family,
        type=socket.SOCK_STREAM,
        proto=socket.IPPROTO_TCP,
    )
    addresses = await within(limit_seconds, Stage.RESOLVE, look_up)
    used_seconds = time.monotonic() - started
    connecting = _connect(addresses, target, limit_seconds - used_seconds)
    return await within(limit_seconds, Stage.CONNECT, connecting, used_seconds=used_seconds)


async def _connect(addresses: list[tuple[Any, ...]], target: Target, seconds: float) -> socket.socket:
    """Returns a connected socket. Addresses are tried in turn, each with its share of the time left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    for tried, (family, kind, protocol, _name, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        left = len(addresses) - tried
        try:
            _bind(sock, target)
            async with asyncio.timeout((deadline - loop.time()) / left if left > 1 else None):
                zone = target.address.partition("%")[2]
                await (_connect_in_zone(sock, address, zone) if zone else loop.sock_connect(sock, address))
        except BaseException as error:
            sock.close()
            if left == 1 or not isinstance(error, OSError):  # TimeoutError is an OSError
                raise
        else:
            return sock
    raise OSError("the name resolves to no address")


async def _connect_in_zone(sock: socket.socket, address: tuple[Any, ...], zone: str) -> None:
    """Connects to an address on the interface that `fe80::1%eth0` names; uvloop leaves interfaces out.

    Raises:
        OSError: this machine has no such interface, or nothing answers there.
    """
    try:
        index = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except OSError as error:
        raise OSError(f"this machine has no network interface {zone}") from error
    result = sock.connect_ex((*address[:3], index))
    if result == errno.EINPROGRESS:
        loop, is_done = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(sock, is_done.set)
        try:
            await is_done.wait()
        finally:
            loop.remove_writer(sock)
        result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if result:
        raise OSError(result, os.strerror(result))


def _bind(sock: socket.socket, target: Target) -> None:
    """Chooses the address and the interface to connect from, where the ssh configuration says so."""
    if target.access.bind_interface:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, target.access.bind_interface.encode())
    if target.access.bind_address:
        sock.bind((target.access.bind_address, 0))


class ProxyCommand(asyncio.SubprocessProtocol):
    """A ProxyCommand that runs (ssh_config(5)).

    asyncssh would take what it writes to stderr for a part of the connection, and drop its shell syntax.

    Attributes:
        ended: set once it has ended.
    """

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None
        self._said = b""

    @classmethod
    async def start(cls, command: str) -> tuple["ProxyCommand", socket.socket]:
        """Starts it; returns it and our end of the connection.

        Raises:
            OSError: there is no shell, or no file left for it.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            _transport, proxy = await asyncio.get_running_loop().subprocess_exec(
                cls,
                os.environ.get("SHELL") or "/bin/sh",
                *("-c", f"exec {command}"),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us: we end it when its connection has ended
                env=children.environment(),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return proxy, ours

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It runs; asyncio calls this and the following three."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        children.add(self._transport.get_pid())

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It has written something to stderr."""
        self._said = (self._said + data)[-_KEPT_BYTES:]

    def process_exited(self) -> None:
        """It has ended; a child of it may keep stderr open for ever."""
        if self._transport:
            children.remove(self._transport.get_pid())
            asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, and all that it said has been read."""
        self.ended.set()
        if self._transport:
            self._transport.close()

    async def explain(self, error: HostError) -> HostError:
        """Returns why a login failed, with what the command had to say about it."""
        if error.kind is Kind.DISCONNECTED:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await self.ended.wait()
        said = " ".join(self._said.decode("utf-8", "replace").split())
        status = self._transport.get_returncode() if self._transport else None
        if error.kind is not Kind.DISCONNECTED or not (said or status):
            return error
        ended = f" ended with status {status}" if status else ""
        return HostError(Stage.CONNECT, Kind.UNREACHABLE, f"ProxyCommand{ended}: {said or error.message}")

    def close(self) -> None:
        """Ends it, as ssh does, with all that it has started; what minds no hangup, below `nohup` say, is killed."""
        self._signal(signal.SIGHUP)
        with suppress(RuntimeError):  # no loop runs any more: `children.kill_all` ends it
            asyncio.get_running_loop().call_later(_HANGUP_SECONDS, self._signal, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._transport and self._transport.get_returncode() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), number)
