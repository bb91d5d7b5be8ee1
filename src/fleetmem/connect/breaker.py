"""A circuit breaker: a wrong user or key is not tried on every host of a fleet.

    unproven ──one host lets us in──> proven: no more of it until the configuration changes
       │
       └── so many hosts refuse, and none lets us in ──> open: one host is tried now and then, the others wait for it

As long as a user and his keys are unproven, no more logins are at work with them than may be refused.
"""

import asyncio
import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fleetmem.connect.backoff import Backoff, NotTriedError, OwnError
from fleetmem.connect.target import Identities, Target
from fleetmem.errors import HostError, Kind, Stage

log = logging.getLogger(__name__)

_NO_REFUSALS = (NotTriedError, OwnError)
_PROBING = Backoff(first_seconds=60, longest_seconds=600)

_YOUNG_SECONDS = 1.0
"""A login that takes longer no longer keeps others waiting: a host that hangs would hold up the fleet."""


class WithheldError(NotTriedError):
    """A host was not tried, as too many before it had refused the same user and keys."""


class Breaker:
    """Watches what becomes of one user with one set of keys.

    Args:
        user: the login name, for people.
        most_refusals: hosts that may refuse while none has let them in; 0 for no limit.
    """

    def __init__(self, user: str, most_refusals: int) -> None:
        self._user = user
        self._most = most_refusals
        self._is_proven = most_refusals == 0
        self._refused_by: set[tuple[str, str, int]] = set()
        self._young = 0
        self._change = asyncio.Event()
        self._is_probing = False
        self._probes = 0
        self._not_before = 0.0

    def attempt(self, server: tuple[str, str, int]) -> "Attempt":
        """Returns what a login has to keep this informed by.

        Raises:
            WithheldError: so many hosts have refused that this one is not to be tried.
        """
        is_probe = self.is_open and not self._is_probing and time.monotonic() >= self._not_before
        if self.is_open and not is_probe:
            raise self.refusal()
        self._is_probing = self._is_probing or is_probe
        return Attempt(self, server, is_probe=is_probe)

    @property
    def is_open(self) -> bool:
        """Whether hosts are not tried."""
        return not self._is_proven and len(self._refused_by) >= self._most

    async def begin(self, *, is_probe: bool) -> bool:
        """Waits until a login may offer its first key; returns whether it may."""
        while not self._is_proven and not is_probe:
            if self.is_open:
                return False
            if len(self._refused_by) + self._young < self._most:
                return True
            await self._change.wait()
        return True

    def count(self, change: int) -> None:
        """Counts the logins that have begun and have not come to anything yet."""
        self._young += change
        self._tell()

    def end(self, server: tuple[str, str, int], error: HostError | None, *, is_probe: bool) -> None:
        """Takes what has come of a login: None where the host let us in."""
        was_open = self.is_open
        self.give_up(is_probe=is_probe)
        if error is None:
            if was_open:
                log.info("%s is let in again", self._user)
            self._is_proven = True
        elif error.kind is Kind.AUTH_FAILED and not self._is_proven and not isinstance(error, _NO_REFUSALS):
            self._refused_by.add(server)
            if self.is_open and (is_probe or not was_open):
                self._probes += 1
                self._not_before = time.monotonic() + _PROBING.wait_seconds(self._probes, random.random)
            if self.is_open and not was_open:
                log.warning("%s; the others are not tried, except one now and then", self._count())
        self._tell()

    def give_up(self, *, is_probe: bool) -> None:
        """Takes it that a login was broken off here: it says nothing about user and keys."""
        self._is_probing = self._is_probing and not is_probe
        self._tell()

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def _count(self) -> str:
        return f"{len(self._refused_by)} hosts have refused {self._user} with these keys, and none has let it in"

    def refusal(self) -> WithheldError:
        """Returns what to say of a host that is not tried."""
        return WithheldError(Stage.LOGIN, Kind.AUTH_FAILED, f"not tried: {self._count()}; fix it on one of them first")


class Attempt:
    """One login's part in it."""

    def __init__(self, breaker: Breaker, server: tuple[str, str, int], *, is_probe: bool) -> None:
        self._breaker = breaker
        self._server = server
        self._is_probe = is_probe
        self._ageing: asyncio.TimerHandle | None = None
        self._is_withheld = False

    async def begin(self) -> bool:
        """Waits until a key may be offered; returns whether it may."""
        if not await self._breaker.begin(is_probe=self._is_probe):
            self._is_withheld = True
            return False
        self._breaker.count(1)
        self._ageing = asyncio.get_running_loop().call_later(_YOUNG_SECONDS, self._grow_old)
        return True

    def _grow_old(self) -> None:
        if self._ageing:
            self._ageing.cancel()
            self._ageing = None
            self._breaker.count(-1)

    def refusal(self) -> WithheldError | None:
        """Returns why no key was offered, None where one might have been."""
        return self._breaker.refusal() if self._is_withheld else None

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Takes what has come of it."""
        if not self._is_withheld and (error is None or isinstance(error, HostError)):
            self._breaker.end(self._server, error, is_probe=self._is_probe)
        else:
            self._breaker.give_up(is_probe=self._is_probe)
        self._grow_old()


class Breakers:
    """The breakers of a fleet: one for each user with his keys.

    Attributes:
        withheld_total: logins that were not tried.
    """

    def __init__(self, most_refusals: int) -> None:
        self.withheld_total = 0
        self._most = most_refusals
        self._breakers: dict[tuple[str, Identities], Breaker] = {}

    def forget(self, target: Target) -> None:
        """Forgets who refused a user, where his keys are others now; what he was let in with stays proven."""
        key = target.user, target.access.identities
        if key in self._breakers and self._breakers[key].is_open:
            del self._breakers[key]

    @contextmanager
    def attempt(self, target: Target) -> Iterator[Attempt]:
        """Lets a login be tried, and takes what comes of it.

        Raises:
            WithheldError: it is not to be tried.
        """
        key = target.user, target.access.identities
        if key not in self._breakers:
            self._breakers[key] = Breaker(target.user, self._most)
        try:
            with self._breakers[key].attempt(target.server) as attempt:
                yield attempt
        except WithheldError:
            self.withheld_total += 1
            raise
