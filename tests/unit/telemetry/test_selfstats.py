import re
import socket

import pytest

from fleetmem.errors import Kind
from fleetmem.model import CollectorStats, CounterKind
from fleetmem.sinks import formats
from fleetmem.sinks.naming import MAX_NAME_BYTES, FleetNames
from fleetmem.sinks.series import Retire, SeriesEncoding
from fleetmem.sinks.sink import SinkState, SinkStats
from fleetmem.telemetry.counters import ALL_COUNTERS, COLLECTOR_COUNTERS, SINK_COUNTERS
from fleetmem.telemetry.selfstats import CycleStats, SelfStats
from unit.builders import failure, process, sample

_OTHERS = {
    "handshakes_total": 7,
    "reconnects_total": 2,
    "logins_withheld_total": 6,
    "outcomes_dropped_total": 8,
    "bugs_total": 10,
    "workers": 2,
    "workers_restarted_total": 9,
    "names_kept_apart": 3,
    "inventory_hosts": 50,
    "inventory_failures_total": 4,
    "inventory_stale": 1,
    "inventory_entries_left_out": 2,
    "cpu_seconds_total": 1.5,
    "rss_bytes": 2**20,
    "open_files": 30,
    "threads": 4,
    "tasks": 20,
}


def _sink(name: str, stats: SinkStats) -> SinkState:
    return SinkState(name, "", None, stats)


def _add(stats: SelfStats, cycle: CycleStats, *sinks: SinkState) -> CollectorStats:
    return stats.add(
        cycle,
        sinks,
        _OTHERS,
        5.0,
    )


def _values(stats: CollectorStats) -> dict[str, float]:
    return {f"{counter.sink}.{counter.measure}".lstrip("."): counter.value for counter in stats.counters}


def test_an_interval() -> None:
    """An interval with something of everything, and the state of two sinks."""
    cycle = CycleStats()
    for late_seconds in (0.1, 0.2, 0.9):
        cycle.add(sample(process(1), process(2)), late_seconds, 3.0)
    cycle.add(failure(Kind.AUTH_FAILED), 0.4, 3.5)
    cycle.missed += 5
    sinks = _sink("statsd", SinkStats(points_sent_total=1)), _sink("graphite", SinkStats(queue_points=2))
    values = _values(_add(SelfStats(), cycle, *sinks))
    assert {name: value for name, value in values.items() if value} == {
        "hosts_up": 3,
        "hosts_failed": 1,
        "hosts_failed_auth_failed": 1,
        "processes": 6,
        "received_bytes": 1500,
        "cycle_seconds": 3.5,
        "host_p50_seconds": 0.125,
        "host_p99_seconds": 0.5,
        "host_highest_seconds": 0.5,
        "late_p50_seconds": pytest.approx(0.3),
        "late_p99_seconds": 0.9,
        "late_highest_seconds": 0.9,
        "slots_total": 9,
        "cycles_missed_total": 5,
        **_OTHERS,
        "statsd.points_sent_total": 1,
        "graphite.queue_points": 2,
    }


def test_what_is_shipped_is_what_is_declared() -> None:
    """Every counter that is declared is shipped, in that order; one that is not declared is a bug."""
    sinks = [_sink("statsd", SinkStats())]
    shipped = SelfStats().add(CycleStats(), sinks, dict.fromkeys(COLLECTOR_COUNTERS, 1.0), 5.0)
    assert [counter.measure for counter in shipped.counters] == [*COLLECTOR_COUNTERS, *SINK_COUNTERS]
    with pytest.raises(KeyError, match="lost_total"):
        SelfStats().add(CycleStats(), [], {**_OTHERS, "lost_total": 1}, 5.0)


def test_declarations() -> None:
    """Only counters end in `_total`, no name is declared twice, and a meaning is one sentence."""
    assert len(ALL_COUNTERS) == len(COLLECTOR_COUNTERS) + len(SINK_COUNTERS)
    for declared in ALL_COUNTERS.values():
        assert declared.name.endswith("_total") is (declared.kind is CounterKind.COUNTER)
        assert re.fullmatch(r"[A-Z0-9][^.|\n]*[.]", declared.meaning.replace("known_hosts", "")), declared.meaning


