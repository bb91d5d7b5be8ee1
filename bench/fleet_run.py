"""A simulated fleet and `fleetmem run` as processes: how they are started, read, waited for and ended."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fleetmem.lab.simulated_host import Fault, SimulationPlan

STOP_SECONDS = 20.0
MB = 1_000_000

_FLEETMEM = Path(sys.executable).with_name("fleetmem")
_SEED = 1
_POLL_SECONDS = 0.2
_LISTEN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class SimulatedFleet:
    """What is simulated.

    Attributes:
        hosts: how many.
        processes: of each.
        churn: share of the rows that change from sample to sample.
        faulty: share of the hosts that has a fault, a fifth of them each fault.
    """

    hosts: int
    processes: int
    churn: float
    faulty: float

    @property
    def plan(self) -> SimulationPlan:
        """The same for the simulator."""
        share = round(self.faulty / len(Fault), 6)
        return SimulationPlan(self.hosts, self.processes, self.churn, _SEED, dict.fromkeys(Fault, share))

    @property
    def good_hosts(self) -> int:
        """Those without a fault."""
        return sum(self.plan.fault_of(number) is None for number in range(self.hosts))

    @contextmanager
    def running(self, folder: Path) -> Iterator["Running"]:
        """Simulates it; its configuration is in `fleet/fleetmem.toml`, what it says in `simulator.log`."""
        plan = self.plan
        shares = [word for fault, share in plan.faults.items() for word in (f"--{fault}", f"{share:.6f}")]
        size = ["--hosts", str(plan.hosts), "--processes", str(plan.processes), "--churn", str(plan.churn)]
        where = ["--dir", str(folder / "fleet"), "--seed", str(plan.seed)]
        with running(["lab", "simulate", *where, *size, *shares], folder / "simulator.log") as simulator:
            wait("the simulator listens", lambda: "Ctrl-C" in simulator.log.read_text(), _LISTEN_SECONDS)
            yield simulator


@dataclass(frozen=True, slots=True)
class Running:
    """A fleetmem process, and the file that has what it says."""

    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def running(arguments: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Runs fleetmem with its output in a file; ends it. A Ctrl-C on the terminal is for us, not for it."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [_FLEETMEM, *arguments], stdout=file, stderr=file, env=environment, start_new_session=True
        )
    try:
        yield Running(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait(what: str, is_so: Callable[[], bool], seconds: float) -> None:
    """Waits until something is so.

    Raises:
        SystemExit: it is not, in that time.
    """
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise SystemExit(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(_POLL_SECONDS)


class GrowingFile:
    """Whole lines of a file that grows, each once. It may be moved away, and another one begun in its place.

    Args:
        path: of the file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """Yields those that have come since the last call."""
        while True:
            if self._file is None:
                if not self._path.exists():
                    return
                self._file = self._path.open("rb")
            *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
            yield from lines
            if not self._is_moved():
                return
            *lines, self._rest = (self._rest + self._file.read()).split(b"\n")  # written just before that
            yield from lines
            self.close()

    def close(self) -> None:
        """Lets go of the file."""
        if self._file:
            self._file.close()
            self._file = None

    def _is_moved(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:  # the new one is about to come
            return True


class CollectorLog:
    """What `fleetmem run --log-format json` has logged.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path)
        self._lines: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        """Returns all lines so far; what is no JSON is left out."""
        self._lines += [json.loads(line) for line in self._file.lines() if line.startswith(b"{")]
        return self._lines


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


@contextmanager
def folder_for(what: str, kept: Path | None) -> Iterator[Path]:
    """Makes a folder that is gone afterwards, or one that is to be kept."""
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
    else:
        with tempfile.TemporaryDirectory(prefix=f"fleetmem-{what}-") as folder:
            yield Path(folder)
