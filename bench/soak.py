"""`make soak`: a simulated fleet with faults, one collector, and every outcome checked, for as long as you like.

    fleetmem lab simulate ──SSH──> fleetmem run ──UDP──> datagram_counter.py
    hosts with faults, whose            │
    processes come and go               └──JSON lines──> soak_checks.py

A line a minute says how it goes, violations are named as they are found, and a table comes at the end. Once in each
quarter the collector reads its configuration again (SIGHUP). Ctrl-C, or SIGTERM, ends it with what was found so far.
Exit status 1 when something did not hold, 130 when it was ended before its time.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagram_counter import DatagramCounter
from fleet_run import MB, STOP_SECONDS, GrowingFile, Running, SimulatedFleet, folder_for, running
from fleetmem.runtime.usage import usage_of
from soak_checks import Check, Grown, SoakChecks

Processes = Mapping[str, subprocess.Popen[Any]]

_START_SECONDS = 120.0
_POLL_SECONDS = 0.5
_MINUTE_SECONDS = 60.0
# Of the time, once in each quarter: what a reload would leave behind is growth.
_FIRST_RELOAD, _RELOAD_EVERY = 0.1, 0.25
_LEAST_BETWEEN_RELOADS_SECONDS = 20.0  # each begins anew with a host that takes its time
_EXIT_FAILED, _EXIT_INTERRUPTED = 1, 130
# The file is read as it grows. 20 rows a level keep JSON cheap, and put the rest into `other`: sums show what is lost.
_SHAPE = ("--detail", "process,command", "--top", "20")
_FILE = {"ROTATE_SIZE": "64MiB", "KEEP": "1", "COMPRESS": "none"}


@dataclass(frozen=True, slots=True)
class Options:
    """What is run.

    Attributes:
        fleet: that is simulated.
        interval_seconds: between two samples of a host.
        seconds: from the first complete cycle on.
        workers: processes that sample.
    """

    fleet: SimulatedFleet
    interval_seconds: float
    seconds: float
    workers: int


class Soak:
    """One run.

    Args:
        options: what is run.
        folder: for files.
    """

    def __init__(self, options: Options, folder: Path) -> None:
        self.checks = SoakChecks(options.fleet.plan, options.interval_seconds)
        self.grown: list[Grown] = []
        self.is_interrupted = False
        self._options = options
        self._folder = folder
        (folder / "memory.jsonl").unlink(missing_ok=True)  # the collector would append
        self._counter = DatagramCounter()
        self._records = GrowingFile(folder / "memory.jsonl")
        self._log = GrowingFile(folder / "collector.log")
        self._reports = GrowingFile(folder / "simulator.log")
        self._reloads = self._named = 0
        self._cpu_seconds: dict[str, float] = {}
        self._begun = time.monotonic()

    def run(self) -> None:
        """Starts everything, checks, stops everything."""
        with self._options.fleet.running(self._folder) as simulator:
            with self._collector() as collector:
                processes: Processes = {
                    "collector": collector.process,
                    "simulator": simulator.process,
                    "receiver": self._counter.process,
                }
                try:
                    self._settle(collector)
                    self._watch(collector, processes)
                except KeyboardInterrupt:
                    self.is_interrupted = True
                self._measure(processes)
                self._stop(collector)
            simulator.process.send_signal(signal.SIGTERM)
            simulator.process.wait(STOP_SECONDS)
        self._poll()
        self._end()

    @contextmanager
    def _collector(self) -> Iterator[Running]:
        config, interval = str(self._folder / "fleet" / "fleetmem.toml"), str(self._options.interval_seconds)
        arguments = ["run", "-c", config, "-g", f"127.0.0.1:{self._counter.port}", "--interval", interval]
        if self._options.workers != 1:
            arguments += ["--workers", str(self._options.workers)]
        file = {"PATH": str(self._folder / "memory.jsonl"), **_FILE}
        environment = os.environ | {f"FLEETMEM_FILE__{key}": value for key, value in file.items()}
        with running(
            [*arguments, *_SHAPE, "--log-format", "json"], self._folder / "collector.log", environment
        ) as process:
            yield process

    def _settle(self, collector: Running) -> None:
        """Waits for the first cycle in which all good hosts answer."""
        until = time.monotonic() + _START_SECONDS + 2 * self._options.interval_seconds
        while not self.checks.is_settled and _is_alive(collector):
            if time.monotonic() > until:
                raise SystemExit(f"not all good hosts answered within {_START_SECONDS:.0f} s")
            self._poll()
            time.sleep(_POLL_SECONDS)
        print(f"all good hosts answer, {time.monotonic() - self._begun:.0f} s from the start", flush=True)

    def _watch(self, collector: Running, processes: Processes) -> None:
        """Checks until the time is over, or the collector ends."""
        begun = told = time.monotonic()
        until, reload_at = begun + self._options.seconds, begun + self._options.seconds * _FIRST_RELOAD
        while _is_alive(collector) and (now := time.monotonic()) < until:
            time.sleep(min(_POLL_SECONDS, until - now))
            self._poll()
            if now > reload_at:
                collector.process.send_signal(signal.SIGHUP)
                self._reloads += 1
                reload_at += max(self._options.seconds * _RELOAD_EVERY, _LEAST_BETWEEN_RELOADS_SECONDS)
            if now - told >= _MINUTE_SECONDS:
                told += _MINUTE_SECONDS
                self._check_datagrams()
                self._tell((now - begun) / _MINUTE_SECONDS, processes)
        self.checks.findings.expect(
            Check.LOG, "collector", f"ended with status {collector.process.poll()}", holds=_is_alive(collector)
        )

    def _stop(self, collector: Running) -> None:
        """Ends the collector as systemd would, and compares what it says to have sent with what has come."""
        if _is_alive(collector):
            self._poll()
            self.checks.begin_end()
            collector.process.send_signal(signal.SIGTERM)
        status = collector.process.wait(STOP_SECONDS)
        self.checks.findings.expect(Check.LOG, "collector", f"ended with status {status}", holds=status == 0)
        self._poll()
        sent = self.checks.last_logged.get("statsd_datagrams_sent", 0)
        received = self._counter.received().datagrams
        self.checks.take_datagrams(sent, received, self._counter.dropped)
        what = f"{received} datagrams have come, {sent} were sent"
        self.checks.findings.expect(Check.DATAGRAMS, "receiver", what, holds=0 < sent == received)

    def _end(self) -> None:
        self._counter.close()
        for file in (self._records, self._log, self._reports):
            file.close()
        if not self.is_interrupted:
            what = f"took {self.checks.reloads} configurations after {self._reloads} SIGHUPs"
            self.checks.findings.expect(Check.LOG, "collector", what, holds=self.checks.reloads == self._reloads)
        self.grown = self.checks.end(is_whole=not self.is_interrupted)
        self._name_violations()

    def _poll(self) -> None:
        """Checks what has come: the log first, which says when samples may have been given up for a reload."""
        records = list(self._records.lines())
        for line in self._log.lines():
            self.checks.take_log(line)
        for line in records:
            self.checks.take_record(json.loads(line))
        for line in self._reports.lines():
            self.checks.take_report(line)
        self._name_violations()

    def _name_violations(self) -> None:
        found = self.checks.findings.first
        for violation in found[self._named :]:
            print(f"VIOLATION {violation}", flush=True)
        self._named = len(found)

    def _check_datagrams(self) -> None:
        sent = int(self.checks.counters["statsd.datagrams_sent_total"])
        self.checks.take_datagrams(sent, self._counter.received().datagrams, self._counter.dropped)

    def _measure(self, processes: Processes) -> None:
        """Notes how much CPU time each process took so far."""
        for name, process in processes.items():
            if process.poll() is None:
                self._cpu_seconds[name] = usage_of(process.pid).cpu_seconds_total
        if own := self.checks.counters.get("cpu_seconds_total"):  # workers included
            self._cpu_seconds["collector"] = max(own, self._cpu_seconds.get("collector", 0.0))
        self._cpu_seconds["checks"] = time.process_time()

    def cores(self) -> dict[str, float]:
        """Returns how many cores each process has used, from the start on."""
        seconds = time.monotonic() - self._begun
        return {name: used / seconds for name, used in self._cpu_seconds.items()}

    def _tell(self, minutes: float, processes: Processes) -> None:
        checks, counters = self.checks, self.checks.counters
        self._measure(processes)
        cores = ", ".join(f"{name} {used:.2f}" for name, used in self.cores().items())
        print(
            f"minute {minutes:.0f}: {checks.cycles} cycles, {checks.outcomes_total:,} outcomes, "
            f"{checks.failures_total:,} failures, {counters['cycles_missed_total']:.0f} slots missed; "
            f"RSS {counters['rss_bytes'] / MB:.1f} MB, "
            f"{counters['open_files']:.0f} files, {counters['tasks']:.0f} tasks, "
            f"{counters['threads']:.0f} threads, {counters['statsd.series']:,.0f} series; cores: {cores}; "
            f"{checks.findings.violated.total()} violations of {checks.findings.checked.total():,} checks",
            flush=True,
        )

    def table(self) -> str:
        """Returns what was checked, what became of each measure, and what it took."""
        findings = self.checks.findings
        lines = [f"{'check':<72}{'checked':>12}{'violated':>10}"]
        lines += [f"{check:<72}{findings.checked[check]:>12,}{findings.violated[check]:>10,}" for check in Check]
        lines += ["", f"{'median of a measure':<36}{'2nd quarter':>14}{'last quarter':>14}{'at most':>14}"]
        lines += [
            f"{name:<36}{before:>14,.0f}{after:>14,.0f}{most:>14,.0f}" for name, before, after, most in self.grown
        ]
        if not self.grown:
            lines.append("too few cycles to say anything about growth")
        lines += ["", f"{'process':<36}{'cores':>14}"]
        lines += [f"{name:<36}{used:>14.3f}" for name, used in self.cores().items()]
        return "\n".join(lines)


def _is_alive(running: Running) -> bool:
    return running.process.poll() is None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="from the first complete cycle on")
    parser.add_argument("--hosts", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=150)
    parser.add_argument("--interval", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--faulty", type=float, default=0.05, help="share of the hosts, a fifth of them each fault")
    parser.add_argument("--churn", type=float, default=0.1, help="share of the rows that change each time")
    parser.add_argument("--workers", type=int, default=1, help="processes of the collector that sample")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the processes say there")
    return parser.parse_args()


def main() -> None:
    """Runs and prints."""
    given = _arguments()
    fleet = SimulatedFleet(given.hosts, given.processes, given.churn, given.faulty)
    options = Options(fleet, given.interval, given.minutes * _MINUTE_SECONDS, given.workers)
    print(
        f"{fleet.hosts} hosts with {fleet.processes} processes every {options.interval_seconds:g} s "
        f"for {given.minutes:g} minutes, {fleet.churn:.0%} of the rows change, "
        f"{fleet.faulty:.1%} of the hosts are faulty",
        flush=True,
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has started it in the background
        signal.signal(number, signal.default_int_handler)
    with folder_for("soak", given.logs) as folder:
        soak = Soak(options, folder)
        try:
            soak.run()
        except KeyboardInterrupt:  # before it had begun, or a second one
            sys.exit(_EXIT_INTERRUPTED)
    print(soak.table())
    if violated := soak.checks.findings.violated.total():
        print(f"{violated} violations; the first are named above")
        sys.exit(_EXIT_FAILED)
    if soak.is_interrupted:
        sys.exit(_EXIT_INTERRUPTED)
    print("all invariants hold")


if __name__ == "__main__":
    main()
