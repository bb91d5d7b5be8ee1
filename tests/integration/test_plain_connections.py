"""An asyncssh that is not as fleetmem knows it: hosts are sampled over plain connections, and one warning says so."""

import asyncio
import json
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

import fleetmem
from fleetmem.connect import choice

from . import servers
from .servers import Cli, Result, Running, Sshd, wait_for

HOSTS = 5
NAMES = f"127.0.1.[1-{HOSTS}]"
RENAMED = {
    "an attribute": "_recv_handler",
    "a method that is called": "_send_deferred_packets",
    "a method that is overridden": "_validate_host_key",
    "a name of a module": "MSG_EXT_INFO",
}
_WARNING = re.compile(r"asyncssh \S+ is not as fleetmem knows it")


@pytest.fixture(params=list(RENAMED.values()), ids=list(RENAMED))
def renamed(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns a folder with an asyncssh that calls something else than this one does, and works."""
    return _renamed(tmp_path / "library", request.param)


def _renamed(folder: Path, name: str) -> str:
    shutil.copytree(Path(asyncssh.__file__).parent, folder / "asyncssh", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / "asyncssh").glob("*.py"):
        path.write_text(re.sub(rf"\b{name}\b", f"{name}_of_another_release", path.read_text()))
    return str(folder)


def _check(result: Result, hosts: int = HOSTS) -> None:
    assert result.status == 0, result.stderr
    assert [outcome["ok"] for outcome in result.by_host().values()] == [True] * hosts
    assert len(_WARNING.findall(result.stderr)) == 1, result.stderr


def test_collect(renamed: str, sshd: Sshd, cli: Cli, tmp_path: Path) -> None:
    """New hosts, and then known ones: their keys are recorded, and only a good key lets in."""
    known = tmp_path / "known_hosts"
    options = ("-i", NAMES, "-p", sshd.port, "--known-hosts", known, *servers.PATIENT, "--format", "jsonl")
    _check(cli("collect", *options, "-k", sshd.key, PYTHONPATH=renamed))
    assert len(known.read_text().splitlines()) == HOSTS
    logins = sshd.logins_total
    _check(cli("collect", *options, "-k", sshd.key, "--host-keys", "strict", PYTHONPATH=renamed))
    assert sshd.logins_total - logins == HOSTS
    other = servers.make_key(tmp_path / "other")
    refused = cli("collect", *options, "-k", other, PYTHONPATH=renamed).by_host()
    assert {outcome["error"]["kind"] for outcome in refused.values()} == {"auth_failed"}


def test_doctor(sshd: Sshd, cli: Cli, tmp_path: Path) -> None:
    """It finds it, beside hosts that are well."""
    library = _renamed(tmp_path / "library", "_recv_handler")
    options = ("-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, "--known-hosts", tmp_path / "known_hosts")
    told = cli("doctor", *options, "--format", "jsonl", PYTHONPATH=library).stdout
    found = {finding["check"]: finding for finding in map(json.loads, told.splitlines())}
    assert found["machine.asyncssh"]["severity"] == "warning"
    assert "_recv_handler" in found["machine.asyncssh"]["what"]
    assert found["host.login"]["severity"] == "ok"


def test_changed_and_unknown_host_keys(sshd: Sshd, cli: Cli, tmp_path: Path) -> None:
    """They are refused, and no login is tried; a host whose key may not be recorded is sampled all the same."""
    library, known = _renamed(tmp_path / "library", "_recv_handler"), tmp_path / "known_hosts"
    options = ("collect", "-p", sshd.port, "-k", sshd.key, *servers.PATIENT, "--format", "jsonl")
    kind, text = servers.make_key(tmp_path / "other").with_suffix(".pub").read_text().split()[:2]
    known.write_text(f"[127.0.1.1]:{sshd.port} {kind} {text}\n")
    logins = sshd.logins_total
    strict = ("--known-hosts", known, "--host-keys", "strict")
    outcomes = cli(*options, *strict, "-i", "127.0.1.[1-2]", PYTHONPATH=library).by_host()
    assert outcomes["127.0.1.1"]["error"]["kind"] == "host_key_changed"
    assert outcomes["127.0.1.2"]["error"]["kind"] == "host_key_unknown"
    assert sshd.logins_total == logins
    config = tmp_path / "config"
    config.write_text("UserKnownHostsFile none\n")
    _check(cli(*options, "-i", "127.0.1.3", "-F", config, PYTHONPATH=library), hosts=1)


def test_behind_a_jump_host(sshd: Sshd, cli: Cli, tmp_path: Path) -> None:
    """The connection to it is a plain one, too, and its key is a new one, too."""
    library = _renamed(tmp_path / "library", "_recv_handler")
    options = ("-p", sshd.port, "-k", sshd.key, "-J", f"127.0.3.1:{sshd.port}", *servers.PATIENT, "--format", "jsonl")
    _check(cli("collect", "-i", NAMES, *options, PYTHONPATH=library))


@pytest.mark.parametrize("workers", [1, 2])
def test_run(workers: int, sshd: Sshd, cli: Cli, tmp_path: Path) -> None:
    """Cycle after cycle over the same connections; one warning, however many processes there are, and reloads."""
    library = _renamed(tmp_path / "library", "_recv_handler")
    options = ("-p", sshd.port, "-k", sshd.key, "--workers", workers, "--interval", 1, "-o", "-")
    with cli.run("-i", NAMES, *options, PYTHONPATH=library) as running:
        wait_for("each host sampled three times", lambda: _all_sampled(running, 3), 60)
        logins = sshd.logins_total
        running.signal(signal.SIGHUP)
        wait_for("the reload", lambda: "configuration taken" in running.stderr, 30)
        sampled = len(running.outcomes())
        wait_for("samples after it", lambda: len(running.outcomes()) >= sampled + 2 * HOSTS, 30)
        running.signal(signal.SIGTERM)
        assert running.wait(20) == 0
    assert all(outcome["ok"] for outcome in running.outcomes())
    assert sshd.logins_total == logins == HOSTS
    assert len(_WARNING.findall(running.stderr)) == 1, running.stderr


def _all_sampled(running: Running, times: int) -> bool:
    sampled = Counter(outcome["host"] for outcome in running.outcomes() if outcome["ok"])
    return len(sampled) == HOSTS and min(sampled.values()) >= times


@pytest.fixture
def _failing_check(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(choice, "find_fault", lambda: "a test says so")
    choice.best_connector.cache_clear()
    yield
    choice.best_connector.cache_clear()


@pytest.mark.usefixtures("_failing_check")
def test_a_check_that_fails(sshd: Sshd, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it found: two fleets in this process are sampled, with one warning."""
    settings = {"ssh": {"port": sshd.port, "known_hosts": str(tmp_path / "known")}}
    for _ in range(2):
        cycle = asyncio.run(fleetmem.collect(NAMES, key=sshd.key, settings=settings))
        assert (len(cycle.samples), cycle.failures) == (HOSTS, [])
    assert len(_WARNING.findall(caplog.text)) == 1
    assert "(a test says so)" in caplog.text
