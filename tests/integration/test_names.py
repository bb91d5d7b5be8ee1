"""Real processes with awkward names arrive in the real StatsD, each as a legal series of its own."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from .servers import Cli, Sshd, StatsD, wait_for

NAMES = [
    b"kworker/0:1",
    b"npm start",
    b"(sd-pam)",
    b"a:b|c@d#e",
    "café".encode(),
    b"new\nline",
    b"back\\slash",
    b"back\\nslash",
    b"  padded ",
    b"",
    b"unnamed",
    b"x" * 15,
    b"a.b",
    b"a-b",
    b"a_b",
    b"caf\xe9",
    b"caf\xe8",
    b"+5|g",
    b"other",
    b"tab\tulator",
    b"a_b_" + hashlib.sha256(b"a.b").hexdigest()[:8].encode(),  # the name that a.b gets beside a-b
]
RENAMED = """
import ctypes, sys
assert ctypes.CDLL(None, use_errno=True).prctl(15, bytes.fromhex(sys.argv[1]), 0, 0, 0) == 0  # PR_SET_NAME
print("ready", flush=True)
sys.stdin.read()
"""
PROCESS_GAUGE = re.compile(r"fleetmem\.process\.127_0_1_1\.([A-Za-z0-9_]+)\.(\d+)\.(rss_bytes|vsz_bytes|mem_percent)")


@pytest.fixture(scope="module")
def named() -> Iterator[dict[int, bytes]]:
    """Processes with these names, by pid."""
    with ExitStack() as stack:
        processes = []
        for name in NAMES:
            command = [sys.executable, "-S", "-c", RENAMED, name.hex()]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            processes.append(stack.enter_context(process))
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
        yield {process.pid: name for process, name in zip(processes, NAMES, strict=True)}


def components(statsd: StatsD, pids: set[int]) -> dict[int, str]:
    """Returns the command component of the series of each pid; each has its three measures under one name."""
    found: dict[int, dict[str, int]] = {}
    for name in statsd.gauges():
        match = PROCESS_GAUGE.fullmatch(name)
        if match and int(match[2]) in pids:
            names = found.setdefault(int(match[2]), {})
            names[match[1]] = names.get(match[1], 0) + 1
    assert all(list(names.values()) == [3] for names in found.values()), found
    return {pid: next(iter(names)) for pid, names in found.items()}


def collect(fleet: Sshd, statsd: StatsD, cli: Cli, pids: set[int], *options: str) -> dict[int, str]:
    """Samples 127.0.1.1; returns the command of each of these pids, from the JSON output."""
    result = cli(
        *("collect", "-i", "127.0.1.1", "-p", fleet.port, "-k", fleet.key),
        *("-g", statsd.address, "--format", "jsonl", *options),
    )
    assert result.status == 0, result.stderr
    processes = result.by_host()["127.0.1.1"]["processes"]
    wait_for("StatsD has read everything", lambda: pids <= set(components(statsd, pids)))
    return {process["pid"]: process["command"] for process in processes if process["pid"] in pids}


def test_every_name_arrives_as_its_own_legal_series(
    fleet: Sshd, statsd: StatsD, cli: Cli, named: dict[int, bytes]
) -> None:
    """Each process has one series under a legal component; no two different names share one, and none is altered."""
    commands = collect(fleet, statsd, cli, set(named))
    assert {pid: command.encode("utf-8", "surrogateescape") for pid, command in commands.items()} == named
    series = components(statsd, set(named))
    assert set(series) == set(named)
    assert len(set(series.values())) == len(NAMES), "two names share a component"
    by_name = {name: series[pid] for pid, name in named.items()}
    assert by_name[b"x" * 15] == "x" * 15
    assert by_name[b"a_b"] == "a_b", "a legal name keeps it"
    assert by_name[b"kworker/0:1"].startswith("kworker_0_1")
    assert statsd.bad_lines_seen == 0


def test_names_are_the_same_on_the_next_run(fleet: Sshd, statsd: StatsD, cli: Cli, named: dict[int, bytes]) -> None:
    """A second run of another process adds no other name for the same processes."""
    collect(fleet, statsd, cli, set(named))
    first = components(statsd, set(named))
    collect(fleet, statsd, cli, set(named))
    assert components(statsd, set(named)) == first


def test_ps_gives_legal_series_too(fleet: Sshd, statsd: StatsD, cli: Cli, named: dict[int, bytes]) -> None:
    """With --probe ps, which prints some characters otherwise, every process still has one legal series."""
    commands = collect(fleet, statsd, cli, set(named), "--probe", "ps")
    series = components(statsd, set(named))
    assert set(series) == set(named) == set(commands)
    by_command: dict[str, set[str]] = {}
    for pid, command in commands.items():
        by_command.setdefault(command, set()).add(series[pid])
    names = [name for found in by_command.values() for name in found]
    assert len(names) == len(set(names)) == len(by_command), by_command
    ascii_names = {name for name in NAMES if name.isascii() and name.decode().isprintable() and name.strip() == name}
    assert {command.encode() for command in commands.values()} >= ascii_names
    assert statsd.bad_lines_seen == 0


def test_detail_command_adds_up_by_name(fleet: Sshd, statsd: StatsD, cli: Cli, named: dict[int, bytes]) -> None:
    """With --detail command each name is one series with its number of processes."""
    result = cli(
        *("collect", "-i", "127.0.1.1", "-p", fleet.port, "-k", fleet.key),
        *("-g", statsd.address, "--format", "jsonl", "--detail", "command"),
    )
    assert result.status == 0, result.stderr
    commands = result.by_host()["127.0.1.1"]["commands"]
    assert {command["command"].encode("utf-8", "surrogateescape") for command in commands} >= set(NAMES)

    def held() -> dict[str, float]:
        stem = "fleetmem.command.127_0_1_1."
        gauges = statsd.gauges().items()
        return {name.removeprefix(stem): value for name, value in gauges if name.startswith(stem)}

    wait_for("StatsD has read everything", lambda: len(held()) >= 4 * len(commands))
    assert len(held()) == 4 * len(commands)
    assert sorted(value for name, value in held().items() if name.endswith(".rss_bytes")) == sorted(
        command["rss_bytes"] for command in commands
    )
    assert sum(value for name, value in held().items() if name.endswith(".procs")) == sum(
        command["procs"] for command in commands
    )
    assert statsd.bad_lines_seen == 0
