"""The jump host: one connection to it carries all hosts behind it."""

import asyncio
import random
import time

import asyncssh

from fleetmem.connect.backoff import backoff_for
from fleetmem.connect.login import Login
from fleetmem.connect.targets import Target
from fleetmem.connect.transport import open_socket
from fleetmem.errors import HostError


class Jump:
    """A jump host, connected on first use and again when the connection was lost."""

    def __init__(self, name: str, target: Target, login: Login, connect_timeout_seconds: float) -> None:
        self._name = name
        self._target = target
        self._login = login
        self._connect_timeout_seconds = connect_timeout_seconds
        self._connection: asyncssh.SSHClientConnection | None = None
        self._lock = asyncio.Lock()
        self._error: HostError | None = None
        self._not_before = 0.0

    async def connection(self) -> asyncssh.SSHClientConnection:
        """Returns the one connection.

        Raises:
            HostError: the jump host failed; for a while the same error for every host behind it, without a new attempt.
        """
        async with self._lock:
            if self._connection is None or self._connection.is_closed():
                if self._error and time.monotonic() < self._not_before:
                    raise self._error
                try:
                    self._connection = await self._connect()
                except HostError as error:
                    message = f"jump host {self._name}: {error.message}"
                    self._error = HostError(error.stage, error.kind, message)
                    wait_seconds = backoff_for(error.kind).wait_seconds(1, random.random)
                    self._not_before = time.monotonic() + wait_seconds
                    raise self._error from error
            return self._connection

    async def _connect(self) -> asyncssh.SSHClientConnection:
        sock = await open_socket(self._target.address, self._target.port, self._connect_timeout_seconds)
        return await self._login.connect(self._target, sock=sock, tunnel=None)

    def close(self) -> None:
        """Closes the connection."""
        if self._connection:
            self._connection.close()
