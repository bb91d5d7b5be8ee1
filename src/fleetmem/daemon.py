"""`fleetmem run`: schedule, signals, reload, drain.

start ──> one task per host: wait for its slot, sample, next slot ──> stop: drain sinks, disconnect
             ^                                                          ^
             SIGHUP: new configuration                                  SIGTERM, SIGINT; a second one forces
             inventory read again: hosts come and go

What it comes to is kept in the fleet's `Health`, which its pages show, and told to systemd where that has started it.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from fleetmem.build import Fleet, build_fleet, read_inventory
from fleetmem.config import Settings
from fleetmem.errors import Kind, SinkError, Stage, UsageError
from fleetmem.host_tasks import HostTasks
from fleetmem.inventory.inventory import Inventory
from fleetmem.model import Failure, Host, Outcome
from fleetmem.schedule import Schedule, Slot
from fleetmem.selfstats import CycleStats, SelfStats
from fleetmem.side_thread import SideThread
from fleetmem.sinks.sink import Service
from fleetmem.systemd import ServiceManager
from fleetmem.usage import own_usage

log = logging.getLogger("fleetmem.daemon")

_T = TypeVar("_T")

_DRAIN_SECONDS = 4.3  # a backlog is cleared in CATCH_UP_SECONDS
_DISCONNECT_SECONDS = 4.0
_SAME_SIGNAL_SECONDS = 0.1  # `timeout` signals its child and then its group: the child gets two


def _ask_nobody(_key: Path) -> None:
    """Stands in for a person who types a passphrase: a daemon that reloads has none, and must not wait for one."""


def _on_one_line(error: Exception) -> str:
    """Returns a message without line breaks, which a log does not show as such."""
    first, *problems = (line.strip() for line in str(error).splitlines())
    return " ".join([first, "; ".join(problems)]).rstrip()


def _plan(fleet: Fleet) -> str:
    return f"{len(fleet.hosts)} hosts every {fleet.settings.run.interval_seconds:g} s"


def _destinations(fleet: Fleet) -> str:
    sinks = ", ".join(f"{sink.name} {sink.address}" for sink in fleet.collector.sinks)
    sites = "".join(f"; health: {site.address}" for site in fleet.sites.values())
    return (f", to {sinks}" if sinks else "") + sites


async def _aside(work: Callable[[], _T]) -> _T:
    """Returns the result of a call that blocks, without waiting for it here, nor at the end of the process."""
    thread = SideThread("inventory")
    try:
        return await thread.call(work)
    finally:
        thread.end()


class Change(NamedTuple):
    """A new configuration, with its inventory read."""

    settings: Settings
    inventory: Inventory


class Running(NamedTuple):
    """What runs beside the sampling: the tasks of sinks and pages, and the group that they are in."""

    group: asyncio.TaskGroup
    tasks: dict[Service, asyncio.Task[None]]


class FailureLog:
    """Logs what changes: a host's failure once until its kind changes, and its recovery."""

    def __init__(self) -> None:
        self._failing: dict[Host, tuple[Stage, Kind]] = {}
        self._failures: dict[Host, int] = {}

    def add(self, outcome: Outcome) -> None:
        """Takes the outcome of a host."""
        host = outcome.host
        if isinstance(outcome, Failure):
            self._failures[host] = self._failures.get(host, 0) + 1
            if self._failing.get(host) != (outcome.stage, outcome.kind):
                self._failing[host] = outcome.stage, outcome.kind
                facts = {"host": host.name, "stage": str(outcome.stage), "kind": str(outcome.kind)}
                log.warning("%s", outcome.message, extra=facts)
        elif self._failing.pop(host, None):
            log.info("answers again after %d failed cycles", self._failures.pop(host), extra={"host": host.name})

    def keep(self, hosts: Iterable[Host]) -> None:
        """Forgets all other hosts."""
        hosts = set(hosts)
        self._failing = {host: what for host, what in self._failing.items() if host in hosts}
        self._failures = {host: count for host, count in self._failures.items() if host in hosts}


