"""What must hold in each cycle of a soak: outcomes, counters, logs and reports are checked as they come. Pure.

    records of hosts ──> OutcomeChecks ──> Tally of the cycle ──┐
    records of counters ────────────────────────────────────────┴─> CounterChecks, Growth
    log of the collector ──> LogChecks          reports of the simulator ──> take_report

The simulated hosts are the same ones here: what a host should have said is computed, not taken from what was collected.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from statistics import median
from typing import Any, NamedTuple

from fleetmem.errors import Kind
from fleetmem.lab.simulated_host import Fault, SimulatedHost, SimulationPlan
from fleetmem.lab.simulator import address_of

OK = "ok"
COLLECTOR = "collector"

_KINDS: dict[Fault | None, frozenset[str]] = {
    None: frozenset({OK}),
    Fault.SLOW: frozenset({OK}),
    Fault.SILENT: frozenset({Kind.COMMAND_TIMEOUT}),
    Fault.REFUSING: frozenset({Kind.DISCONNECTED}),
    Fault.DROPPING: frozenset({OK, Kind.BAD_FRAME}),
    Fault.FLOODING: frozenset({Kind.BAD_FRAME}),
}
"""What the outcomes of a host come to."""

_LONGEST_SECONDS = 6.0  # the limit of a sample is 5 s, and none of the faults makes a login slow
_SAMPLE_SECONDS: dict[Fault | None, float] = {None: 0.0, Fault.SLOW: 2.0}  # others: the longest
_SLACK_SECONDS = 0.5
_EARLY_SECONDS = 0.001  # so long before its time a slot may be taken, and so long after it a sample be begun
_MOST_NAMED = 20
_SEARCHED_FRAMES = 200
_LEAST_CYCLES = 16  # with fewer, a quarter says nothing
_LEAST_CYCLES_OF_FAULTS = 6  # a host that drops does so each fourth time
_REPORT = re.compile(r"(\d+) requests while the one before was at work, (\d+) connections beside another one")


class Check(StrEnum):
    """What is checked."""

    OUTCOMES = "one outcome per host and cycle, or a slot that is told as missed"
    KINDS = "good hosts never fail, faulty ones do in the way of their fault"
    SUMS = "rows and `other` add up to what the host has"
    COUNTERS = "the collector's counters are those of its outcomes"
    GROWTH = "memory, files, tasks, threads and series do not grow"
    DATAGRAMS = "what was sent has come, nothing was dropped"
    GENTLE = "one connection and one request at a time on each host"
    LOG = "the log tells of faulty hosts and of nothing else"


class Violation(NamedTuple):
    """Something that does not hold."""

    check: Check
    subject: str
    cycle: int
    what: str

    def __str__(self) -> str:
        return f"{self.subject}, cycle {self.cycle}: {self.what}"


class Findings:
    """Counts what was checked and what did not hold; keeps the first violations.

    Attributes:
        cycle: the one that is going on.
        first: the violations that are named.
        checked: how often, by check.
        violated: likewise.
    """

    def __init__(self) -> None:
        self.cycle = 0
        self.first: list[Violation] = []
        self.checked: Counter[Check] = Counter()
        self.violated: Counter[Check] = Counter()

    def expect(self, check: Check, subject: str, what: str, *, holds: bool) -> bool:
        """Counts a check; returns whether it holds."""
        self.checked[check] += 1
        if not holds:
            self.violated[check] += 1
            if len(self.first) < _MOST_NAMED:
                self.first.append(Violation(check, subject, self.cycle, what))
        return holds


@dataclass
class Tally:
    """The outcomes of one cycle by their slots, as the collector's counters should have them.

    Attributes:
        kinds: how many of each, `ok` among them.
        processes: in all samples.
        good: hosts without a fault that answered.
        cycles: how many these are: the collector may tell of several at once.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    processes: int = 0
    good: set[str] = field(default_factory=set)
    cycles: int = 1

    @property
    def outcomes(self) -> int:
        """All of them."""
        return self.kinds.total()


class Added(NamedTuple):
    """What the rows of a record add up to."""

    processes: int
    rss_bytes: int
    vsz_bytes: int

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "Added":
        """Adds them up."""
        rows = list(rows)
        return cls(
            sum([row.get("procs", 1) for row in rows]),
            sum([row["rss_bytes"] for row in rows]),
            sum([row["vsz_bytes"] for row in rows]),
        )


