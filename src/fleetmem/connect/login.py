"""Logins: from a socket, or a jump host's connection, to an authenticated SSH connection."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from fleetmem.connect.asyncssh_private.pipelined import PipelinedConnection
from fleetmem.connect.breaker import Attempt
from fleetmem.connect.guard import ALLOWANCE_SECONDS, run_guarded
from fleetmem.connect.host_keys import HostKeys, Known
from fleetmem.connect.host_words import HostWords
from fleetmem.connect.key_ring import KeyRing, Offer
from fleetmem.connect.openssh.algorithms import Algorithms
from fleetmem.connect.openssh.config_file import local_user
from fleetmem.connect.ssh import asyncssh
from fleetmem.connect.ssh_settings import HostKeyPolicy
from fleetmem.connect.target import Target
from fleetmem.connect.translate import within
from fleetmem.connect.way import Way
from fleetmem.errors import HostError, Kind, Stage

OnBegun = Callable[[asyncssh.SSHClientConnection], None]

_NO_OPTIONS: Any = None
_COMPRESSION = ["zlib@openssh.com", "zlib", "none"]
_NO_COMPRESSION = ["none"]  # a host may choose any that is offered: 200 KB become 200 MB


class Client(asyncssh.SSHClient):
    """Answers asyncssh's questions during a login, and keeps the refusals that it would reduce to a sentence.

    Args:
        target: who is logged in to.
        host_keys: decides about its key.
        offer: the keys to offer it.
        attempt: asked before the first key is offered.
        on_closed: called once the connection has ended, however it did.

    Attributes:
        refusal: why the host was refused, or not tried, by us.
    """

    def __init__(
        self,
        target: Target,
        host_keys: HostKeys,
        offer: Offer,
        attempt: Attempt | None,
        on_closed: Callable[[], None],
    ) -> None:
        self.refusal: HostError | None = None
        self._limit: asyncio.Timeout | None = None
        self._target = target
        self._host_keys: HostKeys | None = host_keys
        self._accepted: asyncssh.SSHKey | None = None
        self._undecided: asyncssh.SSHKey | None = None
        self._offer: Offer | None = offer
        self._attempt = attempt
        self._on_closed = on_closed
        self._connection: asyncssh.SSHClientConnection | None = None

    def take_limit(self, limit: asyncio.Timeout) -> None:
        """Takes the limit of the login."""
        self._limit = limit

    def forget_login(self) -> None:
        """Lets go of what only the login needed: connections outlive many a reload, each of which has other host keys.

        The limit knows its task, and that all that it works with.
        """
        self._limit = self._attempt = self._offer = self._host_keys = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Decides about a key that is not among the known ones; after the login it must be the same one."""
        if self._host_keys is None or self._accepted or self._undecided:
            return key in (self._accepted, self._undecided)
        try:
            is_known = self._host_keys.is_known(self._target, key)
        except HostError as error:
            self.refusal = error
            return False
        self._accepted, self._undecided = (key, None) if is_known else (None, key)
        return True

    @property
    def is_undecided(self) -> bool:
        """Whether the host's key has not been decided about. Nothing of the login goes to the host before that."""
        return self._undecided is not None

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
            asyncio.get_running_loop().call_soon(_take_apart, connection)  # asyncssh is about to end it


def lighten(connection: asyncssh.SSHClientConnection) -> None:
    """Lets go of what the login and the start of a channel needed: more than a third of a connection's 24 KB.

    What a new key exchange needs it makes anew, but for the algorithms, which all connections have in common. There can
    be no other channel after this.
    """
    connection._options = _NO_OPTIONS
    for name in ("_kex_algs", "_enc_algs", "_mac_algs", "_cmp_algs", "_sig_algs"):
        setattr(connection, name, _shared(tuple(getattr(connection, name))))
    if connection._kex_complete:  # a host may want new keys as soon as the login is over
        connection._client_kexinit = connection._server_kexinit = b""
    connection._server_sig_algs = set()
    for channel in connection._channels.values():
        channel._command = None  # 5 KB, another one for each host


def _take_apart(connection: asyncssh.SSHClientConnection) -> None:
    """Cuts what leads from an ended connection to itself: else it stays until the garbage collector has a look.

    That is seldom, with so much that stays: hundreds of broken logins, 15 to 30 KB each, wait for it.
    """
    waiter, connection._waiter = connection._waiter, None
    if waiter and waiter.done() and not waiter.cancelled() and (error := waiter.exception()):
        error.with_traceback(None)  # its frames have the options, and these the waiter
    connection._recv_handler = _do_nothing
    connection.__dict__.pop("send_packet", None)


def _do_nothing() -> bool:
    return False


@lru_cache(maxsize=64)
def _shared(names: tuple[bytes, ...]) -> list[bytes]:
    """Returns the same list for the same names."""
    return list(names)


