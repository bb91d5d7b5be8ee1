"""The workload of test hosts, as a service has it: no input, limits from outside."""

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleetmem.lab import workload

from .servers import descendants, is_alive, rss_bytes, wait_for

MIB = 1024 * 1024
SOURCE = Path(workload.__file__)


@contextmanager
def _service(name: str) -> Iterator[int]:
    """Starts a workload as systemd does, and yields its pid; all of it is killed in the end, as systemd does, too."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(SOURCE), name],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.parametrize("name", sorted(set(workload.WORKLOADS) - {"come-and-go"}))
def test_a_workload_without_input_runs_until_it_is_stopped(name: str) -> None:
    """It has its name, and does not end as one whose host is gone."""
    with _service(name) as pid:
        wait_for("it has its name", lambda: _comm(pid) == name)
        if name == "steady":
            wait_for("it holds 20 MiB", lambda: rss_bytes(pid) > 20 * MIB)
        if name == "leaky":
            before = rss_bytes(pid)
            wait_for("it grows", lambda: rss_bytes(pid) >= before + MIB // 4)
        assert is_alive(pid)


def test_a_fork_storm_has_an_end() -> None:
    """Twenty children that hold 1 MiB each, and no more."""
    with _service("fork-storm") as pid:
        children = wait_for("all are there", lambda: len(descendants(pid)) >= 20 and descendants(pid))
        assert children
        assert len(children) == 20
        child = min(children)
        wait_for("a child holds its memory", lambda: rss_bytes(child) > MIB)
        assert len(descendants(pid)) == 20


def test_it_runs_with_the_python_of_old_hosts() -> None:
    """Ubuntu 18.04 has 3.6: no newer syntax, and no annotation that it could not evaluate, as in `list[int]`."""
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    arguments = [argument.annotation for function in functions for argument in function.args.args]
    evaluated = [annotation for annotation in [*arguments, *(function.returns for function in functions)] if annotation]
    assert evaluated
    assert all(isinstance(node, ast.Name | ast.Attribute | ast.Constant) for node in evaluated)
    assert not [node for node in tree.body if isinstance(node, ast.AnnAssign)]
