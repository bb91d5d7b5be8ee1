import asyncio
import gc
import pickle
import threading
from dataclasses import replace

import pytest

from fleetmem.config import load
from fleetmem.connect import reach
from fleetmem.connect.target import Target
from fleetmem.connect.way import Way
from fleetmem.errors import Kind
from fleetmem.model import Failure, Host, Outcome
from fleetmem.sampling.sampler import Sampler, SamplerSpec
from fleetmem.sampling.schedule import Grid
from fleetmem.telemetry.report import Report
from fleetmem.wiring.fleet_spec import FleetSpec
from fleetmem.wiring.host_settings import match_overrides

_HOSTS = tuple(Host(f"web{number}", "127.0.0.1", port=1) for number in range(4))
_INTERVAL_SECONDS = 0.2


def _spec(sampled: tuple[Host, ...] = _HOSTS) -> SamplerSpec:
    settings = load(None, {"statsd": {"server": ["127.0.0.1:9"]}, "run": {"interval_seconds": _INTERVAL_SECONDS}})
    fleet = FleetSpec(settings, _HOSTS, tuple(host.name for host in _HOSTS), settings.ssh.reach(), 0)
    return SamplerSpec(fleet, Grid.of(_INTERVAL_SECONDS, sampled))


async def _run_until(sampler: Sampler, enough: asyncio.Event) -> Report:
    """Runs a sampler until there is enough; returns what it tells in the end."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(sampler.run())
        await enough.wait()
        await sampler.stop()
    return sampler.report()


@pytest.mark.slow
def test_a_sampler_from_a_pickled_spec_in_a_thread() -> None:
    """Another thread, which can set no signals, owns one that is made from plain values: each host has its outcomes."""
    data = pickle.dumps(_spec())
    outcomes: list[Outcome] = []
    reports: list[Report] = []
    refused: list[bool] = []

    async def main() -> None:
        with pytest.raises((RuntimeError, ValueError)):
            asyncio.get_running_loop().add_signal_handler(15, print)
        refused.append(True)
        enough = asyncio.Event()

        def take(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if len(outcomes) == 3 * len(_HOSTS):
                enough.set()

        sampler = Sampler.of(pickle.loads(data), lambda _path: None, take)  # noqa: S301 - our own
        reports.append(await _run_until(sampler, enough))

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(30)
    assert refused
    (report,) = reports
    assert {outcome.host for outcome in outcomes} == set(_HOSTS)
    assert report.cycle.failures == {Kind.UNREACHABLE: len(outcomes)}
    assert report.totals["handshakes_total"] >= len(_HOSTS)
    assert [sink.name for sink in report.sinks] == ["statsd"]


@pytest.mark.slow
def test_hosts_without_a_place_are_not_sampled() -> None:
    """They have their names and series all the same: others may bring their outcomes."""
    names: list[str] = []

    async def main() -> None:
        enough = asyncio.Event()

        def take(outcome: Outcome) -> None:
            names.append(outcome.host.name)
            if len(names) == 6:
                enough.set()

        await _run_until(Sampler.of(_spec(_HOSTS[:2]), lambda _path: None, take), enough)

    asyncio.run(main())
    assert set(names) == {"web0", "web1"}


@pytest.mark.slow
def test_no_outcome_is_kept_until_the_next_one() -> None:
    """Thousands of hosts wait for their next slot; an outcome with all its rows for each of them is 100 KB."""
    kept: list[int] = []

    async def main() -> None:
        enough = asyncio.Event()
        seen: list[int] = []

        def take(outcome: Outcome) -> None:
            seen.append(id(outcome))
            if len(seen) == 3 * len(_HOSTS):
                asyncio.get_running_loop().call_later(_INTERVAL_SECONDS / 20, look)

        def look() -> None:
            kept.append(sum(isinstance(thing, Failure) for thing in gc.get_objects() if id(thing) in seen))
            enough.set()

        await _run_until(Sampler.of(_spec(), lambda _path: None, take), enough)

    asyncio.run(main())
    assert kept == [0]


def _spec_with(server: str, groups: frozenset[str] = frozenset(), generation: int = 0) -> SamplerSpec:
    """Returns the spec of hosts in these groups, of which `slow` has a limit of its own."""
    overrides = [{"match": "slow", "command_timeout_seconds": 7}]
    flags = {"statsd": {"server": [server]}, "run": {"interval_seconds": _INTERVAL_SECONDS}, "overrides": overrides}
    hosts = (*(replace(host, groups=groups) for host in _HOSTS), Host("spare", "127.0.0.1", port=1, groups=_SLOW))
    settings = load(None, flags)
    matches, names = match_overrides(settings, hosts), tuple(host.name for host in hosts)
    fleet = FleetSpec(settings, hosts, names, settings.ssh.reach(), 0, matches=matches)
    return SamplerSpec(fleet, Grid.of(_INTERVAL_SECONDS, _HOSTS), generation)


_SLOW = frozenset({"slow"})


def _drain_slowly(sampler: Sampler, seconds: float) -> None:
    """Lets the sink of a sampler take so long, when it is gone."""

    async def drain() -> None:
        await asyncio.sleep(seconds)

    sampler.fleet.collector.sinks[0].drain = drain  # type: ignore[method-assign]


@pytest.mark.slow
def test_a_stop_while_a_sink_that_is_gone_drains() -> None:
    """The sampler ends, and what has come with the reload is not begun any more."""

    async def main() -> None:
        sampler = Sampler.of(_spec_with("127.0.0.1:9"), lambda _path: None)
        _drain_slowly(sampler, 0.5)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            running = group.create_task(sampler.run())
            await asyncio.sleep(0.1)
            spec = _spec_with("127.0.0.1:10", generation=1)
            taking = group.create_task(sampler.take(await sampler.rebuild(spec, lambda _path: None), spec.grid))
            await asyncio.sleep(0.1)
            assert not taking.done()
            await sampler.stop()
            await running

    asyncio.run(main())


@pytest.mark.slow
def test_hosts_are_sampled_while_a_sink_that_is_gone_drains() -> None:
    """Each of them in its slots: none is missed, and none is late."""
    late_seconds: list[float] = []

    async def main() -> None:
        sampler = Sampler.of(_spec_with("127.0.0.1:9"), lambda _path: None)
        _drain_slowly(sampler, 4 * _INTERVAL_SECONDS)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(sampler.run())
            await asyncio.sleep(0.1)
            sampler.report()
            spec = _spec_with("127.0.0.1:10", generation=1)
            await sampler.take(await sampler.rebuild(spec, lambda _path: None), spec.grid)
            await asyncio.sleep(2 * _INTERVAL_SECONDS)
            cycle = sampler.report().cycle
            late_seconds.extend(cycle.late_seconds)
            assert cycle.missed == 0
            assert cycle.outcomes >= 4 * len(_HOSTS)
            await sampler.stop()

    asyncio.run(main())
    assert late_seconds
    assert max(late_seconds) < 0.75 * _INTERVAL_SECONDS


@pytest.mark.slow
def test_a_host_that_changes_while_it_is_sampled_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its login ends, or it would leave a connection that nobody knows; the slot counts as missed."""
    begun: list[Target] = []
    ended: list[Target] = []

    async def hang(target: Target) -> Way:
        begun.append(target)
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(target)
        raise AssertionError

    async def main() -> None:
        sampler = Sampler.of(_spec_with("127.0.0.1:9"), lambda _path: None)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(sampler.run())
            while len(begun) < len(_HOSTS):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            spec = _spec_with("127.0.0.1:9", _SLOW)
            await sampler.take(await sampler.rebuild(spec, lambda _path: None), spec.grid)
            await asyncio.sleep(2 * _INTERVAL_SECONDS)
            assert len(ended) == len(_HOSTS)
            assert [target.access.command_timeout_seconds for target in begun] == [5] * len(_HOSTS) + [7] * len(_HOSTS)
            assert sampler.report(until=2**40).cycle.missed == len(_HOSTS)
            await sampler.stop()

    monkeypatch.setattr(reach, "open_way", hang)
    asyncio.run(main())
