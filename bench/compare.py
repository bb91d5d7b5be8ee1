"""`make bench`: what fleetmem costs beside what people write first, as ratios in one run.

    1  client CPU per host and warm cycle     warm_cycles.py    against a cycle of baseline.py
    2  host CPU per sample                    host_cost.py      against `ps aux` over a new exec channel
    3  cold hosts, client CPU and wall time   `fleetmem collect`  against baseline.py

Both sides run in turn, several times; a ratio is of two that ran one after the other. All hosts are one sshd on the
loopback device (measured_host.py), under as many addresses as needed. CPU of a command is what wait4(2) says of it and
the children it waited for. Exit status 1 when a bound is missed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import host_cost
from compiled import compile_fleetmem
from datagram_counter import DatagramCounter
from measured_host import MeasuredHost
from report import number, surroundings

_HERE = Path(__file__).parent
_HOSTS = [f"127.0.1.{number}" for number in range(1, 51)]
_PROCESSES = 150
# All hosts are one machine, so each connection is in all frames: two of sshd, and the probe's two shells and awk.
_PER_CONNECTION = 5
_WARM_HOSTS = _HOSTS[:20]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a figure, what it is compared with, and its bound.

    Attributes:
        what: the figure, with its unit.
        ours: one value for each repetition.
        theirs: likewise, of the other side; each belongs to the one of ours at its place. None where there is no other.
        other_side: what the other side is.
        most: bound on the median of ours, None for none.
        most_ratio: bound on the median of ours / theirs, None for none.
    """

    what: str
    ours: list[float]
    theirs: list[float]
    other_side: str
    most: float | None = None
    most_ratio: float | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours / theirs, repetition by repetition."""
        return [our / their for our, their in zip(self.ours, self.theirs, strict=True)] if self.theirs else []

    @property
    def is_ok(self) -> bool:
        """Whether the bounds are kept; true where there is none."""
        is_low = self.most is None or median(self.ours) <= self.most
        return is_low and (self.most_ratio is None or median(self.ratios) <= self.most_ratio)

    @property
    def verdict(self) -> str:
        """`ok`, `MISSED`, or `-` where there is no bound."""
        if self.most is None and self.most_ratio is None:
            return "-"
        return "ok" if self.is_ok else "MISSED"

    @property
    def bound(self) -> str:
        """The bound in words."""
        if self.most is not None:
            return f"at most {self.most:g}"
        return "-" if self.most_ratio is None else f"ratio {self.most_ratio:g}"


@dataclass(slots=True)
class Report:
    """The table and what is worth knowing beside it."""

    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)


class Size(NamedTuple):
    """How much is measured: repetitions, cycles in a block, samples for the host's CPU."""

    repetitions: int
    warm_cycles: int
    host_samples: int


FULL = Size(repetitions=5, warm_cycles=20, host_samples=200)
QUICK = Size(repetitions=2, warm_cycles=8, host_samples=60)


class Cost(NamedTuple):
    """What a command took: CPU of it and its children, wall time, both in seconds; what it printed on both streams."""

    cpu_seconds: float
    wall_seconds: float
    output: str

    @property
    def processes(self) -> int:
        """How many processes it saw on all hosts, as it says itself."""
        match = re.search(r"(\d+) processes", self.output)
        assert match, self.output
        return int(match[1])


def run(command: list[str], environment: dict[str, str]) -> Cost:
    """Runs a command to its end.

    Raises:
        RuntimeError: it failed.
    """
    begun = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}\n{output}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - begun, output)


