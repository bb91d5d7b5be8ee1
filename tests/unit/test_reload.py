import asyncio
import gc
import logging
import os
import signal
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import cast

import pytest

from fleetmem.config import Settings, load
from fleetmem.connect.host_keys import HostKeys
from fleetmem.connect.key_ring import Experience, Offer
from fleetmem.connect.link import Link
from fleetmem.connect.reach import Reach
from fleetmem.daemon import Daemon
from fleetmem.lab.directory import Directory
from fleetmem.lab.simulated_host import SimulationPlan
from fleetmem.lab.simulator import Simulator
from fleetmem.model import CollectorStats, Host, Outcome, Sample
from fleetmem.runtime.stop_budget import DRAIN_SECONDS
from fleetmem.sampling import sampler
from fleetmem.sampling.sampler import Sampler
from fleetmem.sampling.schedule import Grid
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.sink import Sink, SinkStats
from fleetmem.wiring.fleet import FleetParts, build_fleet


class _Stuck:
    """A sink whose backend takes nothing."""

    name = address = "stuck"

    async def run(self) -> None:
        """Does nothing."""

    def put(self, outcome: Outcome) -> None:
        """Takes anything."""

    def put_stats(self, stats: CollectorStats) -> None:
        """Takes anything."""

    def stats(self) -> SinkStats:
        """Has counted nothing."""
        return SinkStats()

    def replace_hosts(self, names: FleetNames, hosts: set[Host], unix_seconds: float) -> None:
        """Has none."""

    async def drain(self) -> None:
        """Never ends."""
        await asyncio.sleep(60)

    async def close(self) -> None:
        """Has nothing to close."""


@pytest.mark.slow
@pytest.mark.timing
def test_stuck_sinks_hold_up_a_reload_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that a reload removes are given their time side by side."""
    monkeypatch.setattr(sampler, "DRAIN_SECONDS", 0.5)
    settings = load(None, {"inventory": {"hosts": ["127.0.0.1:1"]}})
    fleet = build_fleet(settings, lambda _path: None)
    fleet.collector.sinks += [cast("Sink", _Stuck()) for _ in range(10)]
    caplog.set_level(logging.INFO, "fleetmem")
    running = Daemon(fleet, lambda: settings)

    async def main() -> None:
        task = asyncio.create_task(running.run())
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(30):
            while "configuration taken" not in caplog.text:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        seconds = time.monotonic() - begun
        running.stop()
        await task
        assert seconds < 2

    asyncio.run(main())


@pytest.mark.slow
def test_the_time_for_workers_comes_out_of_that_for_sinks() -> None:
    """A stop that has waited for workers gives a stuck sink only what is left."""
    fleet = build_fleet(load(None, {"inventory": {"hosts": ["127.0.0.1:1"]}}), lambda _path: None)
    fleet.collector.sinks.append(cast("Sink", _Stuck()))

    async def main() -> None:
        stuck = Sampler(fleet, Grid.of(1.0, fleet.hosts))
        task = asyncio.create_task(stuck.run())
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        await stuck.stop(spent_seconds=DRAIN_SECONDS - 0.2)
        await task
        assert time.monotonic() - begun < DRAIN_SECONDS / 2

    asyncio.run(main())


_KINDS = (asyncio.Task, asyncio.Timeout, TracebackType, FleetParts, Grid, Settings, Reach, HostKeys, Experience, Offer)


def _left() -> Counter[str]:
    """Returns how many there are of what a reload might leave behind: a traceback leads to all that there was."""
    return Counter(type(found).__name__ for found in gc.get_objects() if isinstance(found, _KINDS))


@pytest.mark.slow
def test_a_reload_leaves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At once: the collector looks at what is old once an hour. Also where connections are of many generations."""
    hosts, reloads = 5, 4
    left: list[Counter[str]] = []
    caplog.set_level(logging.INFO, "fleetmem")

    async def main() -> None:
        def read() -> Settings:
            return load(Directory(tmp_path).config, {"run": {"interval_seconds": 0.2}})

        async with Simulator(Directory(tmp_path), SimulationPlan(hosts, 5, 0.1, 1, {})):
            outcomes: list[Outcome] = []
            running = Daemon(build_fleet(read(), lambda _path: None), read, outcomes.append)
            task = asyncio.create_task(running.run())
            async with asyncio.timeout(30):
                for number in range(1 + reloads):
                    if number:
                        os.kill(os.getpid(), signal.SIGHUP)
                        _abort_a_connection(number - 1)
                    while _is_sampling() or not _all_answered(outcomes, hosts):  # noqa: ASYNC110 - nothing tells
                        await asyncio.sleep(0.01)
                    left.append(_left())
                    outcomes.clear()
            running.stop()
            await task

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
    assert sum("configuration taken" in record.getMessage() for record in caplog.records) == reloads
    assert all(later <= left[0] for later in left), left


def _abort_a_connection(number: int) -> None:
    """Breaks the connection of a host, another one each time: it logs in again."""
    links = sorted((each for each in gc.get_objects() if isinstance(each, Link)), key=lambda link: link.host.name)
    connection = links[number]._connection
    assert connection
    connection.abort()


def _is_sampling() -> bool:
    """Whether a sample is on its way at this moment: hosts have turns of their own."""
    tasks = asyncio.all_tasks()
    return any(getattr(task.get_coro(), "__qualname__", "") == Sampler._sample.__qualname__ for task in tasks)


def _all_answered(outcomes: list[Outcome], hosts: int) -> bool:
    """Whether in the last five cycles all hosts have: a cycle's counters have been told by then, too."""
    newest = outcomes[-5 * hosts :]
    return len(newest) == 5 * hosts and all(isinstance(outcome, Sample) for outcome in newest)
