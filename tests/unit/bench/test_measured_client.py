import os
import subprocess
from pathlib import Path

import pytest

from measured_client import ClientCost, Job, measure
from subreaper import children

_BURN_SECONDS = 0.3
_HOLD_BYTES = 30_000_000

_LEAVES_ONE_BEHIND = f"""
import os, time
reading, writing = os.pipe()
if os.fork():
    os.read(reading, 1)  # until the other one has had its CPU, and been seen
else:
    os.setsid()
    held = b"x" * {_HOLD_BYTES}
    while time.process_time() < {_BURN_SECONDS}:
        pass
    os.write(writing, b".")
    time.sleep(600)
"""


def _measure(folder: Path, *commands: list[str], limit_seconds: float = 30, stop_at_lines: int = 0) -> ClientCost:
    files = (str(folder / "output"), str(folder / "errors"))
    return measure(Job([*commands], dict(os.environ), *files, limit_seconds, stop_at_lines))


@pytest.mark.slow
def test_what_a_command_leaves_behind_counts_and_is_ended(tmp_path: Path) -> None:
    """As OpenSSH's control masters are: no children of the command when it is over, and they would stay."""
    cost = _measure(tmp_path, ["python3", "-c", _LEAVES_ONE_BEHIND])
    assert cost.statuses == [0]
    assert cost.cpu_seconds >= _BURN_SECONDS
    assert cost.memory_bytes >= _HOLD_BYTES
    assert cost.wall_seconds[0] < 30


@pytest.mark.slow
def test_commands_run_one_after_the_other(tmp_path: Path) -> None:
    """Each has its wall time and status; what they print comes together."""
    cost = _measure(tmp_path, ["sh", "-c", "echo one"], ["sh", "-c", "sleep 0.2; echo two; exit 3"])
    assert cost.statuses == [0, 3]
    assert cost.wall_seconds[1] >= 0.2
    assert (tmp_path / "output").read_text() == "one\ntwo\n"


def test_a_command_is_stopped_by_the_lines_of_its_output(tmp_path: Path) -> None:
    """By one SIGTERM: it ends as it likes."""
    script = "trap 'echo stopped; exit 0' TERM; while :; do echo line; sleep 0.01; done"
    cost = _measure(tmp_path, ["sh", "-c", script], stop_at_lines=5)
    assert cost.statuses == [0]
    lines = (tmp_path / "output").read_text().splitlines()
    assert len(lines) >= 6
    assert lines[-1] == "stopped"


def test_what_runs_too_long_is_killed(tmp_path: Path) -> None:
    """No status, and no further command."""
    cost = _measure(tmp_path, ["sleep", "600"], ["echo", "never"], limit_seconds=0.1)
    assert (cost.statuses, cost.wall_seconds) == ([], [])
    assert (tmp_path / "output").read_text() == ""


def test_a_process_that_has_ended_has_no_children() -> None:
    """It ends whenever it likes, also while one looks."""
    process = subprocess.Popen(["true"])
    process.wait()
    assert children(process.pid) == set()