class Daemon:
    """Samples a fleet until it is told to stop.

    Args:
        fleet: what to sample.
        load_settings: reads the configuration again, for SIGHUP.
        on_outcome: called with each outcome.
        manager: who wants to know how it is.
    """

    def __init__(
        self,
        fleet: Fleet,
        load_settings: Callable[[], Settings],
        on_outcome: Callable[[Outcome], None] = lambda _outcome: None,
        manager: ServiceManager | None = None,
    ) -> None:
        self.stats = SelfStats()
        self._fleet = fleet
        self._load_settings = load_settings
        self._on_outcome = on_outcome
        self._manager = manager or ServiceManager({})
        self._health = fleet.health
        self._failures = FailureLog()
        self._cycle_stats = CycleStats()
        self._cycle_begun = 0.0
        self._stopping = asyncio.Event()
        self._stop_seconds = 0.0
        self._reloading = asyncio.Event()
        self._replacing = asyncio.Lock()

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT; then delivers what is queued and disconnects, within 5 s."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_or_force)
        loop.add_signal_handler(signal.SIGHUP, self._reloading.set)
        log.info("sampling %s%s", _plan(self._fleet), _destinations(self._fleet))
        async with asyncio.TaskGroup() as group:
            running = Running(group, {service: group.create_task(service.run()) for service in self._fleet.services})
            watchdog = group.create_task(self._manager.feed_watchdog(lambda: self._health.is_alive))
            self._manager.started(_plan(self._fleet))
            try:
                while not self._stopping.is_set():
                    change = await self._sample_until_change(running)
                    if change:
                        await self._reload(change, running)
            finally:
                watchdog.cancel()
                self._fleet.inventory.close()
                await self._shut_down(running)

    def stop(self) -> None:
        """Ends `run`, as SIGTERM does."""
        log.info("stopping")
        self._health.stop()
        self._manager.stopping()
        self._stop_seconds = time.monotonic()
        self._stopping.set()

    def _stop_or_force(self) -> None:
        if self._stopping.is_set():
            if time.monotonic() - self._stop_seconds < _SAME_SIGNAL_SECONDS:
                return
            log.warning("stopped at once: data in the queues is lost")
            os._exit(130)
        self.stop()

    async def _sample_until_change(self, running: Running) -> Change | None:
        """Samples all hosts until it is time to stop, or there is a new configuration, which is returned."""
        start, interval = time.monotonic(), self._fleet.settings.run.interval_seconds
        self._health.begin(interval, self._fleet.longest_sample_seconds)
        missed, self._cycle_stats = self._cycle_stats.missed, CycleStats()  # hosts sampled anew must not count twice
        self._cycle_stats.missed = missed
        async with asyncio.TaskGroup() as group:
            tasks = HostTasks(group, start, interval, self._sample_host)
            tasks.replace(self._fleet.hosts, start)
            stop, reload = group.create_task(self._stopping.wait()), group.create_task(self._next_change())
            beside = [self._report_cycles(start, interval), self._follow_inventory(tasks, running)]
            others = [stop, reload, *map(group.create_task, beside)]
            await asyncio.wait([stop, reload], return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                await self._replacing.acquire()  # a fleet that is half in its place leaves connections behind
                self._replacing.release()
            tasks.cancel()
            for task in others:
                task.cancel()
        return reload.result() if not reload.cancelled() and not self._stopping.is_set() else None

    async def _sample_host(self, host: Host, schedule: Schedule, slot: Slot) -> None:
        while True:
            await asyncio.sleep(slot.at_seconds - time.monotonic())
            late_seconds = time.monotonic() - slot.at_seconds
            self._add(await self._fleet.collector.sample(self._fleet.latest.get(host, host)), late_seconds)
            slot, missed = schedule.next_slot(slot, time.monotonic())
            self._cycle_stats.missed += missed

    def _add(self, outcome: Outcome, late_seconds: float) -> None:
        """Counts an outcome. It is not kept: thousands of hosts sleep until their next one."""
        self._cycle_stats.add(outcome, late_seconds, time.monotonic() - self._cycle_begun)
        self._failures.add(outcome)
        self._on_outcome(outcome)

    async def _follow_inventory(self, tasks: HostTasks, running: Running) -> None:
        """Reads the inventory again and again, beside the sampling, and takes the hosts that come, go or change."""
        seconds, inventory = self._fleet.settings.inventory.refresh_seconds, self._fleet.inventory
        while seconds and inventory.can_change:
            await asyncio.sleep(seconds)
            if await _aside(inventory.refresh):
                await self._take_hosts(tasks, running)

    async def _take_hosts(self, tasks: HostTasks, running: Running) -> None:
        old = self._fleet
        try:
            new = build_fleet(old.settings, _ask_nobody, old, old.inventory)
        except (UsageError, SinkError) as error:
            log.error("inventory not taken, the hosts stay as they are: %s", _on_one_line(error))
            return
        async with self._replacing:
            tasks.replace(new.hosts, time.monotonic())
            await self._replace_fleet(new, running)
        came, gone = len(set(new.hosts) - set(old.hosts)), len(set(old.hosts) - set(new.hosts))
        log.info("inventory taken: %d hosts, %d are new, %d are gone", len(new.hosts), came, gone)

    async def _report_cycles(self, start: float, interval: float) -> None:
        """At the end of each interval: one line of what it came to, and the collector's own counters to the sinks."""
        for cycle in range(1, 2**62):
            self._cycle_begun = start + (cycle - 1) * interval
            await asyncio.sleep(start + cycle * interval - time.monotonic())
            stats, self._cycle_stats = self._cycle_stats, CycleStats()
            log.info("%s", stats.line(), extra=stats.facts())
            collector = self._fleet.collector
            self._health.add(stats, collector.sinks)
            self._manager.show(self._health.line)
            shipped = self.stats.add(
                stats,
                collector.sinks,
                handshakes_total=collector.handshakes_total,
                reconnects_total=collector.reconnects_total,
                logins_withheld_total=self._fleet.reach.withheld_total,
                names_kept_apart=self._fleet.names.kept_apart,
                inventory=self._fleet.inventory.stats,
                usage=own_usage(),
                unix_seconds=time.time(),
            )
            for sink in collector.sinks:
                sink.put_stats(shipped)

    async def _next_change(self) -> Change:
        """Returns the next configuration that SIGHUP asks for, and its inventory; an invalid one is reported."""
        while True:
            await self._reloading.wait()
            self._reloading.clear()
            self._manager.reloading()
            try:
                settings = self._load_settings()
                return Change(settings, await _aside(partial(read_inventory, settings, self._fleet.inventory)))
            except UsageError as error:
                self._keep_old(error)

    async def _reload(self, change: Change, running: Running) -> None:
        """Takes a new configuration in place of the old one; an invalid one is reported and the old one stays."""
        try:
            new = build_fleet(change.settings, _ask_nobody, self._fleet, change.inventory)
        except (UsageError, SinkError) as error:
            self._keep_old(error)
            return
        await self._replace_fleet(new, running)
        log.info("configuration taken: %s%s", _plan(new), _destinations(new))
        self._manager.started(_plan(new))

    def _keep_old(self, error: Exception) -> None:
        log.error("configuration not taken, the old one stays: %s", _on_one_line(error))
        self._manager.started("configuration not taken, the old one stays; the log says why")

    async def _replace_fleet(self, new: Fleet, running: Running) -> None:
        """Puts a fleet in the place of the one before: its sinks begin, those that are no longer there end."""
        old, self._fleet = self._fleet, new
        self._failures.keep(new.hosts)
        async with asyncio.TaskGroup() as ending:  # side by side, for as long as that takes
            for sink in old.collector.sinks:
                if sink in new.collector.sinks:
                    sink.replace_hosts(new.names, set(new.hosts), time.time())
                else:
                    sink.replace_hosts(new.names, set(), time.time())  # their series end there
            for service in old.services:
                if service not in new.services:
                    ending.create_task(self._end(service, running.tasks.pop(service)))
        for service in new.services:
            if service not in running.tasks:
                running.tasks[service] = running.group.create_task(service.run())
        await old.collector.close()  # what the new one did not adopt
        if old.reach is not new.reach:
            await old.reach.close()

    async def _shut_down(self, running: Running) -> None:
        async with asyncio.TaskGroup() as group:  # side by side: 5 s are all there is
            for service, task in running.tasks.items():
                group.create_task(self._end(service, task))
            group.create_task(self._disconnect())
        totals = {sink.name: sink.stats() for sink in self._fleet.collector.sinks}
        points = {f"{name}_points_sent": stats.points_sent_total for name, stats in totals.items()}
        datagrams = {f"{name}_datagrams_sent": stats.datagrams_sent_total for name, stats in totals.items()}
        log.info("stopped", extra=points | datagrams)

    async def _disconnect(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCONNECT_SECONDS):
                await self._fleet.collector.close()
                await self._fleet.reach.close()

    async def _end(self, service: Service, task: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await service.drain()
        except (SinkError, TimeoutError) as error:
            log.warning(
                "%s: not everything was delivered: %s",
                service.address,
                error if isinstance(error, SinkError) else "no time left",
            )
        task.cancel()
        await service.close()
