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
from fleetmem.lab.simulated_host import Fault, Plan, SimulatedHost
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
    """The outcomes of one cycle, as the collector's counters should have them.

    Attributes:
        kinds: how many of each, `ok` among them.
        processes: in all samples.
        good: hosts without a fault that answered.
        is_cut: whether a reload has cut it in two: the collector counts from there on.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    processes: int = 0
    good: set[str] = field(default_factory=set)
    is_cut: bool = False

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
    """One host: its place on the grid of slots, and what it should have said.

    Args:
        plan: of the fleet.
        number: of the host.
        interval_seconds: between two slots.
        findings: for what does not hold.

    Attributes:
        name: of the host.
        fault: what is wrong with it.
        heard_unix_seconds: when its last outcome was taken.
        last_cycle: in which that came.
    """

    def __init__(self, plan: Plan, number: int, interval_seconds: float, findings: Findings) -> None:
        self.name = address_of(number)
        self.fault = plan.fault_of(number)
        self.heard_unix_seconds = 0.0
        self.last_cycle = 0
        self._interval_seconds = interval_seconds
        self._findings = findings
        self._host = SimulatedHost(plan, number)
        self._anchor_unix_seconds: float | None = None
        self._slot = 0
        self._frames_without_sample = _SEARCHED_FRAMES  # at most; nothing is known of the time before
        self._is_lost = False
        self._seen: set[str] = set()

    @property
    def longest_seconds(self) -> float:
        """How long a sample of it may take."""
        return _SAMPLE_SECONDS.get(self.fault, _LONGEST_SECONDS)

    def begin_grid(self) -> None:
        """Takes the next outcome for the first slot of a grid. A sample may have been given up for it."""
        self._anchor_unix_seconds = None
        self._frames_without_sample += 1

    def take(self, record: Mapping[str, Any], kind: str, *, is_settled: bool) -> int:
        """Checks an outcome; returns how many slots there were since the one before that had none."""
        missed = 0
        if is_settled:
            self._seen.add(kind)
            self._expect(Check.KINDS, f"{self.fault or 'good'} host, outcome {kind}", holds=kind in _KINDS[self.fault])
            missed = self._step_to(record["taken_unix_seconds"])
        self.heard_unix_seconds = record["taken_unix_seconds"]
        self.last_cycle = self._findings.cycle
        if kind == OK:
            self._check_sums(record)
            self._frames_without_sample = 0 if is_settled else _SEARCHED_FRAMES
        else:
            self._frames_without_sample += 1
        return missed

    def check_age(self, unix_seconds: float, intervals: float) -> None:
        """Checks that the last outcome is not too long ago: that many intervals, its time and the next one's."""
        age_seconds = unix_seconds - self.heard_unix_seconds
        most_seconds = intervals * self._interval_seconds + 2 * self.longest_seconds + _SLACK_SECONDS
        self._expect(Check.OUTCOMES, f"no outcome for {age_seconds:.1f} s", holds=age_seconds <= most_seconds)

    def check_fault_was_seen(self) -> None:
        """Checks that a fault which makes a host fail did so: else the soak would show nothing."""
        expected = _KINDS[self.fault]
        self._expect(
            Check.KINDS, f"{self.fault} host, never {', '.join(expected - self._seen)}", holds=expected <= self._seen
        )

    def _step_to(self, taken_unix_seconds: float) -> int:
        """Checks that the outcome is of a later slot than the one before, and of the next one if nothing took long."""
        if self._anchor_unix_seconds is None:
            self._anchor_unix_seconds, self._slot = taken_unix_seconds, 0
            return 0
        # Slots are absolute and taken late by less than half an interval, so that two of them never round to one.
        slot = round((taken_unix_seconds - self._anchor_unix_seconds) / self._interval_seconds)
        missed, self._slot = slot - self._slot - 1, slot
        seconds = taken_unix_seconds - self.heard_unix_seconds
        if self._expect(Check.OUTCOMES, f"two outcomes in one cycle, {seconds:.2f} s apart", holds=missed >= 0):
            most = max(0, math.ceil((self.longest_seconds + _SLACK_SECONDS) / self._interval_seconds - 1.5))
            self._expect(Check.OUTCOMES, f"no outcome in {missed} slots, {seconds:.2f} s", holds=missed <= most)
        return missed

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
        tally: of the cycle that is going on.
        missed: slots without an outcome, by the cycle of the outcome before them, which took too long.
        cut_cycles: of which it is not known how many slots were missed, for a reload came after them.
        host_count: of the fleet.
        is_settled: whether the start is over.
    """

    def __init__(self, plan: Plan, interval_seconds: float, findings: Findings) -> None:
        self.tally = Tally()
        self.missed: Counter[int] = Counter()
        self.cut_cycles: set[int] = set()
        self.is_settled = False
        self.host_count = plan.hosts
        self._findings = findings
        self._ended_unix_seconds = self._reloaded_unix_seconds = 0.0
        self._on_old_grid: set[str] = set()
        checks = [HostCheck(plan, number, interval_seconds, findings) for number in range(plan.hosts)]
        self._hosts = {check.name: check for check in checks}
        self._good = {check.name for check in checks if check.fault is None}

    @property
    def faulty(self) -> set[str]:
        """Hosts with a fault."""
        return self._hosts.keys() - self._good

    def take(self, record: Mapping[str, Any]) -> None:
        """Checks the outcome of a host."""
        kind = OK if record["ok"] else record["error"]["kind"]
        self.tally.kinds[kind] += 1
        self.tally.processes += record.get("process_count", 0)
        host = self._hosts.get(record["host"])
        if not self._findings.expect(Check.OUTCOMES, record["host"], "no host of the fleet", holds=host is not None):
            return
        assert host
        if kind == OK and host.fault is None:
            self.tally.good.add(host.name)
        if host.name in self._on_old_grid and record["taken_unix_seconds"] >= self._reloaded_unix_seconds:
            self._on_old_grid.remove(host.name)
            self.cut_cycles.add(host.last_cycle)
            host.begin_grid()
        before = host.last_cycle
        if missed := host.take(record, kind, is_settled=self.is_settled):
            self.missed[before] += missed

    def end_cycle(self, unix_seconds: float) -> Tally:
        """Ends a cycle; returns what it came to. The start is over with the first in which all good hosts answered."""
        tally, self.tally = self.tally, Tally()
        tally.is_cut = self._ended_unix_seconds < self._reloaded_unix_seconds <= unix_seconds
        self._ended_unix_seconds = unix_seconds
        if self.is_settled:
            for host in self._hosts.values():
                host.check_age(unix_seconds, 2.5 if tally.is_cut else 1.5)
        elif tally.good == self._good:
            self.is_settled = True
            for host in self._hosts.values():
                host.heard_unix_seconds = unix_seconds
        return tally

    def reload(self, unix_seconds: float) -> None:
        """Begins another grid with the first outcome of each host that is taken after that."""
        self._reloaded_unix_seconds = unix_seconds
        self._on_old_grid = set(self._hosts)

    def check_faults_were_seen(self) -> None:
        """Checks, at the end, that faulty hosts did fail."""
        for name in self.faulty:
            self._hosts[name].check_fault_was_seen()


class CounterChecks:
    """The collector's own counters against its outcomes, cycle by cycle.

    Args:
        outcomes: where outcomes are counted.
        interval_seconds: between two cycles.
        workers: processes that sample.
        findings: for what does not hold.

    Attributes:
        latest: counters of the last cycle.
    """

    def __init__(self, outcomes: OutcomeChecks, interval_seconds: float, workers: int, findings: Findings) -> None:
        self.latest: dict[str, float] = {}
        self._outcomes = outcomes
        self._interval_seconds = interval_seconds
        self._findings = findings
        self._told: dict[int, float] = {}  # slots missed, by cycle
        # Workers tell one after the other what they came to: meanwhile there are outcomes of the next cycle.
        self._most_ahead = 0 if workers == 1 else math.ceil(0.02 * outcomes.host_count)
        self._ahead: dict[str, float] = {}
        self._balance = 0.0
        # So many cycles later no outcome of a cycle is the last one of its host.
        self._lag = 2 + math.ceil(_LONGEST_SECONDS / interval_seconds)
        self._most_off = len(outcomes.faulty) + 1 + math.ceil(0.01 * outcomes.host_count)
        self._hosts = outcomes.host_count

    def take(self, counters: dict[str, float], tally: Tally, *, was_settled: bool) -> None:
        """Checks the counters of a cycle.

        Args:
            counters: by name.
            tally: of the same cycle.
            was_settled: whether the start was over before it.
        """
        before, self.latest = self.latest, counters
        if tally.is_cut:
            self._ahead.clear()
        else:
            self._compare(counters, tally)
        if not was_settled or not before:
            return
        grown = {name: value - before.get(name, 0) for name, value in counters.items()}
        self._check_missed(grown["cycles_missed_total"])
        self._check_balance(counters, tally, grown["cycles_missed_total"])
        for name in grown:
            if "points_dropped" in name:
                self._expect(f"{name} grew by {grown[name]:g}", holds=grown[name] == 0, check=Check.DATAGRAMS)
        late_seconds = counters["late_highest_seconds"]
        self._expect(
            f"a sample was begun {late_seconds:.2f} s after its slot", holds=late_seconds < self._interval_seconds / 2
        )
        for name in ("inventory_stale", "processes_budget", "logins_withheld_total"):
            self._expect(f"{name} is {counters[name]:g}", holds=counters[name] == 0)
        self._expect(
            f"inventory_hosts is {counters['inventory_hosts']:g}", holds=counters["inventory_hosts"] == self._hosts
        )

    def _compare(self, counters: Mapping[str, float], tally: Tally) -> None:
        failed = tally.kinds.total() - tally.kinds[OK]
        expected = {"hosts_up": tally.kinds[OK], "hosts_failed": failed, "processes": tally.processes}
        expected |= {f"hosts_failed_{kind}": tally.kinds[kind] for kind in Kind}
        processes = tally.processes / max(1, tally.kinds[OK])
        for name, value in expected.items():
            most_ahead = self._most_ahead * (processes if name == "processes" else 1)
            holds = self._agrees(name, counters[name] - value, most_ahead)
            self._expect(f"{name} is {counters[name]:g}, there were {value}", holds=holds)

    def _agrees(self, name: str, off: float, most: float) -> bool:
        """Whether a counter is what was counted here, over all cycles so far, but for what is ahead of its cycle."""
        off += self._ahead.get(name, 0)
        holds = abs(off) <= most
        self._ahead[name] = off if holds else 0  # said once
        return holds

    def _check_missed(self, told: float) -> None:
        self._told[self._findings.cycle] = told
        cycle = self._findings.cycle - self._lag
        if cycle in self._told and cycle not in self._outcomes.cut_cycles:
            told, missed = self._told.pop(cycle), self._outcomes.missed.pop(cycle, 0)
            what = f"cycles_missed_total grew by {told:g} in cycle {cycle}, {missed} slots had no outcome"
            holds = self._agrees("missed", told - missed, self._most_ahead)
            self._expect(what, holds=holds, check=Check.OUTCOMES)

    def _check_balance(self, counters: Mapping[str, float], tally: Tally, missed: float) -> None:
        """Checks that up, failed and missed are all hosts in each cycle, but for those that are at work at its ends."""
        if tally.is_cut:
            self._balance = 0.0
            return
        up, failed = counters["hosts_up"], counters["hosts_failed"]
        self._balance += up + failed + missed - self._hosts
        at_work_seconds = counters["late_p99_seconds"] + counters["host_p50_seconds"]  # of most hosts; more under load
        most = self._most_off + self._hosts * min(1.0, at_work_seconds / self._interval_seconds)
        what = f"{up:g} up, {failed:g} failed, {missed:g} missed of {self._hosts} hosts, {self._balance:+g} so far"
        self._expect(what, holds=abs(self._balance) <= most, check=Check.OUTCOMES)

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
        workers: processes that sample.

    Attributes:
        findings: what was found.
        outcomes_total: of hosts, so far.
        failures_total: of these.
        settled_cycle: the first after the start was over.
    """

    def __init__(self, plan: Plan, interval_seconds: float, workers: int = 1) -> None:
        self.findings = Findings()
        self.outcomes_total = self.failures_total = 0
        self.settled_cycle: int | None = None
        self._outcomes = OutcomeChecks(plan, interval_seconds, self.findings)
        self._counters = CounterChecks(self._outcomes, interval_seconds, workers, self.findings)
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
    def cycles(self) -> int:
        """How many have ended since."""
        return 0 if self.settled_cycle is None else self.findings.cycle - self.settled_cycle

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
        was_settled = self.is_settled
        tally = self._outcomes.end_cycle(record["taken_unix_seconds"])
        self._counters.take(record["counters"], tally, was_settled=was_settled)
        if was_settled:
            self._growth.take(record["counters"])
        elif self.is_settled:
            self.settled_cycle = self.findings.cycle + 1
        self.findings.cycle += 1

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
        if is_whole and self.cycles >= _LEAST_CYCLES_OF_FAULTS:
            self._outcomes.check_faults_were_seen()
        return self._growth.judge(self.findings)
