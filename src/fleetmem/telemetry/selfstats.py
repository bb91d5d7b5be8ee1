"""What happens in a cycle, and the values of the collector's own counters, which `counters` declares."""

import socket
from array import array
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

from fleetmem.errors import Kind
from fleetmem.model import CollectorStats, Counter, DeclaredCounter, LeftOut, Outcome, Sample
from fleetmem.sinks.naming import NameTable
from fleetmem.sinks.sink import SinkState
from fleetmem.telemetry.counters import COLLECTOR_COUNTERS, SINK_COUNTERS
from fleetmem.units import format_size

_ID_BYTES = 24  # leaves room for prefix, sink and measure


def collector_id() -> str:
    """Returns what this machine is called in metric names."""
    return NameTable(_ID_BYTES).name(socket.gethostname())


class CycleStats:
    """What happened in one cycle, by the slots of hosts.

    Attributes:
        missed: slots without an outcome.
        seconds: from the begin of the cycle to its last outcome.
    """

    def __init__(self) -> None:
        self.missed = 0
        self.seconds = 0.0
        self.samples = 0
        self.failures: Tally[Kind] = Tally()
        self.processes = 0
        self.left_out: Tally[LeftOut] = Tally()
        self.received_bytes = 0
        self.late_seconds = array("d")
        self.host_seconds = array("d")

    def add(self, outcome: Outcome, late_seconds: float, cycle_seconds: float) -> None:
        """Counts an outcome.

        Args:
            outcome: of a host.
            late_seconds: how long after its slot it was begun.
            cycle_seconds: how long after the begin of the cycle it came.
        """
        self.late_seconds.append(max(0.0, late_seconds))
        self.host_seconds.append(outcome.collect_seconds)
        self.seconds = max(self.seconds, cycle_seconds)
        if isinstance(outcome, Sample):
            self.samples += 1
            self.processes += outcome.shaped.process_count
            self.received_bytes += outcome.received_bytes
            self.left_out.update(outcome.shaped.left_out)
        else:
            self.failures[outcome.kind] += 1

    def merge(self, other: "CycleStats") -> None:
        """Adds what happened to other hosts in the same interval."""
        self.missed += other.missed
        self.seconds = max(self.seconds, other.seconds)
        self.samples += other.samples
        self.failures += other.failures
        self.processes += other.processes
        self.left_out += other.left_out
        self.received_bytes += other.received_bytes
        self.late_seconds += other.late_seconds
        self.host_seconds += other.host_seconds

    @property
    def outcomes(self) -> int:
        """Slots that had their outcome."""
        return self.samples + self.failures.total()

    @property
    def slots(self) -> int:
        """Slots that are settled."""
        return self.outcomes + self.missed

    def line(self, hosts: int, earlier: int = 0) -> str:
        """Returns one line for people.

        Args:
            hosts: of the fleet; each has one slot in a cycle.
            earlier: outcomes that came too late for the line of their own cycle. They are not in this one's.
        """
        # More slots than hosts: the clock was set, or hosts have just gone. Then these are samples, not hosts.
        answers = f"{self.samples:,} of {hosts:,} hosts answered"
        parts = [answers if self.slots <= hosts else f"{self.samples:,} samples of {hosts:,} hosts"]
        parts.append(f"{self.failures.total():,} failed")
        if self.missed:
            parts.append(f"{self.missed:,} missed")
        if self.slots < hosts:
            parts.append(f"{hosts - self.slots:,} pending")
        parts += [f"{self.processes:,} processes", format_size(self.received_bytes)]
        if earlier:
            parts.append(f"{earlier:,} late from earlier cycles")
        return ", ".join(parts)

    def facts(self) -> dict[str, object]:
        """Returns the rest of it, for logs."""
        delay_seconds = median(self.late_seconds) if self.late_seconds else 0.0
        facts: dict[str, object] = {"median_delay_ms": round(delay_seconds * 1000, 1), "missed": self.missed}
        return facts | {str(kind): count for kind, count in self.failures.items()}


