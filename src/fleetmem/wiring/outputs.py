"""The composition root's other half: from configuration to sinks, and to the site of the health pages."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from fleetmem.config import CarbonProtocol, File, Graphite, Prometheus, Server, Settings, Statsd, split_server
from fleetmem.rendezvous import owner
from fleetmem.sinks import formats
from fleetmem.sinks.files.archive import Rotation
from fleetmem.sinks.files.file_transport import FileTransport
from fleetmem.sinks.kind import Make, SinkContext, SinkKind, Spec
from fleetmem.sinks.memory import SeriesMemory, SinkMemory
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.queue.runner import FormerSink, Options, QueuedSink, Transport
from fleetmem.sinks.queue.spool import Spool
from fleetmem.sinks.records import RecordEncoding
from fleetmem.sinks.series import Retire, SeriesEncoding
from fleetmem.sinks.sink import Sink, take_all
from fleetmem.sinks.transports import tcp
from fleetmem.sinks.transports.endpoints import host_port
from fleetmem.sinks.transports.udp import UdpTransport
from fleetmem.sinks.transports.unix import UnixTransport
from fleetmem.state.folder import default_base
from fleetmem.telemetry.counters import ALL_COUNTERS

if TYPE_CHECKING:
    from fleetmem.sinks.pages.http_server import Page, Site
    from fleetmem.sinks.pages.web_guard import WebGuard, WebGuardFiles

_ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - what others may have asked for

Pages = Mapping[str, "Page"]

STATSD = "statsd"
"""First in the spec of what sends to StatsD."""


def build_sinks(
    settings: Settings, context: SinkContext, current: Mapping[Spec, Sink], undo: ExitStack
) -> dict[Spec, Sink]:
    """Returns the sinks that a configuration names, each with what it is made from.

    Args:
        settings: the configuration.
        context: what they are made with.
        current: sinks that are there already; those that are made from the same stay.
        undo: is given what closes each file and port that is opened here.

    Raises:
        UsageError: a port cannot be listened on, a package is missing, a plug-in cannot be used.
        SinkError: the spool cannot be used.
    """
    wanted: dict[Spec, Make] = {}
    for name, kind in _kinds(settings).items():
        section = settings.sinks[name] if name in settings.sinks else getattr(settings, name)
        wanted |= kind.plan(section, context)
    return {spec: current.get(spec) or make(undo) for spec, make in wanted.items()}


def _kinds(settings: Settings) -> dict[str, SinkKind[Any]]:
    """Returns the kinds of sinks there are, by the names of their sections: built-in ones, and plug-ins that are named.

    Raises:
        UsageError: a plug-in cannot be used.
    """
    if not settings.sinks:
        return dict(BUILT_IN)
    # Imported here: a start without plug-ins does without.
    from fleetmem.wiring.plugins import kind_of

    return {**BUILT_IN, **{name: kind_of(name) for name in settings.sinks}}


def build_sites(
    settings: Settings, current: dict[Spec, "Site"], pages: Pages, ports_in_use: set[object], undo: ExitStack
) -> dict[Spec, "Site"]:
    """Returns the site of the health pages, where they are to have one of their own; made and kept as sinks are.

    Raises:
        UsageError: the port cannot be listened on.
    """
    listen, other = settings.run.health_address(), settings.prometheus.address()
    if listen is None or (other and other[1] == listen[1] and other[0] in (listen[0], *_ALL_ADDRESSES)):
        return {}
    spec: Spec = ("health", *listen, settings.run.http_names)
    if spec in current:
        return {spec: current[spec]}
    # Imported here: a start without pages does without.
    from fleetmem.sinks.pages.http_server import Site

    site = Site("run.health_listen", *listen, pages, names=settings.run.http_names)
    _listen(site, undo, has_port=listen[1] in ports_in_use)
    return {spec: site}


def ports_of(specs: Iterable[Spec]) -> set[object]:
    """Returns the ports that pages are served at, whatever the address: 0.0.0.0 is all of them."""
    return {spec[2] for spec in specs if spec[0] in ("prometheus", "health")}


def share_out_servers(settings: Settings, made: Mapping[Spec, Sink]) -> None:
    """Gives each StatsD server its hosts: always the same ones, whatever the order of the servers."""
    addresses = [str(server) for server in settings.statsd.servers()]
    sinks = [sink for spec, sink in made.items() if spec[0] == STATSD]
    for number, (address, sink) in enumerate(zip(addresses, sinks, strict=True), 1):
        sink.name = "statsd" if number == 1 else f"statsd_{number}"
        sink.takes = partial(_is_owner, address, addresses) if len(addresses) > 1 else take_all


def _is_owner(address: str, addresses: Sequence[str], key: str) -> bool:
    return owner(key, addresses) == address


def remember(settings: Statsd, sinks: Mapping[Spec, Sink], memory: SeriesMemory | None) -> None:
    """Lets the sinks to StatsD keep the names of their series, where they end them."""
    for spec, sink in sinks.items():
        if spec[0] == STATSD and isinstance(sink, QueuedSink):
            is_wanted = memory is not None and settings.retire is Retire.ZERO
            sink.remember(SinkMemory(memory, sink_key(spec[1])) if memory and is_wanted else None)


def former_sinks(settings: Settings, memory: SeriesMemory, names: FleetNames) -> list[FormerSink]:
    """Returns what ends the series in StatsD servers that were configured before the start, and are no more."""
    present = {sink_key(server) for server in settings.statsd.servers()}
    found = []
    for key in sorted(memory.remembered() - present):
        try:
            server = split_server(key)
        except ValueError:
            memory.forget(key)
            continue
        encoding = SeriesEncoding(formats.statsd_plain, Retire.ZERO)
        options = Options(cycle_seconds=settings.run.interval_seconds)
        sink = FormerSink("former", encoding, statsd_transport(settings.statsd, server), names, options)
        sink.remember(SinkMemory(memory, key))
        found.append(sink)
    return found


def sink_key(server: object) -> str:
    """Returns what a server is called in the memory: `split_server` reads it again."""
    if not isinstance(server, Server):
        raise TypeError(server)
    address = server.host if server.scheme == "unix" else host_port(server.host, server.port)
    return f"{server.scheme}://{address}"


def statsd_transport(settings: Statsd, server: Server, senders: int = 1) -> Transport:
    """Returns what sends to a StatsD server."""
    if server.scheme == "unix":
        return UnixTransport(Path(server.host))
    if server.scheme == "tcp":
        return tcp.TcpTransport(tcp.STATSD, server.host, server.port)
    return UdpTransport(server.host, server.port, settings.datagrams_per_second, senders=senders)


def graphite_transport(settings: Graphite) -> Transport:
    """Returns what sends to carbon, which is configured."""
    host, port = settings.address() or ("", 0)
    receiver = tcp.CARBON_PICKLE if settings.protocol is CarbonProtocol.PICKLE else tcp.CARBON_LINES
    return tcp.TcpTransport(receiver, host, port)


def _plan_statsd(section: Statsd, context: SinkContext) -> dict[Spec, Make]:
    rest = section.model_copy(update={"server": ()})
    return {(STATSD, server, rest): partial(_statsd, section, server, context) for server in section.servers()}


def _statsd(section: Statsd, server: Server, context: SinkContext, _undo: ExitStack) -> Sink:
    encoding = SeriesEncoding(formats.STATSD[section.dialect], section.retire)
    options = Options(cycle_seconds=context.interval_seconds)
    return QueuedSink("statsd", encoding, statsd_transport(section, server, context.senders), context.names, options)


def _plan_graphite(section: Graphite, context: SinkContext) -> dict[Spec, Make]:
    if not section.server:
        return {}
    path = spool_file(section)
    return {("graphite", path, section): partial(_graphite, section, path, context)}


def _graphite(section: Graphite, spool_path: Path | None, context: SinkContext, undo: ExitStack) -> Sink:
    format_ = formats.carbon_tagged if section.tags else formats.carbon_plain
    # Each point has its own time there, and an absent point is a gap: nothing has to be ended, nothing is too late.
    encoding = SeriesEncoding(format_, Retire.NONE, formats.with_time)
    spool = None
    if spool_path:
        # Where it is our own until the sink before has ended, it is opened with its first use.
        is_ours = any(spec[:2] == ("graphite", spool_path) for spec in context.current)
        spool = Spool(spool_path, section.spool_max_size, section.spool_max_age_seconds, opens_later=is_ours)
        undo.callback(spool.close)
    options = Options(max_late_seconds=None)
    return QueuedSink("graphite", encoding, graphite_transport(section), context.names, options, spool)


def spool_file(settings: Graphite) -> Path | None:
    """Returns the file in which points wait for carbon, None where none do."""
    host, port = settings.address() or ("", 0)
    if not settings.spool:
        return None
    return (settings.spool_dir or default_base()).expanduser() / f"graphite-{host.replace('/', '_')}-{port}.spool"


def _plan_prometheus(section: Prometheus, context: SinkContext) -> dict[Spec, Make]:
    """Returns the sink; another one where a reload keeps out others than the guard in force does.

    Raises:
        ConfigError: the web configuration is wrong.
    """
    listen = section.address()
    if listen is None:
        return {}
    spec: Spec = ("prometheus", *listen, context.prefix, context.tags, context.http_names, section.web_config)
    present = next((known for known in context.current if known[:-1] == spec), None)
    guard = cast("WebGuardFiles | None", present[-1]) if present else None
    if present is None or not context.is_refresh:
        read = _web_guard_files(section)
        if present is None or (read and guard and read.locks != guard.locks):
            guard = read
    return {(*spec, guard): partial(_prometheus, *listen, guard, context)}


def _web_guard_files(section: Prometheus) -> "WebGuardFiles | None":
    """Returns who guards the page from now on, None where nobody does. Raises ConfigError."""
    if section.web_config is None:
        return None
    from fleetmem.sinks.pages.web_guard import WebGuardFiles

    return WebGuardFiles(section.web_config.expanduser())


def web_guard(section: Prometheus) -> "WebGuard | None":
    """Returns what the web configuration describes, None where there is none. Certificates are read.

    Raises:
        ConfigError: it is wrong, or a file that it names.
    """
    if section.web_config is None:
        return None
    # Imported here: a start without it does without TLS and YAML.
    from fleetmem.sinks.pages.web_guard import make_guard

    return make_guard(section.web_config.expanduser())


def _prometheus(host: str, port: int, guard: "WebGuardFiles | None", context: SinkContext, undo: ExitStack) -> Sink:
    # Imported here: with prometheus_client it is a twentieth of a start that does without.
    from fleetmem.sinks.pages.metrics_page import PrometheusSink

    sink = PrometheusSink(
        host,
        port,
        context.prefix,
        context.tags,
        context.pages,
        context.http_names,
        ALL_COUNTERS,
        _build(),
        guard,
    )
    _listen(sink, undo, has_port=port in context.ports_in_use)
    return sink


def _build() -> dict[str, str]:
    """Returns the versions of fleetmem, and of what it runs on."""
    packages = {name: version(name) for name in ("fleetmem", "asyncssh")}
    return {"version": packages["fleetmem"], "python": platform.python_version(), "asyncssh": packages["asyncssh"]}


def _listen(site: "Site", undo: ExitStack, *, has_port: bool) -> None:
    if not has_port:  # else it is our own until the site before has ended, and `run` takes it then
        site.listen()
        undo.callback(site.stop_listening)


def _plan_file(section: File, context: SinkContext) -> dict[Spec, Make]:
    if not section.path:
        return {}
    return {("file", section): partial(_file, section, section.path.expanduser(), context)}


def _file(section: File, path: Path, context: SinkContext, _undo: ExitStack) -> Sink:
    encoding = RecordEncoding(section.format)
    rotation = Rotation(section.rotate_size or None, section.rotate_seconds or None, section.keep, section.compress)
    # A record has its own time, so it is never too late.
    options = Options(max_late_seconds=None)
    return QueuedSink("file", encoding, FileTransport(path, encoding.header, rotation), context.names, options)


BUILT_IN: Mapping[str, SinkKind[Any]] = MappingProxyType(
    {
        STATSD: SinkKind(Statsd, _plan_statsd),
        "graphite": SinkKind(Graphite, _plan_graphite),
        "prometheus": SinkKind(Prometheus, _plan_prometheus),
        "file": SinkKind(File, _plan_file),
    }
)
"""The kinds of sinks that fleetmem brings along, by the names of their sections."""
