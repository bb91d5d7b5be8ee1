"""`make bench-scale`: one collector, 10,000 simulated hosts, everything switched on, and what that takes.

    fleetmem lab simulate ──SSH──> fleetmem run ──UDP──> datagram_counter.py
    10,000 hosts, some faulty      is measured           counts

Three processes on the loopback device. From the first interval in which all good hosts answered on, the collector is
measured for some cycles: CPU and memory by /proc, delays by its own counters, which come among its datagrams. Then it
is stopped, and what it says to have sent is compared with what has come. Exit status 1 when a bound is missed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from datagram_counter import DatagramCounter, Received

_FLEETMEM = Path(sys.executable).with_name("fleetmem")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_FAULTS = ("slow", "silent", "refusing", "dropping", "flooding")
_START_MOST_SECONDS = 120
_SETTLE_CYCLES = 2  # after the first complete one: the start's backlog is gone
_STOP_SECONDS = 20.0
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured.

    Attributes:
        hosts: simulated.
        processes: of each.
        churn: share of the rows that change from sample to sample.
        interval_seconds: between two samples of a host.
        faulty: share of the hosts that has a fault, a fifth of them each fault.
        cycles: how long to measure.
    """

    hosts: int
    processes: int
    churn: float
    interval_seconds: int
    faulty: float
    cycles: int

    @property
    def good_hosts(self) -> int:
        """Those that answer in each cycle, give or take how faults are spread."""
        return int(self.hosts * (1 - self.faulty)) - len(_FAULTS)