class HostCheck:
    """One host: its slots, and what it should have said.

    Args:
        plan: of the fleet.
        number: of the host.
        interval_seconds: between two slots.
        findings: for what does not hold.

    Attributes:
        name: of the host.
        fault: what is wrong with it.
    """

    def __init__(self, plan: SimulationPlan, number: int, interval_seconds: float, findings: Findings) -> None:
        self.name = address_of(number)
        self.fault = plan.fault_of(number)
        self._findings = findings
        self._host = SimulatedHost(plan, number)
        self._cycle: int | None = None  # of its last outcome
        seconds = _SAMPLE_SECONDS.get(self.fault, _LONGEST_SECONDS) + _SLACK_SECONDS
        self._most_missed = max(0, math.ceil(seconds / interval_seconds - 1.5))
        self._is_cut_off = False
        self._frames_without_sample = _SEARCHED_FRAMES  # at most; nothing is known of the time before
        self._is_lost = False
        self._seen: set[str] = set()

    def cut_off(self) -> None:
        """Takes note of a reload: it may give up the sample of a host that has to log in for each."""
        if self.fault not in _SAMPLE_SECONDS:
            self._is_cut_off = True
            self._frames_without_sample += 1

    def take(self, record: Mapping[str, Any], kind: str, cycle: int, *, is_settled: bool, is_cut_off: bool) -> None:
        """Checks an outcome.

        Args:
            record: of it.
            kind: of it.
            cycle: of its slot.
            is_settled: whether the start is over.
            is_cut_off: whether it is of the time before the last reload, or its sample was given up there.
        """
        self._seen.add(kind)
        if is_settled:
            self._expect(Check.KINDS, f"{self.fault or 'good'} host, outcome {kind}", holds=kind in _KINDS[self.fault])
            self._step_to(cycle)
        self._cycle = cycle
        self._is_cut_off &= is_cut_off
        if kind == OK:
            self._check_sums(record)
            self._frames_without_sample = 0 if is_settled else _SEARCHED_FRAMES
        else:
            self._frames_without_sample += 1

    def check_age(self, cycle: int) -> None:
        """Checks that no more slots were missed since its last outcome than may be, in a cycle that is over."""
        if self._cycle is not None:
            self._expect_missed(cycle - self._cycle)

    def check_fault_was_seen(self) -> None:
        """Checks that a fault which makes a host fail did so: else the soak would show nothing."""
        expected = _KINDS[self.fault]
        self._expect(
            Check.KINDS, f"{self.fault} host, never {', '.join(expected - self._seen)}", holds=expected <= self._seen
        )

    def _step_to(self, cycle: int) -> None:
        """Checks that the outcome is of a later slot than the one before, and of the next one if nothing took long."""
        if self._cycle is None:
            return
        missed = cycle - self._cycle - 1
        if self._expect(Check.OUTCOMES, "two outcomes of one slot, or out of their order", holds=missed >= 0):
            self._expect_missed(missed)

    def _expect_missed(self, missed: int) -> None:
        # A sample may be given up just before it would have been over.
        most = 2 * self._most_missed + 1 if self._is_cut_off else self._most_missed
        self._expect(Check.OUTCOMES, f"no outcome in {missed} slots", holds=missed <= most)

    def _check_sums(self, record: Mapping[str, Any]) -> None:
        if self._is_lost:
            return
        asked = self._find_frame(record["memory"]["available_bytes"])
        if not self._expect(Check.SUMS, "a sample that is no frame of the host's", holds=asked > 0):
            self._is_lost = True
            return
        most = 1 + self._frames_without_sample
        self._expect(Check.GENTLE, f"asked {asked} times for {most} outcomes at most", holds=asked <= most)
        has = Added(*self._host.sums())
        for level, other in (("processes", "other"), ("commands", "other_commands")):
            told = Added.of([*record[level], *([record[other]] if other in record else [])])
            self._expect(Check.SUMS, f"{level} add up to {told}, the host has {has}", holds=told == has)
        count = record["process_count"]
        self._expect(Check.SUMS, f"process_count {count}, the host has {has.processes}", holds=count == has.processes)

    def _find_frame(self, available_bytes: int) -> int:
        """Returns how many frames the host has made up to this one, since the last that was found; 0 for none."""
        for frames in range(1, _SEARCHED_FRAMES + 1):
            self._host.go_on()
            if self._host.available_bytes == available_bytes:
                return frames
        return 0

    def _expect(self, check: Check, what: str, *, holds: bool) -> bool:
        return self._findings.expect(check, self.name, what, holds=holds)


