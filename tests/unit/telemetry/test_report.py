import pickle
from dataclasses import replace

import pytest

from fleetmem.errors import Kind
from fleetmem.runtime.usage import Usage
from fleetmem.sinks.sink import SinkState, SinkStats
from fleetmem.telemetry.cycles import Cycles
from fleetmem.telemetry.report import Report, add_up
from fleetmem.telemetry.selfstats import CycleStats
from unit.builders import failure, process, sample


def _cycle(*late_seconds: float, seconds: float = 1.0) -> CycleStats:
    """Returns an interval with a sample of two processes for each."""
    cycle = CycleStats()
    for late in late_seconds:
        cycle.add(sample(process(1), process(2)), late, seconds)
    cycle.add(failure(Kind.AUTH_FAILED), 0.0, seconds)
    cycle.missed = 2
    return cycle


def _sink(name: str, problem: str | None = None) -> SinkState:
    counters = SinkStats(points_sent_total=7, series=3, queue_age_seconds=len(name), failing=int(problem is not None))
    return SinkState(name, "10.0.0.9:8125", problem, counters)


def _report(cycle: CycleStats, *sinks: SinkState, commands_kept_apart: int = 2) -> Report:
    usage = Usage(1.5, 100, 10, 3, 7)
    return Report(10.0, {7: cycle}, 8, {"handshakes_total": 10, "bugs_total": 2}, 3, commands_kept_apart, usage, sinks)


def test_several_samplers_come_to_one() -> None:
    """Sums; the highest of delays over all hosts, of ages the highest; a sink of one name is one sink."""
    whole = add_up(
        [
            _report(_cycle(0.1, 0.2), _sink("statsd")),
            _report(_cycle(0.9, seconds=3.0), _sink("statsd", "away"), _sink("graphite")),
        ]
    )
    cycle = whole.cycle
    assert (cycle.samples, cycle.failures, cycle.processes, cycle.missed) == (3, {Kind.AUTH_FAILED: 2}, 6, 4)
    assert (cycle.seconds, sorted(cycle.late_seconds)) == (3.0, [0.0, 0.0, 0.1, 0.2, 0.9])
    assert len(cycle.host_seconds) == 5
    assert whole.totals == {"handshakes_total": 20, "bugs_total": 4}
    assert whole.usage == Usage(3.0, 200, 20, 6, 14)
    assert (whole.open_from, whole.hosts_kept_apart, whole.commands_kept_apart) == (8, 3, 4)
    statsd, graphite = whole.sinks
    assert (statsd.problem, statsd.counters.points_sent_total, statsd.counters.series) == ("away", 14, 6)
    assert (statsd.counters.queue_age_seconds, statsd.counters.failing) == (6, 1)
    assert graphite == _sink("graphite")


def test_totals_outlive_a_worker() -> None:
    """What has been told of a process that is gone stays where it only grows, and goes where it is of a moment."""
    gone = _report(_cycle(0.1), _sink("statsd", "away")).after_end()
    new = replace(_report(CycleStats(), _sink("statsd")), totals={"handshakes_total": 1})
    whole = add_up([gone, new])
    assert whole.totals == {"handshakes_total": 11, "bugs_total": 2}
    assert whole.usage == Usage(3.0, 100, 10, 3, 7)
    assert (whole.cycle.samples, whole.cycle.missed) == (0, 0)
    assert whole.commands_kept_apart == 2
    (sink,) = whole.sinks
    assert (sink.problem, sink.counters.points_sent_total, sink.counters.series) == (None, 14, 3)
    assert sink.counters.queue_age_seconds == 6


def test_a_machine_that_does_not_tell() -> None:
    """Without /proc there is no usage, and nothing is made up."""
    assert add_up([replace(_report(CycleStats()), usage=None)]).usage is None
    with pytest.raises(IndexError):
        add_up([])


def test_a_report_is_small() -> None:
    """Two numbers for each host: 5,000 hosts fit 100 KB."""
    data = pickle.dumps(_report(_cycle(*[0.125] * 5000)))
    assert len(data) < 100_000
    assert pickle.loads(data).cycle.late_seconds == _cycle(*[0.125] * 5000).late_seconds  # noqa: S301 - our own


def test_what_comes_late_is_not_in_the_line_of_the_next_cycle() -> None:
    """Thirteen outcomes of twelve hosts: twelve of this cycle, and one of the cycle before, which was told already."""
    cycles = Cycles()
    cycles.of(7).add(sample(), 0.0, 0.0)
    cycles.take_before(8)
    cycles.of(7).add(sample(), 0.0, 0.0)
    for _ in range(12):
        cycles.of(8).add(sample(), 0.0, 0.0)
    report = Report(10.0, cycles.take_before(9))
    assert report.cycle.samples == 13
    assert report.line(8, 12) == "12 of 12 hosts answered, 0 failed, 0 processes, 5.9 KiB, 1 late from earlier cycles"
