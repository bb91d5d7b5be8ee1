import re
import socket

import pytest

from fleetmem.errors import Kind
from fleetmem.selfstats import CycleStats, SelfStats
from fleetmem.sinks import formats
from fleetmem.sinks.naming import MAX_NAME_BYTES, FleetNames
from fleetmem.sinks.runner import Format, Sink
from fleetmem.sinks.series import Retire
from fleetmem.sinks.udp import UdpTransport
from unit.builders import failure, process, sample


def _sink(sent: int, dropped: int, retries: int, datagrams: int) -> Sink:
    sink = Sink(Format(formats.statsd), UdpTransport("127.0.0.1", 1), FleetNames("p", []), Retire.ZERO)
    sink.points_sent_total, sink.points_dropped_total, sink.retries_total = sent, dropped, retries
    sink.transport.datagrams_total = datagrams
    return sink


def _values(stats: SelfStats) -> dict[str, str]:
    return {name.rpartition(".")[2]: value for name, value in stats.points("p")}


def test_every_counter_moves() -> None:
    """An interval with something of everything: no counter stays at 0, and each says what happened."""
    cycle = CycleStats()
    for late_seconds in (0.1, 0.2, 0.9):
        cycle.add(sample(process(1), process(2)), late_seconds)
    cycle.add(failure(), 0.4)
    cycle.missed += 5
    stats = SelfStats()
    stats.add(cycle, [_sink(1, 2, 3, 4), _sink(10, 20, 30, 40)], connects_total=7)
    assert _values(stats) == {
        "hosts_up": "3",
        "hosts_failed": "1",
        "processes": "6",
        "received_bytes": "1500",
        "late_p50_seconds": "0.3",
        "late_highest_seconds": "0.9",
        "cycles_missed_total": "5",
        "connects_total": "7",
        "points_sent_total": "11",
        "points_dropped_total": "22",
        "sink_retries_total": "33",
        "datagrams_sent_total": "44",
    }


def test_totals_grow_and_the_others_start_anew() -> None:
    """Measures that end in _total count since the start; the others describe one interval."""
    stats = SelfStats()
    for _ in range(2):
        cycle = CycleStats()
        cycle.add(sample(), 0.5)
        cycle.missed += 2
        stats.add(cycle, [], 0)
    values = _values(stats)
    assert (values["cycles_missed_total"], values["hosts_up"]) == ("4", "1")
    stats.add(CycleStats(), [], 0)
    values = _values(stats)
    assert (values["cycles_missed_total"], values["hosts_up"], values["late_highest_seconds"]) == ("4", "0", "0")


def test_nothing_before_the_first_interval() -> None:
    """What was not measured is not sent."""
    assert SelfStats().points("p") == []


@pytest.mark.parametrize("hostname", ["collector-1.example.com", "x" * 64, "1", "_"])
def test_names(monkeypatch: pytest.MonkeyPatch, hostname: str) -> None:
    """Whatever this machine is called: every name is legal and fits, with the longest prefix."""
    monkeypatch.setattr(socket, "gethostname", lambda: hostname)
    stats = SelfStats()
    stats.add(CycleStats(), [], 0)
    for name, _value in stats.points("p" * 40):
        assert re.fullmatch(r"p{40}\.collector\.[A-Za-z0-9_]+\.[a-z0-9_]+", name)
        assert len(name) <= MAX_NAME_BYTES


def test_early_is_not_late() -> None:
    """A timer that fires a little early gives no negative value: that would be a relative gauge."""
    cycle = CycleStats()
    cycle.add(sample(), -0.001)
    assert (cycle.late_p50_seconds, cycle.late_max_seconds) == (0.0, 0.0)


def test_the_line_and_facts_of_an_interval() -> None:
    """One line for people, the rest beside it, failures by kind."""
    cycle = CycleStats()
    cycle.add(sample(process(1)), 0.0125)
    cycle.add(failure(Kind.AUTH_FAILED), 0.0125)
    cycle.add(failure(Kind.AUTH_FAILED), 0.0125)
    assert cycle.line() == "1 hosts ok, 2 failed, 1 processes, 500 B"
    assert cycle.facts() == {"late_p50_ms": 12.5, "missed": 0, "auth_failed": 2}