class Bench:
    """The measurements, with what they share.

    Args:
        size: how much to measure.
        folder: for keys, known hosts and everything else that is written.
    """

    def __init__(self, size: Size, folder: Path) -> None:
        self.report = Report()
        self._size = size
        self._folder = folder
        home = folder / "home"
        home.mkdir()
        self._environment = {**os.environ, "HOME": str(home)}

    def _subfolder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))

    def run(self) -> None:
        """Measures everything, the cheapest first."""
        self._host_cpu()
        baseline_cycles_ms = self._cold()
        self._warm(baseline_cycles_ms)

    def _host_cpu(self) -> None:
        ways = [host_cost.resident_probe, host_cost.ps_over_new_channel, host_cost.ps_over_new_connection]
        costs_ms: list[list[float]] = [[] for _ in ways]
        with MeasuredHost(self._subfolder(), _PROCESSES - 5) as host:  # sshd, session, shell ...
            for repetition in range(self._size.repetitions):
                say(f"host CPU, {repetition + 1} of {self._size.repetitions}")
                for way, values in zip(ways, costs_ms, strict=True):
                    values.append(host_cost.cpu_ms_per_sample(host, way, self._size.host_samples))
            self.report.notes.append(
                "the measured host has process ids of its own"
                if host.has_own_pids
                else "no PID namespace here: every process of this machine is in the frames"
            )
        ours, channel, connection = costs_ms
        what = "host CPU per sample, ms"
        self.report.lines += [
            Line(what, ours, channel, "ps aux, new exec channel", most_ratio=0.2),
            Line(what, ours, connection, "ps aux, new connection"),
        ]

    def _cold(self) -> list[float]:
        """Measures cold hosts; returns what a further cycle of the baseline costs the client per host, in ms."""
        sides: list[Callable[[MeasuredHost, int, list[str]], Cost]] = [self._collect, self._baseline]
        many: list[list[Cost]] = [[], []]
        one: list[list[Cost]] = [[], []]
        cycles_ms, bare_seconds = [], []
        counter = DatagramCounter()
        # Not all connections are there at once, and some are not logged in yet.
        with MeasuredHost(self._subfolder(), _PROCESSES - _PER_CONNECTION * len(_HOSTS) // 3) as host:
            host.start()
            for repetition in range(self._size.repetitions):
                say(f"{len(_HOSTS)} cold hosts, {repetition + 1} of {self._size.repetitions}")
                for side, side_many, side_one in zip(sides, many, one, strict=True):
                    side_many.append(side(host, counter.port, _HOSTS))
                    side_one.append(side(host, counter.port, _HOSTS[:1]))
                bare_seconds.append(self._bare_logins(host).cpu_seconds)
                longer = self._baseline(host, counter.port, _HOSTS, cycles=3)
                cycles_ms.append((longer.cpu_seconds - many[1][-1].cpu_seconds) / 2 / len(_HOSTS) * 1000)
            host.stop()
        counter.close()
        self._report_cold(many, one, bare_seconds)
        return cycles_ms

    def _report_cold(self, many: list[list[Cost]], one: list[list[Cost]], bare_seconds: list[float]) -> None:
        counts = [median(cost.processes / len(_HOSTS) for cost in costs) for costs in many]
        self.report.notes.append(f"cold: {counts[0]:.0f} processes per frame, {counts[1]:.0f} in the baseline's ps aux")
        our_cpu, their_cpu = ([cost.cpu_seconds for cost in costs] for costs in many)
        our_wall, their_wall = ([cost.wall_seconds for cost in costs] for costs in many)
        our_further, their_further = (_further_ms(*costs) for costs in zip(many, one, strict=True))
        cold, other_side = f"{len(_HOSTS)} cold hosts", "paramiko, Pool, ps aux"
        self.report.lines += [
            Line(f"{cold}, client CPU, s", our_cpu, their_cpu, other_side, most_ratio=0.25),
            Line(f"{cold}, asyncssh's logins alone, CPU, s", bare_seconds, their_cpu, other_side),
            Line("each further cold host, client CPU, ms", our_further, their_further, other_side),
            Line(f"{cold}, wall time, s", our_wall, their_wall, other_side),
        ]

    def _collect(self, host: MeasuredHost, statsd_port: int, hosts: list[str]) -> Cost:
        known_hosts = self._subfolder() / "known_hosts"  # empty, so that nothing is known from the run before
        environment = {**self._environment, "FLEETMEM_SSH__KNOWN_HOSTS": str(known_hosts)}
        command = [sys.executable, "-m", "fleetmem", "collect", "-i", ",".join(hosts), "-u", host.user]
        command += ["-k", str(host.key), "-p", str(host.port), "-g", f"127.0.0.1:{statsd_port}"]
        # All logins at once share this machine with the hosts' side of them.
        return run([*command, "--connect-timeout", "60", "--command-timeout", "60"], environment)

    def _baseline(self, host: MeasuredHost, statsd_port: int, hosts: list[str], cycles: int = 1) -> Cost:
        command = [sys.executable, str(_HERE / "baseline.py"), "--hosts", ",".join(hosts), "--user", host.user]
        command += ["--key", str(host.key), "--port", str(host.port), "--statsd", f"127.0.0.1:{statsd_port}"]
        return run([*command, "--cycles", str(cycles)], self._environment)

    def _bare_logins(self, host: MeasuredHost) -> Cost:
        command = [sys.executable, str(_HERE / "bare_logins.py"), "--hosts", ",".join(_HOSTS), "--user", host.user]
        return run([*command, "--key", str(host.key), "--port", str(host.port)], self._environment)

    def _warm(self, baseline_cycles_ms: list[float]) -> None:
        counter = DatagramCounter()
        with MeasuredHost(self._subfolder(), _PROCESSES - _PER_CONNECTION * len(_WARM_HOSTS)) as host:
            host.start()
            flags = host.flags(_WARM_HOSTS, self._subfolder() / "known_hosts")
            without_sink = self._warm_cycles(flags)
            flags["statsd"] = {"server": f"127.0.0.1:{counter.port}"}
            result = self._warm_cycles(flags)
            host.stop()
        received = counter.received()
        counter.close()
        # Figures of a run that loses datagrams mean nothing.
        assert received.datagrams == result["datagrams_total"], (received, result["datagrams_total"])
        self._report_warm(result, median(without_sink["cpu_ms"]), baseline_cycles_ms)

    def _warm_cycles(self, flags: dict[str, Any]) -> dict[str, Any]:
        say(
            f"{self._size.repetitions} x {self._size.warm_cycles} warm cycles{'' if 'statsd' in flags else ', no sink'}"
        )
        task = {"flags": flags, "cycles": self._size.warm_cycles, "blocks": self._size.repetitions, "at_once": 4}
        cost = run([sys.executable, str(_HERE / "warm_cycles.py"), json.dumps(task)], self._environment)
        return dict(json.loads(cost.output))

    def _report_warm(self, result: dict[str, Any], without_sink_ms: float, baseline_cycles_ms: list[float]) -> None:
        what = "client CPU per host and warm cycle, ms"
        self.report.lines.insert(0, Line(what, result["cpu_ms"], baseline_cycles_ms, "a cycle of the same", most=0.6))
        tenth: dict[str, float] = result["stages_tenth_changed_ms"]
        what = "format and pack a cycle, 10 % of rows changed, ms"
        self.report.lines.insert(1, Line(what, [tenth["series and format"] + tenth["cut"]], [], "", most=0.15))
        stages: dict[str, float] = result["stages_ms"]
        before_sink_ms = sum(stages[name] for name in ("frame", "parse", "shape"))
        sink_ms = stages["series and format"] + stages["cut"]
        total_ms = median(result["cpu_ms"])
        self.report.stages_ms = {
            "SSH, decryption, event loop": without_sink_ms - before_sink_ms,
            "frame, parse, shape": before_sink_ms,
            "series, format, cut": sink_ms,
            "pace and send": total_ms - without_sink_ms - sink_ms,
        }
        more_ms = sum(result["stages_all_changed_ms"].values()) - sum(stages.values())
        self.report.notes += [
            f"warm: {result['processes']:.0f} processes per frame, {result['changed_share']:.0%} of the rows changed;"
            f" {more_ms:.2f} ms more if all of them did",
            f"warm: {result['datagrams_total']} datagrams sent and received",
        ]


def _further_ms(many: list[Cost], one: list[Cost]) -> list[float]:
    """Returns what each host after the first one added to the client's CPU, in ms."""
    pairs = zip(many, one, strict=True)
    return [(all_.cpu_seconds - single.cpu_seconds) / (len(_HOSTS) - 1) * 1000 for all_, single in pairs]


def say(text: str) -> None:
    """Tells on stderr what is going on."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def print_table(lines: list[Line]) -> None:
    """Prints a line for each figure."""
    rows = [("what", "fleetmem", "compared with", "", "ratio", "bound", "")]
    rows += [
        (
            line.what,
            spread(line.ours),
            line.other_side,
            spread(line.theirs),
            spread(line.ratios),
            line.bound,
            line.verdict,
        )
        for line in lines
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_report(report: Report) -> None:
    """Prints the table, the stages and the notes."""
    print_table(report.lines)
    total_ms = sum(report.stages_ms.values())
    stages = ", ".join(f"{name} {value / total_ms:.0%}" for name, value in report.stages_ms.items())
    print(f"\nwarm cycle, {total_ms:.2f} ms: {stages}")
    for note in report.notes:
        print(note)


def spread(values: list[float]) -> str:
    """Returns median, lowest and highest, with three digits that count."""
    if not values:
        return "-"
    return f"{number(median(values))} ({number(min(values))}-{number(max(values))})"


def main() -> int:
    """Measures, prints, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there")
    given = parser.parse_args()
    compile_fleetmem()
    with tempfile.TemporaryDirectory(prefix="fleetmem-bench-") as folder:
        bench = Bench(QUICK if given.quick else FULL, Path(folder))
        bench.run()
    report = bench.report
    report.notes += [
        surroundings(),
        f"again: make bench, or python bench/{Path(__file__).name}{' --quick' * given.quick}",
    ]
    print_report(report)
    if given.json:
        lines = [{**asdict(line), "ratios": line.ratios, "verdict": line.verdict} for line in report.lines]
        document = {"lines": lines, "warm_stages_ms": report.stages_ms, "notes": report.notes}
        given.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(line.is_ok for line in report.lines) else 1


if __name__ == "__main__":
    sys.exit(main())
