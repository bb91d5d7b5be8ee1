"""Counts ghosts: series that have ended, and that a receiver which repeats gauges shows alive all the same.

A simulated fleet whose processes come and go, `fleetmem run`, and a receiver that keeps the last value of each gauge:

    loss      a relay on the way loses one datagram of twenty, at random
    stall     a receiver over TCP does not read for 12 s
    restart   fleetmem is stopped, processes end, and it is started again
"""

import argparse
import json
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from fleet_run import Running, SimulatedFleet, folder_for, running

MOST_GHOSTS = 0.001
LOSS = 0.05
STALL_SECONDS = 12.0

_PROCESSES = 40
_CHURN = 1.0  # one of ten comes and goes in each cycle
_READ_BYTES = 65_536
_POLL_SECONDS = 0.05
_SETTLE_SECONDS = 1.0


class Size(NamedTuple):
    """How much is simulated: full, or quick."""

    hosts: int
    interval_seconds: float
    seconds: float
    least_ended: int


FULL = Size(hosts=400, interval_seconds=5.0, seconds=30.0, least_ended=5000)
QUICK = Size(hosts=60, interval_seconds=1.5, seconds=8.0, least_ended=1000)


class Receiver:
    """Keeps the last value of each gauge, over UDP and TCP on one port of 127.0.0.1.

    Attributes:
        gauges: by name.
        seen: names of processes that had a value.
        bad_lines: lines that are none of StatsD's plain ones.
        is_reading: whether it reads what comes over TCP.
    """

    def __init__(self) -> None:
        self.gauges: dict[str, float] = {}
        self.seen: set[str] = set()
        self.bad_lines = 0
        self.is_reading = threading.Event()
        self.is_reading.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self.port = self._listener.getsockname()[1]
        self._datagrams = bound_socket(self.port)
        self._lock = threading.Lock()
        for work in (self._read_datagrams, self._accept):
            threading.Thread(target=work, daemon=True).start()

    def _read_datagrams(self) -> None:
        while True:
            self._take(self._datagrams.recv(_READ_BYTES))

    def _accept(self) -> None:
        while True:
            connection, _peer = self._listener.accept()
            threading.Thread(target=self._read_stream, args=(connection,), daemon=True).start()

    def _read_stream(self, connection: socket.socket) -> None:
        rest = b""
        with connection:
            while True:
                self.is_reading.wait()
                select.select([connection], [], [])
                if not self.is_reading.is_set():
                    continue
                data = connection.recv(_READ_BYTES)
                if not data:
                    break
                whole, newline, rest = (rest + data).rpartition(b"\n")
                self._take(whole + newline)
            self._take(rest)  # as receivers do at the end of a connection, whole line or not

    def _take(self, data: bytes) -> None:
        with self._lock:
            for line in data.decode("ascii").splitlines():
                name, _colon, value = line.partition(":")
                if not value.endswith("|g"):
                    self.bad_lines += 1
                    continue
                self.gauges[name] = float(value[:-2])
                if ".process." in name and self.gauges[name]:
                    self.seen.add(name)


class LossyRelay:
    """Passes datagrams on, and loses some of them at random.

    Attributes:
        port: where it takes them.
        passed: how many arrived.
        lost: how many did not.
    """

    def __init__(self, to_port: int, loss: float, seed: int) -> None:
        self.passed = self.lost = 0
        self._to = ("127.0.0.1", to_port)
        self._loss = loss
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._socket = bound_socket(0)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._pass_on, daemon=True).start()

    def _pass_on(self) -> None:
        while True:
            data = self._socket.recv(_READ_BYTES)
            if self._random.random() < self._loss:
                self.lost += 1
            else:
                self._socket.sendto(data, self._to)
                self.passed += 1


