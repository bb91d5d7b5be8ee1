"""Secrets that are in use appear nowhere: not in output, logs or errors, nor in the command line of any process."""

import base64
import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from . import servers
from .servers import Cli, Sshd, descendants, make_key, wait_for
from .terminal import on_terminal

SECRET = "hunter2-of-the-fleet"  # noqa: S105 - lives for one test
LOGIN = base64.b64encode(f"ops:{SECRET}".encode()).decode()
HOST = "127.0.1.1"


class Targets(BaseHTTPRequestHandler):
    """Prometheus' http_sd behind a password; gone after some answers."""

    answers_left = 3
    served = 0

    def do_GET(self) -> None:
        """Answers."""
        is_let_in = self.headers["Authorization"] == f"Basic {LOGIN}"
        status = 401 if not is_let_in else 200 if type(self).answers_left else 503
        type(self).answers_left -= status == 200
        type(self).served += 1
        self.send_response(status)
        self.end_headers()
        if status == 200:
            self.wfile.write(json.dumps([{"targets": [f"{HOST}:9100"]}]).encode())

    def log_message(self, *_words: object) -> None:
        """Says nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """The address of such a server, password included."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Targets) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://ops:{SECRET}@127.0.0.1:{server.server_address[1]}/targets"
        server.shutdown()
        thread.join()


def command_lines(pid: int) -> str:
    """Returns the command lines of a process and all below it."""
    found = ""
    for each in {pid, *descendants(pid)}:
        try:
            found += Path(f"/proc/{each}/cmdline").read_text(errors="replace")
        except OSError:  # gone in the meantime
            continue
    return found


def test_a_password_in_an_inventory_is_told_nowhere(url: str, fleet: Sshd, cli: Cli) -> None:
    """It is used, the server goes away, the configuration is read again: no log line and no process has it."""
    program = cli.home / "more-hosts"
    program.write_text(f'#!/bin/sh\ntest $TOKEN = {SECRET} || exit 1\necho \'[{{"name": "127.0.1.2"}}]\'\nsleep 0.3\n')
    program.chmod(0o700)
    config = cli.home / "fleetmem.toml"
    config.write_text(f'[inventory]\nrefresh_seconds = 0.5\nsources = ["{url}", "command:{program}"]\n')
    options = ("-c", config, "-p", fleet.port, "-k", fleet.key)
    with cli.cold.run(*options, "-o", "-", "--interval", 0.5, "-vv", TOKEN=SECRET) as running:
        seen = ""

        def has_failed() -> bool:
            nonlocal seen
            seen += command_lines(running.pid)
            return any("answers 503" in line["message"] for line in running.logs())

        wait_for("the inventory cannot be read any more", has_failed)
        running.signal(signal.SIGHUP)
        wait_for("the configuration is not taken", lambda: any(line["level"] == "error" for line in running.logs()))
        assert {outcome["host"] for outcome in running.outcomes()} == {HOST, "127.0.1.2"}
        said = running.stderr + json.dumps(running.outcomes())
    assert "more-hosts" in seen
    assert SECRET not in seen
    assert SECRET not in said
    assert LOGIN not in said
    assert "http://***@127.0.0.1" in said
    for words in (("config", "show"), ("config", "check"), ("hosts",), ("collect",)):
        result = cli(*words, *options, TOKEN=SECRET)
        assert SECRET not in result.stdout + result.stderr


def test_a_passphrase_is_told_nowhere(cli: Cli, tmp_path: Path) -> None:
    """Neither on the terminal, with -vv, nor in a command line."""
    key = make_key(tmp_path / "encrypted", passphrase=SECRET)
    with (
        servers.sshd(tmp_path / "sshd", public_keys=[key.with_suffix(".pub").read_text()]) as sshd,
        on_terminal(cli, "collect", "-i", HOST, "-p", sshd.port, "-k", key, "-vv", has_stdout=True) as terminal,
    ):
        terminal.expect("Passphrase for")
        terminal.type(SECRET)
        terminal.expect("Auth for user")
        seen = command_lines(terminal.process.pid)
        terminal.finish()
    assert terminal.status == 0, terminal.screen
    assert SECRET not in terminal.screen
    assert SECRET not in seen
