"""RSS and VSZ are those that `ps` on the host tells, for processes that do not change."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from .servers import PATIENT, Cli, Result, Sshd, find_tool

HELD_BYTES = 30 * 1024 * 1024
HOLDER = f"""
import sys
held = b"x" * {HELD_BYTES}
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def steady() -> Iterator[list[int]]:
    """Pids of two processes that do not change: one holds 30 MiB, one is a small C program."""
    with (
        subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as small,
    ):
        assert holder.stdout
        assert small.stdin
        assert small.stdout
        small.stdin.write(b"ready\n")  # what comes back says that it is past its exec
        holder.stdout.readline()
        small.stdout.readline()
        yield [holder.pid, small.pid]


def ps(pid: int) -> tuple[int, int]:
    """Returns RSS and VSZ in bytes as `ps` has them."""
    text = subprocess.run([find_tool("ps"), "-o", "rss=,vsz=", "-p", str(pid)], check=True, capture_output=True).stdout
    rss, vsz = text.split()
    return int(rss) * 1024, int(vsz) * 1024


def _collect(cli: Cli, fleet: Sshd, kind: str) -> Result:
    """Returns what one cycle of one host by one probe kind prints."""
    host = ("-i", "127.0.1.1", "-p", fleet.port, "-k", fleet.key)
    return cli("collect", *host, *PATIENT, "--format", "jsonl", "--probe", kind)


@pytest.mark.parametrize("kind", ["status", "ps"])
def test_rss_and_vsz_equal_those_of_ps(kind: str, fleet: Sshd, cli: Cli, steady: list[int]) -> None:
    """A process that does not change has RSS and VSZ of `ps -o rss=,vsz=` times 1024, with either probe kind."""
    expected = {pid: ps(pid) for pid in steady}
    result = _collect(cli, fleet, kind)
    assert result.status == 0, result.stderr
    outcome = result.by_host()["127.0.1.1"]
    found = {process["pid"]: process for process in outcome["processes"] if process["pid"] in steady}
    assert {pid: (process["rss_bytes"], process["vsz_bytes"]) for pid, process in found.items()} == expected
    assert {pid: ps(pid) for pid in steady} == expected, "they changed meanwhile"
    assert found[steady[0]]["rss_bytes"] > HELD_BYTES
    for process in found.values():
        assert process["mem_percent"] == pytest.approx(
            process["rss_bytes"] / outcome["memory"]["total_bytes"] * 100, abs=1e-6
        )


def test_both_probe_kinds_see_the_same_processes(fleet: Sshd, cli: Cli, steady: list[int]) -> None:
    """Kinds status and ps tell the same command for the same pid."""
    commands = []
    for kind in ("status", "ps"):
        result = _collect(cli, fleet, kind)
        outcome = result.by_host()["127.0.1.1"]
        commands.append({row["pid"]: row["command"] for row in outcome["processes"] if row["pid"] in steady})
    assert commands[0] == commands[1]
    assert set(commands[0]) == set(steady)
