"""Hosts that send what has changed: a real sshd, whose processes come, grow, change their names and go."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from . import servers
from .servers import Cli, Running, Sshd, wait_for

HOST = "127.0.1.1"

_WORK = """
import ctypes, sys
libc = ctypes.CDLL(None)
held = []
for line in sys.stdin:
    word, _, value = line.strip().partition(" ")
    if word == "name":
        libc.prctl(15, value.encode(), 0, 0, 0)
    else:
        held.append(bytearray(b"x") * (int(value) << 20))
    print(word, flush=True)
"""


class _Worker:
    """A process that does what it is told."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, "-c", _WORK], stdin=pipe, stdout=pipe, text=True)
        self.pid = self._process.pid

    def do(self, *words: object) -> None:
        """Tells it something, and waits until it is done."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline()

    @property
    def rss_bytes(self) -> int:
        """As the kernel tells it."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def end(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def _workers(count: int) -> Iterator[list[_Worker]]:
    workers = [_Worker() for _ in range(count)]
    for number, worker in enumerate(workers):
        worker.do("name", f"fm{number}")
    try:
        yield workers
    finally:
        for worker in workers:
            worker.end()


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """One host."""
    with servers.sshd(tmp_path / "sshd") as running:
        yield running


def _options(sshd: Sshd, *more: object) -> tuple[object, ...]:
    how = ("-p", sshd.port, "-k", sshd.key, "--protocol", 2, "-o", "-", "--interval", 0.3)
    return ("-i", HOST, *how, *more)


def _rows(running: Running, pid: int) -> list[dict[str, Any]]:
    """Returns the rows of a process in the last outcome."""
    outcome = running.outcomes()[-1]
    assert outcome["ok"], outcome
    return [row for row in outcome["processes"] if row["pid"] == pid]


def _next(running: Running) -> None:
    seen = len(running.outcomes())
    wait_for("two samples more", lambda: len(running.outcomes()) >= seen + 2)


@pytest.mark.parametrize("more", [(), ("--workers", 2), ("--top", 10_000)])
def test_processes_come_change_and_go(cli: Cli, sshd: Sshd, more: tuple[object, ...]) -> None:
    """Each sample has each process as the kernel has it, whatever it did since the one before."""
    before = time.time()
    with _workers(3) as (stays, grows, renamed), cli.run(*_options(sshd, *more)) as running:
        wait_for("a sample", running.outcomes)
        _next(running)
        for worker, name in ((stays, "fm0"), (grows, "fm1"), (renamed, "fm2")):
            (row,) = _rows(running, worker.pid)
            assert (row["command"], row["rss_bytes"]) == (name, worker.rss_bytes)
            assert abs(row["started_unix_seconds"] - before) < 10
        grows.do("grow", 30)
        renamed.do("name", "other (x) y")
        late = _Worker()
        late.do("name", "late")
        _next(running)
        assert [row["rss_bytes"] for row in _rows(running, grows.pid)] == [grows.rss_bytes]
        assert [row["command"] for row in _rows(running, renamed.pid)] == ["other (x) y"]
        assert [row["command"] for row in _rows(running, late.pid)] == ["late"]
        assert [row["rss_bytes"] for row in _rows(running, stays.pid)] == [stays.rss_bytes]
        late.end()
        renamed.end()
        _next(running)
        assert not _rows(running, late.pid)
        assert not _rows(running, renamed.pid)
        (row,) = _rows(running, stays.pid)
        assert row["command"] == "fm0"
        running.signal(signal.SIGHUP)
        _next(running)
        assert [row["rss_bytes"] for row in _rows(running, grows.pid)] == [grows.rss_bytes]
        outcomes = running.outcomes()
    assert all(outcome["ok"] for outcome in outcomes)
    assert sshd.logins_total == 1


def test_a_sample_is_that_of_protocol_1(cli: Cli, sshd: Sshd) -> None:
    """Rows that both have are alike in all that both tell."""
    with _workers(5) as workers:
        pids = {worker.pid for worker in workers}
        found = []
        for protocol in (1, 2):
            how = ("-i", HOST, "-p", sshd.port, "-k", sshd.key, "--format", "jsonl", "--protocol", protocol)
            result = cli("collect", *how)
            assert result.status == 0, result.stderr
            outcome = result.by_host()[HOST]
            rows = [row for row in outcome["processes"] if row["pid"] in pids]
            assert len(rows) == len(pids)
            assert all(("started_unix_seconds" in row) is (protocol == 2) for row in rows)
            found.append([{key: row[key] for key in row if key != "started_unix_seconds"} for row in rows])
    assert sorted(found[0], key=lambda row: row["pid"]) == sorted(found[1], key=lambda row: row["pid"])


def test_the_bytes_of_a_sample(cli: Cli, sshd: Sshd) -> None:
    """A frame of what has changed is a small part of one with everything."""
    with cli.run(*_options(sshd)) as running:
        wait_for("six cycles", lambda: len(running.cycles()) >= 6)
    sizes = [cycle["message"].rsplit(", ", 1)[1] for cycle in running.cycles()]
    kib = [float(size.split()[0].replace(",", "")) / (1 if "KiB" in size else 1024) for size in sizes]
    assert min(kib[-3:]) < max(kib) / 3, sizes


def test_nothing_is_left(cli: Cli, sshd: Sshd) -> None:
    """As with protocol 1: when the collector is gone the probe is, too."""
    with cli.run(*_options(sshd)) as running:
        wait_for("a sample", running.outcomes)
        started = servers.descendants(sshd.pid)
        running.signal(signal.SIGKILL)
        wait_for("nothing is left", lambda: not any(map(servers.is_alive, started)), 3)
