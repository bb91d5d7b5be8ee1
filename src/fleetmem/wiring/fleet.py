"""The composition root: the one place that turns configuration into objects. Nothing below reads configuration."""

import logging
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from fleetmem.collector import Collector
from fleetmem.config import Probe, Settings
from fleetmem.connect.keys import AskPassphrase
from fleetmem.connect.link import Link, ProbeStart
from fleetmem.connect.reach import Reach
from fleetmem.connect.target import Target
from fleetmem.errors import ConfigError
from fleetmem.inventory.inventory import Inventory
from fleetmem.model import Host
from fleetmem.probe import script
from fleetmem.probe.dialogue import Dialogue, anew_each
from fleetmem.probe.frame import FrameReader
from fleetmem.shape.budget import HostBudget, SeriesPool, reserved_series
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.kind import SinkContext, Spec
from fleetmem.sinks.memory import SeriesMemory
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.queue.runner import FormerSink
from fleetmem.sinks.sink import Service, Sink
from fleetmem.telemetry.health import Health
from fleetmem.wiring.fleet_spec import FleetSpec, fleet_names, fleet_spec, read_inventory
from fleetmem.wiring.host_settings import HostSettings, settings_by_host
from fleetmem.wiring.outputs import (
    STATSD,
    Pages,
    build_sinks,
    build_sites,
    former_sinks,
    ports_of,
    remember,
    share_out_servers,
    sink_key,
)
from fleetmem.wiring.state_files import claim_memory

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from fleetmem.sinks.pages.http_server import Site


@dataclass(frozen=True, slots=True)
class FleetParts:
    """What a command works with: hosts, their names in metrics, the collector that samples them, and how it is.

    `make_link` makes the connection to a host; nothing is connected before it is asked something.
    """

    spec: FleetSpec
    inventory: Inventory
    names: FleetNames
    reach: Reach
    by_host: dict[Host, HostSettings]
    targets: dict[Host, Target]
    collector: Collector
    series: SeriesPool
    sinks: dict[Spec, Sink]
    latest: dict[Host, Host]
    """each host as the inventory has it now: groups and labels may have changed under one that is the same"""
    make_link: Callable[[Host], Link]
    sites: "dict[Spec, Site]"
    health: Health
    memory: SeriesMemory | None = None
    former_sinks: tuple[FormerSink, ...] = ()

    @property
    def settings(self) -> Settings:
        """The configuration."""
        return self.spec.settings

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All of them."""
        return self.spec.hosts

    @property
    def services(self) -> list[Service]:
        """What is to run beside the collector."""
        remembering = [self.memory] if self.memory else []
        return [*self.collector.sinks, *self.former_sinks, *self.sites.values(), *remembering]

    @property
    def single_sinks(self) -> list[Sink]:
        """Those that are in one process whatever the number of workers: all but StatsD's."""
        return [sink for spec, sink in self.sinks.items() if spec[0] != STATSD]

    @property
    def longest_sample_seconds(self) -> float:
        """What a sample may take at the host that may take longest."""
        return max((target.longest_sample_seconds for target in self.targets.values()), default=0.0)

    @property
    def files(self) -> int:
        """Open files that it takes to be connected to all hosts: none for those that share a jump host's."""
        files_of_each = (2 if target.proxy_command else 0 if target.jumps else 1 for target in self.targets.values())
        return sum(files_of_each) + len({target.jumps for target in self.targets.values()} - {()})


def build_fleet(
    settings: Settings,
    ask_passphrase: AskPassphrase,
    current: FleetParts | None = None,
    inventory: Inventory | None = None,
    identity: str | None = None,
) -> FleetParts:
    """Returns the objects that a configuration describes. Keys and known hosts are read; nothing is connected yet.

    Args:
        settings: the configuration.
        ask_passphrase: for encrypted keys.
        current: a fleet that this one takes the place of: what is configured alike is taken over (connections, sinks).
        inventory: where it has been read already.
        identity: see `FleetSpec`.

    Raises:
        UsageError: hosts, keys or the ssh configuration cannot be used. `current` is untouched then.
        SinkError: the spool of a sink cannot be used. `current` is untouched then.
    """
    inventory = inventory or read_inventory(settings)
    return build(fleet_spec(settings, inventory, identity), ask_passphrase, current, inventory)


