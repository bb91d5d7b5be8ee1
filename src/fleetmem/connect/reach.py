"""What all links share: keys, known hosts, limits on logins, the ssh configuration, jump hosts."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path

from fleetmem.connect.breaker import Breakers
from fleetmem.connect.choice import best_connector
from fleetmem.connect.connector import Connector, OnBegun
from fleetmem.connect.host_keys import AskAgainError, HostKeys
from fleetmem.connect.jumps import Jump, Jumps
from fleetmem.connect.key_ring import KeyRing
from fleetmem.connect.keys import AskPassphrase
from fleetmem.connect.login import Login
from fleetmem.connect.openssh.targets import Targets
from fleetmem.connect.rate_limit import RateLimit
from fleetmem.connect.ssh import asyncssh
from fleetmem.connect.ssh_settings import HostKeyPolicy, ReachSettings, SshSettings
from fleetmem.connect.target import Target
from fleetmem.connect.way import Way, open_way
from fleetmem.model import Host

log = logging.getLogger(__name__)

_NAMED = 5


class Reach:
    """Knows how to get at hosts. One for a whole fleet.

    Args:
        settings: how to reach the fleet.
        ask_passphrase: asks a person for the passphrase of a key.
        previous: a reach that this one takes the place of; the keys that it has read are taken over.
        connector: makes the connections; the best one that there is where nobody says which.

    Attributes:
        settings: how to reach the fleet.
    """

    def __init__(
        self,
        settings: ReachSettings,
        ask_passphrase: AskPassphrase,
        previous: "Reach | None" = None,
        connector: Connector | None = None,
    ) -> None:
        """Reads the ssh configuration.

        Raises:
            ConfigError: it cannot be used.
        """
        self.settings = settings
        self._resolver = Targets(settings)
        self._targets: dict[Host, Target] = {}
        self._is_insecure = False
        self._twins: list[tuple[str, ...]] = []
        self._keys: KeyRing = KeyRing(ask_passphrase, previous._keys if previous else None)
        self._host_keys: HostKeys = HostKeys(previous._host_keys if previous else None)
        self._connector = connector or best_connector()
        self._login = Login(self._host_keys, self._keys, self._connector)
        self._jumps = Jumps(self._login, settings.limits)
        self._breakers: Breakers = Breakers(settings.limits.most_refusals)
        self._resolving = threading.Lock()
        self._connect_slots = asyncio.Semaphore(settings.limits.max_connects)
        self._handshake_slots = asyncio.Semaphore(settings.limits.max_handshakes)
        self._turns = RateLimit(settings.limits.handshakes_per_second, settings.limits.max_handshakes)

    def resolve(self, hosts: Iterable[Host], ssh_of: Callable[[Host], SshSettings]) -> dict[Host, Target]:
        """Returns how hosts are reached, and reads the keys and known hosts that it takes.

        Args:
            hosts: which.
            ssh_of: what flags and configuration say of a host.

        Raises:
            UsageError: something cannot be used.
        """
        with self._resolving:  # a call that hangs may have been left behind; the next one comes in another thread
            targets = self._resolver.resolve_all(hosts, ssh_of)
            everybody = {target for each in targets.values() for target in (each, *each.jumps)}
            for access in dict.fromkeys(target.access for target in everybody):
                self._keys.prepare(access.identities)
                self._host_keys.prepare(access.trust)
        return targets

    def take(self, targets: dict[Host, Target], previous: "Reach | None" = None) -> None:
        """Makes hosts its own, and the connections to jump hosts of a reach that it takes the place of."""
        self._targets = targets
        if previous and previous is not self:
            self._breakers.withheld_total += previous.withheld_total
            self._jumps.adopt(previous._jumps, (target.jumps for target in targets.values()))
        policies = {target.access.trust.policy for each in targets.values() for target in (each, *each.jumps)}
        if HostKeyPolicy.INSECURE in policies and not (previous and previous._is_insecure):
            log.warning("host keys are not checked (insecure): whoever is in between can answer for the hosts")
        self._is_insecure = HostKeyPolicy.INSECURE in policies
        self._twins = _twins(targets)
        new = [twins for twins in self._twins if not previous or twins not in previous._twins]
        if new:
            names, more = " and ".join(new[0][:_NAMED]), f" ({len(new) - 1} more such addresses)" if new[1:] else ""
            log.warning("%s are one address, which is sampled for each of them%s", names, more)

    def target(self, host: Host) -> Target:
        """Returns how a host is reached."""
        return self._targets[host]

    @property
    def passphrases(self) -> dict[Path, str]:
        """Of the keys that have been read, for a process that reads them, too."""
        return self._keys.passphrases

    @property
    def withheld_total(self) -> int:
        """Logins that were not tried, as too many before them had been refused."""
        return self._breakers.withheld_total

    @asynccontextmanager
    async def login(
        self, target: Target, on_begun: OnBegun | None = None
    ) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Logs in to a host. Within the context the login has one of the places that there are for logins.

        Args:
            target: which host.
            on_begun: see `Login.connect`.

        Raises:
            NotTriedError: a jump host on the way failed, or too many hosts have refused the same user and keys.
            HostError: the host failed.
        """
        async with AsyncExitStack() as stack:
            yield await self._log_in(target, stack, on_begun)

    async def _log_in(
        self, target: Target, stack: AsyncExitStack, on_begun: OnBegun | None
    ) -> asyncssh.SSHClientConnection:
        await self._keys.check(target)
        try:
            return await self._try_to_log_in(target, stack, on_begun)
        except AskAgainError:
            await stack.aclose()  # the next login takes its place
            return await self._try_to_log_in(target, stack, on_begun)

    async def _try_to_log_in(
        self, target: Target, stack: AsyncExitStack, on_begun: OnBegun | None
    ) -> asyncssh.SSHClientConnection:
        jump = self._jumps.of(target.jumps)
        with self._breakers.attempt(target) as attempt:
            way = await self._open_way(target, jump, stack)
            try:
                async with jump.slots if jump else nullcontext():
                    return await self._login.connect(target, way, attempt, on_begun)
            except BaseException:
                way.abandon()
                raise

    async def _open_way(self, target: Target, jump: Jump | None, stack: AsyncExitStack) -> Way:
        """Returns a way to the host, with a place for its login."""
        if jump:
            await jump.renew()
            jump.check()
        await self._turns.wait()
        if jump:
            await jump.turns.wait()
        # A connection that waits for its login keeps its place here: with thousands waiting, hosts would hang up.
        async with nullcontext() if jump else self._connect_slots:
            way = await (jump.way_to(target) if jump else open_way(target))
            try:
                await stack.enter_async_context(self._handshake_slots)
            except BaseException:
                way.abandon()
                raise
            return way

    def lighten(self, connection: asyncssh.SSHClientConnection) -> None:
        """Lets go of what a connection has no more use for, once its only channel is open."""
        self._connector.lighten(connection)

    async def try_way(self, target: Target) -> None:
        """Opens the way to a host, and closes it again.

        Raises:
            NotTriedError: a jump host on the way failed.
            HostError: there is none. What a ProxyCommand would do, only a login shows.
        """
        if target.proxy_command:
            return
        async with AsyncExitStack() as stack:
            way = await self._open_way(target, self._jumps.of(target.jumps), stack)
            try:
                await way.check(target)
            finally:
                way.abandon()

    async def keys(self, target: Target) -> frozenset[bytes]:
        """Returns the keys and certificates that a login at a host would offer now."""
        return await self._keys.public_keys(target)

    async def has_other_keys(self, target: Target, refused: frozenset[bytes]) -> bool:
        """Whether others are there than those that were refused; then all who were refused with those may try again."""
        if await self.keys(target) in (refused, frozenset()):
            return False
        self._breakers.forget(target)
        return True

    async def close(self) -> None:
        """Closes the connections to jump hosts."""
        self._jumps.close()


def _twins(targets: dict[Host, Target]) -> list[tuple[str, ...]]:
    """Returns the names of hosts that are reached alike: of each address, its names, where there are several."""
    names: dict[tuple[object, ...], list[str]] = {}
    for host, target in targets.items():
        way = target.proxy_command, *(jump.server for jump in target.jumps)
        names.setdefault((target.address, target.port, *way), []).append(host.name)
    return [tuple(sorted(each)) for each in names.values() if len(each) > 1]