class ConfigState(NamedTuple):
    """Whether the configuration that was read last is in force. The fields are counters that `counters` declares."""

    config_last_reload_successful: int = 0
    config_last_reload_success_timestamp_seconds: float = 0.0

    def taken(self, unix_seconds: float) -> "ConfigState":
        """Returns the state after a configuration was taken."""
        return ConfigState(1, unix_seconds)

    def refused(self) -> "ConfigState":
        """Returns the state after one was not: the old one stays."""
        return self._replace(config_last_reload_successful=0)


class SelfStats:
    """The counters as they are shipped, through every sink.

    Attributes:
        collector: what this collector is called in them.
    """

    def __init__(self) -> None:
        self.collector = collector_id()
        self._missed_total = 0
        self._slots_total = 0
        self._shipped: CollectorStats | None = None

    def add(
        self,
        stats: CycleStats,
        sinks: Sequence[SinkState],
        others: Mapping[str, float],
        unix_seconds: float,
        worker_pids: Sequence[int | None] = (),
    ) -> CollectorStats:
        """Returns the counters to ship for an interval.

        Args:
            stats: of the interval.
            sinks: their state now.
            others: values of all other counters, by name.
            unix_seconds: the time of the counters.
            worker_pids: processes that sample besides this one.

        Raises:
            KeyError: a counter is not declared.
        """
        self._missed_total += stats.missed
        self._slots_total += stats.slots
        values: dict[str, float] = {
            "hosts_up": stats.samples,
            "hosts_failed": sum(stats.failures.values()),
            **{f"hosts_failed_{kind}": stats.failures[kind] for kind in Kind},
            "processes": stats.processes,
            **{f"processes_{reason}": stats.left_out[reason] for reason in LeftOut},
            "received_bytes": stats.received_bytes,
            "cycle_seconds": stats.seconds,
            **_spread("host", stats.host_seconds),
            **_spread("late", stats.late_seconds),
            "slots_total": self._slots_total,
            "cycles_missed_total": self._missed_total,
            **others,
        }
        counters = _in_order("", COLLECTOR_COUNTERS, values)
        for sink in sinks:
            counters += _in_order(sink.name, SINK_COUNTERS, sink.counters._asdict())
        self._shipped = CollectorStats(self.collector, unix_seconds, tuple(counters), tuple(worker_pids))
        return self._shipped

    def finish(self, stats: CycleStats, unix_seconds: float) -> CollectorStats | None:
        """Returns the last counters once more, with the slots of a cycle that the end of the run has cut short.

        So slots, outcomes and missed slots add up over the whole run, and no gauge shows a part of a fleet.

        Args:
            stats: of that cycle.
            unix_seconds: the time of the counters.

        Returns:
            None where none have been shipped.
        """
        if self._shipped is None:
            return None
        self._missed_total += stats.missed
        self._slots_total += stats.slots
        totals = {"slots_total": self._slots_total, "cycles_missed_total": self._missed_total}
        counters = tuple(
            counter._replace(value=totals.get(counter.measure, counter.value)) if not counter.sink else counter
            for counter in self._shipped.counters
        )
        return replace(self._shipped, taken_unix_seconds=unix_seconds, counters=counters)


def _in_order(sink: str, declared: Mapping[str, DeclaredCounter], values: Mapping[str, float]) -> list[Counter]:
    """Returns the counters that have a value, in the order in which they are declared.

    Raises:
        KeyError: one is not declared.
    """
    if undeclared := values.keys() - declared.keys():
        raise KeyError(f"not declared in telemetry.counters: {', '.join(sorted(undeclared))}")
    return [Counter(sink, name, values[name]) for name in declared if name in values]


def _spread(name: str, seconds: Iterable[float]) -> dict[str, float]:
    """Returns median, 99th percentile (nearest rank) and the highest of durations, 0 where there are none."""
    ordered = sorted(seconds) or [0.0]
    return {
        f"{name}_p50_seconds": median(ordered),
        f"{name}_p99_seconds": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        f"{name}_highest_seconds": ordered[-1],
    }
