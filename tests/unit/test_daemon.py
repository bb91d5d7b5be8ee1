import asyncio
import logging
import socket
from pathlib import Path

import pytest

from fleetmem.collector import Collector
from fleetmem.config import load
from fleetmem.daemon import Daemon, _on_one_line
from fleetmem.errors import ConfigError, Kind, Stage
from fleetmem.model import Host, Outcome
from fleetmem.runtime.systemd import ServiceManager
from fleetmem.sampling.failure_log import FailureLog
from fleetmem.wiring.fleet import build_fleet
from unit.builders import WEB, failure, sample

_DB = Host("db1", "10.0.0.2")
_LINE = "1 of 1 hosts answered, 0 failed, 0 processes, 500 B"


def _logged(caplog: pytest.LogCaptureFixture, *outcomes: Outcome) -> list[tuple[str, str]]:
    """Returns host and message of what is logged for these outcomes."""
    caplog.set_level(logging.INFO, "fleetmem")
    log = FailureLog()
    for outcome in outcomes:
        log.add(outcome)
    return [(vars(record)["host"], record.getMessage()) for record in caplog.records]


def test_a_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A host that is down for hours is one line, and one more when it is back, with how long it was away."""
    assert _logged(caplog, failure(), failure(), failure(message="no route, next attempt in 5 s"), sample()) == [
        ("web01", "no route to host"),
        ("web01", "answers again after 3 failed cycles"),
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_change_of_kind_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Another stage or kind is news; the cycles are counted on."""
    outcomes: list[Outcome] = [
        failure(Kind.UNREACHABLE, "a"),
        failure(Kind.AUTH_FAILED, "b", Stage.LOGIN),
        failure(Kind.AUTH_FAILED, "c", Stage.LOGIN),
        failure(Kind.UNREACHABLE, "d"),
        sample(),
    ]
    assert [message for _, message in _logged(caplog, *outcomes)] == [
        "a",
        "b",
        "d",
        "answers again after 4 failed cycles",
    ]


def test_a_good_host_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Success is silent."""
    assert _logged(caplog, sample(), sample()) == []


def test_hosts_are_apart(caplog: pytest.LogCaptureFixture) -> None:
    """Each host has its own count, and a second trouble is logged again."""
    outcomes: list[Outcome] = [
        failure(host=WEB),
        failure(host=_DB),
        sample(host=WEB),
        failure(host=WEB),
        sample(host=WEB),
    ]
    assert _logged(caplog, *outcomes) == [
        ("web01", "no route to host"),
        ("db1", "no route to host"),
        ("web01", "answers again after 1 failed cycles"),
        ("web01", "no route to host"),
        ("web01", "answers again after 1 failed cycles"),
    ]


def test_the_facts_of_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Stage and kind stand beside the message, as words."""
    _logged(caplog, failure(Kind.AUTH_FAILED, "x", Stage.LOGIN))
    facts = vars(caplog.records[0])
    assert (facts["stage"], facts["kind"]) == ("login", "auth_failed")


def test_an_error_of_several_lines_is_one_line_of_log() -> None:
    """Which keys are wrong can be read there, too."""
    error = ConfigError("configuration (c.toml):\n  prefix: one\n  run.interval_seconds: two")
    assert _on_one_line(error) == "configuration (c.toml): prefix: one; run.interval_seconds: two"
    assert _on_one_line(ConfigError("no such file")) == "no such file"


@pytest.mark.slow
def test_a_sample_that_never_ends_lets_the_watchdog_bite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the event loop turns, but no host has an outcome any more, systemd hears nothing: it is to start anew."""
    limits = dict.fromkeys(("connect_timeout_seconds", "login_timeout_seconds", "command_timeout_seconds"), 0.1)
    settings = load(None, {"inventory": {"hosts": ["a"]}, "ssh": limits, "run": {"interval_seconds": 0.1}})
    is_stuck = asyncio.Event()

    async def sample_until_stuck(_collector: Collector, _host: Host, _slot_unix_seconds: float) -> Outcome:
        if is_stuck.is_set():
            await asyncio.get_running_loop().create_future()
        return sample()

    monkeypatch.setattr(Collector, "sample", sample_until_stuck)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        fleet = build_fleet(settings, lambda _path: None)
        environment = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "100000"}
        daemon = Daemon(fleet, lambda: settings, manager=ServiceManager(environment))
        told: list[bytes] = []

        def is_silent() -> bool:
            """Whether systemd has heard of the stall for a while, and of nothing else."""
            return len(told) >= 4 and all(each.startswith(b"STATUS=stalled; before that: ") for each in told[-4:])

        async def main() -> None:
            asyncio.get_running_loop().add_reader(systemd, lambda: told.append(systemd.recv(1000)))
            running = asyncio.create_task(daemon.run())
            async with asyncio.timeout(20):
                while not {b"WATCHDOG=1", f"STATUS={_LINE}".encode()} <= set(told):  # noqa: ASYNC110 - a list tells nobody
                    await asyncio.sleep(0.01)
                is_stuck.set()
                told.clear()
                while not is_silent():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                assert not fleet.health.is_alive
                daemon.stop()
                await running

        asyncio.run(main())
