import logging

import pytest

from fleetmem.daemon import FailureLog, _on_one_line
from fleetmem.errors import ConfigError, Kind, Stage
from fleetmem.model import Host, Outcome
from unit.builders import WEB, failure, sample

_DB = Host("db1", "10.0.0.2")


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
