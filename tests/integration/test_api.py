"""fleetmem from Python: one cycle, and cycle after cycle, of a simulated fleet."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fleetmem
from fleetmem.errors import Kind, UsageError

from .servers import REPOSITORY, Cli, wait_for

HOSTS = 5


@pytest.fixture
def config(cli: Cli, tmp_path: Path) -> Iterator[Path]:
    """The configuration of five hosts that answer."""
    with cli.start("lab", "simulate", "--dir", tmp_path / "fleet", "--hosts", HOSTS, "--processes", 10) as running:
        wait_for("the simulator listens", lambda: "Ctrl-C ends it" in running.stdout)
        yield tmp_path / "fleet" / "fleetmem.toml"


def test_one_cycle(config: Path) -> None:
    """Each host has its outcome; one that is not there has a failure, and the others do not mind."""
    cycle = asyncio.run(fleetmem.collect(config=config))
    assert len(cycle.samples) == HOSTS
    assert all(len(sample.shaped.processes) == 10 for sample in cycle.samples)
    assert (cycle.failures, cycle.missed, cycle.problems) == ([], 0, ())
    cycle = asyncio.run(fleetmem.collect(["127.0.0.1:1"], config=config))
    assert [failure.kind for failure in cycle.failures] == [Kind.UNREACHABLE]


def test_cycle_after_cycle(config: Path) -> None:
    """Cycles follow each other by the interval, with every host in each; at the end all connections are closed."""

    async def main() -> list[fleetmem.Cycle]:
        cycles = []
        async with fleetmem.Fleet(config=config, interval=1) as fleet:
            assert len(fleet.hosts) == HOSTS
            async for cycle in fleet.cycles():
                cycles.append(cycle)
                if len(cycles) == 4:
                    break
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert fleet.skipped_cycles == 0
        return cycles

    first, *others = asyncio.run(main())
    assert len(first.outcomes) + first.missed <= HOSTS
    for number, cycle in enumerate(others, 1):
        assert cycle.begun_unix_seconds == pytest.approx(first.begun_unix_seconds + number)
        assert len(cycle.outcomes) + cycle.missed == HOSTS


def test_what_cannot_be_used() -> None:
    """It is an error that says why, and nothing is left running."""
    with pytest.raises(UsageError, match="no hosts"):
        asyncio.run(fleetmem.collect())
    with pytest.raises(UsageError, match="interval_seconds"):
        fleetmem.Fleet("a", interval=0.01)
    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(anext(fleetmem.Fleet("a").cycles()))  # type: ignore[arg-type]


def test_the_example(config: Path) -> None:
    """The script of `examples/` prints a line for each host, and Ctrl-C ends it."""
    command = [sys.executable, str(REPOSITORY / "examples" / "biggest_processes.py"), str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout
        lines = [running.stdout.readline() for _ in range(HOSTS)]
        running.send_signal(signal.SIGINT)
    assert all(re.fullmatch(r"127\.\S+ \S+ \d+ \d+\n", line) for line in lines), lines


def test_the_import_is_cheap() -> None:
    """Nothing is imported with the package: each name is when it is asked for."""
    program = "import sys, fleetmem; assert not {'asyncssh', 'pydantic', 'fleetmem.api'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