def test_totals_grow_and_the_others_start_anew() -> None:
    """Measures that end in _total count since the start; the others describe one interval."""
    stats = SelfStats()
    for _ in range(2):
        cycle = CycleStats()
        cycle.add(sample(), 0.5, 1.0)
        cycle.missed += 2
        values = _values(_add(stats, cycle))
    assert (values["cycles_missed_total"], values["slots_total"], values["hosts_up"]) == (4, 6, 1)
    values = _values(_add(stats, CycleStats()))
    assert (values["cycles_missed_total"], values["hosts_up"], values["late_highest_seconds"]) == (4, 0, 0)


def test_the_end_of_a_run() -> None:
    """The slots of a cycle that is cut short count; what describes an interval stays as the last whole one left it."""
    stats, cycle, rest = SelfStats(), CycleStats(), CycleStats()
    assert stats.finish(CycleStats(), 10.0) is None
    for _ in range(3):
        cycle.add(sample(), 0.5, 1.0)
    _add(stats, cycle)
    rest.add(sample(), 0.5, 1.0)
    rest.missed += 1
    shipped = stats.finish(rest, 20.0)
    assert shipped is not None
    values = _values(shipped)
    assert (values["slots_total"], values["cycles_missed_total"], values["hosts_up"]) == (5, 1, 3)
    assert shipped.taken_unix_seconds == 20.0


@pytest.mark.parametrize("hostname", ["collector-1.example.com", "x" * 64, "1", "_"])
def test_names(monkeypatch: pytest.MonkeyPatch, hostname: str) -> None:
    """Whatever this machine is called: every name is legal and fits, with the longest prefix and a sink's name."""
    monkeypatch.setattr(socket, "gethostname", lambda: hostname)
    shipped = _add(SelfStats(), CycleStats(), _sink("prometheus", SinkStats()))
    encoding = SeriesEncoding(formats.statsd_plain, Retire.NONE)
    text = encoding.stats(FleetNames("p" * 40, []), shipped)
    lines = text.text.decode().splitlines()
    assert len(lines) == text.points == len(shipped.counters)
    for line in lines:
        name = line.partition(":")[0]
        assert re.fullmatch(r"p{40}\.collector\.[A-Za-z0-9_]+(\.prometheus)?\.[a-z0-9_]+", name)
        assert len(name) <= MAX_NAME_BYTES


def test_no_measure_ends_as_an_aggregation_rule_does() -> None:
    """Graphite's usual rules add up, or take the lowest of, what ends so."""
    for counter in _add(SelfStats(), CycleStats(), _sink("x", SinkStats())).counters:
        assert not re.search(r"(count|sum|min|max|lower|upper)$", counter.measure)


def test_early_is_not_late() -> None:
    """A timer that fires a little early gives no negative value: that would be a relative gauge."""
    cycle = CycleStats()
    cycle.add(sample(), -0.001, 0.5)
    values = _values(_add(SelfStats(), cycle))
    assert (values["late_p50_seconds"], values["late_highest_seconds"]) == (0.0, 0.0)


def test_the_line_and_facts_of_an_interval() -> None:
    """One line for people, the rest beside it, failures by kind."""
    cycle = CycleStats()
    cycle.add(sample(process(1)), 0.0125, 1.0)
    cycle.add(failure(Kind.AUTH_FAILED), 0.0125, 1.0)
    cycle.add(failure(Kind.AUTH_FAILED), 0.0125, 1.0)
    assert cycle.line(3) == "1 of 3 hosts answered, 2 failed, 1 processes, 500 B"
    assert cycle.facts() == {"median_delay_ms": 12.5, "missed": 0, "auth_failed": 2}


def test_the_line_never_has_more_hosts_than_there_are() -> None:
    """Slots without an outcome are told; where slots of several cycles are in one, these are samples."""
    cycle = CycleStats()
    for _ in range(2):
        cycle.add(sample(process(1)), 0.0, 1.0)
    cycle.missed = 1
    assert cycle.line(5, 3) == (
        "2 of 5 hosts answered, 0 failed, 1 missed, 2 pending, 2 processes, 1000 B, 3 late from earlier cycles"
    )
    assert cycle.line(2).startswith("2 samples of 2 hosts, 0 failed, 1 missed, 2 processes")
