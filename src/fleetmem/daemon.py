"""`fleetmem run`: signals, reload, inventory, own counters, health. What samples is a `Sampler`.

start ──> sampler: each host in its slots ──> stop: drain sinks, disconnect
             ^                                  ^
             SIGHUP: new configuration          SIGTERM, SIGINT; a second one forces
             inventory read again: hosts come and go

What it comes to is kept in the fleet's `Health`, which its pages show, and told to systemd where that has started it.
"""

import asyncio
import logging
import math
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fleetmem.config import Settings
from fleetmem.engine.engine import Engine, Work
from fleetmem.engine.local_workers import LocalWorkers
from fleetmem.errors import SinkError, UsageError
from fleetmem.inventory.inventory import Inventory
from fleetmem.model import Outcome
from fleetmem.runtime.huge_pages import keep_in_huge_pages
from fleetmem.runtime.stop_budget import WORKERS_END_SECONDS, WORKERS_STOP_SECONDS
from fleetmem.runtime.stop_watch import StopWatch
from fleetmem.runtime.systemd import ServiceManager
from fleetmem.sampling.sampler import Listener, Sampler, elapsed_seconds
from fleetmem.sampling.schedule import Grid, GridClock
from fleetmem.sampling.turns import limit_cycles
from fleetmem.telemetry.report import add_up
from fleetmem.telemetry.selfstats import ConfigState, SelfStats
from fleetmem.wiring.fleet import FleetParts, Prepared, assemble
from fleetmem.wiring.fleet_spec import fleet_spec, read_inventory
from fleetmem.wiring.reading import READ_SECONDS, prepare_aside, read_aside

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_READY_SECONDS = 30.0  # for a worker to start; one that takes longer begins later
_FIRST_WAIT_SECONDS = 0.05  # for outcomes of a cycle that is over; doubled each time
_LONGEST_SLEEP_SECONDS = 1.0
_LATE_SECONDS = 10.0  # after the end of a cycle, where an interval is shorter
_ANSWER_SHARE = 0.5  # of an interval: so long workers may take to tell of it


def _ask_nobody(_key: Path) -> None:
    """Stands in for a person who types a passphrase: a daemon that reloads has none, and must not wait for one."""


def _on_one_line(error: Exception) -> str:
    """Returns a message without line breaks, which a log does not show as such."""
    first, *problems = (line.strip() for line in str(error).splitlines())
    return " ".join([first, "; ".join(problems)]).rstrip()


def _plan(fleet: FleetParts) -> str:
    return f"{len(fleet.hosts)} hosts every {fleet.settings.run.interval_seconds:g} s"


def _destinations(fleet: FleetParts) -> str:
    sinks = ", ".join(f"{sink.name} {sink.address}" for sink in fleet.collector.sinks)
    sites = "".join(f"; health: {site.address}" for site in fleet.sites.values())
    return (f", to {sinks}" if sinks else "") + sites


def _read_seconds(settings: Settings) -> float:
    """Returns how long a reading of the inventory may take: its own limit comes first, as that names the source."""
    return settings.inventory.timeout_seconds + READ_SECONDS


class Change(NamedTuple):
    """A new configuration, with all read that it names."""

    inventory: Inventory
    prepared: Prepared

    @property
    def settings(self) -> Settings:
        """The configuration."""
        return self.prepared.spec.settings


