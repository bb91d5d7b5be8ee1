"""What all links share: keys, known hosts, limits on handshakes, the ssh configuration, the jump host."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh

from fleetmem.connect.host_keys import HostKeys
from fleetmem.connect.jumps import Jump
from fleetmem.connect.keys import AskPassphrase, load_default_keys, load_keys
from fleetmem.connect.login import Login
from fleetmem.connect.settings import SshSettings
from fleetmem.connect.targets import Target, Targets
from fleetmem.connect.transport import open_socket
from fleetmem.model import Host


class Reach:
    """Knows how to get at hosts. One for a whole fleet."""

    def __init__(self, settings: SshSettings, ask_passphrase: AskPassphrase) -> None:
        """Reads keys and known hosts.

        Raises:
            UsageError: a key, or the ssh configuration, cannot be used.
        """
        self.settings = settings
        self._targets = Targets(settings)
        host_keys = HostKeys(settings.known_hosts_path, settings.host_key_policy)
        keys = load_keys(settings.key_paths, ask_passphrase) if settings.key_paths else load_default_keys()
        self._login = Login(settings, host_keys, keys, self._targets.config_paths)
        self._connect_slots = asyncio.Semaphore(settings.max_connects)
        self._handshake_slots = asyncio.Semaphore(settings.max_handshakes)
        self._jump: Jump | None = None
        if settings.jump:
            jump = self._targets.of_jump(settings.jump)
            self._jump = Jump(settings.jump, jump, self._login, settings.connect_timeout_seconds)

    def target(self, host: Host) -> Target:
        """Returns a host as the ssh configuration resolves it; without one, as it is.

        Raises:
            ConfigError: the ssh configuration cannot be read.
        """
        return self._targets.of(host)

    @asynccontextmanager
    async def login(self, host: Host) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Logs in to a host. Within the context the login has one of the places that there are for logins.

        Raises:
            HostError: the host, or the jump host before it, failed.
        """
        target = self.target(host)
        sock, tunnel = await self._transport(target)
        try:
            await self._handshake_slots.acquire()
        except BaseException:
            if sock:
                sock.close()
            raise
        try:
            yield await self._login.connect(target, sock=sock, tunnel=tunnel)
        finally:
            self._handshake_slots.release()

    async def _transport(self, target: Target) -> tuple[socket.socket | None, asyncssh.SSHClientConnection | None]:
        """Returns a socket or a jump host's connection to log in over; neither where asyncssh makes its own."""
        if self._jump:
            return None, await self._jump.connection()
        if target.has_proxy:
            return None, None
        async with self._connect_slots:
            return await open_socket(target.address, target.port, self.settings.connect_timeout_seconds), None

    async def close(self) -> None:
        """Closes the jump host's connection."""
        if self._jump:
            self._jump.close()