def bound_socket(port: int) -> socket.socket:
    """Returns a UDP socket on 127.0.0.1 with a large buffer."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
    sock.bind(("127.0.0.1", port))
    return sock


class Verdict(NamedTuple):
    """What came of one run."""

    scenario: str
    ended: int
    ghosts: int
    missing: int
    bad_lines: int

    @property
    def share(self) -> float:
        """Ghosts among the series that ended."""
        return self.ghosts / max(1, self.ended)


class Trial:
    """One run of one scenario.

    Args:
        size: how much is simulated.
        folder: for what is written.
        seed: of what is lost.
    """

    def __init__(self, size: Size, folder: Path, seed: int) -> None:
        self._size = size
        self._folder = folder
        self._seed = seed
        self._receiver = Receiver()
        self._output = folder / "outcomes.jsonl"

    def loss(self) -> None:
        """Runs with a relay that loses datagrams."""
        relay = LossyRelay(self._receiver.port, LOSS, self._seed)
        with self._run(f"127.0.0.1:{relay.port}") as collector:
            self._wait_cycles(self._size.seconds)
            self._stop(collector)
        time.sleep(_SETTLE_SECONDS)

    def stall(self) -> None:
        """Runs with a receiver that does not read for a while."""
        with self._run(f"tcp://127.0.0.1:{self._receiver.port}") as collector:
            self._wait_cycles(self._size.seconds / 2)
            self._receiver.is_reading.clear()
            self._wait_cycles(STALL_SECONDS)
            self._receiver.is_reading.set()
            self._wait_cycles(self._size.seconds / 2 + 5 * self._size.interval_seconds)
            self._stop(collector)
        time.sleep(_SETTLE_SECONDS)

    def restart(self) -> None:
        """Runs, stops, lets processes end, and runs again."""
        address = f"127.0.0.1:{self._receiver.port}"
        with self._run(address) as collector:
            self._wait_cycles(self._size.seconds)
            self._stop(collector)
        with self._run(None) as collector:  # processes end only while somebody looks
            self._wait_cycles(self._size.seconds / 2)
            self._stop(collector)
        with self._run(address) as collector:
            self._wait_cycles(8 * self._size.interval_seconds)
            self._stop(collector)
        time.sleep(_SETTLE_SECONDS)

    def _run(self, address: str | None) -> AbstractContextManager[Running]:
        config = str(self._folder / "fleet" / "fleetmem.toml")
        flags = ["--interval", str(self._size.interval_seconds), "-o", str(self._output), "--format", "jsonl"]
        environment = dict(os.environ, FLEETMEM_RUN__STATE_DIR=str(self._folder / "state") if address else "none")
        environment |= {"FLEETMEM_STATSD__SERVER": address or "", "FLEETMEM_SHAPE__MAX_SERIES_PER_HOST": "0"}
        return running(["run", "-c", config, *flags], self._folder / "run.log", environment)

    @staticmethod
    def _wait_cycles(seconds: float) -> None:
        time.sleep(seconds)

    @staticmethod
    def _stop(collector: Running) -> None:
        collector.process.terminate()
        collector.process.wait(30)

    def verdict(self, scenario: str) -> Verdict:
        """Compares what the receiver shows with the last sample of each host."""
        alive: set[str] = set()
        last: dict[str, dict[str, object]] = {}
        for line in self._output.read_text().splitlines():
            outcome = json.loads(line)
            if outcome.get("ok"):
                last[outcome["host"]] = outcome
        for host, outcome in last.items():
            for row in outcome["processes"]:  # type: ignore[attr-defined]
                stem = f"fleetmem.process.{legal(host)}.{legal(row['command'])}.{row['pid']}"
                alive |= {f"{stem}.{measure}" for measure in ("rss_bytes", "vsz_bytes", "mem_percent")}
        shown = {name for name, value in self._receiver.gauges.items() if ".process." in name and value}
        ended = self._receiver.seen - alive
        return Verdict(
            scenario, len(ended), len(shown - alive), len(alive - self._receiver.seen), self._receiver.bad_lines
        )


def legal(name: str) -> str:
    """Returns a name as metrics have it."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter == "_") else "_" for letter in name)


SCENARIOS: dict[str, Callable[[Trial], None]] = {
    "loss": Trial.loss,
    "stall": Trial.stall,
    "restart": Trial.restart,
}


def run(scenario: str, size: Size, seed: int, kept: Path | None = None) -> Verdict:
    """Returns what comes of one run of one scenario."""
    fleet = SimulatedFleet(size.hosts, _PROCESSES, _CHURN, 0.0)
    with folder_for("ghosts", kept) as folder, fleet.running(folder):
        trial = Trial(size, folder, seed)
        SCENARIOS[scenario](trial)
        return trial.verdict(scenario)


def main() -> None:
    """Prints a table; exit status 1 where there are more ghosts than may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a thousand series instead of five thousand")
    parser.add_argument("--runs", type=int, default=3, help="of each scenario")
    parser.add_argument("--json", action="store_true", help="print each run as a line of JSON")
    parser.add_argument("--keep", type=Path, help="keep what is written, in this folder")
    given = parser.parse_args()
    if unknown := set(given.scenarios) - SCENARIOS.keys():
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}: {', '.join(SCENARIOS)}")
    size = QUICK if given.quick else FULL
    is_good = True
    for scenario in given.scenarios or SCENARIOS:
        for seed in range(given.runs):
            verdict = run(scenario, size, seed, given.keep)
            is_good &= verdict.share <= MOST_GHOSTS and verdict.ended >= size.least_ended and not verdict.bad_lines
            if given.json:
                print(json.dumps(verdict._asdict()), flush=True)
            else:
                print(
                    f"{verdict.scenario:<10}{verdict.ended:>8} ended {verdict.ghosts:>6} ghosts {verdict.share:>8.3%}"
                    f"   at most {MOST_GHOSTS:.1%}   {verdict.bad_lines} bad lines",
                    flush=True,
                )
    raise SystemExit(0 if is_good else 1)


if __name__ == "__main__":
    main()