class OutcomeChecks:
    """All hosts.

    Args:
        plan: of the fleet.
        interval_seconds: between two samples of a host.
        findings: for what does not hold.

    Attributes:
        host_count: of the fleet.
        is_settled: whether the start is over.
    """

    def __init__(self, plan: SimulationPlan, interval_seconds: float, findings: Findings) -> None:
        self.is_settled = False
        self.host_count = plan.hosts
        self._interval_seconds = interval_seconds
        self._findings = findings
        self._tallies: dict[int, Tally] = {}  # of cycles that were not told yet
        self._told: int | None = None  # the last cycle that was
        self._first: int | None = None
        self._reloaded_unix_seconds = 0.0
        checks = [HostCheck(plan, number, interval_seconds, findings) for number in range(plan.hosts)]
        self._hosts = {check.name: check for check in checks}
        self._good = {check.name for check in checks if check.fault is None}

    @property
    def faulty(self) -> set[str]:
        """Hosts with a fault."""
        return self._hosts.keys() - self._good

    def take(self, record: Mapping[str, Any]) -> None:
        """Checks the outcome of a host, which counts in the cycle of its slot."""
        cycle = self._enter(record["slot_unix_seconds"])
        kind = OK if record["ok"] else record["error"]["kind"]
        # What comes for a cycle that was told counts in the next one.
        counted = cycle if self._told is None else max(cycle, self._told + 1)
        tally = self._tallies.setdefault(counted, Tally())
        tally.kinds[kind] += 1
        tally.processes += record.get("process_count", 0)
        host = self._hosts.get(record["host"])
        if not self._findings.expect(Check.OUTCOMES, record["host"], "no host of the fleet", holds=host is not None):
            return
        assert host
        if kind == OK and host.fault is None:
            tally.good.add(host.name)
        is_cut_off = record["taken_unix_seconds"] < self._reloaded_unix_seconds
        host.take(record, kind, cycle, is_settled=self.is_settled, is_cut_off=is_cut_off)

    def end_cycle(self, unix_seconds: float) -> Tally:
        """Ends a cycle, and those before it; returns what they came to.

        The start is over with the first in which all good hosts answered.

        Args:
            unix_seconds: when it began.
        """
        cycle = self._enter(unix_seconds)
        tally = Tally(cycles=1 if self._told is None else cycle - self._told)
        for number in [number for number in self._tallies if number <= cycle]:
            each = self._tallies.pop(number)
            tally.kinds += each.kinds
            tally.processes += each.processes
            tally.good |= each.good
        self._told = cycle
        if self.is_settled:
            for host in self._hosts.values():
                host.check_age(cycle)
        elif tally.good == self._good:
            self.is_settled = True
        return tally

    def _enter(self, unix_seconds: float) -> int:
        """Returns the cycle of a time; what is found from here on belongs to it."""
        cycle = math.floor(unix_seconds / self._interval_seconds + 1e-6)
        self._first = cycle if self._first is None else self._first
        self._findings.cycle = cycle - self._first
        return cycle

    def reload(self, unix_seconds: float) -> None:
        """Takes note of a reload: samples may have been given up."""
        self._reloaded_unix_seconds = unix_seconds
        for host in self._hosts.values():
            host.cut_off()

    def check_faults_were_seen(self) -> None:
        """Checks, at the end, that faulty hosts did fail."""
        for name in self.faulty:
            self._hosts[name].check_fault_was_seen()


