"""Background processes: each in a session of its own, known by pid and start time, stopped with all their children.

A pid alone may be another process by the time it is read again. Whoever has the same start time in the same boot is
the same one.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fleetmem.errors import LabError

_GRACE_SECONDS = 3.0
_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.05
_LOG_TAIL_LINES = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that leads a session.

    Attributes:
        pid: process id, which is the session's id too.
        start_ticks: start time in clock ticks after boot, field 22 of /proc/PID/stat (proc_pid_stat(5)).
        boot_id: of which boot.
    """

    pid: int
    start_ticks: int
    boot_id: str


class _Stat(NamedTuple):
    state: str
    session: int
    start_ticks: int


def boot_id() -> str:
    """Returns what is different after each boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def identify(pid: int) -> Identity:
    """Returns the identity of a process that runs.

    Raises:
        LabError: none has this pid.
    """
    stat = _stat(pid)
    if stat is None:
        raise LabError(f"process {pid} is gone")
    return Identity(pid, stat.start_ticks, boot_id())


def is_alive(identity: Identity) -> bool:
    """Whether this very process runs; a zombie does not."""
    stat = _stat(identity.pid)
    if stat is None or stat.state in "ZX":
        return False
    return stat.start_ticks == identity.start_ticks and identity.boot_id == boot_id()


def members(identity: Identity) -> list[int]:
    """Returns the pids of the processes in its session that run, itself included; it need not run any more."""
    leader = _stat(identity.pid)
    is_reused = leader is not None and leader.start_ticks != identity.start_ticks
    if is_reused or identity.boot_id != boot_id():
        return []
    return [
        pid
        for pid, stat in _all_stats()
        if stat.session == identity.pid and stat.state not in "ZX" and stat.start_ticks >= identity.start_ticks
    ]


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything; what follows begins with field 3
    return _Stat(fields[0], int(fields[3]), int(fields[19]))


def _all_stats() -> Iterator[tuple[int, _Stat]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat:
                yield int(entry.name), stat


def stop(identities: Iterable[Identity]) -> None:
    """Ends processes and everything in their sessions: SIGTERM, and SIGKILL for what is there 3 s later.

    Raises:
        LabError: something outlives SIGKILL, or may not be signalled.
    """
    identities = list(identities)
    _signal_until_gone(identities, signal.SIGTERM, _GRACE_SECONDS)
    if not _signal_until_gone(identities, signal.SIGKILL, _KILL_SECONDS):
        left = [pid for identity in identities for pid in members(identity)]
        raise LabError(f"these processes do not end: {', '.join(map(str, left))}")


def _signal_until_gone(identities: Sequence[Identity], number: signal.Signals, seconds: float) -> bool:
    """Signals each process once, newcomers too; returns whether all were gone in time."""
    signalled: set[int] = set()
    deadline = time.monotonic() + seconds
    while left := {pid for identity in identities for pid in members(identity)}:
        for pid in left - signalled:
            _signal(pid, number)
        signalled |= left
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise LabError(f"process {pid} belongs to another user; stop the lab as the user who started it") from error


@dataclass(frozen=True, slots=True)
class Limit:
    """When a process ends by itself.

    Attributes:
        seconds: at the latest after that many.
        parent: when this process ends, None for no such tie.
    """

    seconds: int
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """What to start.

    Attributes:
        role: what the process is in the lab, for people.
        argv: program and arguments.
        log: where its output goes.
        environment: added to ours.
        descriptors: open files that it inherits.
    """

    role: str
    argv: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()


class Process:
    """A process of the lab that this one started."""

    def __init__(self, command: Command, limit: Limit) -> None:
        """Starts it.

        Raises:
            LabError: it cannot be started, or ended at once.
        """
        self.role = command.role
        self._log = command.log
        with command.log.open("wb") as log:
            self._popen = subprocess.Popen(
                [*_launcher(limit), *command.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **command.environment},
                cwd=command.log.parent,
                pass_fds=command.descriptors,
                start_new_session=True,
            )
        self.identity = identify(self._popen.pid)

    def wait_until(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Waits until it does its work.

        Raises:
            LabError: it ended, or is not ready in time; with the end of its log.
        """
        deadline = time.monotonic() + seconds
        while not is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise LabError(f"{self.role} is not ready after {seconds:.0f} s. {self._log_tail()}")
            time.sleep(_POLL_SECONDS)

    def has_logged(self, text: str) -> bool:
        """Whether it printed a text."""
        return text in self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def check(self) -> None:
        """Does nothing while it runs.

        Raises:
            LabError: it ended; with the end of its log.
        """
        status = self._popen.poll()
        if status is not None:
            raise LabError(f"{self.role} ended with status {status}. {self._log_tail()}")

    def reap(self) -> None:
        """Takes note that it ended."""
        self._popen.wait()

    def _log_tail(self) -> str:
        return f"Its log {self._log} ends with:\n{indented_tail(self._log.read_text('utf-8', 'replace'))}"


def _launcher(limit: Limit) -> list[str]:
    # -P: a file in the current directory must not take the place of a module.
    launcher = [sys.executable, "-P", "-m", "fleetmem.lab.limited", str(limit.seconds)]
    return [*launcher, str(limit.parent or 0)]


def indented_tail(text: str) -> str:
    """Returns the last lines of a program's output."""
    lines = text.strip().splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"
