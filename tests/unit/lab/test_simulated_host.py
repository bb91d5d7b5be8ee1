from collections import Counter
from itertools import pairwise

import pytest

from fleetmem.lab.simulated_host import Fault, SimulatedHost, SimulationPlan
from fleetmem.model import ProcessMemory
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import ProbeKind

_ONE_PERCENT_EACH = dict.fromkeys(Fault, 0.01)


def _plan(*, hosts: int = 10, processes: int = 150, churn: float = 0.1, seed: int = 1) -> SimulationPlan:
    return SimulationPlan(hosts, processes, churn, seed, {})


def _frames(plan: SimulationPlan, number: int, count: int) -> list[bytes]:
    host = SimulatedHost(plan, number)
    return [host.frame(request_id) for request_id in range(1, count + 1)]


def _samples(plan: SimulationPlan, count: int) -> list[tuple[ProcessMemory, ...]]:
    parser = SnapshotParser(ProbeKind.STATUS)
    return [tuple(parser.parse(frame).processes) for frame in _frames(plan, 0, count)]


def test_the_same_seed_makes_the_same_fleet() -> None:
    """A host does the same on every run, whatever others do; another seed and another host do something else."""
    plan = _plan()
    assert _frames(plan, 3, 20) == _frames(plan, 3, 20)
    assert _frames(plan, 3, 20) != _frames(plan, 4, 20)
    assert _frames(plan, 3, 20) != _frames(_plan(seed=2), 3, 20)


@pytest.mark.parametrize("churn", [0, 0.01, 0.1, 0.35, 1])
def test_the_share_of_rows_that_change(churn: float) -> None:
    """Over a hundred frames it is the one that was asked for, to a row; each frame is one that the parser takes."""
    samples = _samples(_plan(churn=churn), 101)
    assert {len(rows) for rows in samples} == {150}
    changed = sum(len(set(now) - set(before)) for before, now in pairwise(samples))
    assert changed == pytest.approx(150 * churn * 100, abs=1)


@pytest.mark.slow
def test_processes_grow_leak_come_and_go() -> None:
    """Of the pids of a host most stay; of these some only grow."""
    samples = _samples(_plan(), 200)
    first, last = ({row.pid: row for row in rows} for rows in (samples[0], samples[-1]))
    stayed = first.keys() & last.keys()
    assert 0.85 * 150 <= len(stayed) < 150
    histories = [[row.rss_bytes for rows in samples for row in rows if row.pid == pid] for pid in sorted(stayed)]
    leaking = [history for history in histories if history == sorted(history) and history[0] < history[-1]]
    assert 10 <= len(leaking) <= 20
    assert all(row.vsz_bytes >= row.rss_bytes and (row.peak_rss_bytes or 0) >= row.rss_bytes for row in last.values())


def test_the_shares_of_faults() -> None:
    """They are kept to a host or two, spread over the fleet, and none where none is asked for."""
    plan = SimulationPlan(10_000, 1, 0.1, 7, _ONE_PERCENT_EACH)
    faults = [plan.fault_of(number) for number in range(plan.hosts)]
    counts = Counter(faults)
    assert all(98 <= counts[fault] <= 102 for fault in Fault)
    assert all(
        8 <= sum(fault is not None for fault in faults[begin : begin + 200]) <= 12 for begin in range(0, 10_000, 200)
    )
    assert _plan().fault_of(0) is None
    assert SimulationPlan(10, 1, 0, 1, {Fault.SLOW: 1.0}).fault_of(9) is Fault.SLOW


def test_what_the_processes_add_up_to() -> None:
    """The sums, and the memory that is left, are those of the last frame as the parser reads it."""
    plan, parser = _plan(processes=30), SnapshotParser(ProbeKind.STATUS)
    host, other = SimulatedHost(plan, 3), SimulatedHost(plan, 3)
    for request_id in range(1, 20):
        snapshot = parser.parse(host.frame(request_id))
        rows = snapshot.processes
        assert host.sums() == (30, sum(row.rss_bytes for row in rows), sum(row.vsz_bytes for row in rows))
        assert host.available_bytes == snapshot.memory.available_bytes
        other.go_on()
        assert (other.sums(), other.available_bytes) == (host.sums(), host.available_bytes)


def test_ps_tells_the_same_processes() -> None:
    """Whoever asks by `ps` gets what the probe would have told."""
    plan, parser = _plan(processes=30), SnapshotParser(ProbeKind.STATUS)
    asked, other = SimulatedHost(plan, 3), SimulatedHost(plan, 3)
    for request_id in range(1, 5):
        lines = [line.split(None, 4) for line in asked.ps().decode().splitlines()]
        rows = parser.parse(other.frame(request_id)).processes
        assert [(int(pid), int(rss) * 1024, int(vsz) * 1024, name) for pid, rss, vsz, _percent, name in lines] == [
            (row.pid, row.rss_bytes, row.vsz_bytes, row.command) for row in rows
        ]
        shares = [(float(line[3]), row.mem_percent or 0) for line, row in zip(lines, rows, strict=True)]
        assert all(abs(theirs - ours) <= 0.05 + 1e-9 for theirs, ours in shares)
