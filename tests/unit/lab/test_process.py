"""Background processes: which one is ours, and how it ends."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleetmem.errors import LabError
from fleetmem.lab import process as processes
from fleetmem.lab.process import Command, Identity, Limit, Process, is_alive, members, stop

LIMIT = Limit(60, os.getpid())
# A child in a process group of its own, as a shell's background job.
FAMILY = "import signal, subprocess; {}; subprocess.Popen(['sleep', '60'], process_group=0).wait()"


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """Processes to stop in the end."""
    found: list[Process] = []
    yield found
    stop(process.identity for process in found)
    for process in found:
        process.reap()


def _start(started: list[Process], log: Path, *argv: str) -> Process:
    process = Process(Command("it", argv, log), LIMIT)
    started.append(process)
    return process


def test_members_are_the_whole_session(started: list[Process], tmp_path: Path) -> None:
    """Children count, in whatever process group they are, also when their parent is gone."""
    process = _start(started, tmp_path / "log", sys.executable, "-c", FAMILY.format("pass"))
    process.wait_until(lambda: len(members(process.identity)) == 2, 20)
    os.kill(process.identity.pid, signal.SIGKILL)
    process.reap()
    assert not is_alive(process.identity)
    assert len(members(process.identity)) == 1
    stop([process.identity])
    assert members(process.identity) == []


def test_another_process_with_the_same_pid_is_not_touched(started: list[Process], tmp_path: Path) -> None:
    """A pid that was given out again, or a state file from before a reboot, is not killed."""
    process = _start(started, tmp_path / "log", "sleep", "60")
    identity = process.identity
    strangers = [
        replace(identity, start_ticks=identity.start_ticks - 1),
        replace(identity, boot_id="another"),
        Identity(2**22 + 1, identity.start_ticks, identity.boot_id),
    ]
    stop(strangers)
    for stranger in strangers:
        assert not is_alive(stranger)
        assert members(stranger) == []
    assert is_alive(identity)


@pytest.mark.slow
def test_what_ignores_sigterm_is_killed(
    started: list[Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL follows."""
    monkeypatch.setattr(processes, "_GRACE_SECONDS", 0.1)
    ignoring = FAMILY.format("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    process = _start(started, tmp_path / "log", sys.executable, "-c", ignoring)
    process.wait_until(lambda: len(members(process.identity)) == 2, 20)
    stop([process.identity])
    assert members(process.identity) == []


def test_a_process_that_ends_early_is_told_with_its_log(started: list[Process], tmp_path: Path) -> None:
    """The message has role, status and the last lines of the log."""
    process = _start(started, tmp_path / "log", "/bin/sh", "-c", "echo no such luck; exit 3")
    with pytest.raises(LabError, match=r"(?s)it ended with status 3.*no such luck"):
        process.wait_until(lambda: False, 20)


def test_a_process_that_is_never_ready_is_told(started: list[Process], tmp_path: Path) -> None:
    """Waiting has an end."""
    process = _start(started, tmp_path / "log", "sleep", "60")
    with pytest.raises(LabError, match="it is not ready after 0 s"):
        process.wait_until(lambda: False, 0.1)


def test_a_program_that_is_not_there_is_told(started: list[Process], tmp_path: Path) -> None:
    """Its name is in the message."""
    process = _start(started, tmp_path / "log", "/no/such/program")
    with pytest.raises(LabError, match="/no/such/program: No such file"):
        process.wait_until(lambda: False, 20)


@pytest.mark.slow
def test_a_process_ends_when_its_time_is_over(tmp_path: Path) -> None:
    """The kernel's alarm ends a program that knows nothing of it."""
    process = Process(Command("it", ["sleep", "60"], tmp_path / "log"), Limit(1))
    process.reap()
    with pytest.raises(LabError, match=f"status -{int(signal.SIGALRM)}"):
        process.check()


def test_a_process_ends_with_the_one_it_was_started_for() -> None:
    """When that one is killed, the kernel kills this one too."""
    parent = (
        "import os, subprocess, sys, time\n"
        "program = [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)']\n"
        "argv = [sys.executable, '-m', 'fleetmem.lab.limited', '60', str(os.getpid()), *program]\n"
        "child = subprocess.Popen(argv, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as popen:
        assert popen.stdout
        pid = int(popen.stdout.readline())
        descriptor = os.pidfd_open(pid)
        popen.kill()
    ended, _, _ = select.select([descriptor], [], [], 10)
    os.close(descriptor)
    assert ended
