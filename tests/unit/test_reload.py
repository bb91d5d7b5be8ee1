import asyncio
import gc
import os
import signal
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import cast

import pytest

from fleetmem import sampler
from fleetmem.build import Fleet, build_fleet
from fleetmem.config import load
from fleetmem.daemon import Daemon
from fleetmem.lab.directory import Directory
from fleetmem.lab.simulated_host import Plan
from fleetmem.lab.simulator import Simulator
from fleetmem.model import CollectorStats, Host, Outcome, Sample
from fleetmem.schedule import Grid
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.sink import Sink, SinkStats


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


def test_stuck_sinks_hold_up_a_reload_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a reload removes are given their time side by side: no host is sampled meanwhile."""
    monkeypatch.setattr(sampler, "DRAIN_SECONDS", 0.5)
    settings = load(None, {"inventory": {"hosts": ["127.0.0.1:1"]}})
    fleet = build_fleet(settings, lambda _path: None)
    fleet.collector.sinks += [cast("Sink", _Stuck()) for _ in range(10)]
    sampled = asyncio.Event()
    running = Daemon(fleet, lambda: settings, lambda _outcome: sampled.set())

    async def main() -> None:
        task = asyncio.create_task(running.run())
        await asyncio.sleep(0.2)
        sampled.clear()
        begun = time.monotonic()
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(30):
            await sampled.wait()
        seconds = time.monotonic() - begun
        running.stop()
        await task
        assert seconds < 2

    asyncio.run(main())


def _left() -> Counter[str]:
    """Returns how many there are of what a reload might leave behind: a traceback leads to all that there was."""
    kinds = (asyncio.Task, asyncio.Timeout, TracebackType, Fleet, Grid)
    return Counter(type(found).__name__ for found in gc.get_objects() if isinstance(found, kinds))


def test_a_reload_leaves_nothing(tmp_path: Path) -> None:
    """At once: the garbage collector looks at what is old once an hour only."""
    hosts = 5
    left: list[Counter[str]] = []

    async def main() -> None:
        async with Simulator(Directory(tmp_path), Plan(hosts, 5, 0.1, 1, {})):
            settings = load(Directory(tmp_path).config, {"run": {"interval_seconds": 0.2}})
            outcomes: list[Outcome] = []
            running = Daemon(build_fleet(settings, lambda _path: None), lambda: settings, outcomes.append)
            task = asyncio.create_task(running.run())
            async with asyncio.timeout(30):
                for _ in range(4):
                    outcomes.clear()
                    while len(outcomes) < 5 * hosts:  # noqa: ASYNC110 - counters have been told by then, too
                        await asyncio.sleep(0.01)
                    left.append(_left())
                    os.kill(os.getpid(), signal.SIGHUP)
            running.stop()
            await task
            assert all(isinstance(outcome, Sample) for outcome in outcomes)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
    assert all(later <= left[0] for later in left), left
