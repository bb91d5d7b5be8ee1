"""The way to a host before there is SSH on it: a socket, a ProxyCommand, or a channel through a jump host."""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fleetmem.connect.guard import Tunnel, Via
from fleetmem.connect.ssh import asyncssh
from fleetmem.connect.target import Target
from fleetmem.connect.translate import translate
from fleetmem.connect.transport import ProxyCommand, open_socket
from fleetmem.errors import HostError, Stage


class _Nothing(asyncssh.SSHTCPSession[bytes]):
    """Takes what a host says of itself before it is hung up on."""


async def _as_it_is(error: HostError) -> HostError:
    return error


@dataclass(slots=True)
class Way:
    """A way that is open.

    Attributes:
        sock: connected with the host; None where there is a tunnel.
        tunnel: the connection through which the host is reached; None where there is a socket.
        open_seconds: what opening it may take yet, on top of the login.
        explain: returns why a login over it failed.
        on_close: called once it is closed.
    """

    sock: socket.socket | None = None
    tunnel: Tunnel | None = None
    open_seconds: float = 0.0
    explain: Callable[[HostError], Awaitable[HostError]] = _as_it_is
    on_close: Callable[[], None] | None = None

    async def check(self, target: Target) -> None:
        """Opens what a tunnel opens only for a login, and closes it.

        Raises:
            HostError: the jump host cannot reach the host.
        """
        if self.tunnel:
            channel, _session = await self.tunnel.create_connection(_Nothing, target.address, target.port)
            channel.abort()

    @property
    def via(self) -> Via:
        """What leads to the host: the socket or the tunnel, one of which there is."""
        return self.sock or self.tunnel  # type: ignore[return-value]

    def close(self) -> None:
        """Closes it, where that has not been done; asyncssh closes the socket that a connection runs over."""
        on_close, self.on_close = self.on_close, None
        if on_close:
            on_close()

    def abandon(self) -> None:
        """Closes it where no connection has come of it."""
        if self.sock:
            self.sock.close()
        self.close()


async def open_way(target: Target) -> Way:
    """Returns the way to a host that is behind no jump host.

    Raises:
        HostError: there is none.
    """
    if target.proxy_command:
        try:
            proxy, sock = await ProxyCommand.start(target.proxy_command)
        except OSError as error:
            raise translate(error, Stage.CONNECT, target.access.connect_timeout_seconds) from error
        return Way(sock=sock, explain=proxy.explain, on_close=proxy.close)
    return Way(sock=await open_socket(target))
