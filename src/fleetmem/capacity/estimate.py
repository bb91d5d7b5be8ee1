"""From what a fleet sends to what it costs: collector, hosts, network, and each output that is configured. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fleetmem.capacity import measured
from fleetmem.capacity.carbon import Arrival, CarbonLimits, points_waiting, series_that_fit, updates_needed
from fleetmem.capacity.load import STATSD_PREFIX, Load, routes, speaks_of_changes
from fleetmem.capacity.schemas import Schema
from fleetmem.config import Settings
from fleetmem.probe.dialogue import anew_each
from fleetmem.shape.budget import REMEMBER_SECONDS
from fleetmem.sinks.records import RecordFormat
from fleetmem.units import format_size

_DAY_SECONDS = 86_400
_HEADER_BYTES = 28  # of a datagram: IPv4 and UDP
_MUCH = 0.8
"""Part of a limit beyond which it is worth a warning."""


class Figure(NamedTuple):
    """One number of a plan.

    Attributes:
        key: its name in JSON, with its unit.
        label: its name in the table.
        value: the number; None where it is not known.
        text: the number as people read it.
    """

    key: str
    label: str
    value: float | None
    text: str


class FigureGroup(NamedTuple):
    """Figures of one thing."""

    key: str
    title: str
    figures: list[Figure]


class Capacity(NamedTuple):
    """What a fleet costs.

    Attributes:
        sections: figure by figure.
        warnings: what will not do, or not for long, and what to do about it.
    """

    sections: list[FigureGroup]
    warnings: list[str]


class Machines(NamedTuple):
    """What a plan is made for.

    Attributes:
        workers: processes that sample.
        updates_per_second: that carbon may write.
        cache_points: that carbon may keep waiting.
    """

    workers: int
    updates_per_second: float
    cache_points: float


def estimate(load: Load, settings: Settings, schemas: Sequence[Schema], machines: Machines) -> Capacity:
    """Returns what a load costs with a configuration."""
    ways = routes(settings)
    has_statsd = STATSD_PREFIX in ways
    sections = [_fleet(load, settings), _collector(load, settings, machines), _each_host(load, settings)]
    warnings = [*_collector_warnings(sections[1], machines)]
    if has_statsd:
        sections.append(_statsd(load, settings))
    if ways:
        section, more = _graphite(load, settings, schemas, machines)
        sections.append(section)
        warnings += more
    if settings.prometheus.listen:
        figures = [_count("samples", "samples", load.page_samples), _size("page_bytes", "a page", load.page_bytes)]
        sections.append(FigureGroup("prometheus", "Prometheus, a scrape", figures))
    if settings.file.path:
        daily = load.record_bytes * _DAY_SECONDS / settings.run.interval_seconds
        figures = [_size("bytes_per_day", "a day", daily, " before compression")]
        sections.append(FigureGroup("file", f"file, {settings.file.format}", figures))
    return Capacity(sections, warnings)


def _fleet(load: Load, settings: Settings) -> FigureGroup:
    interval = settings.run.interval_seconds
    return FigureGroup(
        "fleet",
        "fleet",
        [
            _count("hosts", "hosts", load.hosts),
            _count("processes", "processes", load.processes),
            _count("processes_without_series", "in other", load.left_out),
            _count("series", "series", load.series),
            Figure("interval_seconds", "interval", interval, f"{interval:g} s"),
        ],
    )


def _collector(load: Load, settings: Settings, machines: Machines) -> FigureGroup:
    per_second = load.hosts / settings.run.interval_seconds
    processes_per_second = load.processes / settings.run.interval_seconds
    cores = measured.COLLECTOR_CORES.value
    cores += per_second * measured.SAMPLE_SECONDS.value
    cores += processes_per_second * (measured.PROCESS_SECONDS.value + _more_seconds(settings))
    memory = measured.COLLECTOR_BYTES.value * (1 if machines.workers == 1 else 1 + machines.workers)
    memory += load.hosts * measured.HOST_BYTES.value + load.processes * measured.PROCESS_BYTES.value
    if settings.prometheus.listen:
        memory += load.processes * measured.PAGE_PROCESS_BYTES.value + load.page_bytes
    received = per_second * measured.FRAME_BYTES.value + processes_per_second * _row_bytes(settings)
    return FigureGroup(
        "collector",
        "collector",
        [
            Figure("cpu_cores", "CPU", cores, f"{cores:.2f} of a core"),
            _size("memory_bytes", "memory", memory),
            _size("received_bytes_per_second", "from hosts", received, " a second"),
            _count("workers", "workers", machines.workers),
        ],
    )


def _row_bytes(settings: Settings) -> float:
    """Returns what each process adds to an answer, on average over those with everything and those with changes."""
    if not speaks_of_changes(settings):
        return measured.ROW_BYTES.value
    whole = 1 / anew_each(settings.run.interval_seconds)
    return whole * measured.ALL_BYTES.value + (1 - whole) * measured.CHANGED_BYTES.value


def _more_seconds(settings: Settings) -> float:
    """Returns the CPU of a process in a sample for outputs beside StatsD."""
    seconds = 0.0
    if settings.graphite.server:
        seconds += measured.GRAPHITE_PROCESS_SECONDS.value
    if settings.prometheus.listen:
        seconds += measured.PAGE_PROCESS_SECONDS.value  # a scrape each interval
    if settings.file.path:
        is_csv = settings.file.format is RecordFormat.CSV
        seconds += (measured.CSV_PROCESS_SECONDS if is_csv else measured.JSON_PROCESS_SECONDS).value
    return seconds


def _collector_warnings(collector: FigureGroup, machines: Machines) -> Iterator[str]:
    cores = collector.figures[0].value or 0.0
    if cores > _MUCH * machines.workers:
        wanted = int(cores / _MUCH) + 1
        yield f"{cores:.2f} of a core is much for {machines.workers} processes: --workers {wanted}, or several shards"


def _each_host(load: Load, settings: Settings) -> FigureGroup:
    processes = load.processes / load.hosts if load.hosts else 0.0
    seconds = measured.HOST_SAMPLE_SECONDS.value + processes * measured.HOST_PROCESS_SECONDS.value
    percent = 100 * seconds / settings.run.interval_seconds
    sent = measured.FRAME_BYTES.value + processes * _row_bytes(settings)
    return FigureGroup(
        "host",
        "each host",
        [
            Figure("cpu_seconds_per_sample", "a sample", seconds, f"{seconds * 1000:.1f} ms of CPU"),
            Figure("cpu_percent", "CPU", percent, f"{percent:.3f} % of a core"),
            _size("bytes_per_sample", "an answer", sent),
        ],
    )


def _statsd(load: Load, settings: Settings) -> FigureGroup:
    interval = settings.run.interval_seconds
    bytes_per_second = (load.statsd_bytes + load.datagrams * _HEADER_BYTES) / interval
    return FigureGroup(
        "statsd",
        "StatsD",
        [
            _count("points_per_second", "points", load.series / interval, " a second"),
            _count("datagrams_per_second", "datagrams", load.datagrams / interval, " a second"),
            _size("bytes_per_second", "network", bytes_per_second, " a second"),
        ],
    )


def _graphite(
    load: Load, settings: Settings, schemas: Sequence[Schema], machines: Machines
) -> tuple[FigureGroup, list[str]]:
    interval, ways = settings.run.interval_seconds, routes(settings)
    stored = load.series * len(ways)
    arrival = Arrival.BURST if STATSD_PREFIX in ways else Arrival.SPREAD
    limits = CarbonLimits(machines.updates_per_second, machines.cache_points, interval)
    disk = sum(schemas[place].retention.file_bytes * count for place, count in load.by_schema.items())
    figures = [_count("files", "files", stored), _size("disk_bytes", "disk", disk)]
    for place, count in sorted(load.by_schema.items()):
        schema = schemas[place]
        text = f"{count:,} files of {schema.retention.file_bytes:,} bytes, {schema.pattern.pattern}={schema.text}"
        figures.append(Figure(f"files_of_schema_{place + 1}", f"schema {place + 1}", count, text))
    if settings.graphite.server:
        figures.append(_size("bytes_per_second", "network", load.graphite_bytes / interval, " a second, as lines"))
    figures.append(_count("points_per_second", "points", stored / interval, " a second"))
    fit, waiting = series_that_fit(limits, arrival), points_waiting(limits, stored, arrival)
    needed = updates_needed(limits, stored, arrival)
    per_host = stored / load.hosts if load.hosts else 1
    figures += [
        Figure("updates_per_second_needed", "updates", needed, _needed_text(needed, machines)),
        Figure("cache_points", "cache", waiting, f"{waiting:,.0f} of {machines.cache_points:,.0f} points wait"),
        _count("series_that_fit", "carbon ends", fit, f" series, {fit / per_host:,.0f} hosts like these"),
    ]
    figures += _growth(load, settings)
    return FigureGroup("graphite", "Graphite", figures), [
        *_graphite_warnings(load, settings, schemas, stored / fit, needed)
    ]


def _needed_text(needed: float | None, machines: Machines) -> str:
    if needed is None:
        return "no number is enough: the points of one interval fill half of the cache and more"
    return f"{needed:,.0f} a second needed, {machines.updates_per_second:,.0f} allowed"


def _growth(load: Load, settings: Settings) -> Iterator[Figure]:
    """Yields how fast files become more, where somebody has looked."""
    if load.new_series is None:
        return
    daily, limit = daily_series(load, settings)
    text = f"{load.new_series:,} in an interval: {daily:,.0f} a day, {limit}"
    yield Figure("new_series_per_day", "new series", daily, text)
    if load.new_series:
        more = daily * load.new_bytes / load.new_series
        text = f"{format_size(more)} more each day, as nothing deletes files of pids that are gone"
        yield Figure("new_bytes_per_day", "new on disk", more, text)


def daily_series(load: Load, settings: Settings) -> tuple[float, str]:
    """Returns how many series a day brings, and what that depends on."""
    daily = (load.new_series or 0) * _DAY_SECONDS / settings.run.interval_seconds
    allowed = settings.shape.max_series_per_host
    most = allowed * load.hosts * _DAY_SECONDS / REMEMBER_SECONDS if allowed else daily
    return (most, "which the budget allows") if daily > most else (daily, "if that goes on")


def _graphite_warnings(
    load: Load, settings: Settings, schemas: Sequence[Schema], share: float, needed: float | None
) -> Iterator[str]:
    interval = settings.run.interval_seconds
    if share > _MUCH:
        state = "is full: it drops points and stops reading" if share > 1 else f"is near its end, at {share:.0%} of it"
        faster = f"; raise MAX_UPDATES_PER_SECOND to {needed:,.0f} if the disk manages" if needed and share > 1 else ""
        yield (
            f"carbon's cache {state}{faster}; or --detail command, --top N, a longer --interval, several carbons "
            "(docs: where carbon ends)"
        )
    if len(routes(settings)) > 1:
        yield "StatsD and Graphite are both configured: Graphite stores each series twice"
    for place in sorted(load.by_schema):
        step = schemas[place].retention.step_seconds
        if step != interval:
            what = "points overwrite each other" if interval < step else "there are gaps"
            yield f"--interval is {interval:g} s, the finest step of the retention {step} s: {what}"


def _count(key: str, label: str, value: float, rest: str = "") -> Figure:
    return Figure(key, label, value, f"{value:,.0f}{rest}")


def _size(key: str, label: str, value: float, rest: str = "") -> Figure:
    return Figure(key, label, value, f"{format_size(value)}{rest}")
