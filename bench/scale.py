"""`make bench-scale`: one collector, 10,000 simulated hosts, everything switched on, and what that takes.

    fleetmem lab simulate ──SSH──> fleetmem run ──UDP──> datagram_counter.py
    10,000 hosts, some faulty      is measured           counts

Three processes on the loopback device, more with `--workers`. From the first interval in which all good hosts answered
on, the collector is measured for some cycles: CPU and memory by /proc, delays by its own counters, which come among its
datagrams. Then it is stopped, and what it says to have sent is compared with what has come. Exit status 1 when a bound
is missed. `--curves` measures smaller and larger fleets instead, one after the other: how cost grows with hosts and
processes. Each fleet is measured at one interval, and at as many samples a second as the others: a machine that has
little to do does the same work at a higher price, whatever the program. What that is here is measured beside it.
"""

import argparse
import json
import math
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import linear_regression
from typing import Any, NamedTuple

from datagram_counter import DatagramCounter, Received
from fleet_run import MB, STOP_SECONDS, CollectorLog, Line, SimulatedFleet, folder_for, running, wait
from fleetmem.runtime.usage import usage_of

_START_MOST_SECONDS = 120
_SETTLE_CYCLES = 2  # after the first complete one: the start's backlog is gone
_SETTLE_SECONDS = 20  # at least
_HOSTS_LATE = 5  # of all: their outcomes may come a moment after the end of a cycle
_CORES_MOST = 0.6
_RSS_MOST_MB = 700
_CURVE_HOSTS = (500, 2000, 5000, 10_000)
_CURVE_PROCESSES = (50, 150, 400, 1000)
_CURVE_SAMPLES_PER_SECOND = 1000
_CURVE_SECONDS = 30  # at least, of each
_WORK_SECONDS = 4  # for what the same work costs
_GROWTH_MOST = 1.2  # of the cost of a host, from the smallest fleet on
_BEND_MOST = 0.2  # away from a straight line, of the cost by processes


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured.

    Attributes:
        fleet: that is simulated.
        interval_seconds: between two samples of a host.
        cycles: how long to measure.
        workers: processes that share the hosts; with 1 there is no other process.
    """

    fleet: SimulatedFleet
    interval_seconds: float
    cycles: int
    workers: int = 1


class Cycle(NamedTuple):
    """What the collector logs at the end of an interval."""

    ok: int
    missed: int


class Figures(NamedTuple):
    """What was measured, for curves; the table has more."""

    hosts: int
    processes: int
    interval_seconds: float
    cores: float
    cpu_ms_per_sample: float
    rss_mb: float


class Used(NamedTuple):
    """What the collector and its workers have used so far, each for itself."""

    cpu_seconds: list[float]
    rss_bytes: int

    @classmethod
    def by(cls, pid: int) -> "Used":
        """Reads it from /proc. Memory that processes share counts in each of them."""
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        usages = [usage_of(process) for process in (pid, *map(int, children))]
        return cls([usage.cpu_seconds_total for usage in usages], sum(usage.rss_bytes for usage in usages))


class Run:
    """The collector at work.

    Args:
        load: what it is to do.
        folder: for files.
    """

    def __init__(self, load: Load, folder: Path) -> None:
        self.load = load
        self._folder = folder
        self._log = CollectorLog(folder / "collector.log")
        self._hosts_of_all = load.fleet.good_hosts - _HOSTS_LATE

    def measure(self) -> tuple[Figures, list[Line]]:
        """Starts everything, measures, stops everything; returns what came out, and the table."""
        load, counter = self.load, DatagramCounter()
        with load.fleet.running(self._folder):
            begun = time.monotonic()
            with running(self._collect(counter.port), self._folder / "collector.log") as collector:
                wait("all good hosts answer", self._is_complete, _START_MOST_SECONDS + 2 * load.interval_seconds)
                start_seconds = time.monotonic() - begun
                self._wait_cycles(max(_SETTLE_CYCLES, math.ceil(_SETTLE_SECONDS / load.interval_seconds)))
                first_cycle = len(self._cycles())
                pid = collector.process.pid
                before, before_at, before_received = Used.by(pid), time.monotonic(), counter.received()
                rss = []
                for _ in range(load.cycles):
                    self._wait_cycles(1)
                    rss.append(Used.by(pid).rss_bytes)
                after, seconds, after_received = Used.by(pid), time.monotonic() - before_at, counter.received()
                cycles = self._cycles()[first_cycle:]
                collector.process.send_signal(signal.SIGTERM)
                collector.process.wait(STOP_SECONDS)
        received = counter.received().datagrams
        counter.close()
        counters = after_received.counters
        cores = [(end - begin) / seconds for begin, end in zip(before.cpu_seconds, after.cpu_seconds, strict=True)]
        cpu_ms = sum(cores) * load.interval_seconds / load.fleet.hosts * 1000
        sent = self._stopped()["statsd_datagrams_sent"]
        lines = [
            Line("from the start to the first complete cycle, s", start_seconds, _START_MOST_SECONDS),
            Line("cores", sum(cores), None if load.workers > 1 else _CORES_MOST),
            Line("CPU per host and cycle, ms", cpu_ms),
            Line("resident memory, MB, highest", max(rss) / MB, None if load.workers > 1 else _RSS_MOST_MB),
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
        if load.workers > 1:
            lines.insert(2, Line("cores, of the process that used most", max(cores), _CORES_MOST))
        size = load.fleet.hosts, load.fleet.processes, load.interval_seconds
        return Figures(*size, sum(cores), cpu_ms, max(rss) / MB), lines

    def _collect(self, port: int) -> list[str]:
        config = str(self._folder / "fleet" / "fleetmem.toml")
        how = ["--interval", str(self.load.interval_seconds), "--log-format", "json"]
        if self.load.workers > 1:
            how += ["--workers", str(self.load.workers)]
        return ["run", "-c", config, "-g", f"127.0.0.1:{port}", *how]

    def _stopped(self) -> dict[str, Any]:
        """Returns what the collector says at its end: nothing else tells what was sent in all."""
        last = self._log.lines()[-1]
        if last["message"] != "stopped":
            raise SystemExit(f"the collector did not stop in order; it said last: {last['message']}")
        return last

    def _cycles(self) -> list[Cycle]:
        lines = [line for line in self._log.lines() if "missed" in line]
        return [Cycle(int(line["message"].split()[0]), line["missed"]) for line in lines]

    def _is_complete(self) -> bool:
        return any(cycle.ok >= self._hosts_of_all for cycle in self._cycles())

    def _wait_cycles(self, cycles: int) -> None:
        until = len(self._cycles()) + cycles
        seconds = (cycles + 2) * self.load.interval_seconds
        wait("a cycle ends", lambda: len(self._cycles()) >= until, seconds)


def _dropped(received: Received) -> float:
    """Returns the points that the collector had no room for, or that came too late to be sent, as it tells itself."""
    return sum(received.counters[f"statsd.points_dropped_{why}_total"] for why in ("full", "late"))


def _measure(load: Load, logs: Path | None) -> tuple[Figures, list[Line]]:
    with folder_for("scale", logs) as folder:
        return Run(load, folder).measure()


def _curves(load: Load) -> tuple[list[Figures], list[Line]]:
    """Measures fleets of all sizes, and hosts with few and many processes; prints each as it comes."""
    size, interval_seconds = load.fleet.processes, load.interval_seconds
    by_hosts = [(hosts, size, interval_seconds) for hosts in _CURVE_HOSTS]
    by_rate = [(hosts, size, hosts / _CURVE_SAMPLES_PER_SECOND) for hosts in _CURVE_HOSTS]
    by_processes = [(_CURVE_HOSTS[0], processes, interval_seconds) for processes in _CURVE_PROCESSES]
    measured: dict[tuple[int, int, float], Figures] = {}
    print("  hosts  processes   interval, s   cores   CPU per host and cycle, ms   RSS, MB")
    for hosts, processes, seconds in dict.fromkeys(by_hosts + by_rate + by_processes):
        cycles = max(load.cycles, math.ceil(_CURVE_SECONDS / seconds))
        fleet = replace(load.fleet, hosts=hosts, processes=processes)
        figures, _lines = _measure(replace(load, fleet=fleet, interval_seconds=seconds, cycles=cycles), None)
        measured[hosts, processes, seconds] = figures
        cost = f"{figures.cores:8.3f}   {figures.cpu_ms_per_sample:26.3f}   {figures.rss_mb:7.0f}"
        print(f"{hosts:7}  {processes:9}   {seconds:11g}{cost}", flush=True)

    def costs(sizes: list[tuple[int, int, float]]) -> list[float]:
        return [measured[each].cpu_ms_per_sample for each in sizes]

    rates = [hosts / interval_seconds for hosts in _CURVE_HOSTS]
    work_ms = _cost_of_work(rates)
    slope, base = linear_regression(_CURVE_PROCESSES, costs(by_processes))
    bends = [
        abs(cost / (base + slope * count) - 1)
        for count, cost in zip(_CURVE_PROCESSES, costs(by_processes), strict=True)
    ]
    at_rate, at_interval = costs(by_rate), costs(by_hosts)
    return list(measured.values()), [
        Line("dearest host by that of the smallest fleet, equal rate", max(at_rate) / at_rate[0], _GROWTH_MOST),
        Line("cheapest host by that of the smallest fleet, equal rate", min(at_rate) / at_rate[0]),
        Line("dearest host by that of the smallest fleet", max(at_interval) / at_interval[0], _GROWTH_MOST),
        Line("smallest fleet's host by that of the largest", at_interval[0] / at_interval[-1]),
        Line(f"the same work {rates[0]:g} times a second, by {rates[-1]:g}", work_ms[0] / work_ms[-1]),
        Line("CPU per process and sample, us", slope * 1000),
        Line("CPU per sample without processes, us", base * 1000),
        Line("furthest from a straight line, share", max(bends), _BEND_MOST),
    ]


def _cost_of_work(rates: list[float]) -> list[float]:
    """Returns the CPU (ms) of a fixed piece of Python, done that often each second with sleeps in between."""
    texts = {number: str(number) for number in range(20_000)}
    some = [number * 7919 % len(texts) for number in range(8000)]  # all over the memory
    spent = []
    for rate in rates:
        begun, seconds, times = time.monotonic(), 0.0, 0
        while time.monotonic() - begun < _WORK_SECONDS:
            time.sleep(max(0.0, begun + times / rate - time.monotonic()))
            before = time.process_time()
            sum(len(texts[number]) for number in some)
            seconds += time.process_time() - before
            times += 1
        spent.append(seconds / times * 1000)
    return spent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=150)
    parser.add_argument("--churn", type=float, default=0.1, help="share of the rows that change each time")
    parser.add_argument("--interval", type=float, default=10, metavar="SECONDS")
    parser.add_argument("--faulty", type=float, default=0.01, help="share of the hosts")
    parser.add_argument("--cycles", type=int, default=6, help="that are measured")
    parser.add_argument("--workers", type=int, default=1, help="as `fleetmem run` has it; bounds are those of each")
    parser.add_argument("--curves", action="store_true", help="how cost grows with hosts and processes, 12 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, for plots.py")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the processes say there")
    parser.add_argument("--quick", action="store_true", help="1,000 hosts, 3 cycles")
    return parser.parse_args()


def main() -> None:
    """Measures and prints."""
    given = _arguments()
    hosts, cycles = (1000, 3) if given.quick else (given.hosts, given.cycles)
    fleet = SimulatedFleet(hosts, given.processes, given.churn, given.faulty)
    load = Load(fleet, given.interval, cycles, given.workers)
    print(
        ("Fleets" if given.curves else f"{fleet.hosts} hosts with {fleet.processes} processes")
        + f" every {load.interval_seconds:g} s, {fleet.churn:.0%} of the rows change, "
        f"{fleet.faulty:.1%} of the hosts are faulty; {load.cycles} cycles"
    )
    if given.curves:
        figures, lines = _curves(load)
    else:
        measured, lines = _measure(load, given.logs)
        figures = [measured]
    print("\n".join(map(str, lines)))
    if given.json:
        given.json.write_text(json.dumps([each._asdict() for each in figures], indent=1) + "\n")
    if not all(line.is_ok for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
