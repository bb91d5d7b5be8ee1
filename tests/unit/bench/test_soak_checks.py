"""Each invariant of a soak can fail: a run that is right has no violations, and each thing that is wrong is named."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from fleetmem.errors import Kind, Stage
from fleetmem.lab.simulated_host import Fault, SimulatedHost, SimulationPlan
from fleetmem.lab.simulator import address_of
from fleetmem.model import Detail, Failure, Host, Outcome, Sample
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import ProbeKind
from fleetmem.runtime.usage import Usage
from fleetmem.shape.limits import Limits
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.records import json_line, stats_to_json, to_json
from fleetmem.sinks.sink import SinkState, SinkStats
from fleetmem.telemetry.selfstats import CycleStats, SelfStats
from soak_checks import Check, SoakChecks

pytestmark = pytest.mark.slow

Record = dict[str, Any]

INTERVAL_SECONDS = 4.0
BEGUN_UNIX_SECONDS = 1_700_000_000.0
PLAN = SimulationPlan(10, 20, 0.2, 5, {Fault.SILENT: 0.1, Fault.DROPPING: 0.1})
USAGE = Usage(1.0, 100_000_000, 40, 3, 30)
GOOD = [number for number in range(PLAN.hosts) if PLAN.fault_of(number) is None]
(SILENT,), (DROPPING,) = (
    [number for number in range(PLAN.hosts) if PLAN.fault_of(number) is fault]
    for fault in (Fault.SILENT, Fault.DROPPING)
)


class SimulatedRun:
    """A collector's file as it would be, made by the code that makes it, cycle by cycle.

    Attributes:
        checks: what it is given to.
    """

    def __init__(self) -> None:
        self.checks = SoakChecks(PLAN, INTERVAL_SECONDS)
        self.usage = USAGE
        self.statsd = SinkStats(series=1000)
        self.cycle = 0
        self.hosts = [SimulatedHost(PLAN, number) for number in range(PLAN.hosts)]
        self._parsers = [SnapshotParser(ProbeKind.STATUS) for _ in self.hosts]
        limits = Limits(detail=frozenset(Detail), top=5)
        self._shapers = [Shaper(_host(number), limits) for number in range(PLAN.hosts)]
        self._stats = SelfStats()

    def run(self, cycles: int, missed: int = 0, without: Iterable[int] = ()) -> None:
        """Gives whole cycles to the checks."""
        for _ in range(cycles):
            outcomes = [self.outcome(number) for number in range(PLAN.hosts) if number not in without]
            for outcome in outcomes:
                self.give(outcome)
            self.end(outcomes, missed)

    def outcome(self, number: int) -> Outcome:
        """Returns what a host comes to in this cycle."""
        at = BEGUN_UNIX_SECONDS + (self.cycle + number / PLAN.hosts) * INTERVAL_SECONDS
        if number == SILENT:
            return Failure(_host(number), at, 5.0, Stage.COMMAND, Kind.COMMAND_TIMEOUT, "silent", slot_unix_seconds=at)
        frame = self.hosts[number].frame(1)
        if number == DROPPING and self.cycle % 4 == 3:
            return Failure(_host(number), at, 0.1, Stage.COMMAND, Kind.BAD_FRAME, "broke off", slot_unix_seconds=at)
        shaped = self._shapers[number].shape(self._parsers[number].parse(frame), at)
        return Sample(_host(number), at, 0.1, len(frame), shaped, slot_unix_seconds=at)

    def give(self, outcome: Outcome, change: Callable[[Record], None] = lambda _record: None) -> None:
        """Gives an outcome to the checks."""
        record = json.loads(json_line(to_json(outcome)))
        change(record)
        self.checks.take_record(record)

    def end(self, outcomes: Iterable[Outcome], missed: int = 0, changed: Mapping[str, float] | None = None) -> None:
        """Ends a cycle with counters of these outcomes, but for those that are given."""
        cycle = CycleStats()
        for outcome in outcomes:
            cycle.add(outcome, 0.01, 1.0)
        cycle.missed = missed
        shipped = self._stats.add(
            cycle,
            [SinkState("statsd", "", None, self.statsd)],
            {
                "logins_withheld_total": 0,
                "inventory_hosts": PLAN.hosts,
                "inventory_stale": 0,
                **self.usage._asdict(),
            },
            BEGUN_UNIX_SECONDS + self.cycle * INTERVAL_SECONDS,
        )
        self.cycle += 1
        record = json.loads(json_line(stats_to_json(shipped)))
        record["counters"] |= changed or {}
        self.checks.take_record(record)

    def finish(self, missed: int = 0) -> None:
        """Ends the run: the last counters come once more, with slots that were missed since."""
        cycle = CycleStats()
        cycle.missed = missed
        shipped = self._stats.finish(cycle, BEGUN_UNIX_SECONDS + self.cycle * INTERVAL_SECONDS)
        assert shipped
        self.checks.take_record(json.loads(json_line(stats_to_json(shipped))))
        self.checks.end(is_whole=True)

    def violations(self) -> list[str]:
        """Returns what was found so far."""
        return [str(violation) for violation in self.checks.findings.first]


def _host(number: int) -> Host:
    return Host(address_of(number), address_of(number))


def _changed(change: Callable[[Record], None], number: int = GOOD[3]) -> list[str]:
    """Returns the violations of a run in which one record of a host is changed."""
    run = SimulatedRun()
    run.run(5)
    outcomes = [run.outcome(number) for number in range(PLAN.hosts)]
    for place, outcome in enumerate(outcomes):
        run.give(outcome, change if place == number else lambda _record: None)
    run.end(outcomes)
    run.run(5)
    return run.violations()


def test_what_is_right_has_no_violations() -> None:
    """A run with two faulty hosts, of which everything is checked: nothing is found, and nothing was left out."""
    run = SimulatedRun()
    run.run(30)
    run.checks.take_log(b'{"time":"2026-01-01T00:00:00.000Z","level":"info","message":"8 hosts ok"}')
    run.checks.take_report(b"9 logins, 0 requests while the one before was at work, 0 connections beside another one")
    run.checks.take_datagrams(100, 100, 0)
    grown = run.checks.end(is_whole=True)
    assert run.violations() == []
    assert run.checks.findings.checked.keys() == set(Check)
    assert {measure.measure for measure in grown} >= {"rss_bytes", "open_files", "tasks", "threads", "statsd.series"}
    assert (run.checks.cycles, run.checks.outcomes_total, run.checks.failures_total) == (29, 300, 30 + 7)


def test_an_outcome_twice() -> None:
    """The host is named, and the counters do not agree any more."""
    run = SimulatedRun()
    run.run(5)
    outcomes = [run.outcome(number) for number in range(PLAN.hosts)]
    for outcome in outcomes:
        run.give(outcome)
    run.give(outcomes[SILENT])
    run.end(outcomes)
    assert run.violations() == [
        f"{address_of(SILENT)}, cycle 5: two outcomes of one slot, or out of their order",
        "collector, cycle 5: hosts_failed is 1, there were 2",
        "collector, cycle 5: hosts_failed_command_timeout is 1, there were 2",
        "collector, cycle 5: cycles_missed_total grew by 0, -1 slots had no outcome",
    ]


def test_a_host_that_is_asked_twice() -> None:
    """One outcome, but the host was asked once more: it tells by its processes, which went on."""
    run = SimulatedRun()
    run.run(5)
    run.hosts[GOOD[0]].frame(1)
    run.run(5)
    assert run.violations() == [f"{address_of(GOOD[0])}, cycle 5: asked 2 times for 1 outcomes at most"]


def test_no_outcome_in_one_cycle() -> None:
    """The cycle is named when it is told, and the host."""
    run = SimulatedRun()
    run.run(5)
    run.run(1, without=[GOOD[2]])
    run.run(8)
    assert run.violations() == [
        f"{address_of(GOOD[2])}, cycle 5: no outcome in 1 slots",
        "collector, cycle 5: slots_total grew by 9, 10 hosts had 1 each",
        "collector, cycle 5: cycles_missed_total grew by 0, 1 slots had no outcome",
        f"{address_of(GOOD[2])}, cycle 6: no outcome in 1 slots",
    ]


def test_no_outcome_any_more() -> None:
    """A host that is forgotten is named as soon as more of its slots are missed than may be, told or not."""
    run = SimulatedRun()
    run.run(5)
    run.run(2, missed=1, without=[SILENT])
    name = address_of(SILENT)
    assert run.violations() == [f"{name}, cycle 6: no outcome in 2 slots"]


def test_slots_that_are_told_as_missed() -> None:
    """A host that takes longer than an interval may miss slots, if that is counted in their cycle; and only then."""
    told = SimulatedRun()
    told.run(6)
    told.run(1, missed=1, without=[SILENT])
    told.run(8)
    assert told.violations() == []
    untold = SimulatedRun()
    untold.run(6)
    untold.run(1, without=[SILENT])
    assert untold.violations() == [
        "collector, cycle 6: slots_total grew by 9, 10 hosts had 1 each",
        "collector, cycle 6: cycles_missed_total grew by 0, 1 slots had no outcome",
    ]
    invented = SimulatedRun()
    invented.run(5)
    invented.run(1, missed=1)
    assert invented.violations() == [
        "collector, cycle 5: slots_total grew by 11, 10 hosts had 1 each",
        "collector, cycle 5: cycles_missed_total grew by 1, 0 slots had no outcome",
    ]


def test_the_end() -> None:
    """The last counters belong to no cycle: over the run, slots are outcomes and missed slots."""
    right = SimulatedRun()
    right.run(6)
    right.checks.begin_end()
    right.run(1)
    right.finish(missed=1)
    assert right.violations() == []
    wrong = SimulatedRun()
    wrong.run(6)
    wrong.checks.begin_end()
    wrong.give(wrong.outcome(GOOD[0]))
    wrong.finish()
    assert wrong.violations() == ["collector, cycle 6: in the end 60 slots, 0 missed, 61 outcomes"]


def _less_memory(record: Record) -> None:
    record["processes"][2]["rss_bytes"] -= 4096


def _one_process_less(record: Record) -> None:
    del record["processes"][1]


def _other_lost(record: Record) -> None:
    del record["other_commands"]


def _one_process_more(record: Record) -> None:
    record["process_count"] += 1


def _memory_of_another_sample(record: Record) -> None:
    record["memory"]["available_bytes"] += 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_less_memory, "processes add up to"),
        (_one_process_less, "processes add up to"),
        (_other_lost, "commands add up to"),
        (_one_process_more, "process_count 21, the host has 20"),
        (_memory_of_another_sample, "a sample that is no frame of the host's"),
    ],
)
def test_wrong_sums(change: Callable[[Record], None], what: str) -> None:
    """Whatever is lost or invented between the host and the file is found, with host and cycle."""
    assert _changed(change)[0].startswith(f"{address_of(GOOD[3])}, cycle 5: {what}")


def test_wrong_failures() -> None:
    """A good host that fails, a faulty one that fails in another way, and one that does not fail at all."""

    def fail(record: Record) -> None:
        for key in ("memory", "processes", "commands", "process_count"):
            record.pop(key, None)
        record |= {"ok": False, "error": {"stage": "command", "kind": "disconnected", "message": ""}}

    assert f"{address_of(GOOD[3])}, cycle 5: good host, outcome disconnected" in _changed(fail)
    assert f"{address_of(SILENT)}, cycle 5: silent host, outcome disconnected" in _changed(fail, SILENT)
    run = SimulatedRun()
    run.run(3)
    run.run(10, missed=1, without=[DROPPING])
    run.checks.end(is_whole=True)
    assert any("dropping host, never bad_frame" in violation for violation in run.violations())


@pytest.mark.parametrize(
    ("counter", "value", "what"),
    [
        ("hosts_up", 8, "hosts_up is 8, there were 9"),
        ("hosts_failed_unreachable", 1, "hosts_failed_unreachable is 1, there were 0"),
        ("processes", 179, "processes is 179, there were 180"),
        ("late_highest_seconds", 2.01, "a sample was begun 2.010 s after its slot"),
        ("inventory_hosts", 9, "inventory_hosts is 9"),
        ("processes_budget", 1, "processes_budget is 1"),
        ("statsd.points_dropped_full_total", 7, "statsd.points_dropped_full_total grew by 7"),
        ("statsd.points_dropped_late_total", 7, "statsd.points_dropped_late_total grew by 7"),
    ],
)
def test_wrong_counters(counter: str, value: float, what: str) -> None:
    """A counter that is not what happened is named."""
    run = SimulatedRun()
    run.run(4)
    outcomes = [run.outcome(number) for number in range(PLAN.hosts)]
    for outcome in outcomes:
        run.give(outcome)
    run.end(outcomes, changed={counter: value})
    assert f"collector, cycle 4: {what}" in run.violations()


@pytest.mark.parametrize(
    ("measure", "each_cycle", "is_growth"),
    [
        ("rss_bytes", 300_000, True),
        ("rss_bytes", 30_000, False),
        ("open_files", 1, True),
        ("tasks", 1, True),
        ("threads", 1, True),
    ],
)
def test_growth(measure: str, each_cycle: int, is_growth: bool) -> None:
    """What grows a little with each cycle is found at the end, and named with its medians."""
    run = SimulatedRun()
    for cycle in range(24):
        run.usage = USAGE._replace(**{measure: getattr(USAGE, measure) + each_cycle * cycle})
        run.run(1)
    run.checks.end(is_whole=True)
    assert any(f"{measure} grew from" in violation for violation in run.violations()) == is_growth


def test_growth_of_series() -> None:
    """Series that are never retired are found, too; with few cycles nothing is said."""
    run = SimulatedRun()
    for cycle in range(10):
        run.statsd = SinkStats(series=1000 + 5 * cycle)
        run.run(1)
    assert run.checks.end(is_whole=True) == []
    for cycle in range(10, 24):
        run.statsd = SinkStats(series=1000 + 5 * cycle)
        run.run(1)
    run.checks.end(is_whole=True)
    assert any("statsd.series grew from" in violation for violation in run.violations())


def _log(level: str, message: str, **facts: str) -> bytes:
    return json.dumps({"time": "2026-01-01T00:00:00.000Z", "level": level, "message": message, **facts}).encode()


@pytest.mark.parametrize(
    ("line", "is_right"),
    [
        (_log("info", "8 hosts ok"), True),
        (_log("warning", "no answer", host=address_of(SILENT)), True),
        (_log("warning", "no answer", host=address_of(GOOD[0])), False),
        (_log("warning", "only 9 hosts can be connected"), False),
        (_log("error", "output is not written"), False),
        (_log("info", "8 hosts ok", exception="Traceback"), False),
        (b"Traceback (most recent call last):", False),
    ],
)
def test_the_log(line: bytes, is_right: bool) -> None:
    """Failures of faulty hosts may be told; a traceback, an error or a good host may not."""
    run = SimulatedRun()
    run.run(2)
    run.checks.take_log(line)
    assert (run.violations() == []) == is_right


def test_what_the_simulator_and_the_receiver_notice() -> None:
    """Requests and connections too many, datagrams that are lost."""
    run = SimulatedRun()
    run.checks.take_report(b"9 logins, 2 requests while the one before was at work, 1 connections beside another one")
    run.checks.take_datagrams(100, 98, 1)
    assert run.violations() == [
        "simulator, cycle 0: 2 requests while a host was at work",
        "simulator, cycle 0: 1 second connections",
        "receiver, cycle 0: 2 of 100 not received",
        "receiver, cycle 0: 1 of 100 dropped by the kernel",
    ]


@pytest.mark.parametrize(("number", "is_right"), [(DROPPING, True), (GOOD[3], False)])
def test_a_reload(number: int, is_right: bool) -> None:
    """It may give up the sample of a host that logs in for it: a slot is missed, and it is asked once more."""
    run = SimulatedRun()
    run.run(5)
    run.hosts[number].frame(1)
    at = "2023-11-14T22:13:42.000Z"  # 22 s after the begin
    run.checks.take_log(json.dumps({"time": at, "level": "info", "message": "configuration taken: 10 hosts"}).encode())
    run.run(1, missed=1, without=[number])
    run.run(9)
    assert (run.violations() == []) == is_right
    assert run.checks.reloads == 1


def test_outcomes_count_in_the_cycle_of_their_slot() -> None:
    """Counters come when all slots of a cycle are settled: there may be outcomes of later ones by then."""
    run = SimulatedRun()
    run.run(5)
    this = [run.outcome(number) for number in range(PLAN.hosts)]
    run.cycle += 1
    following = [run.outcome(number) for number in range(PLAN.hosts)]
    run.cycle -= 1
    for outcome in [*this, *following[:7]]:
        run.give(outcome)
    run.end(this)
    for outcome in following[7:]:
        run.give(outcome)
    run.end(following)
    run.run(5)
    assert run.violations() == []


def test_an_outcome_of_a_cycle_that_was_told_counts_in_the_next_one() -> None:
    """The collector waits only so long for a slot."""
    run = SimulatedRun()
    run.run(5)
    this = [run.outcome(number) for number in range(PLAN.hosts)]
    late = this.pop(SILENT)
    for outcome in this:
        run.give(outcome)
    run.end(this, changed={"slots_total": 60, "cycles_missed_total": 1})
    run.give(late)
    run.run(1, without=[SILENT])
    assert any("hosts_failed_command_timeout is 0, there were 1" in violation for violation in run.violations())
    assert not any(violation.startswith(address_of(SILENT)) for violation in run.violations())


def test_before_the_start_is_over() -> None:
    """As long as not all good hosts have answered in one cycle, they may fail."""
    run = SimulatedRun()
    outcomes = [run.outcome(number) for number in range(PLAN.hosts)]
    late = outcomes[GOOD[0]]
    outcomes[GOOD[0]] = Failure(
        late.host,
        late.taken_unix_seconds,
        5.0,
        Stage.LOGIN,
        Kind.LOGIN_TIMEOUT,
        "",
        slot_unix_seconds=late.slot_unix_seconds,
    )
    for outcome in outcomes:
        run.give(outcome)
    run.end(outcomes)
    assert not run.checks.is_settled
    run.run(5)
    assert run.checks.is_settled
    assert run.violations() == []
