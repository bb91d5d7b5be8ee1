import asyncio
import gc
import pickle
import threading
import time

import pytest

from fleetmem.build import FleetSpec
from fleetmem.config import load
from fleetmem.errors import Kind
from fleetmem.model import Failure, Host, Outcome
from fleetmem.report import Report
from fleetmem.sampler import Sampler, SamplerSpec
from fleetmem.schedule import Grid

_HOSTS = tuple(Host(f"web{number}", "127.0.0.1", port=1) for number in range(4))
_INTERVAL_SECONDS = 0.2


def _spec(sampled: tuple[Host, ...] = _HOSTS) -> SamplerSpec:
    settings = load(None, {"statsd": {"server": ["127.0.0.1:9"]}, "run": {"interval_seconds": _INTERVAL_SECONDS}})
    fleet = FleetSpec(settings, _HOSTS, tuple(host.name for host in _HOSTS), settings.ssh.reach(), 0)
    return SamplerSpec(fleet, Grid(time.monotonic(), _INTERVAL_SECONDS, {}).with_hosts(sampled))


async def _run_until(sampler: Sampler, enough: asyncio.Event) -> Report:
    """Runs a sampler until there is enough; returns what it tells in the end."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(sampler.run())
        await enough.wait()
        await sampler.stop()
    return sampler.report()


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
    assert report.totals.handshakes_total >= len(_HOSTS)
    assert [sink.name for sink in report.sinks] == ["statsd"]


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
