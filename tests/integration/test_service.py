"""`fleetmem run` as a service: what it tells systemd, whose socket is a test's own here, and its health pages."""

import http.client
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .servers import Cli, Running, Sshd, free_port, process_state, wait_for

WATCHDOG_SECONDS = 1.0


class NotifySocket:
    """Reads $NOTIFY_SOCKET in systemd's place."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.setblocking(False)
        microseconds = int(WATCHDOG_SECONDS * 1_000_000)
        self._unread: list[dict[str, str]] = []
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(microseconds)}

    def close(self) -> None:
        """Closes the socket."""
        self._sock.close()

    def told(self) -> list[dict[str, str]]:
        """Returns what was told and not returned yet."""
        self._read()
        told, self._unread = self._unread, []
        return told

    def wait_for(self, key: str) -> dict[str, str]:
        """Returns the first message with this key; what came before is dropped."""
        return wait_for(key, lambda: self._next(key))

    def _next(self, key: str) -> dict[str, str]:
        self._read()
        while self._unread:
            message = self._unread.pop(0)
            if key in message:
                return message
        return {}

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                text = self._sock.recv(4096).decode()
                self._unread.append(dict(line.split("=", 1) for line in text.split("\n")))


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[NotifySocket]:
    """A socket that is read as systemd does."""
    systemd = NotifySocket(tmp_path / "notify")
    yield systemd
    systemd.close()


def get(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Gets a health page: its status, and what it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_service_of_systemd(fleet: Sshd, cli: Cli, systemd: NotifySocket, tmp_path: Path) -> None:
    """Ready, a watchdog that is fed while it works and no longer, both kinds of reload, and a stop that is told."""
    config = tmp_path / "config.toml"
    good = f'[inventory]\nhosts = ["127.0.1.[1-3]"]\n[ssh]\nport = {fleet.port}\nkey = ["{fleet.key}"]\n'
    config.write_text(good)
    with cli.run("-c", config, "-o", "/dev/null", "--interval", 0.3, **systemd.environment) as running:
        assert systemd.wait_for("READY") == {"READY": "1", "STATUS": "3 hosts every 0.3 s"}
        systemd.wait_for("WATCHDOG")
        systemd.wait_for("WATCHDOG")
        wait_for(
            "a line for each cycle",
            lambda: re.search(r"^\d+ of \d+ hosts answered, 0 failed", systemd.wait_for("STATUS")["STATUS"]),
        )

        running.signal(signal.SIGSTOP)
        wait_for("it halts", lambda: process_state(running.pid) == "T")
        systemd.told()
        time.sleep(WATCHDOG_SECONDS * 1.2)  # no sign of life in all of the watchdog's time: it would bite
        assert systemd.told() == []
        running.signal(signal.SIGCONT)
        systemd.wait_for("WATCHDOG")

        config.write_text(good.replace("[1-3]", "[1-2]"))
        _reload(running, systemd, "2 hosts every 0.3 s")
        config.write_text(good + "[nonsense]\n")
        _reload(running, systemd, "configuration not taken, the old one stays; the log says why")
        systemd.wait_for("WATCHDOG")

        running.signal(signal.SIGTERM)
        assert systemd.wait_for("STOPPING") == {"STOPPING": "1"}
        assert running.wait(5) == 0
        assert not any("WATCHDOG" in one for one in systemd.told())


def _reload(running: Running, systemd: NotifySocket, status: str) -> None:
    """Reloads, and checks that it is told: when it begins, on systemd's clock, and how it ended."""
    before_usec = time.monotonic_ns() // 1000
    running.signal(signal.SIGHUP)
    begun = systemd.wait_for("RELOADING")
    assert before_usec <= int(begun["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert systemd.wait_for("READY") == {"READY": "1", "STATUS": status}


def test_health_pages(fleet: Sshd, cli: Cli) -> None:
    """Alive at once, ready after a cycle; a host that is down and a Graphite that is away are told, with status 200."""
    port, dead = free_port(), free_port()
    hosts = f"127.0.1.1:{fleet.port},127.0.1.2:{fleet.port},127.0.1.3:{dead}"
    sinks = ("--graphite", f"127.0.0.1:{dead}", "--health", port)
    with cli.run("-i", hosts, "-k", fleet.key, *sinks, "--interval", 0.3) as running:
        wait_for("it listens", lambda: f"http://127.0.0.1:{port}" in running.stderr)
        assert get(port, "/healthz")[0] == 200
        wait_for("it is ready", lambda: get(port, "/readyz")[0] == 200)
        told = wait_for("all of it is told", lambda: _whole(get(port, "/healthz")))
        assert told["status"] == "ok"
        assert told["failures"] == {"unreachable": 1}
        assert 0 <= told["last_cycle_age_seconds"] < 3
        (graphite,) = told["sinks"]
        assert (graphite["name"], graphite["address"]) == ("graphite", f"127.0.0.1:{dead}")
        assert "connection refused" in graphite["problem"]
        assert graphite["waiting_points"] > 0


def _whole(answer: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    status, told = answer
    assert status == 200
    return told if told["hosts_up"] == 2 and told["hosts_failed"] == 1 and told["sinks"][0]["problem"] else {}


def test_health_pages_beside_the_metrics(fleet: Sshd, cli: Cli) -> None:
    """One port for both; a stopped process answers none of them, which is what a probe with a time limit sees."""
    port = free_port()
    hosts = ("-i", f"127.0.1.1:{fleet.port}", "-k", fleet.key, "--interval", 0.3)
    with cli.run(*hosts, "--prometheus", port, "--health", port) as running:
        wait_for("it listens", lambda: f"http://127.0.0.1:{port}/metrics" in running.stderr)
        wait_for("it is ready", lambda: get(port, "/readyz")[0] == 200)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/metrics")
        assert b"fleetmem_up" in connection.getresponse().read()
        connection.close()
        running.signal(signal.SIGSTOP)
        wait_for("it halts", lambda: process_state(running.pid) == "T")
        halted = http.client.HTTPConnection("127.0.0.1", port, timeout=0.5)
        halted.request("GET", "/healthz")
        with pytest.raises(TimeoutError):
            halted.getresponse()
        halted.close()
        running.signal(signal.SIGCONT)
        wait_for("it is ready again", lambda: get(port, "/readyz")[0] == 200)