class CounterChecks:
    """The collector's own counters against its outcomes, cycle by cycle.

    Args:
        host_count: of the fleet.
        interval_seconds: between two cycles.
        findings: for what does not hold.

    Attributes:
        latest: counters of the last cycle.
    """

    def __init__(self, host_count: int, interval_seconds: float, findings: Findings) -> None:
        self.latest: dict[str, float] = {}
        self._latest_late_seconds = interval_seconds / 2 + _EARLY_SECONDS
        self._findings = findings
        self._hosts = host_count

    def take(self, counters: dict[str, float], tally: Tally, *, was_settled: bool) -> None:
        """Checks the counters of a cycle.

        Args:
            counters: by name.
            tally: of the same cycle.
            was_settled: whether the start was over before it.
        """
        before, self.latest = self.latest, counters
        self._compare(counters, tally)
        if not was_settled or not before:
            return
        grown = {name: value - before.get(name, 0) for name, value in counters.items()}
        self._check_slots(grown["slots_total"], grown["cycles_missed_total"], tally)
        for name in grown:
            if "points_dropped" in name:
                self._expect(f"{name} grew by {grown[name]:g}", holds=grown[name] == 0, check=Check.DATAGRAMS)
        late_seconds = counters["late_highest_seconds"]
        self._expect(
            f"a sample was begun {late_seconds:.3f} s after its slot", holds=late_seconds <= self._latest_late_seconds
        )
        for name in ("inventory_stale", "processes_budget", "logins_withheld_total"):
            self._expect(f"{name} is {counters[name]:g}", holds=counters[name] == 0)
        self._expect(
            f"inventory_hosts is {counters['inventory_hosts']:g}", holds=counters["inventory_hosts"] == self._hosts
        )

    def take_last(self, counters: Mapping[str, float], outcomes: int) -> None:
        """Checks the counters at the end: over the whole run, slots are outcomes and missed slots.

        Args:
            counters: by name.
            outcomes: of hosts, since the start.
        """
        slots, missed = counters["slots_total"], counters["cycles_missed_total"]
        what = f"in the end {slots:g} slots, {missed:g} missed, {outcomes} outcomes"
        self._expect(what, holds=slots - missed == outcomes, check=Check.OUTCOMES)

    def _compare(self, counters: Mapping[str, float], tally: Tally) -> None:
        failed = tally.outcomes - tally.kinds[OK]
        expected = {"hosts_up": tally.kinds[OK], "hosts_failed": failed, "processes": tally.processes}
        expected |= {f"hosts_failed_{kind}": tally.kinds[kind] for kind in Kind}
        for name, value in expected.items():
            self._expect(f"{name} is {counters[name]:g}, there were {value}", holds=counters[name] == value)

    def _check_slots(self, slots: float, missed: float, tally: Tally) -> None:
        """Checks that each host had one slot, and that those without an outcome were told as missed."""
        expected = self._hosts * tally.cycles
        what = f"slots_total grew by {slots:g}, {self._hosts} hosts had {tally.cycles} each"
        self._expect(what, holds=slots == expected, check=Check.OUTCOMES)
        without = expected - tally.outcomes
        what = f"cycles_missed_total grew by {missed:g}, {without} slots had no outcome"
        self._expect(what, holds=missed == without, check=Check.OUTCOMES)

    def _expect(self, what: str, *, holds: bool, check: Check = Check.COUNTERS) -> None:
        self._findings.expect(check, COLLECTOR, what, holds=holds)


class Bound(NamedTuple):
    """How much larger a measure may be in the last quarter than in the second one: a share of it, and a number."""

    share: float = 0.0
    number: float = 0.0


class Grown(NamedTuple):
    """What became of a measure: its medians in the second and in the last quarter, and the most that may be."""

    measure: str
    before: float
    after: float
    most: float


class Growth:
    """Measures that must not grow while the fleet stays as it is.

    Args:
        bounds: by measure.
    """

    def __init__(self, bounds: Mapping[str, Bound]) -> None:
        self._bounds = bounds
        self._values: dict[str, list[float]] = {measure: [] for measure in bounds}

    def take(self, counters: Mapping[str, float]) -> None:
        """Takes the values of a cycle; those that this system does not tell are left out."""
        for measure, values in self._values.items():
            if measure in counters:
                values.append(counters[measure])

    def judge(self, findings: Findings) -> list[Grown]:
        """Checks all of them; returns none where there were too few cycles."""
        judged = []
        for measure, values in self._values.items():
            if len(values) < _LEAST_CYCLES:
                continue
            quarter = len(values) // 4
            before, after = median(values[quarter : 2 * quarter]), median(values[-quarter:])
            bound = self._bounds[measure]
            most = before * (1 + bound.share) + bound.number
            what = f"{measure} grew from {before:,.0f} to {after:,.0f}, {most:,.0f} at most"
            findings.expect(Check.GROWTH, COLLECTOR, what, holds=after <= most)
            judged.append(Grown(measure, before, after, most))
        return judged


class LogChecks:
    """The collector's log, line by line.

    Args:
        faulty: hosts that may be told to have failed.
        findings: for what does not hold.

    Attributes:
        reloads: when configurations were taken (Unix seconds).
        last: the last line.
    """

    def __init__(self, faulty: set[str], findings: Findings) -> None:
        self.reloads: list[float] = []
        self.last: dict[str, Any] = {}
        self._faulty = faulty
        self._findings = findings

    def take(self, line: bytes, *, is_settled: bool) -> None:
        """Checks a line."""
        try:
            entry = json.loads(line)
        except ValueError:
            self._expect(line.decode(errors="replace"), holds=False)  # a traceback, say
            return
        self.last = entry
        if entry["message"].startswith("configuration taken"):
            self.reloads.append(datetime.fromisoformat(entry["time"]).timestamp())
        is_of_fault = entry.get("host") in self._faulty or ("host" in entry and not is_settled)
        is_right = entry["level"] == "info" or (entry["level"] == "warning" and is_of_fault)
        self._expect(f"{entry.get('host', '')} {entry['level']}: {entry['message']}", holds=is_right)
        self._expect(str(entry.get("exception")), holds="exception" not in entry)

    def _expect(self, what: str, *, holds: bool) -> None:
        self._findings.expect(Check.LOG, COLLECTOR, what.strip(), holds=holds)


