"""`make bench-scale`: one collector, 10,000 simulated hosts, everything switched on, and what that takes.

    fleetmem lab simulate ──SSH──> fleetmem run ──UDP──> datagram_counter.py
    10,000 hosts, some faulty      is measured           counts

Three processes on the loopback device. From the first interval in which all good hosts answered on, the collector is
measured for some cycles: CPU and memory by /proc, delays by its own counters, which come among its datagrams. Then it
is stopped, and what it says to have sent is compared with what has come. Exit status 1 when a bound is missed.
"""

import argparse
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datagram_counter import DatagramCounter, Received
from fleet_run import MB, STOP_SECONDS, CollectorLog, Line, SimulatedFleet, folder_for, running, wait
from fleetmem.usage import usage_of

_START_MOST_SECONDS = 120
_SETTLE_CYCLES = 2  # after the first complete one: the start's backlog is gone


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured.

    Attributes:
        fleet: that is simulated.
        interval_seconds: between two samples of a host.
        cycles: how long to measure.
    """

    fleet: SimulatedFleet
    interval_seconds: int
    cycles: int


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
        self._log = CollectorLog(folder / "collector.log")

    def measure(self) -> list[Line]:
        """Starts everything, measures, stops everything; returns the table."""
        load, counter = self.load, DatagramCounter()
        with load.fleet.running(self._folder):
            begun = time.monotonic()
            with running(self._collect(counter.port), self._folder / "collector.log") as collector:
                wait("all good hosts answer", self._is_complete, _START_MOST_SECONDS + 2 * load.interval_seconds)
                start_seconds = time.monotonic() - begun
                self._wait_cycles(_SETTLE_CYCLES)
                first_cycle = len(self._cycles())
                pid = collector.process.pid
                before, before_at, before_received = usage_of(pid), time.monotonic(), counter.received()
                rss = []
                for _ in range(load.cycles):
                    self._wait_cycles(1)
                    rss.append(usage_of(pid).rss_bytes)
                after, seconds, after_received = usage_of(pid), time.monotonic() - before_at, counter.received()
                cycles = self._cycles()[first_cycle:]
                collector.process.send_signal(signal.SIGTERM)
                collector.process.wait(STOP_SECONDS)
        received = counter.received().datagrams
        counter.close()
        counters = after_received.counters
        cpu_seconds = after.cpu_seconds_total - before.cpu_seconds_total
        samples = load.fleet.hosts * seconds / load.interval_seconds
        stopped = self._log.lines()[-1]
        sent = stopped["statsd_datagrams_sent"]
        return [
            Line("from the start to the first complete cycle, s", start_seconds, _START_MOST_SECONDS),
            Line("cores", cpu_seconds / seconds, 0.6),
            Line("CPU per host and cycle, ms", cpu_seconds / samples * 1000),
            Line("resident memory, MB, highest", max(rss) / MB, 700),
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

    def _collect(self, port: int) -> list[str]:
        config = str(self._folder / "fleet" / "fleetmem.toml")
        interval = str(self.load.interval_seconds)
        return ["run", "-c", config, "-g", f"127.0.0.1:{port}", "--interval", interval, "--log-format", "json"]

    def _cycles(self) -> list[Cycle]:
        lines = [line for line in self._log.lines() if "missed" in line]
        return [Cycle(int(line["message"].split()[0]), line["missed"]) for line in lines]

    def _is_complete(self) -> bool:
        return any(cycle.ok >= self.load.fleet.good_hosts for cycle in self._cycles())

    def _wait_cycles(self, cycles: int) -> None:
        until = len(self._cycles()) + cycles
        seconds = (cycles + 2) * self.load.interval_seconds
        wait("a cycle ends", lambda: len(self._cycles()) >= until, seconds)


def _dropped(received: Received) -> float:
    """Returns the points that the collector had no room for, or that came too late to be sent, as it tells itself."""
    return sum(received.counters[f"statsd.points_dropped_{why}_total"] for why in ("full", "late"))


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


def main() -> None:
    """Measures and prints."""
    given = _arguments()
    hosts, cycles = (1000, 3) if given.quick else (given.hosts, given.cycles)
    fleet = SimulatedFleet(hosts, given.processes, given.churn, given.faulty)
    load = Load(fleet, given.interval, cycles)
    with folder_for("scale", given.logs) as folder:
        lines = Run(load, folder).measure()
    print(
        f"{fleet.hosts} hosts with {fleet.processes} processes every {load.interval_seconds} s, "
        f"{fleet.churn:.0%} of the rows change, {fleet.faulty:.1%} of the hosts are faulty; {load.cycles} cycles"
    )
    print("\n".join(map(str, lines)))
    if not all(line.is_ok for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
