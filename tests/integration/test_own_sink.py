"""A sink of one's own: the package in `examples/`, installed, against a real sshd; and packages that are broken."""

import json
import signal
import socketserver
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .servers import REPOSITORY, Cli, Sshd, StatsD, environment, free_port, wait_for

_NAME = "top_processes"
_HOSTS = ("127.0.1.1", "127.0.1.2", "127.0.1.3")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which pip has installed the example."""
    folder = tmp_path_factory.mktemp("plugin")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([*command, *options, str(REPOSITORY / "examples" / "top_processes_sink")], check=True)
    return folder


class Receiver:
    """What listens on a UNIX socket, with the lines that came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []

    def rows(self) -> list[dict[str, Any]]:
        """Returns the lines of JSON so far."""
        return [json.loads(line) for line in self.lines]

    def hosts(self) -> set[str]:
        """Returns the hosts that have a line."""
        return {row["host"] for row in self.rows()}


@contextmanager
def receiving(path: Path) -> Iterator[Receiver]:
    """Listens until the end."""
    receiver = Receiver(path)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                receiver.lines.append(line.decode())

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        block_on_close = False

    with Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield receiver
        server.shutdown()


def write(path: Path, text: str) -> Path:
    """Writes a configuration as an editor does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    return new.replace(path)


def section(server: Path, more: str = "") -> str:
    """Returns the section of the example."""
    return f'[sinks.{_NAME}]\nserver = "{server}"\n{more}'


def options(fleet: Sshd, config: Path) -> tuple[object, ...]:
    """Returns what reaches three hosts."""
    return "-c", config, "-i", ",".join(_HOSTS), "-p", fleet.port, "-k", fleet.key


def test_collect(fleet: Sshd, cli: Cli, installed: Path, tmp_path: Path) -> None:
    """Each host is one line with its biggest processes; the secret comes first, and is shown nowhere."""
    (tmp_path / "token").write_text("s3cret\n")
    config = tmp_path / "config.toml"
    with receiving(tmp_path / "top.sock") as receiver:
        write(config, section(receiver.path, f'top = 3\ntoken_file = "{tmp_path / "token"}"\n'))
        done = cli("collect", *options(fleet, config), "-o", "-", PYTHONPATH=str(installed))
        assert done.status == 0, done.stderr
        wait_for("three lines", lambda: len(receiver.lines) == 1 + len(_HOSTS))
    assert receiver.lines.pop(0) == "s3cret\n"
    outcomes = done.by_host()
    for row in receiver.rows():
        sizes = sorted((process["rss_bytes"] for process in outcomes[row["host"]]["processes"]), reverse=True)
        assert [process["rss_bytes"] for process in row["top"]] == sizes[:3]
    shown = cli("config", "show", *options(fleet, config), PYTHONPATH=str(installed))
    assert f'token_file = "{tmp_path / "token"}"' in shown.stdout
    assert "s3cret" not in shown.stdout + done.stdout + done.stderr
    checked = cli("config", "check", *options(fleet, config), PYTHONPATH=str(installed))
    assert "ok: 3 hosts, 1 sinks" in checked.stdout
    looked = cli("doctor", *options(fleet, config), "--format", "jsonl", PYTHONPATH=str(installed))
    assert f'"subject": "sinks.{_NAME}"' in looked.stdout
    assert f"#[sinks.{_NAME}]\n" in cli("config", "sample", PYTHONPATH=str(installed)).stdout


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_run(workers: int, fleet: Sshd, statsd: StatsD, cli: Cli, installed: Path, tmp_path: Path) -> None:
    """Every cycle arrives; its counters are those of any sink; a reload takes another section, or keeps the old one."""
    config, port = tmp_path / "config.toml", free_port()
    with receiving(tmp_path / "top.sock") as first, receiving(tmp_path / "other.sock") as second:
        write(config, section(first.path))
        more = "-g", statsd.address, "--prometheus", port, "--interval", 1, "--workers", workers
        with cli.run(*options(fleet, config), *more, PYTHONPATH=str(installed)) as running:
            wait_for("each host has its lines", lambda: first.hosts() == set(_HOSTS))
            assert all(len(row["top"]) <= 10 for row in first.rows())
            wait_for("its counters are sent", lambda: _sent(statsd) > 0)
            wait_for("its counters are served", lambda: f'sink="{_NAME}"' in _metrics(port))
            write(config, section(second.path, "tpo = 2\n"))
            running.signal(signal.SIGHUP)
            wait_for("the error is logged", lambda: f"sinks.{_NAME}.tpo: no such key" in running.stderr)
            count = len(first.lines)
            wait_for("the old one stays", lambda: len(first.lines) >= count + len(_HOSTS))
            write(config, section(second.path, "top = 2\n"))
            running.signal(signal.SIGHUP)
            wait_for("the new one is in use", lambda: second.hosts() == set(_HOSTS))
            assert all(len(row["top"]) == 2 for row in second.rows())
            running.signal(signal.SIGTERM)
            assert running.wait(10) == 0


def _sent(statsd: StatsD) -> float:
    sent = [value for name, value in statsd.gauges().items() if name.endswith(f".{_NAME}.points_sent_total")]
    return sent[0] if sent else 0


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


@pytest.mark.slow
def test_a_receiver_that_is_away(fleet: Sshd, cli: Cli, installed: Path, tmp_path: Path) -> None:
    """Hosts are sampled and the other output goes on; what waited arrives once the receiver is there."""
    config = write(tmp_path / "config.toml", section(tmp_path / "top.sock"))
    with cli.run(*options(fleet, config), "-o", "-", "--interval", 0.3, PYTHONPATH=str(installed)) as running:
        wait_for("three cycles", lambda: len(running.outcomes()) >= 3 * len(_HOSTS))
        assert all(outcome["ok"] for outcome in running.outcomes())
        about = [line["message"] for line in running.logs() if f"sink {_NAME}" in line["message"]]
        assert len(about) == 1
        assert "No such file or directory; trying again" in about[0]
        with receiving(tmp_path / "top.sock") as receiver:
            first = min(outcome["slot_unix_seconds"] for outcome in running.outcomes())
            wait_for("the first sample is there", lambda: first in [round(row["at"], 3) for row in receiver.rows()])


# --- broken ones -----------------------------------------------------------------------------------------------------


def package(folder: Path, source: str) -> Path:
    """Writes an installed package whose sink is called `broken`."""
    head = (
        "from dataclasses import dataclass\nfrom fleetmem.sinks.plugin import SinkError, SinkWriter, WriterKind\n"
        "@dataclass(frozen=True)\nclass Section:\n    key: str = ''\n"
        "class Broken(SinkWriter):\n    def __init__(self, section): pass\n    def write(self, outcomes): return 0\n"
    )
    info = folder / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "broken.py").write_text(f"{head}{source}\nKIND = WriterKind(Section, Broken)\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fleetmem.sinks]\nbroken = broken:KIND\n")
    return folder


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", "sinks.broken: broken:KIND of broken 1.0 cannot be imported: ModuleNotFoundError"),
        ("Broken.__init__ = lambda self, section: 1 / 0", "sinks.broken: ZeroDivisionError: division by zero"),
        ("Broken = lambda section: 'nothing'", "sinks.broken: TypeError: makes a str, which is no SinkWriter"),
        ("WriterKind = lambda section, make: None", "sinks.broken: broken:KIND of broken 1.0 is no WriterKind"),
    ],
)
def test_a_plug_in_that_cannot_be_used(source: str, message: str, cli: Cli, tmp_path: Path) -> None:
    """It is an error of the configuration that names the plug-in; without its section nobody notices it."""
    folder = package(tmp_path / "broken", source)
    config = write(tmp_path / "config.toml", "[sinks.broken]\n")
    done = cli("config", "check", "-c", config, "-i", "127.0.0.1", PYTHONPATH=str(folder))
    assert done.status == 2
    assert message in done.stderr
    assert cli("config", "check", "-i", "127.0.0.1", PYTHONPATH=str(folder)).status == 0
    assert cli("config", "sample", PYTHONPATH=str(folder)).status == 0


def test_a_plug_in_that_is_not_installed(cli: Cli, tmp_path: Path) -> None:
    """The error says which are."""
    config = write(tmp_path / "config.toml", "[sinks.brken]\n")
    folder = package(tmp_path / "broken", "")
    done = cli("config", "check", "-c", config, "-i", "127.0.0.1", PYTHONPATH=str(folder))
    assert done.status == 2
    assert "sinks.brken: no such plug-in is installed; did you mean broken?" in done.stderr


def test_a_plug_in_with_a_bug(fleet: Sshd, statsd: StatsD, cli: Cli, tmp_path: Path) -> None:
    """It costs what the plug-in was to write: hosts and other sinks have all. The log names it; the status is 70."""
    folder = package(tmp_path / "broken", "Broken.write = lambda self, outcomes: outcomes.no_such_name")
    config = write(tmp_path / "config.toml", "[sinks.broken]\n")
    command = cli.command("collect", *options(fleet, config), "-g", statsd.address, "-o", "-")
    variables = {**environment(cli.home), "PYTHONPATH": str(folder)}
    done = subprocess.run(command, env=variables, cwd=cli.home, capture_output=True, timeout=60, check=False, text=True)
    assert done.returncode == 70, done.stderr
    assert [json.loads(line)["ok"] for line in done.stdout.splitlines()] == [True] * len(_HOSTS)
    assert (
        "a bug in a plug-in, please report it to its author: PluginBugError: sink broken: AttributeError" in done.stderr
    )
    wait_for("StatsD has each host", lambda: sum(name.endswith(".up") for name in statsd.gauges()) == len(_HOSTS))


@pytest.mark.slow
def test_a_plug_in_that_hangs(fleet: Sshd, cli: Cli, tmp_path: Path) -> None:
    """Hosts are sampled on time, the sink is told to be away, and the stop is in time."""
    folder = package(tmp_path / "broken", "import time\nBroken.write = lambda self, outcomes: time.sleep(600)")
    config, port = write(tmp_path / "config.toml", "[sinks.broken]\n"), free_port()
    more = "-o", "-", "--interval", 1, "--health", port
    with cli.run(*options(fleet, config), *more, PYTHONPATH=str(folder)) as running:
        wait_for("a cycle", running.cycles)
        wait_for("it is told", lambda: "sink broken: has not returned for 5 s" in _health(port))
        count = len(running.outcomes())
        wait_for("sampling goes on", lambda: len(running.outcomes()) >= count + 2 * len(_HOSTS))
        running.signal(signal.SIGTERM)
        assert running.wait(10) == 0
        assert "ended: " not in running.stderr  # the last resort


def _health(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
        return str(answer.read().decode())
