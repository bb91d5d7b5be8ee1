"""Commands of a client, and what they took with all that they started: wall time, CPU, memory.

The script part of this file runs the commands one after the other and inherits what they leave behind (subreaper.py):
OpenSSH's control masters stay when the command is over. They are ended after the last command, and their CPU counts, as
does their memory while the commands run.

Memory is the sum of PSS (proportional set size, proc_pid_smaps(5)) of all processes at one time: what several of them
share counts once. It is looked at ten times a second, less often where that itself takes time.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from subreaper import NAMESPACE, can_have_own_pids, children, cpu_of_children_seconds, inherit_orphans, reap_orphans

_SAMPLE_SECONDS = 0.1
_SAMPLE_SHARE = 20  # a look at the memory takes at most a 20th of the time
_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    Attributes:
        commands: one after the other.
        environment: of each.
        output: what they print on standard output goes there.
        errors: likewise, standard error.
        limit_seconds: for all of them; what still runs then is killed.
        stop_at_lines: a command is ended by SIGTERM when its output has that many lines; 0 for never.
    """

    commands: list[list[str]]
    environment: dict[str, str]
    output: str
    errors: str
    limit_seconds: float
    stop_at_lines: int = 0


@dataclass(frozen=True, slots=True)
class ClientCost:
    """What it took.

    Attributes:
        wall_seconds: of each command that ended.
        statuses: its exit status.
        cpu_seconds: of all commands together and of all that they left behind.
        memory_bytes: the highest sum over all processes at one time.
    """

    wall_seconds: list[float]
    statuses: list[int]
    cpu_seconds: float
    memory_bytes: int


def measure(job: Job) -> ClientCost:
    """Runs a job in a process of its own.

    Raises:
        CalledProcessError: what measures has failed; what it said is on standard error.
    """
    namespace = NAMESPACE if can_have_own_pids() else ()
    command = [*namespace, sys.executable, __file__]
    done = subprocess.run(command, input=json.dumps(asdict(job)), stdout=subprocess.PIPE, text=True, check=True)
    return ClientCost(**json.loads(done.stdout))


class _Client:
    """The measuring side."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._deadline = time.monotonic() + job.limit_seconds
        self._memory_bytes = 0
        self._lines = _Lines(Path(job.output))
        inherit_orphans()

    def run(self) -> ClientCost:
        """Runs the commands, and ends what they leave behind."""
        walls: list[float] = []
        statuses: list[int] = []
        with Path(self._job.output).open("ab") as output, Path(self._job.errors).open("ab") as errors:
            for command in self._job.commands:
                begun = time.monotonic()
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=self._job.environment
                )
                if not self._wait(process):
                    break
                walls.append(time.monotonic() - begun)
                statuses.append(process.returncode)
        self._signal_all(signal.SIGTERM if len(walls) == len(self._job.commands) else signal.SIGKILL)
        try:
            reap_orphans([], _STOP_SECONDS)
        except TimeoutError:
            self._signal_all(signal.SIGKILL)
            reap_orphans([], _STOP_SECONDS)
        return ClientCost(walls, statuses, cpu_of_children_seconds(), self._memory_bytes)

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Waits for a command and looks at the memory meanwhile; false when the time is over."""
        pidfd = os.pidfd_open(process.pid)
        pause_seconds = _SAMPLE_SECONDS
        is_awaited = bool(self._job.stop_at_lines)
        try:
            while not select.select([pidfd], [], [], pause_seconds)[0]:
                begun = time.monotonic()
                self._memory_bytes = max(self._memory_bytes, sum(map(_pss_bytes, _descendants(os.getpid()))))
                pause_seconds = max(_SAMPLE_SECONDS, _SAMPLE_SHARE * (time.monotonic() - begun))
                if is_awaited and self._lines.count() >= self._job.stop_at_lines:
                    process.terminate()
                    is_awaited = False  # a second SIGTERM is an order to leave everything and go
                if begun > self._deadline:
                    return False
        finally:
            os.close(pidfd)
        process.wait()
        return True

    @staticmethod
    def _signal_all(number: int) -> None:
        for pid in _descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class _Lines:
    """Counts the lines of a file that grows, or is not there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self._lines = 0

    def count(self) -> int:
        """Returns how many there are now."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._read_bytes)
            text = file.read()
            self._read_bytes += len(text)
            self._lines += text.count(b"\n")
        return self._lines


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = children(waiting.pop()) - found
        found |= new
        waiting += new
    return found


def _pss_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def main() -> None:
    """Reads a job, prints its cost, both as JSON."""
    print(json.dumps(asdict(_Client(Job(**json.load(sys.stdin))).run())))


if __name__ == "__main__":
    main()
