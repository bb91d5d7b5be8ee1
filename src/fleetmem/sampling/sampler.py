"""What samples a fleet: each host in its slots, its outcomes to the sinks.

           Turns: who is asked when ──> Collector.sample ──> outcome ──> counters of its cycle, log, listener
             ^ slots of a `Grid`               └──> sinks, each with a task of its own

A sampler is made from plain values, a clock and a listener. It touches no signal, no global and no terminal, so that a
process, a thread or another machine can own it. Who owns it tells it what to sample, and asks it for its `Report`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from fleetmem.connect.keys import AskPassphrase
from fleetmem.errors import SinkError
from fleetmem.model import CollectorStats, Outcome
from fleetmem.runtime.stop_budget import DISCONNECT_SECONDS, DRAIN_SECONDS
from fleetmem.runtime.usage import own_usage
from fleetmem.sampling.failure_log import FailureLog
from fleetmem.sampling.schedule import Grid, GridClock
from fleetmem.sampling.turns import Flight, Turns
from fleetmem.sinks.sink import Service, Sink, SinkState, SinkStats
from fleetmem.telemetry.bugs import Bugs
from fleetmem.telemetry.cycles import Cycles
from fleetmem.telemetry.report import Report
from fleetmem.wiring.fleet import FleetParts, assemble, build
from fleetmem.wiring.fleet_spec import FleetSpec
from fleetmem.wiring.reading import prepare_aside

log = logging.getLogger(__name__)

_LONGEST_SLEEP_SECONDS = 1.0  # between two looks at the wall clock
_SHORTEST_SLEEP_SECONDS = 0.001
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_seconds() -> float:
    """Returns the time of a clock that nobody sets, and that goes on while the machine sleeps where there is one."""
    return time.clock_gettime(_CLOCK)


Listener = Callable[[Outcome], None]
"""Is called with each outcome."""


@dataclass(frozen=True, slots=True)
class SamplerSpec:
    """All that a sampler is made from: plain and picklable.

    Attributes:
        fleet: hosts, and how to reach, ask and shape them, and where to send that.
        grid: when they are sampled.
        generation: of the configuration; the same one where only hosts are different.
    """

    fleet: FleetSpec
    grid: Grid
    generation: int = 0


class Begin(NamedTuple):
    """When a sampler begins, where it has been made before that is known, or takes the place of another one.

    Attributes:
        from_unix_seconds: slots from then on are its own.
    """

    from_unix_seconds: float


class Sampler:
    """Samples a fleet until it is stopped.

    Args:
        fleet: which.
        grid: when each host is sampled; those without a phase are not.
        on_outcome: called with each outcome.
        now: a clock that nobody sets.
        wall: the wall clock, which slots go by.
        is_strict: bugs surface, for tests; else each costs one host, or one sink, what it happened to.
    """

    def __init__(
        self,
        fleet: FleetParts,
        grid: Grid,
        on_outcome: Listener | None = None,
        now: Callable[[], float] = elapsed_seconds,
        wall: Callable[[], float] = time.time,
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
        self._wall = wall
        self._failures = FailureLog()
        self._cycles = Cycles()
        self._generation = 0
        self._limit_seconds = fleet.longest_sample_seconds
        self._turns: Turns | None = None
        self._flights: dict[Flight, asyncio.Task[None]] = {}  # by identity: a host's hash is of all that it has
        self._timer: asyncio.Handle | None = None
        self._services: dict[Service, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._taking = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._drain_seconds = DRAIN_SECONDS

    @classmethod
    def of(cls, spec: SamplerSpec, ask_passphrase: AskPassphrase, on_outcome: Listener | None = None) -> "Sampler":
        """Returns the sampler that a spec describes.

        Raises:
            UsageError: hosts, keys or the ssh configuration cannot be used.
            SinkError: the spool of a sink cannot be used.
        """
        sampler = cls(build(spec.fleet, ask_passphrase), spec.grid, on_outcome)
        sampler._generation = spec.generation
        return sampler

    @property
    def fleet(self) -> FleetParts:
        """What it samples."""
        return self._fleet

    @property
    def bugs(self) -> Bugs:
        """Counts what goes wrong by a fault of ours."""
        return self._bugs

    async def run(self, begin: Begin | None = None) -> None:
        """Samples until `stop`; then delivers what is queued and disconnects, within 5 s.

        Args:
            begin: the first slots, as an earlier sampler leaves them; None for slots from now on.
        """
        now = self._now()
        clock = GridClock(now, self._wall())
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._begin_services()
            from_unix_seconds = begin.from_unix_seconds if begin else clock.unix(now)
            self._turns = Turns(self._grid, clock, self._limit_seconds, from_unix_seconds, self._cycles.miss)
            self._take_turns()
            try:
                await self._stopping.wait()
            finally:
                await self._end_sampling()
                await self._shut_down()

    async def stop(self, spent_seconds: float = 0.0) -> None:
        """Ends the sampling at once; `run` returns when all is delivered.

        Args:
            spent_seconds: of the time in which sinks drain, what is over already.
        """
        self._drain_seconds -= spent_seconds
        await self._end_sampling()
        self._stopping.set()

    async def _end_sampling(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer, self._turns = None, None
        await self._cancel(list(self._flights))

    async def _cancel(self, flights: Iterable[Flight]) -> None:
        """Ends samples, and waits until they have ended."""
        tasks = [self._flights.pop(flight) for flight in flights]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _take_turns(self) -> None:
        """Begins what is due, and comes back when something is again."""
        turns, loop = self._turns, asyncio.get_running_loop()
        if turns is None:
            return
        try:
            now = self._follow_clock(turns)
            for flight in turns.due(now):
                self._flights[flight] = loop.create_task(self._sample(flight))
        except Exception as bug:  # noqa: BLE001 - a host may lose its slot, the fleet goes on
            self._note("sampler", bug)
        seconds = min(turns.next_at - self._now(), self._grid.interval_seconds / 4, _LONGEST_SLEEP_SECONDS)
        self._timer = loop.call_later(max(seconds, _SHORTEST_SLEEP_SECONDS), self._take_turns)

    def _follow_clock(self, turns: Turns) -> float:
        """Lets the grid follow the wall clock; returns the time."""
        before, wall, now = self._now(), self._wall(), self._now()
        if now - before < _SHORTEST_SLEEP_SECONDS and turns.clock.follow(now, wall, self._grid.interval_seconds):
            log.warning("the clock has been set: the slots of all hosts follow it")
            turns.move(now)
            self._cycles.fold(self._grid.cycle_of(turns.clock.unix(now)))
        return now

    def _note(self, place: str, bug: Exception) -> None:
        """Notes a bug outside the tasks of the group; where bugs surface, it ends them."""
        if self._group:
            self._group.create_task(self._surface(place, bug))

    async def _surface(self, place: str, bug: Exception) -> None:
        self._bugs.note(place, bug)

    async def _sample(self, flight: Flight) -> None:
        host, fleet = flight.host, self._fleet
        try:
            outcome = await fleet.collector.sample(fleet.latest.get(host, host), flight.slot_unix_seconds)
            self._add(outcome, flight)
        except Exception as bug:  # noqa: BLE001 - one slot is lost
            self._note(f"host {host.name}", bug)
        finally:
            if self._turns:
                self._turns.lose(flight, self._now())  # where there was no outcome
            self._flights.pop(flight, None)

    def _add(self, outcome: Outcome, flight: Flight) -> None:
        """Counts an outcome. It is not kept: thousands of hosts sleep until their next one."""
        turns = self._turns
        if turns is None:
            return
        now = self._now()
        cycle = turns.done(flight, now)
        if cycle is not None:
            cycle_seconds = turns.clock.unix(now) - cycle * self._grid.interval_seconds
            self._cycles.of(cycle).add(outcome, flight.late_seconds, cycle_seconds)
            self._wake(turns, now)
        try:
            self._failures.add(outcome)
            if self._on_outcome:
                self._on_outcome(outcome)
        except Exception as bug:  # noqa: BLE001 - the host has its outcome, and so have the sinks
            self._bugs.note("output", bug)

    def _wake(self, turns: Turns, now: float) -> None:
        """Takes a turn that is due at once: that of a host whose sample was late."""
        if turns.next_at <= now and self._timer:
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_soon(self._take_turns)

    async def rebuild(self, spec: SamplerSpec, ask_passphrase: AskPassphrase) -> FleetParts:
        """Returns the fleet of another spec, for `take`; what it takes is read while the sampling goes on.

        With the same generation only hosts are different.

        Raises:
            UsageError, SinkError: see `of`; nothing has changed then.
        """
        fleet = spec.fleet
        if spec.generation == self._generation:
            fleet = replace(fleet, settings=self._fleet.settings)  # the very same: what came from it is kept
        prepared = await prepare_aside(fleet, ask_passphrase, self._fleet)
        self._generation = spec.generation
        return assemble(prepared, self._fleet)

    async def take(self, fleet: FleetParts, grid: Grid) -> None:
        """Takes a fleet in the place of the one that it was built from: its sinks begin, those that are gone end.

        The sampling goes on meanwhile. Hosts that stay as they are keep their slots, and what is being sampled.

        Args:
            fleet: may have been built again, with all that hosts and sinks have in common taken over.
            grid: see `Turns.replace`.
        """
        async with self._taking:  # a fleet that is half in its place leaves connections behind
            if self._turns is None and not self._stopping.is_set():
                raise RuntimeError("takes a fleet before it runs")
            old, self._fleet, self._limit_seconds = self._fleet, fleet, fleet.longest_sample_seconds
            self._move_to(grid)
            # What still logs in, by ways or for a probe that are no more, would leave a connection to nobody.
            stay = grid.phases.keys() - old.collector.connected_hosts
            await self._cancel([flight for flight in self._flights if flight.host not in stay])
            await self._replace(old, fleet)

    def _move_to(self, grid: Grid) -> None:
        has_moved = grid.interval_seconds != self._grid.interval_seconds
        self._grid = grid
        if self._turns is None:
            return
        now = self._now()
        self._turns.replace(grid, now, self._limit_seconds)
        if has_moved:
            self._cycles.fold(grid.cycle_of(self._turns.clock.unix(now)))
        self._wake(self._turns, now)

    async def _replace(self, old: FleetParts, new: FleetParts) -> None:
        self._failures.keep(new.hosts)
        self._sink_states.clear()
        hosts, services, sinks = set(new.hosts), old.services, old.collector.sinks
        old.collector.sinks = new.collector.sinks  # for the samples that are under way
        async with asyncio.TaskGroup() as ending:  # side by side, for as long as that takes
            for sink in sinks:
                is_kept = sink in new.collector.sinks
                with self._bugs.caught(f"sink {sink.name}"):  # the series of hosts that are gone end there
                    sink.replace_hosts(new.names, hosts if is_kept else set(), time.time())
            for service in services:
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

    @property
    def is_sampling(self) -> bool:
        """Whether hosts have their turns: from the begin of `run` until `stop`."""
        return self._turns is not None

    @property
    def open_from(self) -> int:
        """The first cycle that has slots which are not settled."""
        return self._turns.open_from(self._now()) if self._turns else self._grid.cycle_of(self._wall()) + 1

    def report(self, until: int | None = None) -> Report:
        """Returns what happened since it was asked last, and how it is.

        Args:
            until: the last cycle to tell of, whether all its slots are settled or not; None for all that are.
        """
        collector, reach = self._fleet.collector, self._fleet.reach
        sinks = tuple(map(self._state_of, collector.sinks))  # before the count of bugs
        open_from = self.open_from if until is None else until + 1
        return Report(
            self._grid.interval_seconds,
            self._cycles.take_before(open_from),
            open_from,
            {
                "frames_resynced_total": collector.frames_resynced_total,
                "handshakes_total": collector.handshakes_total,
                "reconnects_total": collector.reconnects_total,
                "logins_withheld_total": reach.withheld_total,
                "outcomes_dropped_total": 0,
                "bugs_total": self._bugs.total,
            },
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
            async with asyncio.timeout(DISCONNECT_SECONDS):
                with self._bugs.caught("disconnecting"):
                    await self._fleet.collector.close()
                    await self._fleet.reach.close()

    async def _end(self, service: Service, task: asyncio.Task[None]) -> None:
        place = f"output {service.address}"
        try:
            with self._bugs.caught(place):
                await _drain(service, self._drain_seconds)
        finally:
            task.cancel()
            with self._bugs.caught(place):
                await service.close()


async def _drain(service: Service, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await service.drain()
    except (SinkError, TimeoutError) as error:
        log.warning(
            "%s: not everything was delivered: %s",
            service.address,
            error if isinstance(error, SinkError) else "no time left",
        )