def build(
    spec: FleetSpec,
    ask_passphrase: AskPassphrase,
    current: FleetParts | None = None,
    inventory: Inventory | None = None,
) -> FleetParts:
    """Returns the objects of a fleet whose hosts are known.

    Raises:
        UsageError, SinkError: see `build_fleet`.
    """
    return assemble(prepare(spec, ask_passphrase, current), current, inventory)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The part of a fleet that takes files, programs, name look-ups and ports: all that may block is done.

    Attributes:
        opened: closes what was opened for it.
    """

    spec: FleetSpec
    names: FleetNames
    reach: Reach
    by_host: dict[Host, HostSettings]
    targets: dict[Host, Target]
    series_room: int | None
    sinks: dict[Spec, Sink]
    sites: "dict[Spec, Site]"
    health: Health
    memory: SeriesMemory | None
    former_sinks: tuple[FormerSink, ...]
    opened: ExitStack

    def close(self) -> None:
        """Frees ports and files where no fleet comes of it."""
        self.opened.close()


def prepare(spec: FleetSpec, ask_passphrase: AskPassphrase, current: FleetParts | None = None) -> Prepared:
    """Reads and opens what a fleet takes. It blocks, and changes nothing of `current`: call it beside the event loop.

    Raises:
        UsageError, SinkError: see `build_fleet`.
    """
    settings, hosts = spec.settings, spec.hosts
    is_refresh = _is_refresh(spec, current)
    before = current.reach if current else None
    reach = before if before and is_refresh else Reach(spec.reach, ask_passphrase, before)
    by_host = settings_by_host(settings, hosts, spec.matches, is_refresh=is_refresh)
    targets = reach.resolve(hosts, lambda host: by_host[host].ssh)
    names, series_room = fleet_names(spec, current.names if current else None), _series_room(spec)
    health = current.health if current else Health()
    pages, ports = health.pages(), ports_of([*current.sinks, *current.sites]) if current else set()
    with ExitStack() as undo:
        sites = build_sites(settings, current.sites if current else {}, pages, ports, undo)
        context = _sink_context(spec, names, pages, ports, current)
        sinks = build_sinks(settings, context, current.sinks if current else {}, undo)
        memory = _memory(spec, current.memory if current else None)
        former_sinks: tuple[FormerSink, ...] = ()
        if memory and current and memory is current.memory:
            former_sinks = current.former_sinks
        elif memory:
            undo.callback(memory.release)
            former_sinks = tuple(_former_sinks(settings, memory, names))
        opened = undo.pop_all()
    spec = replace(spec, state=memory.spec if memory else None)
    return Prepared(
        spec, names, reach, by_host, targets, series_room, sinks, sites, health, memory, former_sinks, opened
    )


def _sink_context(
    spec: FleetSpec, names: FleetNames, pages: Pages, ports: set[object], current: FleetParts | None
) -> SinkContext:
    settings = spec.settings
    return SinkContext(
        names,
        settings.prefix,
        settings.inventory.tags,
        settings.run.interval_seconds,
        pages,
        settings.run.http_names,
        ports,
        current.sinks.keys() if current else (),
        spec.senders,
        _is_refresh(spec, current),
    )


def _memory(spec: FleetSpec, current: SeriesMemory | None) -> SeriesMemory | None:
    """Returns what remembers the series of this process."""
    if spec.identity is not None:
        return claim_memory(spec.settings, spec.identity, current)
    if current and current.spec == spec.state:
        return current
    return SeriesMemory(spec.state) if spec.state else None


def _former_sinks(settings: Settings, memory: SeriesMemory, names: FleetNames) -> list[FormerSink]:
    if memory.process == 0:
        return former_sinks(settings, memory, names)
    for key in memory.remembered() - {sink_key(server) for server in settings.statsd.servers()}:
        memory.forget(key)
    return []


def assemble(prepared: Prepared, current: FleetParts | None = None, inventory: Inventory | None = None) -> FleetParts:
    """Returns the fleet of what has been prepared for it, with what `current` has in common with it. Nothing blocks.

    Args:
        prepared: for the same `current`.
        current: the fleet that this one takes the place of; its connections and shapers are taken from it.
        inventory: where its hosts are from.
    """
    spec, reach, by_host, targets = prepared.spec, prepared.reach, prepared.by_host, prepared.targets
    has_same_shape = current is not None and current.settings.shape == spec.settings.shape
    series = current.series if current and has_same_shape else SeriesPool()
    share_out_servers(spec.settings, prepared.sinks)
    if prepared.memory or (current and current.memory):
        remember(spec.settings.statsd, prepared.sinks, prepared.memory)
    make_link = partial(_make_link, reach=reach, by_host=by_host)
    collector = Collector(
        make_link=make_link,
        make_dialogue=partial(_make_dialogue, by_host, anew_each(spec.settings.run.interval_seconds)),
        make_shaper=_make_shapers(spec, series),
        sinks=prepared.sinks.values(),
        bugs=current.collector.bugs if current else None,
    )
    reach.take(targets, current.reach if current else None)
    if current:
        _adopt_links(collector, current, prepared)
        if has_same_shape:
            collector.adopt_shapers(current.collector, spec.hosts)
    series.room = prepared.series_room
    return FleetParts(
        spec,
        inventory or Inventory(()),
        prepared.names,
        reach,
        by_host,
        targets,
        collector,
        series,
        prepared.sinks,
        {host: host for host in spec.hosts},
        make_link,
        prepared.sites,
        prepared.health,
        prepared.memory,
        prepared.former_sinks,
    )


def _adopt_links(collector: Collector, current: FleetParts, prepared: Prepared) -> None:
    """Moves the connections of hosts that are reached and asked as before; a reload forgives what they failed with."""
    targets, by_host = prepared.targets, prepared.by_host
    same = [host for host in prepared.spec.hosts if _is_same(current, host, targets[host], by_host[host].probe)]
    for link in collector.adopt(current.collector, same):
        link.reach = prepared.reach
        if not _is_refresh(prepared.spec, current):
            link.forgive()


def _is_refresh(spec: FleetSpec, current: FleetParts | None) -> bool:
    """Whether only the hosts are others: nothing else is read again."""
    return current is not None and spec.settings is current.settings


def _make_link(host: Host, *, reach: Reach, by_host: Mapping[Host, HostSettings]) -> Link:
    probe = by_host[host].probe
    if not probe.sudo:
        return Link(host, reach, script.command(probe.protocol), FrameReader)
    command, first_input = script.root_command(probe.protocol), script.root_input(probe.protocol)
    # A sudoers rule of an earlier version allows the probe of protocol 1 alone.
    older = ProbeStart(script.root_command(1), script.root_input(1)) if probe.protocol > 1 else None
    return Link(host, reach, command, FrameReader, first_input=first_input, runs_by_sudo=True, older=older)


def _make_dialogue(by_host: Mapping[Host, HostSettings], all_each: int, host: Host) -> Dialogue:
    probe = by_host[host].probe
    report = partial(_report_older, host, by_sudo=probe.sudo)
    # At other times for other hosts, and the same after each start.
    all_first = all_each - zlib.crc32(host.name.encode("utf-8", "surrogateescape")) % all_each // 2
    return Dialogue(probe.kind, probe.processes, probe.protocol, report, all_each, all_first)


def _report_older(host: Host, *, by_sudo: bool) -> None:
    """Tells of a host that allows the probe of protocol 1 alone: it works, and costs more."""
    what, command = ("sudoers rule", "--sudoers USER") if by_sudo else ("key line", "--authorized-keys KEY.pub")
    message = "its %s allows the probe of protocol 1 only, which still works; renew it: fleetmem probe %s --protocol 2"
    log.warning(message, what, command, extra={"host": host.name})


def _is_same(current: FleetParts, host: Host, target: Target, probe: Probe) -> bool:
    """Whether a host is reached and asked as before, so that it may stay connected."""
    return current.targets.get(host) == target and current.by_host[host].probe == probe


def _series_room(spec: FleetSpec) -> int | None:
    """Returns how many series of rows the fleet may have: what is left when each host has its own and `other`."""
    if not spec.settings.shape.max_series:
        return None
    shape = spec.settings.shape
    least = reserved_series(shape.detail, shape.measure_names()) * len(spec.hosts)
    if spec.max_series < least:
        raise ConfigError(
            f"configuration: shape.max_series: {len(spec.hosts)} hosts have {least} series of their own and of "
            f"`other`: {least} or more, 0 for no limit (given: {spec.max_series})"
        )
    return spec.max_series - least


def _make_shapers(spec: FleetSpec, series: SeriesPool) -> Callable[[Host], Shaper]:
    shape = spec.settings.shape
    limits, per_host = shape.limits(), shape.max_series_per_host
    room = per_host - reserved_series(limits.details, limits.measures) if per_host else None
    if room is None and not shape.max_series:
        return lambda host: Shaper(host, limits)
    return lambda host: Shaper(host, limits, HostBudget(room, series))
