"""The composition root: the one place that turns configuration into objects. Nothing below reads configuration."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fleetmem.build_sinks import Spec, build_sinks
from fleetmem.collector import Collector
from fleetmem.config import Settings
from fleetmem.connect.keys import AskPassphrase
from fleetmem.connect.link import Link
from fleetmem.connect.reach import Reach
from fleetmem.errors import ConfigError
from fleetmem.inventory.sources import resolve
from fleetmem.model import Host
from fleetmem.probe import script
from fleetmem.probe.frame import FrameReader
from fleetmem.probe.parse import SnapshotParser
from fleetmem.shape.budget import HostBudget, SeriesPool, reserved_series
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.sink import Sink


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a command works with: hosts, their names in metrics, and the collector that samples them."""

    settings: Settings
    hosts: list[Host]
    names: FleetNames
    reach: Reach
    collector: Collector
    series: SeriesPool
    sinks: dict[Spec, Sink]


def build_fleet(settings: Settings, ask_passphrase: AskPassphrase, current: Fleet | None = None) -> Fleet:
    """Returns the objects that a configuration describes. Keys and known hosts are read; nothing is connected yet.

    Args:
        settings: the configuration.
        ask_passphrase: for encrypted keys.
        current: a fleet that this one takes the place of: what is configured alike is taken over (connections, sinks).

    Raises:
        UsageError: hosts, keys or the ssh configuration cannot be used. `current` is untouched then.
        SinkError: the spool of a sink cannot be used; likewise.
    """
    hosts = resolve(settings.inventory.hosts)
    names = FleetNames(settings.prefix, [host.name for host in hosts], current.names if current else None)
    ssh = settings.ssh.settings()
    reach = current.reach if current and current.reach.settings == ssh else Reach(ssh, ask_passphrase)
    for host in hosts:
        reach.target(host)  # errors in the ssh configuration come out here, not in the first cycle
    series_room = _series_room(settings, len(hosts))
    has_same_shape = current and current.settings.shape == settings.shape
    series = current.series if current and has_same_shape else SeriesPool()
    sinks = build_sinks(settings, names, current.sinks if current else {})
    collector = Collector(
        make_link=lambda host: Link(host, reach, script.command(), FrameReader),
        make_parser=partial(SnapshotParser, settings.probe.kind),
        make_request=partial(script.request, kind=settings.probe.kind, processes=settings.probe.processes),
        make_shaper=_make_shapers(settings, series),
        sinks=sinks.values(),
    )
    if current:
        is_same_probe = reach is current.reach and settings.probe == current.settings.probe
        collector.adopt(current.collector, hosts if is_same_probe else [])
    if current and has_same_shape:
        collector.adopt_shapers(current.collector, hosts)
    series.room = series_room
    return Fleet(settings, hosts, names, reach, collector, series, sinks)


def _series_room(settings: Settings, hosts: int) -> int | None:
    """Returns how many series of rows the fleet may have: what is left when each host has its own and `other`."""
    if not settings.shape.max_series:
        return None
    least = reserved_series(settings.shape.detail) * hosts
    if settings.shape.max_series < least:
        raise ConfigError(
            f"configuration: shape.max_series: {hosts} hosts have {least} series of their own and of `other`: "
            f"{least} or more, 0 for no limit (given: {settings.shape.max_series})"
        )
    return settings.shape.max_series - least


def _make_shapers(settings: Settings, series: SeriesPool) -> Callable[[Host], Shaper]:
    limits, per_host = settings.shape.limits(), settings.shape.max_series_per_host
    room = per_host - reserved_series(limits.details) if per_host else None
    if room is None and not settings.shape.max_series:
        return lambda host: Shaper(host, limits)
    return lambda host: Shaper(host, limits, HostBudget(room, series))
