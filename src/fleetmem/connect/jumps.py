"""Jump hosts: one connection to each carries all hosts behind it.

A jump host that is reached through others is another one for each way to it. Its failure is its own: it is tried again
after a wait of its own, and the hosts behind it are not held responsible.
"""

import asyncio
import logging
import random
import time
from collections.abc import Iterable
from typing import Any

from fleetmem.connect.backoff import NotTriedError, backoff_for_jump
from fleetmem.connect.host_keys import AskAgainError
from fleetmem.connect.login import Login
from fleetmem.connect.rate_limit import RateLimit
from fleetmem.connect.ssh import asyncssh
from fleetmem.connect.ssh_settings import LoginLimits
from fleetmem.connect.target import Target
from fleetmem.connect.translate import within
from fleetmem.connect.way import Way, open_way
from fleetmem.errors import HostError, Kind, Stage

log = logging.getLogger(__name__)

_UNUSED_SECONDS = 60.0
"""So long a connection is kept that nobody uses: the next host may be on its way."""


class Jump:
    """A jump host, connected on first use, again when the connection was lost, and no longer than it is used.

    Attributes:
        target: the jump host, with all that a login needs.
        slots: for logins through it at the same time.
        turns: for logins through it in a second.
    """

    def __init__(self, target: Target, before: "Jump | None", login: Login, limits: LoginLimits) -> None:
        self.target = target
        self.belong_to(before, login, limits)
        self._connection: asyncssh.SSHClientConnection | None = None
        self._lock = asyncio.Lock()
        self._users = 0
        self._closing: asyncio.TimerHandle | None = None
        self._failures = 0
        self._error: HostError | None = None
        self._not_before = 0.0
        self._keys_refused: frozenset[bytes] = frozenset()

    def belong_to(self, before: "Jump | None", login: Login, limits: LoginLimits) -> None:
        """Makes it one of a fleet's, which it may be from the start or become."""
        self._before, self._login = before, login
        self.slots = asyncio.Semaphore(limits.jump_handshakes)
        self.turns = RateLimit(limits.jump_handshakes_per_second, limits.jump_handshakes)

    async def way_to(self, target: Target) -> Way:
        """Returns a way to a host behind it.

        Raises:
            NotTriedError: the jump host failed, or did a short while ago.
        """
        async with self._lock:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
        self._users += 1
        if self._closing:
            self._closing.cancel()
            self._closing = None
        tunnel = _Tunnel(self, self._connection, target)
        return Way(tunnel=tunnel, open_seconds=target.access.connect_timeout_seconds, on_close=self._release)

    def check(self) -> None:
        """Raises NotTriedError where it is known that it cannot be used now."""
        if self._before:
            self._before.check()
        wait_seconds = self._not_before - time.monotonic()
        if self._error and wait_seconds > 0:
            raise self._failed(self._error, wait_seconds)

    async def renew(self) -> None:
        """Ends the wait where there are other keys to offer than those that it refused: a person has done something."""
        if self._before:
            await self._before.renew()
        if not self._error or self._error.kind is not Kind.AUTH_FAILED or time.monotonic() >= self._not_before:
            return
        if await self._login.public_keys(self.target) not in (self._keys_refused, frozenset()):
            self._not_before = 0.0

    async def _connect(self) -> asyncssh.SSHClientConnection:
        self.check()
        try:
            connection = await self._log_in()
        except NotTriedError:
            raise
        except HostError as error:
            self._failures += 1
            self._error = error
            wait_seconds = backoff_for_jump(error).wait_seconds(self._failures, random.random)
            self._not_before = time.monotonic() + wait_seconds
            if error.kind is Kind.AUTH_FAILED:
                self._keys_refused = await self._login.public_keys(self.target)
            raise self._failed(error) from error
        self._failures, self._error = 0, None
        log.info("connected to jump host %s", self.target)
        return connection

    async def _log_in(self) -> asyncssh.SSHClientConnection:
        try:
            return await self._login.connect(self.target, await self._open_way())
        except AskAgainError:
            return await self._login.connect(self.target, await self._open_way())

    async def _open_way(self) -> Way:
        return await (self._before.way_to(self.target) if self._before else open_way(self.target))

    def _failed(self, error: HostError, wait_seconds: float | None = None) -> NotTriedError:
        message = f"jump host {self.target}: {error.message}"
        return NotTriedError(error.stage, error.kind, message, error.cause, wait_seconds=wait_seconds)

    def _release(self) -> None:
        self._users -= 1
        if not self._users:
            self._closing = asyncio.get_running_loop().call_later(_UNUSED_SECONDS, self.close)

    def close(self) -> None:
        """Closes the connection."""
        if self._closing:
            self._closing.cancel()
            self._closing = None
        if self._connection:
            self._connection.close()
            self._connection = None


class _Tunnel:
    """Opens the channel through a jump host, within the limit for connections, and says whose failure it was."""

    def __init__(self, jump: Jump, connection: asyncssh.SSHClientConnection, target: Target) -> None:
        self._jump = jump
        self._connection = connection
        self._target = target

    async def create_connection(self, session_factory: Any, remote_host: str, remote_port: int) -> Any:
        """Opens the channel; asyncssh calls this."""
        seconds = self._target.access.connect_timeout_seconds
        opening = self._connection.create_connection(session_factory, remote_host, remote_port)
        try:
            return await within(seconds, Stage.CONNECT, opening)
        except HostError as error:
            if self._connection.is_closed():
                message = f"jump host {self._jump.target}: connection lost"
                raise NotTriedError(Stage.CONNECT, Kind.DISCONNECTED, message) from error
            raise error.with_message(f"through {self._jump.target}: {error.message}") from error


class Jumps:
    """The jump hosts of a fleet."""

    def __init__(self, login: Login, limits: LoginLimits) -> None:
        self._login = login
        self._limits = limits
        self._jumps: dict[tuple[tuple[str, str, int], ...], Jump] = {}

    def of(self, route: tuple[Target, ...]) -> Jump | None:
        """Returns the last jump host of a route, None where there is none."""
        if not route:
            return None
        key = tuple(target.server for target in route)
        if key not in self._jumps:
            self._jumps[key] = Jump(route[-1], self.of(route[:-1]), self._login, self._limits)
        return self._jumps[key]

    def adopt(self, other: "Jumps", routes: Iterable[tuple[Target, ...]]) -> None:
        """Takes over those jump hosts of another fleet that are reached alike; the other one keeps the rest."""
        for route in dict.fromkeys(whole[:end] for whole in routes for end in range(1, len(whole) + 1)):
            key = tuple(target.server for target in route)
            jump = other._jumps.get(key)
            if jump and key not in self._jumps and jump.target == route[-1]:
                self._jumps[key] = other._jumps.pop(key)
                jump.belong_to(self.of(route[:-1]), self._login, self._limits)

    def close(self) -> None:
        """Closes all connections."""
        for jump in self._jumps.values():
            jump.close()
