"""The composition root: the one place that turns configuration into objects. Nothing below reads configuration."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

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
from fleetmem.sinks import formats
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.runner import Options, QueuedSink
from fleetmem.sinks.series import Retire, SeriesEncoding
from fleetmem.sinks.sink import Sink
from fleetmem.sinks.tcp import CARBON_LINES, TcpTransport
from fleetmem.sinks.udp import UdpTransport


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a command works with: hosts, their names in metrics, and the collector that samples them."""

    settings: Settings
    hosts: list[Host]
    names: FleetNames
    reach: Reach
    collector: Collector
    series: SeriesPool


def build_fleet(settings: Settings, ask_passphrase: AskPassphrase, current: Fleet | None = None) -> Fleet:
    """Returns the objects that a configuration describes. Keys and known hosts are read; nothing is connected yet.

    Args:
        settings: the configuration.
        ask_passphrase: for encrypted keys.
        current: a fleet that this one takes the place of: what is configured alike is taken over (connections, sinks).

    Raises:
        UsageError: hosts, keys or the ssh configuration cannot be used. `current` is untouched then.
    """
    hosts = resolve(settings.inventory.hosts)
    names = FleetNames(settings.prefix, [host.name for host in hosts])
    ssh = settings.ssh.settings()
    reach = current.reach if current and current.reach.settings == ssh else Reach(ssh, ask_passphrase)
    for host in hosts:
        reach.target(host)  # errors in the ssh configuration come out here, not in the first cycle
    series_room = _series_room(settings, len(hosts))
    has_same_shape = current and current.settings.shape == settings.shape
    series = current.series if current and has_same_shape else SeriesPool()
    has_same_sinks = current and _sink_settings(current.settings) == _sink_settings(settings)
    collector = Collector(
        make_link=lambda host: Link(host, reach, script.command(), FrameReader),
        make_parser=partial(SnapshotParser, settings.probe.kind),
        make_request=partial(script.request, kind=settings.probe.kind, processes=settings.probe.processes),
        make_shaper=_make_shapers(settings, series),
        sinks=current.collector.sinks if current and has_same_sinks else build_sinks(settings, names),
    )
    if current and reach is current.reach and settings.probe == current.settings.probe:
        collector.adopt(current.collector, hosts)
    if current and has_same_shape:
        collector.adopt_shapers(current.collector, hosts)
    series.room = series_room
    return Fleet(settings, hosts, names, reach, collector, series)


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


def _sink_settings(settings: Settings) -> tuple[object, ...]:
    return settings.prefix, settings.statsd, settings.graphite


def build_sinks(settings: Settings, names: FleetNames) -> list[Sink]:
    """Returns the sinks that a configuration names, none where it names none."""
    sinks: list[Sink] = []
    statsd, graphite = settings.statsd.address(), settings.graphite.address()
    if statsd:
        transport = UdpTransport(*statsd, settings.statsd.datagrams_per_second)
        encoding = SeriesEncoding(formats.statsd_plain, settings.statsd.retire)
        sinks.append(QueuedSink("statsd", encoding, transport, names))
    if graphite:
        # Each point has its own time there, and an absent point is a gap: nothing has to be ended.
        carbon = SeriesEncoding(formats.carbon_plain, Retire.NONE, formats.with_time)
        options = Options(max_late_seconds=None)
        sinks.append(QueuedSink("graphite", carbon, TcpTransport(CARBON_LINES, *graphite), names, options))
    return sinks