class SoakChecks:
    """Everything that a soak checks.

    Args:
        plan: of the fleet.
        interval_seconds: between two samples of a host.

    Attributes:
        findings: what was found.
        outcomes_total: of hosts, so far.
        failures_total: of these.
        cycles: how many have ended since the start was over.
    """

    def __init__(self, plan: SimulationPlan, interval_seconds: float) -> None:
        self.findings = Findings()
        self.outcomes_total = self.failures_total = 0
        self.cycles = 0
        self._is_ending = False
        self._last_counters: list[dict[str, Any]] = []
        self._outcomes = OutcomeChecks(plan, interval_seconds, self.findings)
        self._counters = CounterChecks(plan.hosts, interval_seconds, self.findings)
        self._log = LogChecks(self._outcomes.faulty, self.findings)
        faulty = len(self._outcomes.faulty)  # the connection of each may be there or not
        self._growth = Growth(
            {
                "rss_bytes": Bound(share=0.03),
                "open_files": Bound(number=faulty),
                "tasks": Bound(number=faulty),
                "threads": Bound(),
                "statsd.series": Bound(share=0.01),
                "statsd.queue_bytes": Bound(share=0.5, number=1e6),
                "file.queue_bytes": Bound(share=0.5, number=1e6),
            }
        )

    @property
    def is_settled(self) -> bool:
        """Whether the start is over."""
        return self._outcomes.is_settled

    @property
    def counters(self) -> dict[str, float]:
        """The collector's own, of the last cycle."""
        return self._counters.latest

    @property
    def reloads(self) -> int:
        """How often the collector has taken a configuration while it ran."""
        return len(self._log.reloads)

    @property
    def last_logged(self) -> dict[str, Any]:
        """The last line of the collector's log."""
        return self._log.last

    def take_record(self, record: dict[str, Any]) -> None:
        """Takes a record of the collector's file: the outcome of a host, or its own counters, which end a cycle."""
        if "collector" not in record:
            self.outcomes_total += 1
            self.failures_total += not record["ok"]
            self._outcomes.take(record)
            return
        if self._is_ending:
            self._last_counters.append(record)
        else:
            self._take_counters(record)

    def _take_counters(self, record: dict[str, Any]) -> None:
        was_settled = self.is_settled
        tally = self._outcomes.end_cycle(record["taken_unix_seconds"])
        self._counters.take(record["counters"], tally, was_settled=was_settled)
        if was_settled:
            self._growth.take(record["counters"])
            self.cycles += 1

    def begin_end(self) -> None:
        """Takes note that the collector is told to end: its last counters are those of no cycle, but of the run."""
        self._is_ending = True

    def take_log(self, line: bytes) -> None:
        """Takes a line of the collector's log."""
        before = self.reloads
        self._log.take(line, is_settled=self.is_settled)
        if self.reloads > before:
            self._outcomes.reload(self._log.reloads[-1])

    def take_report(self, line: bytes) -> None:
        """Takes a line of what the simulator says."""
        if told := _REPORT.search(line.decode()):
            for what, count in zip(
                ("requests while a host was at work", "second connections"), told.groups(), strict=True
            ):
                self.findings.expect(Check.GENTLE, "simulator", f"{count} {what}", holds=count == "0")

    def take_datagrams(self, sent: int, received: int, dropped: int) -> None:
        """Takes how many datagrams there were so far: as the collector says, as have come, as the kernel dropped."""
        for what, count in (("not received", max(0, sent - received)), ("dropped by the kernel", dropped)):
            self.findings.expect(Check.DATAGRAMS, "receiver", f"{count} of {sent} {what}", holds=count == 0)

    def end(self, *, is_whole: bool) -> list[Grown]:
        """Checks what only the end shows.

        Args:
            is_whole: whether it was run to its end.
        """
        for record in self._last_counters[:-1]:
            self._take_counters(record)
        for record in self._last_counters[-1:]:
            self._counters.take_last(record["counters"], self.outcomes_total)
        if is_whole and self.cycles >= _LEAST_CYCLES_OF_FAULTS:
            self._outcomes.check_faults_were_seen()
        return self._growth.judge(self.findings)
