"""Connections as asyncssh makes them, by its public names alone: for releases that nobody has tried."""

from typing import Any

from fleetmem.connect.connector import LoginRequest
from fleetmem.connect.guard import Guard, run_guarded
from fleetmem.connect.openssh.algorithms import CERTIFICATE
from fleetmem.connect.ssh import asyncssh


class PlainConnector:
    """Logs in with `asyncssh.connect`. The guard is there, and cannot look into the connection."""

    waits_for_decisions = False

    async def connect(self, request: LoginRequest) -> asyncssh.SSHClientConnection:
        """See `Connector`."""
        connection = await asyncssh.connect(tunnel=_GuardedWay(request), **_options(request))
        if request.on_begun:
            request.on_begun(connection)
        return connection

    def lighten(self, connection: asyncssh.SSHClientConnection) -> None:
        """Nothing: what it could do without is private."""

    def take_apart(self, connection: asyncssh.SSHClientConnection) -> None:
        """Nothing: what refers to a connection that has ended is private."""


class _GuardedWay:
    """Puts a guard between a connection and the way to its host; asyncssh calls it as it calls a tunnel."""

    def __init__(self, request: LoginRequest) -> None:
        self._request = request

    async def create_connection(self, session_factory: Any, remote_host: str, remote_port: int) -> Any:
        """Returns the transport, and the connection that asyncssh has made for it."""
        connection = session_factory()
        guard = Guard(connection, self._request.allowance_seconds)
        return await run_guarded(guard, self._request.via, (remote_host, remote_port)), connection


def _options(request: LoginRequest) -> dict[str, Any]:
    """Returns asyncssh's options: known keys are asked about one by one, as the ssh configuration may refuse them.

    It does not ask about certificates. Where the ssh configuration wants something of theirs, the host's plain key has
    to do.
    """
    options, algorithms = request.options, request.algorithms
    if options["known_hosts"] is None:
        return options
    _keys, authorities, *others = options["known_hosts"]
    host_keys = options["server_host_key_algs"]
    if algorithms.ca_signature_list is not None or algorithms.rsa_bits:
        authorities = []
        host_keys = [name for name in host_keys if not name.endswith(CERTIFICATE)]
    return options | {"known_hosts": ([], authorities, *others), "server_host_key_algs": host_keys}