class Daemon:
    """Samples a fleet until it is asked to stop.

    Args:
        fleet: what to sample.
        load_settings: reads the configuration again, for SIGHUP.
        on_outcome: called with each outcome.
        manager: who wants to know how it is.
        workers: processes that sample. One is this one; of several, each has its share, and this one what there is
            once: signals, inventory, own counters, and sinks other than StatsD's.
        is_strict: bugs surface, for tests.
        stop_watch: ends the process where it hangs while it stops.
    """

    def __init__(
        self,
        fleet: FleetParts,
        load_settings: Callable[[], Settings],
        on_outcome: Listener | None = None,
        manager: ServiceManager | None = None,
        workers: int = 1,
        *,
        is_strict: bool = False,
        stop_watch: StopWatch | None = None,
    ) -> None:
        self.stats = SelfStats()
        self._load_settings = load_settings
        self._manager = manager or ServiceManager({})
        self._health = fleet.health
        self._on_outcome = on_outcome
        self._grid = _grid_of(fleet)
        self._generation = 0
        self._sample_seconds = fleet.longest_sample_seconds
        self._clock = GridClock(elapsed_seconds(), time.time())
        self._cycle: int | None = None  # which is reported next
        self._bugs = fleet.collector.bugs
        self._engine = self._make_engine(fleet, workers)
        self._sampler = Sampler(fleet, self._engine.grid_here(self._grid), on_outcome, is_strict=is_strict)
        self._inventory = fleet.inventory
        self._config = ConfigState().taken(time.time())
        self._is_untaken = False  # what the inventory had last
        self._stopping = asyncio.Event()
        self._stop_watch = stop_watch or StopWatch()
        self._reloading = asyncio.Event()
        self._replacing = asyncio.Lock()

    @property
    def _fleet(self) -> FleetParts:
        return self._sampler.fleet

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT; then delivers what is queued and disconnects, within 5 s."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reloading.set)
        with self._stop_watch.stopping(self.stop):
            await self._run()

    async def _run(self) -> None:
        log.info("sampling %s%s%s", _plan(self._fleet), self._shares(), _destinations(self._fleet))
        async with asyncio.TaskGroup() as group:
            members = [group.create_task(self._sampler.run()), group.create_task(self._engine.run())]
            watchdog = group.create_task(self._manager.feed_watchdog(lambda: self._health.is_alive))
            memory = group.create_task(keep_in_huge_pages())
            try:
                await self._wait_for_engine()
                self._engine.begin(self._unix())
                self._manager.started(_plan(self._fleet))
                while not self._stopping.is_set():
                    if change := await self._follow_until_change():
                        await self._reload_or_stop(group, change)
            finally:
                watchdog.cancel()
                memory.cancel()
                self._inventory.close()
                await self._shut_down(members)

    async def _wait_for_engine(self) -> None:
        """Lets samplers elsewhere start, so that the first cycle has all hosts; or this be stopped."""
        waits: list[asyncio.Task[Any]] = [
            asyncio.create_task(waiting) for waiting in (self._engine.until_ready(), self._stopping.wait())
        ]
        await asyncio.wait(waits, timeout=_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for waiting in waits:
            waiting.cancel()

    def _unix(self) -> float:
        """Returns the grid's time."""
        now = elapsed_seconds()
        if self._clock.follow(now, time.time(), self._grid.interval_seconds):
            self._cycle = None
            self._engine.move()
        return self._clock.unix(now)

    def stop(self) -> None:
        """Ends `run`, as SIGTERM does."""
        if self._stopping.is_set():
            return
        log.info("stopping")
        self._health.stop()
        self._manager.stopping()
        self._stopping.set()

    async def _follow_until_change(self) -> Change | None:
        """Works beside the sampling until it is time to stop, or there is a new configuration, which is returned."""
        self._health.begin(self._grid.interval_seconds, self._sample_seconds)
        async with asyncio.TaskGroup() as group:
            stop, reload = group.create_task(self._stopping.wait()), group.create_task(self._next_change())
            others = [stop, reload, group.create_task(self._report_cycles())]
            await asyncio.wait([stop, reload], return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                await self._replacing.acquire()  # a fleet that is half in its place leaves connections behind
                self._replacing.release()
            for task in others:
                task.cancel()
        return reload.result() if not reload.cancelled() and not self._stopping.is_set() else None

    async def _follow_inventory(self) -> None:
        """Reads the inventory again and again, beside the sampling, and takes the hosts that come, go or change."""
        seconds = self._fleet.settings.inventory.refresh_seconds
        while seconds and self._inventory.can_change:
            await asyncio.sleep(seconds)
            try:
                refresh_seconds = _read_seconds(self._fleet.settings)
                is_changed = await read_aside(self._inventory.refresh, "inventory", refresh_seconds)
            except UsageError as error:
                log.warning("%s; the hosts stay as they are", error)
            else:
                if is_changed or self._is_untaken:
                    await self._take_hosts()

    async def _take_hosts(self) -> None:
        """Takes the hosts that the inventory has now; where that fails the next refresh tries again."""
        self._is_untaken = True
        old = self._fleet
        try:
            prepared = await prepare_aside(
                fleet_spec(old.settings, self._inventory, old.spec.identity), _ask_nobody, old
            )
        except (UsageError, SinkError) as error:
            log.error("inventory not taken, the hosts stay as they are: %s", _on_one_line(error))
            return
        new = assemble(prepared, old, self._inventory)
        async with self._replacing:
            await self._take(new, _grid_of(new))
        came, gone = len(set(new.hosts) - set(old.hosts)), len(set(old.hosts) - set(new.hosts))
        log.info("inventory taken: %d hosts, %d are new, %d are gone", len(new.hosts), came, gone)

    async def _report_cycles(self) -> None:
        """After each cycle: one line of what it came to, and the collector's own counters to the sinks.

        That is as soon as all its slots are settled, or when its time is over. What comes later counts in the next one.
        """
        while True:
            cycle = self._cycle = self._next_cycle()
            while self._unix() < self._grid.end_of(cycle) and self._cycle == cycle:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(min(_LONGEST_SLEEP_SECONDS, self._grid.end_of(cycle) - self._clock_unix()))
            if self._cycle == cycle:  # else the clock has been set
                await self._wait_for_outcomes(cycle)
                with self._bugs.caught("report"):
                    self._tell(cycle)
                self._cycle = cycle + 1

    def _clock_unix(self) -> float:
        return self._clock.unix(elapsed_seconds())

    def _next_cycle(self) -> int:
        """Returns the cycle that is reported next: the one after the last, unless that is long ago."""
        current = self._grid.cycle_of(self._unix())
        oldest = current - 1 - math.ceil(self._late_seconds / self._grid.interval_seconds)
        return current if self._cycle is None else max(oldest, min(self._cycle, current))

    @property
    def _late_seconds(self) -> float:
        """How long after its end a cycle is reported at the latest."""
        interval, most = self._grid.interval_seconds, max(self._grid.interval_seconds, _LATE_SECONDS)
        return min(most, limit_cycles(interval, self._sample_seconds) * interval)

    async def _wait_for_outcomes(self, cycle: int) -> None:
        interval, wait_seconds = self._grid.interval_seconds, _FIRST_WAIT_SECONDS
        until = self._grid.end_of(cycle) + self._late_seconds
        while True:
            await self._engine.ask(interval * _ANSWER_SHARE)
            left_seconds = until - self._unix()
            if self._has_told(cycle) or left_seconds <= 0 or self._cycle != cycle:
                break
            await asyncio.sleep(min(wait_seconds, left_seconds, interval / 4))
            wait_seconds = min(2 * wait_seconds, _LONGEST_SLEEP_SECONDS)
        if not self._has_told(cycle):
            await self._engine.ask(interval * _ANSWER_SHARE, cycle)

    def _has_told(self, cycle: int) -> bool:
        return self._sampler.open_from > cycle and self._engine.has_told(cycle)

    def _tell(self, cycle: int) -> None:
        here, told = self._sampler.report(cycle), self._engine.reports(cycle)
        workers = [state for state, _report in told]
        report = add_up([here, *(report for _state, report in told)])
        line = report.line(cycle, len(self._fleet.hosts))
        log.info("%s", line, extra=report.cycle.facts())
        self._health.add(report.cycle, line, report.sinks, workers)
        self._manager.show(self._health.line)
        commands_kept_apart = report.commands_kept_apart - here.commands_kept_apart
        shipped = self.stats.add(
            report.cycle,
            report.sinks,
            {
                **report.totals,
                "names_kept_apart": report.hosts_kept_apart + max(here.commands_kept_apart, commands_kept_apart),
                **self._inventory.stats._asdict(),
                **(report.usage._asdict() if report.usage else {}),
                "workers": sum(worker.pid is not None for worker in workers) if workers else 1,
                "workers_restarted_total": sum(worker.restarts_total for worker in workers),
                **self._config._asdict(),
            },
            cycle * self._grid.interval_seconds,
            [worker.pid for worker in workers],
        )
        self._sampler.put_stats(shipped)

    def _tell_end(self) -> None:
        """Ships the slots that were settled since the last report: before the sinks end, after the sampling."""
        cycle = self._grid.cycle_of(self._unix())
        reports = [self._sampler.report(cycle), *(report for _state, report in self._engine.reports(cycle))]
        if shipped := self.stats.finish(add_up(reports).cycle, cycle * self._grid.interval_seconds):
            self._sampler.put_stats(shipped)

    async def _next_change(self) -> Change:
        """Returns the next configuration that SIGHUP asks for, with all that it names; an invalid one is reported."""
        while True:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._follow_inventory())
                await self._reloading.wait()
                async with self._replacing:  # a fleet that is half in its place leaves connections behind
                    following.cancel()
            self._reloading.clear()
            self._manager.reloading()
            try:
                return await self._read_change()
            except (UsageError, SinkError) as error:
                self._keep_old(error)

    async def _read_change(self) -> Change:
        settings = await read_aside(self._load_settings, "configuration")
        read = partial(read_inventory, settings, self._inventory)
        inventory = await read_aside(read, "inventory", _read_seconds(settings))
        return Change(
            inventory,
            await prepare_aside(fleet_spec(settings, inventory, self._fleet.spec.identity), _ask_nobody, self._fleet),
        )

    async def _reload_or_stop(self, group: asyncio.TaskGroup, change: Change) -> None:
        """Does not wait for sinks that are gone with a reload when it is to stop: its own time runs beside theirs."""
        reload, stop = group.create_task(self._reload(change)), asyncio.create_task(self._stopping.wait())
        await asyncio.wait([reload, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()

    async def _reload(self, change: Change) -> None:
        """Takes a new configuration in place of the old one."""
        new = assemble(change.prepared, self._fleet, change.inventory)
        if change.settings.run.workers != self._fleet.settings.run.workers:
            log.warning("run.workers needs a restart: the number of workers stays as it is")
        self._inventory = change.inventory
        self._generation += 1
        await self._take(new, _grid_of(new))
        self._config = self._config.taken(time.time())
        log.info("configuration taken: %s%s%s", _plan(new), self._shares(), _destinations(new))
        if not self._stopping.is_set():
            self._manager.started(_plan(new))

    def _keep_old(self, error: Exception) -> None:
        self._config = self._config.refused()
        log.error("configuration not taken, the old one stays: %s", _on_one_line(error))
        self._manager.started("configuration not taken, the old one stays; the log says why")

    async def _take(self, new: FleetParts, grid: Grid) -> None:
        if grid.interval_seconds != self._grid.interval_seconds:
            self._cycle = None
        self._grid, self._sample_seconds = grid, new.longest_sample_seconds
        self._is_untaken = False
        _share_memory(new, len(self._engine.hosts_of_each))
        self._engine.take(self._work_of(new))
        await self._sampler.take(new, self._engine.grid_here(grid))

    def _make_engine(self, fleet: FleetParts, workers: int) -> Engine:
        count = workers if workers > 1 else 0
        _share_memory(fleet, count)
        return LocalWorkers(count, self._work_of(fleet), self._add, self._unix, self._bugs)

    def _work_of(self, fleet: FleetParts) -> Work:
        levels = {name: logging.getLogger(name).level for name in ("", "fleetmem", "asyncssh")}
        forwards = bool(fleet.single_sinks) or self._on_outcome is not None
        return Work(fleet.spec, self._grid, self._generation, forwards, fleet.reach.passphrases, levels)

    def _shares(self) -> str:
        hosts = self._engine.hosts_of_each
        return f" in {len(hosts)} workers with {', '.join(map(str, hosts))} hosts" if hosts else ""

    def _add(self, outcome: Outcome) -> None:
        """Takes an outcome that a worker has forwarded."""
        self._sampler.put(outcome)
        if self._on_outcome:
            with self._bugs.caught("output"):
                self._on_outcome(outcome)

    async def _shut_down(self, members: list[asyncio.Task[None]]) -> None:
        """Lets all deliver what they have, side by side; sinks here get what workers have sampled up to the end."""
        begun = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(WORKERS_STOP_SECONDS):
                await self._engine.stop()
        await self._sampler.stop(spent_seconds=time.monotonic() - begun)
        with self._bugs.caught("report"):
            self._tell_end()
        _done, late = await asyncio.wait(members, timeout=begun + WORKERS_END_SECONDS - time.monotonic())
        if late:
            self._engine.kill()
        await asyncio.wait(members)
        cycle = self._grid.cycle_of(self._unix())
        reports = [self._sampler.report(), *(report for _state, report in self._engine.reports(cycle))]
        totals = {sink.name: sink.counters for sink in add_up(reports).sinks}
        points = {f"{name}_points_sent": stats.points_sent_total for name, stats in totals.items()}
        datagrams = {f"{name}_datagrams_sent": stats.datagrams_sent_total for name, stats in totals.items()}
        log.info("stopped", extra=points | datagrams)


def _grid_of(fleet: FleetParts) -> Grid:
    return Grid.of(fleet.settings.run.interval_seconds, fleet.hosts)


def _share_memory(fleet: FleetParts, workers: int) -> None:
    """Lets the memory of series know how many processes have files in the state folder."""
    if fleet.memory and workers:
        fleet.memory.processes = workers + 1