class Login:
    """Logs in, with the keys and known hosts of a fleet."""

    def __init__(self, host_keys: HostKeys, keys: KeyRing) -> None:
        self._host_keys = host_keys
        self._keys = keys
        # asyncssh looks the name up for each login, and gives up where there is none, or no file can be opened for it.
        os.environ.setdefault("LOGNAME", local_user())

    async def public_keys(self, target: Target) -> frozenset[bytes]:
        """Returns the keys and certificates that a login would offer now."""
        return await self._keys.public_keys(target)

    async def connect(
        self, target: Target, way: Way, attempt: Attempt | None = None, on_begun: OnBegun | None = None
    ) -> asyncssh.SSHClientConnection:
        """Returns an authenticated connection. The way to the host is closed with it, or at once where there is none.

        Args:
            target: who to log in to.
            way: leads there.
            attempt: asked before the first key is offered; None for jump hosts, which have waits of their own.
            on_begun: called with the connection before the login: a channel that it asks for then goes with the login.

        Raises:
            HostError: the host is not the one that is known, does not let us in, or took too long.
        """
        offer = await self._keys.offer(target)
        known = self._host_keys.known(target)
        client = Client(target, self._host_keys, offer, attempt, way.close)
        words = HostWords()
        options = _options(target, known) | {"client_factory": lambda: client}
        limit_seconds = target.access.login_timeout_seconds + way.open_seconds
        try:
            connecting = _connect(
                options, client, offer, words, target.access.algorithms, way, is_jump=attempt is None, on_begun=on_begun
            )
            connection = await within(limit_seconds, Stage.LOGIN, connecting, take_limit=client.take_limit)
        except HostError as error:
            try:
                # Bare: what is explained may be that error, which must not be its own cause.
                raise (await way.explain(self._explain(error, target, client, offer, words))).bare() from error
            finally:
                way.abandon()
        except BaseException:
            way.abandon()
            raise
        self._keys.note_accepted(target, offer)
        client.forget_login()
        connection.forget_login()
        return connection

    def _explain(self, error: HostError, target: Target, client: Client, offer: Offer, words: HostWords) -> HostError:
        """Returns the refusal behind what asyncssh made of it."""
        if client.refusal:
            return client.refusal
        if away := offer.blame_agent(error, target.access.login_timeout_seconds):
            return away
        if error.kind is Kind.HOST_KEY_UNKNOWN and "revoked" in error.message:  # a certificate's key, or its authority
            return self._host_keys.revoked(target)
        if error.kind is Kind.AUTH_FAILED:
            error = offer.refused(words)
        return words.explain(error)


async def _connect(
    options: dict[str, Any],
    client: Client,
    offer: Offer,
    words: HostWords,
    algorithms: Algorithms,
    way: Way,
    *,
    is_jump: bool,
    on_begun: OnBegun | None,
) -> PipelinedConnection:
    """Does what `asyncssh.connect` does, but for what it does for others: a look-up of the name, files, a thread."""
    loop = asyncio.get_running_loop()
    prepared = asyncssh.SSHClientConnectionOptions(loop=loop, **options)
    prepared.waiter = logged_in = loop.create_future()
    connection = PipelinedConnection(prepared, offer, words, algorithms, client)
    # A jump host's bytes are those of all hosts behind it.
    allowance_seconds = None if is_jump else ALLOWANCE_SECONDS
    try:
        await run_guarded(connection, way.sock or way.tunnel, (options["host"], options["port"]), allowance_seconds)
        if on_begun:
            on_begun(connection)
        await logged_in
    except BaseException:
        logged_in.cancel()
        if connection.get_extra_info("peername"):  # otherwise there is nothing yet
            connection.abort()
            await connection.wait_closed()
        raise
    return connection


def _options(target: Target, known: Known) -> dict[str, Any]:
    """Returns what asyncssh is told: all of it, so that it reads no configuration and no key by itself."""
    access, algorithms = target.access, target.access.algorithms
    is_insecure = access.trust.policy is HostKeyPolicy.INSECURE
    options: dict[str, Any] = {
        "host": target.address,
        "port": target.port,
        "username": target.user,
        "config": None,
        # Revoked keys go to asyncssh only for certificates, whose keys it does not ask about.
        "known_hosts": None
        if is_insecure
        else (known.keys, known.authorities, known.revoked if known.authorities else [], [], [], [], []),
        "host_key_alias": target.certified_as,
        "server_host_key_algs": known.algorithms(target),
        "encryption_algs": algorithms.ciphers,
        "mac_algs": algorithms.macs,
        "kex_algs": algorithms.key_exchanges,
        "signature_algs": algorithms.signatures,
        "compression_algs": _COMPRESSION if access.is_compressed else _NO_COMPRESSION,
        "client_keys": None,  # none but those that the client is asked for
        "agent_path": None,
        "host_based_auth": False,
        "kbdint_auth": False,
        "password_auth": False,
        "gss_auth": access.has_gssapi,
        "gss_kex": access.has_gssapi_exchange,
        "login_timeout": 0,  # ours is around it, with stages told apart
        "connect_timeout": None,
        "keepalive_interval": access.keepalive_seconds,
        "keepalive_count_max": access.keepalive_count,
        "tcp_keepalive": access.has_tcp_keepalive,
    }
    if access.rekey_bytes:
        options["rekey_bytes"] = access.rekey_bytes
    if access.rekey_seconds:
        options["rekey_seconds"] = access.rekey_seconds
    return options
