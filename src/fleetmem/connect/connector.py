"""What makes connections: `PipelinedConnector`, or `PlainConnector` where asyncssh is not as we know it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fleetmem.connect.guard import Via
from fleetmem.connect.host_words import HostWords
from fleetmem.connect.key_ring import Offer
from fleetmem.connect.openssh.algorithms import Algorithms
from fleetmem.connect.ssh import asyncssh

OnBegun = Callable[[asyncssh.SSHClientConnection], None]


class Gate(Protocol):
    """Keeps a login from beginning."""

    @property
    def is_undecided(self) -> bool:
        """Whether it does."""

    async def decide(self) -> None:
        """Opens. Raises an error of asyncssh's, with which the connection ends."""


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """One login.

    Attributes:
        options: all of asyncssh's options (`asyncssh.SSHClientConnectionOptions`).
        algorithms: what the ssh configuration wants of the host's key.
        offer: the keys to offer.
        words: takes what the host says meanwhile.
        gate: opens once the host's key has been decided about.
        via: leads to the host.
        allowance_seconds: see `Guard`.
        on_begun: called with the connection before the login, where that can be, or else behind it.
    """

    options: dict[str, Any]
    algorithms: Algorithms
    offer: Offer
    words: HostWords
    gate: Gate
    via: Via
    allowance_seconds: float | None
    on_begun: OnBegun | None


class Connector(Protocol):
    """Makes SSH connections.

    Attributes:
        waits_for_decisions: whether a login waits until the gate is open. Where it cannot, a host key that nobody has
            decided about yet is to be refused.
    """

    waits_for_decisions: bool

    async def connect(self, request: LoginRequest) -> asyncssh.SSHClientConnection:
        """Returns an authenticated connection. Raises what asyncssh and the OS do."""

    def lighten(self, connection: asyncssh.SSHClientConnection) -> None:
        """Lets go of what a connection has no more use for, once its only channel is open."""

    def take_apart(self, connection: asyncssh.SSHClientConnection) -> None:
        """Lets go of what a connection that has ended keeps of itself."""
