"""The lab's demo: fleetmem's own daemon against the lab, and what it shows of it meanwhile."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path

from fleetmem import config
from fleetmem.lab.access import settings
from fleetmem.lab.directory import Directory
from fleetmem.lab.readback import GRAPHITE_PREFIX, RecordingTransport, record
from fleetmem.lab.render import GraphiteRender
from fleetmem.lab.state import State
from fleetmem.model import Failure, Host, Outcome, ProcessMemory, Sample
from fleetmem.sinks.formats import statsd_plain
from fleetmem.wiring.fleet import FleetParts, build_fleet

GROWTH_SECONDS = 60.0
"""How far back growth is looked for."""

_GROWTH_STEP_BYTES = 1024**2
"""Smaller differences in growth do not change the order: rows would jump about."""

_Past = deque[tuple[float, int]]
"""Times, in seconds, and RSS, in bytes, of a process."""


@dataclass(frozen=True, slots=True)
class Row:
    """A process of the fleet.

    Attributes:
        host: its name.
        process: as it was sampled last.
        grown_bytes: its RSS above the lowest of the last minute.
        series: the name of its RSS in Graphite.
    """

    host: str
    process: ProcessMemory
    grown_bytes: int
    series: str


class Watch:
    """The fleet as the demo shows it: the latest outcome of each host, and the last minute of its processes.

    Args:
        fleet: what is sampled.
    """

    def __init__(self, fleet: FleetParts) -> None:
        self._fleet = fleet
        self._names = {host: fleet.names.host(host.name) for host in fleet.hosts}
        self._outcomes: dict[Host, Outcome] = {}
        self._pasts: dict[Host, dict[tuple[int, str], _Past]] = {}

    def add(self, outcome: Outcome) -> None:
        """Notes the outcome of a host."""
        self._outcomes[outcome.host] = outcome
        if isinstance(outcome, Sample):
            self._pasts[outcome.host] = dict(self._remember(outcome))

    def _remember(self, sample: Sample) -> Iterator[tuple[tuple[int, str], _Past]]:
        """Yields the last minute of the processes that there are."""
        before, now = self._pasts.get(sample.host, {}), sample.taken_unix_seconds
        for process in sample.shaped.processes:
            key = process.pid, process.command
            past = before.get(key) or deque()
            past.append((now, process.rss_bytes))
            while past[0][0] < now - GROWTH_SECONDS:
                past.popleft()
            yield key, past

    @property
    def hosts_answering(self) -> int:
        """How many hosts have answered last time."""
        return sum(isinstance(outcome, Sample) for outcome in self._outcomes.values())

    @property
    def failures(self) -> list[Failure]:
        """Hosts that have not."""
        return [outcome for outcome in self._outcomes.values() if isinstance(outcome, Failure)]

    @property
    def samples(self) -> list[Sample]:
        """Of hosts that have."""
        return [outcome for outcome in self._outcomes.values() if isinstance(outcome, Sample)]

    def fastest_growing(self, count: int) -> list[Row]:
        """Returns the processes of all hosts that grow most; of those that grow alike, the biggest come first."""
        rows = (row for sample in self.samples for row in self._rows(sample))
        return nlargest(count, rows, key=lambda row: (row.grown_bytes // _GROWTH_STEP_BYTES, row.process.rss_bytes))

    def _rows(self, sample: Sample) -> Iterable[Row]:
        names = self._names[sample.host]
        for process in sample.shaped.processes:
            wrap = statsd_plain(self._fleet.names.prefix, names.process(process.command, process.pid))
            past = self._pasts[sample.host][process.pid, process.command]
            grown_bytes = process.rss_bytes - min(rss_bytes for _seconds, rss_bytes in past)
            yield Row(sample.host.name, process, grown_bytes, f"{GRAPHITE_PREFIX}{wrap.head}rss_bytes")


def build_recording_fleet(directory: Directory, state: State) -> tuple[FleetParts, RecordingTransport]:
    """Returns the fleet of a lab and the transport, in place of the usual one, that remembers what it sends.

    Raises:
        UsageError: the environment sets something that does not fit.
    """
    fleet = build_fleet(config.load(None, settings(directory, state)), _ask_nobody)
    return fleet, record(fleet)


def _ask_nobody(_path: Path) -> None:
    return None


def fetch_histories(graphite: GraphiteRender, rows: Iterable[Row], seconds: float) -> dict[str, list[float]]:
    """Returns the RSS of the last seconds, in bytes, by series.

    Raises:
        LabError: Graphite does not answer.
    """
    found = graphite.fetch([row.series for row in rows], time.time() - seconds)
    return {name: [value for value, _unix_seconds in series] for name, series in found.items()}
