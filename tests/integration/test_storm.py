"""A host under a fork storm: its series stay within the budget, what is left out is added up, the stable ones stay."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import storm
from .receivers import UdpReceiver
from .servers import Cli, Sshd, started, stop, wait_for

BUDGET = 2000
FORKS_PER_SECOND = 1000
STABLE = 20
PROCESSES = "fleetmem.process.127_0_1_1."
COLLECTOR = "fleetmem.collector."
NOTHING = {"procs": 0, "rss_bytes": 0, "vsz_bytes": 0}  # the first sample may find room for all


@dataclass(frozen=True)
class Storm:
    """A storm that rages.

    Attributes:
        pids: of the stable processes.
        process: of `storm.py`.
    """

    pids: set[int]
    process: "subprocess.Popen[str]"

    def end(self) -> int:
        """Ends it; returns how many short-lived processes there were."""
        text, _stderr = self.process.communicate(timeout=10)
        return int(text)


@contextmanager
def fork_storm(seconds: float) -> Iterator[Storm]:
    """Starts a storm, which ends by itself after so many seconds."""
    words = [sys.executable, "-I", "-S", storm.__file__, str(seconds), str(FORKS_PER_SECOND), str(STABLE)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield Storm(set(map(int, process.stdout.readline().split())), process)
    finally:
        stop(process)


def cycles_of(lines: list[str]) -> list[dict[str, float]]:
    """Returns the process gauges of each cycle, by their names after the host; final zeros are in the next cycle."""
    cycles: list[dict[str, float]] = [{}]
    for line in lines:
        name, _colon, value = line.removesuffix("|g").partition(":")
        if name.startswith(PROCESSES):
            cycles[-1][name.removeprefix(PROCESSES)] = float(value)
        elif name == "fleetmem.host.127_0_1_1.up":  # comes after the rows
            cycles.append({})
    return cycles[:-1]


def check_cycle(outcome: dict[str, Any], gauges: dict[str, float], stable: set[int]) -> None:
    """Checks that rows and `other` are all processes, that the same was sent, and that no stable one is missing."""
    assert outcome["ok"], outcome
    rows, other = outcome["processes"], outcome.get("other", NOTHING)
    assert other["procs"] == outcome.get("left_out", {}).get("budget", 0) == outcome["process_count"] - len(rows)
    assert gauges.get("other.0.procs", 0) == other["procs"]
    for measure in ("rss_bytes", "vsz_bytes"):
        told = sum(value for name, value in gauges.items() if name.endswith(f".{measure}"))
        assert told == sum(row[measure] for row in rows) + other[measure]
    assert stable <= {row["pid"] for row in rows}
    named = {f"stable_{number:02}" for number in range(STABLE)}
    large = [name.split(".") for name, value in gauges.items() if value >= storm.STABLE_BYTES]
    assert {command for command, pid, measure in large if int(pid) in stable and measure == "rss_bytes"} == named


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize("cycles", [8, pytest.param(20, marks=pytest.mark.long)])
def test_a_fork_storm_stays_within_the_budget(cycles: int, fleet: Sshd, cli: Cli, tmp_path: Path) -> None:
    """1,000 new processes a second: the budget holds, `other` makes up for them, the stable ones stay."""
    config = tmp_path / "config.toml"
    config.write_text(f"[shape]\nmax_series_per_host = {BUDGET}\n")
    with started(UdpReceiver()) as receiver:
        options = (
            "-c",
            config,
            "-i",
            "127.0.1.1",
            "-p",
            fleet.port,
            "-k",
            fleet.key,
            "-g",
            receiver.address,
            "-o",
            "-",
        )
        with fork_storm(2 * cycles) as raging:
            with cli.run(*options, "--interval", 1) as running:
                wait_for("all cycles", lambda: len(running.outcomes()) >= cycles, cycles + 10)
                running.signal(signal.SIGTERM)
                assert running.wait(5) == 0
                outcomes = running.outcomes()
            assert raging.end() > 3 * BUDGET, "that was no storm"
        wait_for("all of it is read", lambda: len(cycles_of(receiver.lines())) == len(outcomes))
        assert receiver.drops == 0
    for outcome, gauges in zip(outcomes, cycles_of(receiver.lines()), strict=True):
        check_cycle(outcome, gauges, raging.pids)
    assert outcomes[-1]["other"]["procs"] > FORKS_PER_SECOND / 4
    sent = {name for name in receiver.gauges() if not name.startswith(COLLECTOR)}
    assert len(sent) <= BUDGET
