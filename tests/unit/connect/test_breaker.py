import asyncio
import time

import pytest

from fleetmem.connect import breaker
from fleetmem.connect.backoff import OwnError
from fleetmem.connect.breaker import Breakers, WithheldError
from fleetmem.connect.ssh_settings import SshSettings
from fleetmem.connect.target import Target
from fleetmem.errors import HostError, Kind, Stage
from unit.connect.targets import resolve

_REFUSED = HostError(Stage.LOGIN, Kind.AUTH_FAILED, "no")
_TIMED_OUT = HostError(Stage.LOGIN, Kind.LOGIN_TIMEOUT, "late")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        """Returns what it shows."""
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The breaker's clock; it stands still."""
    clock = Clock()
    monkeypatch.setattr(breaker, "time", clock)
    return clock


def _host(number: int, user: str = "u") -> Target:
    return resolve(f"web{number}", SshSettings(user=user))


async def _log_in(breakers: Breakers, target: Target, error: HostError | None) -> None:
    """Does what a login does, up to an end of its own."""
    with breakers.attempt(target) as attempt:
        if not await attempt.begin():
            refusal = attempt.refusal()
            assert refusal
            raise refusal
        if error:
            raise error


def _outcome(breakers: Breakers, target: Target, error: HostError | None = None) -> str:
    """Returns what a login comes to: `in`, `withheld`, or its own failure."""
    try:
        asyncio.run(_log_in(breakers, target, error))
    except WithheldError:
        return "withheld"
    except HostError as failure:
        return str(failure.kind)
    return "in"


