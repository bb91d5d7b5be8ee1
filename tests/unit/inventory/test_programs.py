import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory import programs as module
from fleetmem.inventory.programs import Programs


def _run(script: str, seconds: float = 20) -> bytes:
    return Programs().run(["sh", "-c", script], "x", seconds)


def test_output_comes_back() -> None:
    """All of it, larger than a pipe, whatever is said on stderr meanwhile."""
    assert _run("seq 100000; seq 100000 >&2") == b"".join(b"%d\n" % number for number in range(1, 100_001))


def test_it_reads_nothing_and_knows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal is asked for a password; what is added to the environment stands beside what there is."""
    monkeypatch.setenv("ONE", "1")
    script = "cat; echo $ONE $TWO"
    assert Programs().run(["sh", "-c", script], "x", 20, {"TWO": "2"}) == b"1 2\n"


def test_it_knows_no_setting_of_fleetmem(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting may be a password, which is nothing to a program that lists hosts."""
    monkeypatch.setenv("FLEETMEM_SSH__USER", "secret")
    assert b"FLEETMEM" not in _run("env")


def test_a_program_that_cannot_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in uninterruptible sleep outlives its kill; who stops the collector does not wait for it."""
    programs = Programs()
    monkeypatch.setattr(os, "killpg", lambda _pid, _number: None)
    monkeypatch.setattr(module, "_KILLED_SECONDS", 0.1)
    started = list[subprocess.Popen[bytes]]()
    start = programs._start

    def note(*arguments: Any) -> "subprocess.Popen[bytes]":
        started.append(start(*arguments))
        return started[-1]

    monkeypatch.setattr(programs, "_start", note)
    began = time.monotonic()
    with pytest.raises(InventoryError, match="not done after"):
        programs.run(["sleep", "20"], "x", 0.1)
    programs.kill()
    assert time.monotonic() - began < 10
    started[0].kill()
    started[0].wait()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "x: exit status 3"),
        ("echo first >&2; echo 'no such zone' >&2; exit 1", "x: exit status 1: no such zone"),
        (r"printf '\033[31mred' >&2; exit 1", r"\x1b[31mred"),
    ],
)
def test_a_failure_says_what_the_program_said(script: str, message: str) -> None:
    """Its last line, steering no terminal."""
    with pytest.raises(InventoryError) as caught:
        _run(script)
    assert message in str(caught.value)


def test_what_is_not_there_is_told() -> None:
    """With the system's reason."""
    with pytest.raises(InventoryError, match="x: cannot be run: no such file or directory"):
        Programs().run(["/nowhere/program"], "x", 1)


@pytest.mark.slow
def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """In time, also where only a child of it still has the pipe open."""
    for script in ("sleep 60 & echo $! > {0}; wait", "sleep 60 & echo $! > {0}; exit 0"):
        pid_file = tmp_path / "pid"
        begun = time.monotonic()
        with pytest.raises(InventoryError, match=r"not done after 0.5 s; inventory.timeout_seconds gives it longer"):
            _run(script.format(pid_file), 0.5)
        assert time.monotonic() - begun < 10
        assert _is_gone(int(pid_file.read_text()))


def _is_gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":  # dead; whoever inherited it has not looked yet
            return True
        time.sleep(0.01)
    os.kill(pid, 9)
    return False


def test_a_program_that_prints_without_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded."""
    monkeypatch.setattr(module, "MAX_OUTPUT_BYTES", 2**20)
    with pytest.raises(InventoryError, match="prints more than 1 MiB"):
        _run("yes")
