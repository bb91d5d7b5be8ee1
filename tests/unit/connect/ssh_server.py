"""SSH servers in the process of a test, on all loopback addresses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncssh


class OpenServer(asyncssh.SSHServer):
    """Lets everybody in, and forwards everything.

    Attributes:
        connections: all that there were, since the last start.
    """

    connections: list[asyncssh.SSHServerConnection]

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Remembers it."""
        self.connections.append(conn)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        """Forwards."""
        return True


@asynccontextmanager
async def listening(server: type[OpenServer], **options: Any) -> AsyncIterator[asyncssh.SSHAcceptor]:
    """Starts one; ends it with all its connections, so that none is left to the garbage collector of another test."""
    server.connections = []
    key = asyncssh.generate_private_key("ssh-ed25519")
    options |= {"server_factory": server, "server_host_keys": [key]}
    acceptor = await asyncssh.listen("0.0.0.0", 0, **options)  # noqa: S104 - all of 127/8
    try:
        yield acceptor
    finally:
        acceptor.close()
        for connection in server.connections:
            connection.abort()
            await connection.wait_closed()
        await acceptor.wait_closed()
        for _ in range(3):  # transports close in the next rounds of the loop
            await asyncio.sleep(0)