def test_so_many_hosts_may_refuse(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The fifth refusal ends it: no host is tried any more, and each of those is counted; one line says so."""
    breakers = Breakers(5)
    assert [_outcome(breakers, _host(number), _REFUSED) for number in range(5)] == ["auth_failed"] * 5
    assert [_outcome(breakers, _host(number)) for number in range(5, 9)] == ["withheld"] * 4
    assert breakers.withheld_total == 4
    (message,) = caplog.messages
    assert message.startswith("5 hosts have refused u with these keys, and none has let it in; ")


def test_what_fails_on_this_machine_is_no_refusal(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """An agent that hangs, or a key file that is none, opens no breaker: the hosts have refused nothing."""
    breakers = Breakers(5)
    for kind in (Kind.AGENT_UNAVAILABLE, Kind.AUTH_FAILED):
        error = OwnError(Stage.LOGIN, kind, "no agent")
        assert [_outcome(breakers, _host(number), error) for number in range(20)] == [str(kind)] * 20
    assert not caplog.messages


def test_the_same_host_counts_once(clock: Clock) -> None:
    """Four hosts that refuse again and again are four: each has a wait of its own."""
    breakers = Breakers(5)
    for _ in range(3):
        assert [_outcome(breakers, _host(number), _REFUSED) for number in range(4)] == ["auth_failed"] * 4


def test_once_let_in_all_are_tried(clock: Clock) -> None:
    """A host that lets us in proves user and keys for good."""
    breakers = Breakers(5)
    assert _outcome(breakers, _host(0)) == "in"
    assert [_outcome(breakers, _host(number), _REFUSED) for number in range(1, 30)] == ["auth_failed"] * 29


def test_other_failures_say_nothing(clock: Clock) -> None:
    """A host that is slow or away neither proves nor refuses anything."""
    breakers = Breakers(2)
    assert [_outcome(breakers, _host(number), _TIMED_OUT) for number in range(9)] == ["login_timeout"] * 9
    assert [_outcome(breakers, _host(number), _REFUSED) for number in (10, 11)] == ["auth_failed"] * 2
    assert _outcome(breakers, _host(12)) == "withheld"


def test_one_host_is_tried_now_and_then(clock: Clock) -> None:
    """After a minute one may, then after two; when it is let in, all may."""
    breakers = Breakers(1)
    assert _outcome(breakers, _host(0), _REFUSED) == "auth_failed"
    clock.seconds += 59
    assert _outcome(breakers, _host(1)) == "withheld"
    clock.seconds += 17  # a minute, and a quarter of it at most
    assert _outcome(breakers, _host(2), _REFUSED) == "auth_failed"
    assert _outcome(breakers, _host(3)) == "withheld"
    clock.seconds += 119
    assert _outcome(breakers, _host(3)) == "withheld"
    clock.seconds += 32
    assert _outcome(breakers, _host(3)) == "in"
    assert [_outcome(breakers, _host(number)) for number in range(4, 9)] == ["in"] * 5


def test_only_one_at_a_time_tries(clock: Clock) -> None:
    """While one host is tried the others wait; what comes of it makes way for the next."""

    async def two_at_once() -> None:
        clock.seconds += 76
        with breakers.attempt(_host(1)) as attempt:
            assert await attempt.begin()
            with pytest.raises(WithheldError), breakers.attempt(_host(2)):
                pass

    breakers = Breakers(1)
    _outcome(breakers, _host(0), _REFUSED)
    asyncio.run(two_at_once())
    assert _outcome(breakers, _host(3)) == "in"


def test_a_try_that_is_broken_off(clock: Clock) -> None:
    """A login that is cancelled is none: the next host may try in its place, and nothing is proven."""
    breakers = Breakers(1)
    _outcome(breakers, _host(0), _REFUSED)
    clock.seconds += 76
    with pytest.raises(asyncio.CancelledError), breakers.attempt(_host(1)):
        raise asyncio.CancelledError
    assert _outcome(breakers, _host(2), _REFUSED) == "auth_failed"
    assert _outcome(breakers, _host(3)) == "withheld"


def test_users_and_keys_have_one_each(clock: Clock) -> None:
    """A wrong key of one group stops no other group."""
    breakers = Breakers(1)
    assert _outcome(breakers, _host(0, "wrong"), _REFUSED) == "auth_failed"
    assert _outcome(breakers, _host(1, "wrong")) == "withheld"
    assert _outcome(breakers, _host(1, "right")) == "in"


def test_no_limit(clock: Clock) -> None:
    """0 tries every host."""
    breakers = Breakers(0)
    assert [_outcome(breakers, _host(number), _REFUSED) for number in range(30)] == ["auth_failed"] * 30


@pytest.fixture
def _short_youth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "_YOUNG_SECONDS", 0.05)


async def _try_at_once(breakers: Breakers, hosts: int, seconds: float, error: HostError | None) -> list[float]:
    """Logs in to many hosts at once; returns when each of those that could offered its key."""
    begun, offered = time.monotonic(), []

    async def visit(number: int) -> None:
        try:
            with breakers.attempt(_host(number)) as attempt:
                if await attempt.begin():
                    offered.append(time.monotonic() - begun)
                    await asyncio.sleep(seconds)
                    if error:
                        raise error
        except HostError:
            pass

    async with asyncio.TaskGroup() as group:
        for number in range(hosts):
            group.create_task(visit(number))
    return offered


def test_no_more_at_work_than_may_refuse() -> None:
    """Of 30 logins that are on their way at once five offer a key; when these are refused, no other does."""
    assert len(asyncio.run(_try_at_once(Breakers(5), 30, 0.02, _REFUSED))) == 5


def test_the_others_follow_the_first_that_is_let_in() -> None:
    """All 30 are let in, the others as soon as the first is."""
    assert len(asyncio.run(_try_at_once(Breakers(5), 30, 0.02, None))) == 30


@pytest.mark.slow
@pytest.mark.usefixtures("_short_youth")
def test_hosts_that_hang_hold_up_nobody_for_long() -> None:
    """Logins that take their time make way for others after a while, five by five."""
    offered = asyncio.run(_try_at_once(Breakers(5), 20, 1.0, _TIMED_OUT))
    assert len(offered) == 20
    assert max(offered) < 0.9, "all have begun before the first is over"