class Line(NamedTuple):
    """A line of the table; without a bound it is there to be read."""

    what: str
    value: float
    most: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the value is within its bound."""
        return self.most is None or self.value <= self.most

    def __str__(self) -> str:
        bound = "-" if self.most is None else f"at most {self.most:g}"
        verdict = "-" if self.most is None else ("ok" if self.is_ok else "MISSED")
        return f"{self.what:<58}{self.value:>14,.3f}   {bound:<14} {verdict}"


class Usage(NamedTuple):
    """What a process has used so far: CPU, and memory now."""

    cpu_seconds: float
    rss_bytes: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """Reads it from /proc."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        rss_pages = int(fields[21])
        return cls((int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND, rss_pages * os.sysconf("SC_PAGE_SIZE"))


class Cycle(NamedTuple):
    """What the collector logs at the end of an interval."""

    ok: int
    missed: int


class Run:
    """The collector at work.

    Args:
        load: what it is to do.
        folder: for files.
    """

    def __init__(self, load: Load, folder: Path) -> None:
        self.load = load
        self._folder = folder
        self._log = folder / "collector.log"

    def measure(self) -> list[Line]:
        """Starts everything, measures, stops everything; returns the table."""
        load, counter = self.load, DatagramCounter()
        with _running(self._simulate(), self._folder / "simulator.log"):
            _wait("the simulator listens", lambda: "Ctrl-C" in (self._folder / "simulator.log").read_text(), 30)
            begun = time.monotonic()
            with _running(self._collect(counter.port), self._log) as collector:
                _wait("all good hosts answer", self._is_complete, _START_MOST_SECONDS + 2 * load.interval_seconds)
                start_seconds = time.monotonic() - begun
                self._wait_cycles(_SETTLE_CYCLES)
                first_cycle = len(self._cycles())
                before, before_at, before_received = Usage.of(collector.pid), time.monotonic(), counter.received()
                rss = []
                for _ in range(load.cycles):
                    self._wait_cycles(1)
                    rss.append(Usage.of(collector.pid).rss_bytes)
                after, seconds, after_received = (
                    Usage.of(collector.pid),
                    time.monotonic() - before_at,
                    counter.received(),
                )
                cycles = self._cycles()[first_cycle:]
                collector.send_signal(signal.SIGTERM)
                collector.wait(_STOP_SECONDS)
        received = counter.received().datagrams
        counter.close()
        counters = after_received.counters
        cpu_seconds = after.cpu_seconds - before.cpu_seconds
        samples = load.hosts * seconds / load.interval_seconds
        stopped = self._logged()[-1]
        sent = stopped["statsd_datagrams_sent"]
        return [
            Line("from the start to the first complete cycle, s", start_seconds, _START_MOST_SECONDS),
            Line("cores", cpu_seconds / seconds, 0.6),
            Line("CPU per host and cycle, ms", cpu_seconds / samples * 1000),
            Line("resident memory, MB, highest", max(rss) / _MB, 700),
            Line("slots missed", sum(cycle.missed for cycle in cycles), 0),
            Line("hosts that answered in a cycle, fewest", min(cycle.ok for cycle in cycles)),
            Line("delay of a sample, p50 of the last cycle, s", counters["late_p50_seconds"]),
            Line("delay of a sample, p99 of the last cycle, s", counters["late_p99_seconds"], 1),
            Line("delay of a sample, highest of the last cycle, s", counters["late_highest_seconds"]),
            Line("answer of a host, p99 of the last cycle, s", counters["host_p99_seconds"]),
            Line("datagrams a second", (after_received.datagrams - before_received.datagrams) / seconds),
            Line("age of what waits to be sent, s", counters["statsd.queue_age_seconds"], 1),
            Line("points dropped, in the measured cycles", _dropped(after_received) - _dropped(before_received), 0),
            Line("points dropped, before", _dropped(before_received)),
            Line("datagrams sent", sent),
            Line("datagrams sent and not received", sent - received, 0),
        ]

    def _simulate(self) -> list[str]:
        load = self.load
        shares = [flag for fault in _FAULTS for flag in (f"--{fault}", f"{load.faulty / len(_FAULTS):.6f}")]
        size = ["--hosts", str(load.hosts), "--processes", str(load.processes), "--churn", str(load.churn)]
        return ["lab", "simulate", "--dir", str(self._folder / "fleet"), *size, *shares]

    def _collect(self, port: int) -> list[str]:
        config = str(self._folder / "fleet" / "fleetmem.toml")
        interval = str(self.load.interval_seconds)
        return ["run", "-c", config, "-g", f"127.0.0.1:{port}", "--interval", interval, "--log-format", "json"]

    def _logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def _cycles(self) -> list[Cycle]:
        lines = [line for line in self._logged() if "missed" in line]
        return [Cycle(int(line["message"].split()[0]), line["missed"]) for line in lines]

    def _is_complete(self) -> bool:
        return any(cycle.ok >= self.load.good_hosts for cycle in self._cycles())

    def _wait_cycles(self, cycles: int) -> None:
        until = len(self._cycles()) + cycles
        seconds = (cycles + 2) * self.load.interval_seconds
        _wait("a cycle ends", lambda: len(self._cycles()) >= until, seconds)


def _dropped(received: Received) -> float:
    """Returns the points that the collector had no room for, or that came too late to be sent, as it tells itself."""
    return sum(received.counters[f"statsd.points_dropped_{why}_total"] for why in ("full", "late"))


@contextmanager
def _running(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs fleetmem with its output in a file; ends it."""
    with log.open("wb") as file:
        process = subprocess.Popen([_FLEETMEM, *arguments], stdout=file, stderr=file)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(what: str, is_so: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise SystemExit(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(0.2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=150)
    parser.add_argument("--churn", type=float, default=0.1, help="share of the rows that change each time")
    parser.add_argument("--interval", type=int, default=10, metavar="SECONDS")
    parser.add_argument("--faulty", type=float, default=0.01, help="share of the hosts")
    parser.add_argument("--cycles", type=int, default=6, help="that are measured")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the processes say there")
    parser.add_argument("--quick", action="store_true", help="1,000 hosts, 3 cycles")
    return parser.parse_args()


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
    else:
        with tempfile.TemporaryDirectory(prefix="fleetmem-scale-") as folder:
            yield Path(folder)


def main() -> None:
    """Measures and prints."""
    given = _arguments()
    hosts, cycles = (1000, 3) if given.quick else (given.hosts, given.cycles)
    load = Load(hosts, given.processes, given.churn, given.interval, given.faulty, cycles)
    with _folder(given.logs) as folder:
        lines = Run(load, folder).measure()
    print(
        f"{load.hosts} hosts with {load.processes} processes every {load.interval_seconds} s, "
        f"{load.churn:.0%} of the rows change, {load.faulty:.1%} of the hosts are faulty; {load.cycles} cycles"
    )
    print("\n".join(map(str, lines)))
    if not all(line.is_ok for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
