import asyncio
import os
import signal
import time
from typing import cast

import pytest

from fleetmem import sampler
from fleetmem.build import build_fleet
from fleetmem.config import load
from fleetmem.daemon import Daemon
from fleetmem.model import CollectorStats, Host, Outcome
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
