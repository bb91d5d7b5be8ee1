"""What a fleet sends in one cycle: outcomes, real or made up, through the real encoders, and counted. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from fleetmem.capacity.schemas import Schema, schema_of
from fleetmem.config import Settings
from fleetmem.model import Host, HostMemory, MemoryPressure, ProcessMemory, Sample, Snapshot
from fleetmem.probe.script import ProbeKind
from fleetmem.shape.budget import HostBudget, SeriesPool, reserved_series
from fleetmem.shape.limits import Limits
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.formats import (
    STATSD,
    Dialect,
    Format,
    carbon_plain,
    carbon_tagged,
    cut_lines,
    statsd_plain,
    with_time,
)
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.pages.exposition import Exposition, HostState
from fleetmem.sinks.records import RecordFormat, csv_rows, outcome_line
from fleetmem.sinks.series import Retire, SeriesEncoding
from fleetmem.sinks.transports.udp import MAX_DATAGRAM_BYTES
from fleetmem.units import percent_of

STATSD_PREFIX = "stats.gauges."
"""What StatsD puts before the names that it sends to Graphite."""

_EXAMPLE = Host("web0001", "10.0.0.1")
_COMMAND = "daemon-{:05}"  # 12 characters; the kernel allows 15
_TOTAL_BYTES = 16 * 1024**3
_MEMORY = HostMemory(_TOTAL_BYTES, _TOTAL_BYTES // 2, 1024**3, 1024**3, 0, "boot")
_MORE_MEMORY = replace(_MEMORY, hugetlb_bytes=0, pressure=MemoryPressure(12.345678, 1.234567, 0.5, 0.25))  # protocol 2
_FIRST_PID = 10_000
_LEAST_BYTES, _STEP_BYTES = 4 * 1024**2, 123_457
_COLLECT_SECONDS = 0.012
_UNIX_SECONDS = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class HostLoad:
    """What one host adds to a cycle.

    Attributes:
        processes: that it has.
        left_out: those without series of their own.
        names: of its series, as plain ones.
        lines: of its points for StatsD.
        datagrams: that these fill.
        graphite_bytes: of its points for carbon.
        record_bytes: of its record in the file.
        page_bytes: of its samples on Prometheus' page.
        page_samples: how many these are.
    """

    processes: int
    left_out: int
    names: frozenset[str]
    lines: bytes
    datagrams: int
    graphite_bytes: int
    record_bytes: int
    page_bytes: int
    page_samples: int


@dataclass(slots=True)
class Load:
    """What all hosts send in a cycle: the attributes of `HostLoad`, in sum.

    Attributes:
        hosts: how many.
        by_schema: series in Graphite by the place of their schema; those that come by two ways count twice.
        new_series: that were not there in the cycle before; None where nobody has looked.
        new_bytes: what files for these take in Graphite.
    """

    hosts: int = 0
    processes: int = 0
    left_out: int = 0
    series: int = 0
    statsd_bytes: int = 0
    datagrams: int = 0
    graphite_bytes: int = 0
    record_bytes: int = 0
    page_bytes: int = 0
    page_samples: int = 0
    by_schema: Counter[int] = field(default_factory=Counter)
    new_series: int | None = None
    new_bytes: int = 0

    def add(self, load: HostLoad, places: Counter[int], hosts: int = 1) -> None:
        """Adds a host, or so many that are alike."""
        self.hosts += hosts
        self.processes += load.processes * hosts
        self.left_out += load.left_out * hosts
        self.series += len(load.names) * hosts
        self.statsd_bytes += len(load.lines) * hosts
        self.datagrams += load.datagrams * hosts
        self.graphite_bytes += load.graphite_bytes * hosts
        self.record_bytes += load.record_bytes * hosts
        self.page_bytes += load.page_bytes * hosts
        self.page_samples += load.page_samples * hosts
        for place, count in places.items():
            self.by_schema[place] += count * hosts


class Scales:
    """Weighs outcomes as a configuration has them sent.

    Args:
        settings: the configuration.
        names: of the fleet.
    """

    def __init__(self, settings: Settings, names: FleetNames) -> None:
        self._settings = settings
        self._names = names
        self._page = Exposition(settings.prefix, settings.inventory.tags)

    def weigh(self, sample: Sample) -> HostLoad:
        """Returns what an outcome adds to a cycle."""
        plain = self._lines(statsd_plain, sample)
        is_plain = self._settings.statsd.dialect is Dialect.PLAIN
        lines = plain if is_plain else self._lines(STATSD[self._settings.statsd.dialect], sample)
        carbon = carbon_tagged if self._settings.graphite.tags else carbon_plain
        write: Callable[[Sample], str] = outcome_line
        if self._settings.file.format is RecordFormat.CSV:
            write = csv_rows
        state = HostState().after(sample)
        return HostLoad(
            processes=sample.shaped.process_count,
            left_out=sum(sample.shaped.left_out.values()),
            names=frozenset(line.partition(":")[0] for line in plain.decode("ascii").splitlines()),
            lines=lines,
            datagrams=len(cut_lines(lines, MAX_DATAGRAM_BYTES)),
            graphite_bytes=len(with_time(self._lines(carbon, sample), _UNIX_SECONDS)),
            record_bytes=len(write(sample).encode("utf-8", "backslashreplace")),
            page_bytes=sum(map(len, self._page.host(sample.host, state).values())),
            page_samples=state.series,
        )

    def _lines(self, format_: Format, sample: Sample) -> bytes:
        return SeriesEncoding(format_, Retire.NONE).host(self._names, sample.host).update(sample).text


def speaks_of_changes(settings: Settings) -> bool:
    """Returns whether hosts are asked for what has changed (protocol 2); of `ps` comes all of it each time."""
    return settings.probe.protocol > 1 and settings.probe.kind is ProbeKind.STATUS


def routes(settings: Settings) -> list[str]:
    """Returns what stands before fleetmem's names in Graphite, for each way there: by StatsD, and without.

    A configuration that sends nothing to anybody counts as one that sends to StatsD.
    """
    ways = [STATSD_PREFIX] if settings.statsd.server else []
    if settings.graphite.server:
        ways.append("")
    has_others = settings.prometheus.listen or settings.file.path or settings.sinks
    return ways if ways or has_others else [STATSD_PREFIX]


def places_of(names: Iterable[str], ways: Sequence[str], schemas: Sequence[Schema]) -> Counter[int]:
    """Returns how many series in Graphite fall under which rule."""
    return Counter(schema_of(way + name, schemas) for way in ways for name in names)


def example_load(
    settings: Settings, schemas: Sequence[Schema], hosts: int, processes: int, commands: int
) -> tuple[Load, HostLoad]:
    """Returns what hosts send that are all alike, and what one of them does; nobody is asked.

    Args:
        settings: levels of detail, `top`, the budget and the measures count. What depends on names or sizes does not.
        schemas: of Graphite.
        hosts: how many.
        processes: of each.
        commands: how many different names these have.
    """
    shape = settings.shape
    limits = Limits(frozenset(shape.detail), shape.top, top_by=shape.top_by, measures=shape.measure_names())
    per_host, reserved = shape.max_series_per_host, reserved_series(limits.details, limits.measures)
    if shape.max_series:
        per_host = min(per_host or shape.max_series, max(shape.max_series // hosts, reserved))
    budget = HostBudget(per_host - reserved, SeriesPool()) if per_host else None
    memory = _MORE_MEMORY if speaks_of_changes(settings) else _MEMORY
    rows = tuple(_row(number, commands) for number in range(processes))
    shaped = Shaper(_EXAMPLE, limits, budget).shape(Snapshot(memory, rows), _UNIX_SECONDS)
    sample = Sample(_EXAMPLE, _UNIX_SECONDS, _COLLECT_SECONDS, 0, shaped, slot_unix_seconds=_UNIX_SECONDS)
    one = Scales(settings, FleetNames(settings.prefix, [_EXAMPLE.name])).weigh(sample)
    load = Load()
    load.add(one, places_of(one.names, routes(settings), schemas), hosts)
    return load, one


def _row(number: int, commands: int) -> ProcessMemory:
    rss_bytes = _LEAST_BYTES + number * _STEP_BYTES
    return ProcessMemory(
        _FIRST_PID + number,
        1000,
        _COMMAND.format(number % commands),
        rss_bytes,
        4 * rss_bytes,
        percent_of(rss_bytes, _TOTAL_BYTES),
        rss_bytes,
        rss_bytes // 2,
        0,
    )
