import asyncio
from typing import Any

import asyncssh
import pytest
from asyncssh.connection import SSHConnection

from fleetmem.connect.asyncssh_private.pipelined import PipelinedConnector
from fleetmem.connect.host_keys import HostKeys
from fleetmem.connect.key_ring import KeyRing
from fleetmem.connect.login import Login
from fleetmem.connect.ssh_settings import HostKeyPolicy, SshSettings
from fleetmem.connect.way import open_way
from unit.connect.ssh_server import OpenServer, listening
from unit.connect.targets import resolve


class Server(OpenServer):
    """Lets everybody in, and opens channels for packets of no bytes."""

    def begin_auth(self, username: str) -> bool:
        """Wants nothing."""
        return False


class Writer(asyncssh.SSHClientSession[bytes]):
    """Writes as soon as it can: then asyncssh cuts what is to be sent into packets."""

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Writes."""
        chan.write(b"sample 1 status user")


@pytest.mark.parametrize("size", [0, 1])
def test_a_channel_for_packets_of_no_bytes(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """It counts as refused, with what the host did, in every version of asyncssh; packets of one byte are packets."""
    confirm = SSHConnection.send_channel_open_confirmation

    def shrink(self: SSHConnection, theirs: int, ours: int, window: int, _size: int, *rest: bytes) -> None:
        confirm(self, theirs, ours, window, size, *rest)

    monkeypatch.setattr(SSHConnection, "send_channel_open_confirmation", shrink)

    async def run() -> Any:
        async with listening(Server, process_factory=lambda process: process.exit(0), encoding=None) as acceptor:
            ssh = SshSettings(port=acceptor.get_port(), host_key_policy=HostKeyPolicy.INSECURE)
            target = resolve("127.0.0.1", ssh)
            login = Login(HostKeys(), KeyRing(lambda _path: None), PipelinedConnector())
            connection = await login.connect(target, await open_way(target))
            try:
                async with asyncio.timeout(10):
                    await connection.create_session(Writer, "true", encoding=None)
            finally:
                connection.abort()
                await connection.wait_closed()

    if size:
        asyncio.run(run())
        return
    with pytest.raises(asyncssh.ChannelOpenError, match="its channel takes packets of at most 0 bytes"):
        asyncio.run(run())
