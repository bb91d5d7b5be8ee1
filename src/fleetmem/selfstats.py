"""The collector's own counters. Their names and units are in docs/metrics.md."""

import socket
from collections import Counter
from collections.abc import Sequence
from statistics import median

from fleetmem.errors import Kind
from fleetmem.model import Outcome, Sample
from fleetmem.sinks.naming import NameTable
from fleetmem.sinks.runner import Sink
from fleetmem.units import format_number, format_size

_ID_BYTES = 40


class CycleStats:
    """What happened in one interval.

    Attributes:
        missed: slots of hosts that were skipped because the sample before was not over.
    """

    def __init__(self) -> None:
        self.missed = 0
        self.samples = 0
        self.failures: Counter[Kind] = Counter()
        self.processes = 0
        self.received_bytes = 0
        self._late_seconds: list[float] = []

    def add(self, outcome: Outcome, late_seconds: float) -> None:
        """Counts an outcome, and how long after its slot it was begun."""
        self._late_seconds.append(late_seconds)
        if isinstance(outcome, Sample):
            self.samples += 1
            self.processes += outcome.shaped.process_count
            self.received_bytes += outcome.received_bytes
        else:
            self.failures[outcome.kind] += 1

    @property
    def late_p50_seconds(self) -> float:
        """Median of how late samples were begun."""
        return max(0.0, median(self._late_seconds)) if self._late_seconds else 0.0

    @property
    def late_max_seconds(self) -> float:
        """The same, of the one that was begun latest."""
        return max([0.0, *self._late_seconds])

    def line(self) -> str:
        """Returns one line for people."""
        failed = sum(self.failures.values())
        return (
            f"{self.samples} hosts ok, {failed} failed, {self.processes} processes, {format_size(self.received_bytes)}"
        )

    def facts(self) -> dict[str, object]:
        """Returns the rest of it, for logs."""
        facts: dict[str, object] = {"late_p50_ms": round(self.late_p50_seconds * 1000, 1), "missed": self.missed}
        return facts | {str(kind): count for kind, count in self.failures.items()}


class SelfStats:
    """The counters as they are shipped: `<prefix>.collector.<id>.<measure>`."""

    def __init__(self) -> None:
        self._id = NameTable(_ID_BYTES).name(socket.gethostname())
        self._missed_total = 0
        self._values: dict[str, float] = {}

    def add(self, stats: CycleStats, sinks: Sequence[Sink], connects_total: int) -> None:
        """Takes an interval's counters, and the state of sinks and links."""
        self._missed_total += stats.missed
        self._values = {
            "hosts_up": stats.samples,
            "hosts_failed": sum(stats.failures.values()),
            "processes": stats.processes,
            "received_bytes": stats.received_bytes,
            "late_p50_seconds": stats.late_p50_seconds,
            "late_highest_seconds": stats.late_max_seconds,
            "cycles_missed_total": self._missed_total,
            "connects_total": connects_total,
            "points_sent_total": sum(sink.points_sent_total for sink in sinks),
            "points_dropped_total": sum(sink.points_dropped_total for sink in sinks),
            "sink_retries_total": sum(sink.retries_total for sink in sinks),
            "datagrams_sent_total": sum(sink.transport.datagrams_total for sink in sinks),
        }

    def points(self, prefix: str) -> list[tuple[str, str]]:
        """Returns names and values."""
        return [(f"{prefix}.collector.{self._id}.{name}", format_number(value)) for name, value in self._values.items()]
