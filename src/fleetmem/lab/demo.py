"""The lab's demo: fleetmem's own daemon against the lab, and what it shows of it meanwhile."""

import time
from collections.abc import Iterable
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


@dataclass(frozen=True, slots=True)
class Row:
    """A process of the fleet and the name of its RSS in Graphite."""

    host: str
    process: ProcessMemory
    series: str


class Watch:
    """The fleet as the demo shows it: the latest outcome of each host.

    Args:
        fleet: what is sampled.
    """

    def __init__(self, fleet: FleetParts) -> None:
        self._fleet = fleet
        self._names = {host: fleet.names.host(host.name) for host in fleet.hosts}
        self._outcomes: dict[Host, Outcome] = {}

    def add(self, outcome: Outcome) -> None:
        """Takes the outcome of a host."""
        self._outcomes[outcome.host] = outcome

    @property
    def hosts_answering(self) -> int:
        """How many hosts have answered last time."""
        return sum(isinstance(outcome, Sample) for outcome in self._outcomes.values())

    @property
    def failures(self) -> list[Failure]:
        """Hosts that have not."""
        return [outcome for outcome in self._outcomes.values() if isinstance(outcome, Failure)]

    def biggest(self, count: int) -> list[Row]:
        """Returns the processes with the most RSS, over all hosts."""
        rows = (
            row for outcome in self._outcomes.values() if isinstance(outcome, Sample) for row in self._rows(outcome)
        )
        return nlargest(count, rows, key=lambda row: row.process.rss_bytes)

    def _rows(self, sample: Sample) -> Iterable[Row]:
        names = self._names[sample.host]
        for process in sample.shaped.processes:
            wrap = statsd_plain(self._fleet.names.prefix, names.process(process.command, process.pid))
            yield Row(sample.host.name, process, f"{GRAPHITE_PREFIX}{wrap.head}rss_bytes")


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
