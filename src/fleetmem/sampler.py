"""What samples a fleet: each host in its slots, its outcomes to the sinks.

           HostTasks: one task per host ──> Collector.sample ──> outcome ──> counters, log, listener
             ^ places of a `Grid`                  └──> sinks, each with a task of its own

A sampler is made from plain values, a clock and a listener. It touches no signal, no global and no terminal, so that a
process, a thread or another machine can own it. Who owns it tells it what to sample, and asks it for its `Report`.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from fleetmem.bugs import Bugs
from fleetmem.build import Fleet, FleetSpec, assemble, build
from fleetmem.connect.keys import AskPassphrase
from fleetmem.errors import SinkError
from fleetmem.failure_log import FailureLog
from fleetmem.host_tasks import HostTasks
from fleetmem.model import CollectorStats, Host, Outcome
from fleetmem.reading import prepare_aside
from fleetmem.report import Report, Totals
from fleetmem.schedule import Grid, Schedule, Slot
from fleetmem.selfstats import CycleStats
from fleetmem.sinks.sink import Service, Sink, SinkState, SinkStats
from fleetmem.usage import own_usage

log = logging.getLogger("fleetmem.daemon")

DRAIN_SECONDS = 4.3  # a backlog is cleared in CATCH_UP_SECONDS
_DISCONNECT_SECONDS = 4.0

Listener = Callable[[Outcome], None]
"""Is called with each outcome."""


@dataclass(frozen=True, slots=True)
class SamplerSpec:
    """All that a sampler is made from: plain and picklable.

    Attributes:
        fleet: hosts, and how to reach, ask and shape them, and where to send that.
        grid: when they are sampled.
    """

    fleet: FleetSpec
    grid: Grid


class Begin(NamedTuple):
    """When a sampler begins, where it has been made before that is known, or takes the place of another one.

    Attributes:
        start_seconds: of the grid.
        from_seconds: slots from then on are its own.
    """

    start_seconds: float
    from_seconds: float


class Sampler:
    """Samples a fleet until it is stopped.

    Args:
        fleet: which.
        grid: when each host is sampled; those without a place are not.
        on_outcome: called with each outcome.
        now: the clock of the grid.
        is_strict: bugs surface, for tests; else each costs one host, or one sink, what it happened to.
    """

    def __init__(
        self,
        fleet: Fleet,
        grid: Grid,
        on_outcome: Listener | None = None,
        now: Callable[[], float] = time.monotonic,
        *,
        is_strict: bool = False,
    ) -> None:
        self._fleet = fleet
        self._bugs = fleet.collector.bugs  # of all fleets that take this one's place, too
        self._bugs.is_strict |= is_strict
        self._sink_states: dict[Sink, SinkState] = {}
        self._grid = grid
        self._on_outcome = on_outcome
        self._now = now
        self._failures = FailureLog()
        self._cycle = CycleStats()
        self._in_flight: set[Host] = set()
        self._services: dict[Service, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._tasks: HostTasks | None = None
        self._taking = asyncio.Lock()
        self._stopping = asyncio.Event()

    @classmethod
    def of(cls, spec: SamplerSpec, ask_passphrase: AskPassphrase, on_outcome: Listener | None = None) -> "Sampler":
        """Returns the sampler that a spec describes.

        Raises:
            UsageError: hosts, keys or the ssh configuration cannot be used.
            SinkError: the spool of a sink cannot be used.
        """
        return cls(build(spec.fleet, ask_passphrase), spec.grid, on_outcome)

    @property
    def fleet(self) -> Fleet:
        """What it samples."""
        return self._fleet

    @property
    def bugs(self) -> Bugs:
        """Counts what goes wrong by a fault of ours."""
        return self._bugs

    async def run(self, begin: Begin | None = None) -> None:
        """Samples until `stop`; then delivers what is queued and disconnects, within 5 s.

        Args:
            begin: see there; None for all slots of the grid.
        """
        if begin:
            self._grid = self._grid._replace(start_seconds=begin.start_seconds)
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._begin_services()
            self._tasks = HostTasks(group, self._sample_host)
            self._tasks.replace(self._grid, begin.from_seconds if begin else self._grid.start_seconds)
            try:
                await self._stopping.wait()
            finally:
                await self._tasks.end()
                await self._shut_down()

    async def stop(self) -> None:
        """Ends the sampling at once; `run` returns when all is delivered."""
        if self._tasks:
            await self._tasks.end()
        self._stopping.set()

    async def _sample_host(self, host: Host, schedule: Schedule, slot: Slot) -> None:
        while True:
            await asyncio.sleep(slot.at_seconds - self._now())
            late_seconds = self._now() - slot.at_seconds
            self._in_flight.add(host)
            try:  # an outcome has no name here: thousands would be kept until the next slots
                self._add(await self._fleet.collector.sample(self._fleet.latest.get(host, host)), late_seconds)
            finally:
                self._in_flight.discard(host)
            slot, missed = schedule.next_slot(slot, self._now())
            self._cycle.missed += missed

    def _add(self, outcome: Outcome, late_seconds: float) -> None:
        """Counts an outcome. It is not kept: thousands of hosts sleep until their next one."""
        self._cycle.add(outcome, late_seconds, self._grid.seconds_of_cycle(self._now()))
        try:
            self._failures.add(outcome)
            if self._on_outcome:
                self._on_outcome(outcome)
        except Exception as bug:  # noqa: BLE001 - the host has its outcome, and so have the sinks
            self._bugs.note("output", bug)

    async def rebuild(self, spec: SamplerSpec, ask_passphrase: AskPassphrase) -> Fleet:
        """Returns the fleet of another spec, for `take`; what it takes is read while the sampling goes on.

        With the same start of its grid only hosts are different.

        Raises:
            UsageError, SinkError: see `of`; nothing has changed then.
        """
        fleet = spec.fleet
        if spec.grid.start_seconds == self._grid.start_seconds:
            fleet = replace(fleet, settings=self._fleet.settings)  # the very same: what came from it is kept
        prepared = await prepare_aside(fleet, ask_passphrase, self._fleet)
        return assemble(prepared, self._fleet)

    async def take(self, fleet: Fleet, grid: Grid) -> None:
        """Takes a fleet in the place of the one that it was built from: its sinks begin, those that are gone end.

        Args:
            fleet: may have been built anew, with all that hosts and sinks have in common taken over.
            grid: with the same start, hosts that stay as they are are sampled on without a word; with another one, all
                begin anew.
        """
        async with self._taking:  # a fleet that is half in its place leaves connections behind
            if self._tasks is None:
                raise RuntimeError("takes a fleet before it runs")
            old, self._fleet = self._fleet, fleet
            begins_anew = grid.start_seconds != self._grid.start_seconds
            self._grid = grid
            if begins_anew:
                await self._tasks.end()
                missed, self._cycle = self._cycle.missed, CycleStats()  # hosts sampled anew must not count twice
                self._cycle.missed = missed
            else:
                # What still logs in, by ways or for a probe that are no more, would leave a connection to nobody.
                anew = old.collector.connected_hosts & grid.places.keys()
                self._cycle.missed += len(self._in_flight & anew)
                self._tasks.replace(grid, self._now(), anew)
            await self._replace(old, fleet)
            if begins_anew and not self._stopping.is_set():
                # Sinks that are gone may have taken seconds to drain; a slot is taken late as after a late sample.
                from_seconds = max(grid.start_seconds, self._now() - grid.interval_seconds / 2)
                self._cycle.missed += grid.slots_between(grid.start_seconds, from_seconds)
                self._tasks.replace(grid, from_seconds)

    async def _replace(self, old: Fleet, new: Fleet) -> None:
        self._failures.keep(new.hosts)
        self._sink_states.clear()
        hosts = set(new.hosts)
        async with asyncio.TaskGroup() as ending:  # side by side, for as long as that takes
            for sink in old.collector.sinks:
                is_kept = sink in new.collector.sinks
                with self._bugs.caught(f"sink {sink.name}"):  # the series of hosts that are gone end there
                    sink.replace_hosts(new.names, hosts if is_kept else set(), time.time())
            for service in old.services:
                if service not in new.services:
                    ending.create_task(self._end(service, self._services.pop(service)))
        self._begin_services()
        await old.collector.close()  # what the new one did not adopt
        if old.reach is not new.reach:
            await old.reach.close()

    def _begin_services(self) -> None:
        if self._stopping.is_set():  # while sinks that are gone drained
            return
        for service in self._fleet.services:
            if self._group and service not in self._services:
                running = self._bugs.keep_running(f"output {service.address}", service.run)
                self._services[service] = self._group.create_task(running)

    def report(self) -> Report:
        """Returns what happened since it was asked last, and how it is."""
        cycle, self._cycle = self._cycle, CycleStats()
        collector, reach = self._fleet.collector, self._fleet.reach
        sinks = tuple(map(self._state_of, collector.sinks))  # before the count of bugs
        return Report(
            self._grid.start_seconds,
            cycle,
            len(self._in_flight),
            Totals(
                collector.handshakes_total,
                collector.reconnects_total,
                reach.withheld_total,
                bugs_total=self._bugs.total,
            ),
            self._fleet.names.hosts_kept_apart,
            self._fleet.names.commands_kept_apart,
            own_usage(),
            sinks,
        )

    def _state_of(self, sink: Sink) -> SinkState:
        """Returns the state of a sink; where a bug hides it, the last one that is known: totals must not fall."""
        with self._bugs.caught(f"sink {sink.name}"):
            self._sink_states[sink] = SinkState.of(sink)
        return self._sink_states.get(sink) or SinkState(sink.name, sink.address, None, SinkStats())

    def put(self, outcome: Outcome) -> None:
        """Hands the outcome of a host that a worker samples to those sinks that workers do not have."""
        for sink in self._fleet.single_sinks:
            with self._bugs.caught(f"sink {sink.name}"):
                sink.put(outcome)

    def put_stats(self, stats: CollectorStats) -> None:
        """Ships the collector's own counters through its sinks."""
        for sink in self._fleet.collector.sinks:
            with self._bugs.caught(f"sink {sink.name}"):
                sink.put_stats(stats)

    async def _shut_down(self) -> None:
        async with asyncio.TaskGroup() as group:  # side by side: 5 s are all there is
            for service, task in self._services.items():
                group.create_task(self._end(service, task))
            group.create_task(self._disconnect())

    async def _disconnect(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCONNECT_SECONDS):
                with self._bugs.caught("disconnecting"):
                    await self._fleet.collector.close()
                    await self._fleet.reach.close()

    async def _end(self, service: Service, task: asyncio.Task[None]) -> None:
        place = f"output {service.address}"
        try:
            with self._bugs.caught(place):
                await _drain(service)
        finally:
            task.cancel()
            with self._bugs.caught(place):
                await service.close()


async def _drain(service: Service) -> None:
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await service.drain()
    except (SinkError, TimeoutError) as error:
        log.warning(
            "%s: not everything was delivered: %s",
            service.address,
            error if isinstance(error, SinkError) else "no time left",
        )
