"""What a sampler tells of itself, and what several of them come to."""

from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from fleetmem.runtime.usage import Usage
from fleetmem.sinks.sink import SinkState, SinkStats
from fleetmem.telemetry.cycles import merged
from fleetmem.telemetry.selfstats import CycleStats


@dataclass(frozen=True, slots=True)
class Report:
    """What a sampler tells.

    Attributes:
        interval_seconds: of the grid that it samples by.
        cycles: what happened in cycles that it had not told of.
        open_from: the first cycle that has more to come.
        totals: counters since its start, by their names in `telemetry.counters`.
        hosts_kept_apart: names of hosts that have a hash, as they would be another's otherwise.
        commands_kept_apart: names of commands that have a hash, as they would be another's otherwise.
        usage: what its process takes of the machine; None where that cannot be known.
        sinks: the state of its own.
    """

    interval_seconds: float
    cycles: Mapping[int, CycleStats] = field(default_factory=dict)
    open_from: int = 0
    totals: Mapping[str, int] = field(default_factory=dict)
    hosts_kept_apart: int = 0
    commands_kept_apart: int = 0
    usage: Usage | None = None
    sinks: tuple[SinkState, ...] = ()

    @property
    def cycle(self) -> CycleStats:
        """What happened in all of these cycles."""
        return merged(self.cycles.values())

    def line(self, number: int, hosts: int) -> str:
        """Returns one line for people about a cycle.

        Args:
            number: which one; what is there of those before it came late, and is reported by itself.
            hosts: of the fleet.
        """
        own = self.cycles.get(number, CycleStats())
        return own.line(hosts, self.cycle.outcomes - own.outcomes)

    def after_end(self) -> "Report":
        """Returns what is left of it when the process is gone: totals, which must not fall."""
        return replace(
            self,
            cycles={},
            hosts_kept_apart=0,
            commands_kept_apart=0,
            usage=self.usage and _only_totals(self.usage),
            sinks=tuple(sink._replace(problem=None, counters=_only_totals(sink.counters)) for sink in self.sinks),
        )


def add_up(reports: Sequence[Report]) -> Report:
    """Returns what several samplers come to; a sink of one name is one sink.

    Raises:
        IndexError: there is none.
    """
    cycles: dict[int, CycleStats] = {}
    for report in reports:
        for number, stats in report.cycles.items():
            cycles.setdefault(number, CycleStats()).merge(stats)
    usages = [report.usage for report in reports if report.usage]
    return Report(
        reports[0].interval_seconds,
        cycles,
        min(report.open_from for report in reports),
        _sum_by_name([report.totals for report in reports]),
        max(report.hosts_kept_apart for report in reports),  # all know the names of all hosts
        sum(report.commands_kept_apart for report in reports),
        _sum(usages) if usages else None,
        tuple(_add_up_sinks(sink for report in reports for sink in report.sinks)),
    )


def _add_up_sinks(sinks: Iterable[SinkState]) -> Iterable[SinkState]:
    by_name: dict[str, list[SinkState]] = {}
    for sink in sinks:
        by_name.setdefault(sink.name, []).append(sink)
    for same in by_name.values():
        problem = next((sink.problem for sink in same if sink.problem), None)
        yield same[0]._replace(problem=problem, counters=_sum([sink.counters for sink in same]))


def _sum_by_name(told: Sequence[Mapping[str, int]]) -> Mapping[str, int]:
    whole: Tally[str] = Tally()
    for totals in told:
        whole.update(totals)
    return dict(whole)


_Counters = TypeVar("_Counters", SinkStats, Usage)


def _sum(told: Sequence[_Counters]) -> _Counters:
    """Returns sums; of ages the highest, and 1 where one sink is failing."""
    columns = zip(told[0]._fields, zip(*told, strict=True), strict=True)
    return told[0]._replace(**{name: max(column) if _is_highest(name) else sum(column) for name, column in columns})


def _is_highest(name: str) -> bool:
    return name.endswith("_age_seconds") or name == "failing"


def _only_totals(told: _Counters) -> _Counters:
    return told._replace(**{name: 0 for name in told._fields if not name.endswith("_total")})
