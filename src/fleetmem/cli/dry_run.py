"""Samples a fleet for `fleetmem plan` and weighs what would be sent, instead of sending it."""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from fleetmem.capacity.load import HostLoad, Load, Scales, places_of, routes
from fleetmem.capacity.schemas import Schema
from fleetmem.config import Settings
from fleetmem.model import Failure, Host, Outcome
from fleetmem.wiring.fleet import FleetParts

_CYCLES = 3


@dataclass(slots=True)
class DryRun:
    """Samples a fleet and counts, instead of sending.

    Args:
        fleet: its sinks are not used.
        settings: says what would be sent where.

    Attributes:
        failures: of the last cycle.
        loads: of hosts that have answered.
        new: names of series that were not there in the cycle before.
    """

    fleet: FleetParts
    settings: Settings
    failures: list[Failure] = field(default_factory=list)
    loads: dict[Host, HostLoad] = field(default_factory=dict)
    new: dict[Host, frozenset[str]] = field(default_factory=dict)
    _scales: Scales = field(init=False)

    def __post_init__(self) -> None:
        self._scales = Scales(self.settings, self.fleet.names)

    async def run(self, at_once: int) -> None:
        """Samples all hosts three times, an interval apart: how fast series come and go shows between the last two.

        Between the first two, the probe's own shells and awk have just come.
        """
        interval = self.fleet.settings.run.interval_seconds
        self.fleet.collector.sinks.clear()
        try:
            for cycle in range(1, _CYCLES + 1):
                begun = time.monotonic()
                self.failures.clear()
                print(f"cycle {cycle} of {_CYCLES}, {len(self.fleet.hosts)} hosts", file=sys.stderr)
                await self._cycle(at_once)
                if not self.loads:
                    break
                if cycle < _CYCLES:
                    await asyncio.sleep(begun + interval - time.monotonic())
        finally:
            await self.fleet.collector.close()
            await self.fleet.reach.close()

    async def _cycle(self, at_once: int) -> None:
        slots = asyncio.Semaphore(at_once)

        async def visit(host: Host) -> None:
            async with slots:
                self.add(await self.fleet.collector.sample(host))

        async with asyncio.TaskGroup() as group:
            for host in self.fleet.hosts:
                group.create_task(visit(host))

    def add(self, outcome: Outcome) -> None:
        """Weighs an outcome."""
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            return
        before, host = self.loads.get(outcome.host), outcome.host
        load = self.loads[host] = self._scales.weigh(outcome)
        self.new[host] = load.names - before.names if before else frozenset()

    def load(self, schemas: Sequence[Schema]) -> Load:
        """Returns what all hosts that answer would send in a cycle.

        Args:
            schemas: of Graphite.
        """
        load, ways = Load(new_series=0), routes(self.settings)
        for host, one in self.loads.items():
            load.add(one, places_of(one.names, ways, schemas))
            new = places_of(self.new[host], ways, schemas)
            load.new_series = (load.new_series or 0) + len(self.new[host])
            load.new_bytes += sum(schemas[place].retention.file_bytes * count for place, count in new.items())
        return load

    def write_lines(self, file: TextIO) -> None:
        """Writes every line that a cycle would send, as StatsD gets it."""
        file.writelines(load.lines.decode("ascii") for load in self.loads.values())
