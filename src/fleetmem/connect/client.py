"""What asyncssh asks during a login: whether the host's key will do, which key to offer."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fleetmem.connect.breaker import Attempt
from fleetmem.connect.connector import Connector
from fleetmem.connect.host_keys import AskAgainError, HostKeys
from fleetmem.connect.host_words import HostWords
from fleetmem.connect.key_ring import Offer
from fleetmem.connect.ssh import asyncssh
from fleetmem.connect.target import Target
from fleetmem.errors import HostError, Kind, Stage


class Client(asyncssh.SSHClient):
    """Answers asyncssh's questions during a login, and keeps the refusals that it would reduce to a sentence.

    Args:
        target: who is logged in to.
        host_keys: decides about its key.
        offer: the keys to offer it.
        words: takes its banner.
        attempt: asked before the first key is offered.
        connector: makes the connection.
        on_closed: called once the connection has ended, however it did.
        accepted: the host's key, where that was decided after the login before; None where it was not.

    Attributes:
        refusal: why the host was refused, or not tried, by us.
    """

    def __init__(
        self,
        target: Target,
        host_keys: HostKeys,
        offer: Offer,
        words: HostWords,
        attempt: Attempt | None,
        connector: Connector,
        on_closed: Callable[[], None],
        accepted: asyncssh.SSHKey | None = None,
    ) -> None:
        self.refusal: HostError | None = None
        self._limit: asyncio.Timeout | None = None
        self._target = target
        self._host_keys: HostKeys | None = host_keys
        self._accepted = accepted
        self._undecided: asyncssh.SSHKey | None = None
        self._offer: Offer | None = offer
        self._words: HostWords | None = words
        self._attempt = attempt
        self._connector = connector
        self._on_closed = on_closed
        self._connection: asyncssh.SSHClientConnection | None = None

    def take_limit(self, limit: asyncio.Timeout) -> None:
        """Takes the limit of the login."""
        self._limit = limit

    def forget_login(self) -> None:
        """Lets go of what only the login needed: connections outlive many a reload, each of which has other host keys.

        The limit knows its task, and that all that it works with.
        """
        self._limit = self._attempt = self._offer = self._words = self._host_keys = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Decides about a key that is not among the known ones; after the login it must be the same one."""
        if self._host_keys is None or self._accepted or self._undecided:
            return key in (self._accepted, self._undecided)
        if objection := self._target.access.algorithms.objection(key.public_data):
            self.refusal = HostError(Stage.LOGIN, Kind.HOST_KEY_UNKNOWN, objection)
            return False
        try:
            is_known = self._host_keys.is_known(self._target, key)
        except HostError as error:
            self.refusal = error
            return False
        self._accepted, self._undecided = (key, None) if is_known else (None, key)
        return is_known or self._connector.waits_for_decisions

    @property
    def is_undecided(self) -> bool:
        """Whether the host's key has not been decided about. Nothing of the login goes to the host before that."""
        return self._undecided is not None

    @property
    def accepted(self) -> asyncssh.SSHKey | None:
        """The host's key, once it is accepted."""
        return self._accepted

    async def decide(self) -> None:
        """Decides about the host's key, which is no time of the host's.

        Raises:
            asyncssh.HostKeyNotVerifiable: it is refused; `refusal` says why.
        """
        if self._host_keys is None or self._undecided is None:
            return
        try:
            with self._uncounted():
                await self._host_keys.decide(self._target, self._undecided)
        except HostError as error:
            self.refusal = error
            raise asyncssh.HostKeyNotVerifiable(error.message) from error
        self._accepted, self._undecided = self._undecided, None

    async def decide_afterwards(self) -> HostError | None:
        """Decides about a key that was refused only because the connection could not wait for the decision.

        Returns:
            why it stays refused, or that another login would not find it undecided; None where none was.
        """
        if self._connector.waits_for_decisions or self._undecided is None:
            return None
        self._limit = None  # the login is over
        with suppress(asyncssh.HostKeyNotVerifiable):
            await self.decide()
        return self.refusal or AskAgainError(Stage.LOGIN, Kind.HOST_KEY_UNKNOWN, "host key is known only now")

    def auth_banner_received(self, msg: str, lang: str) -> None:
        """The host has a word for whoever logs in."""
        if self._words:
            self._words.add_banner(msg.encode())

    async def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        """Returns the next key to offer."""
        if self._offer is None:
            return None
        if self._attempt and not self._offer.offered:
            with self._uncounted():
                may_begin = await self._attempt.begin()
            if not may_begin:
                self.refusal = self._attempt.refusal()
                return None
        key = self._offer.next()
        return [key] if key else None

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        """Stops the clock of the login while it waits for something that is not the host."""
        limit, begun = self._limit, asyncio.get_running_loop().time()
        when = limit.when() if limit else None
        if limit and when is not None:
            limit.reschedule(None)
        yield
        if limit and when is not None:
            with suppress(RuntimeError):  # it was cancelled meanwhile
                limit.reschedule(when + asyncio.get_running_loop().time() - begun)

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """The transport is open."""
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._on_closed()
        connection, self._connection = self._connection, None
        if connection:
            asyncio.get_running_loop().call_soon(self._connector.take_apart, connection)  # asyncssh is about to end it
