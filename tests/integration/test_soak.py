"""`make soak` in small: some hosts for some seconds, really collected from; and what it says when it is ended."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .servers import REPOSITORY, descendants, environment, is_alive, stop, wait_for

_FLAGS = ("--hosts", "20", "--processes", "40", "--interval", "2", "--faulty", "0.5", "--churn", "0.2")
_EASY = ("--hosts", "5", "--processes", "10", "--interval", "2", "--faulty", "0", "--churn", "0")
"""Of what is about the end: a machine that is busy with other tests keeps up with so little."""


@contextmanager
def _soak(folder: Path, minutes: float, flags: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(REPOSITORY / "bench" / "soak.py"), *flags, "--minutes", str(minutes)]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, "--logs", str(folder / "logs")], stdout=said, stderr=said, text=True, env=environment(folder)
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)  # it ends its own processes
        stop(process)


def _said(folder: Path) -> str:
    return (folder / "said").read_text()


@pytest.mark.timing
def test_a_short_soak(tmp_path: Path) -> None:
    """All that can be checked in so short a time is checked, and holds.

    No slot of a good host is missed and none is begun late: on a machine that is busy with other tests some are, and
    are counted.
    """
    with _soak(tmp_path, 0.2, _FLAGS) as soak:
        assert soak.wait(60) == 0, _said(tmp_path)
    said = _said(tmp_path)
    assert said.endswith("all invariants hold\n")
    checks = re.findall(r"^(\S.*?) {2,}([\d,]+) +(\d+)$", said, re.MULTILINE)
    assert len(checks) == 8
    assert {violated for _check, _checked, violated in checks} == {"0"}
    assert [check for check, checked, _violated in checks if checked == "0"] == [
        "memory, files, tasks, threads and series do not grow"
    ]


def test_a_soak_that_is_ended(tmp_path: Path) -> None:
    """Ctrl-C: what was found so far, and nothing is left running."""
    with _soak(tmp_path, 10, _EASY) as soak:
        wait_for("it has begun", lambda: "all good hosts answer" in _said(tmp_path))
        running = descendants(soak.pid)
        assert len(running) == 3
        soak.send_signal(signal.SIGINT)
        assert soak.wait(30) == 130, _said(tmp_path)
        assert not any(map(is_alive, running))
    assert "one outcome per host and cycle" in _said(tmp_path)


def test_a_collector_that_dies(tmp_path: Path) -> None:
    """It is named, and the soak is over."""
    with _soak(tmp_path, 10, _EASY) as soak:
        wait_for("it has begun", lambda: "all good hosts answer" in _said(tmp_path))
        running = descendants(soak.pid)
        (collector,) = (pid for pid in running if b"\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(collector, signal.SIGKILL)
        assert soak.wait(30) == 1, _said(tmp_path)
        assert not any(map(is_alive, running))
    assert re.search(r"VIOLATION collector, cycle \d+: ended with status -9", _said(tmp_path))
