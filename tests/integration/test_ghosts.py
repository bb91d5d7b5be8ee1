"""Ghosts: series that have ended, and that a receiver which repeats gauges shows alive all the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "bench" / "ghosts.py"


@pytest.mark.timing
@pytest.mark.parametrize(
    "scenario", ["loss", *(pytest.param(each, marks=pytest.mark.long) for each in ("stall", "restart"))]
)
def test_ghosts_are_rare(scenario: str) -> None:
    """A thousand series end while datagrams are lost, a TCP receiver stalls, or fleetmem is restarted."""
    command = [sys.executable, str(_SCRIPT), scenario, "--quick", "--runs", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.stdout, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["ended"] >= 1000
    assert verdict["ghosts"] <= 0.001 * verdict["ended"], verdict
    assert verdict["bad_lines"] == 0
