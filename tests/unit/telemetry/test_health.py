import json
from http import HTTPStatus
from typing import Any

import pytest

from fleetmem.errors import Kind, SinkError
from fleetmem.model import Outcome
from fleetmem.sinks import formats
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.queue.runner import QueuedSink
from fleetmem.sinks.series import Retire, SeriesEncoding
from fleetmem.sinks.sink import SinkState
from fleetmem.sinks.transports.udp import UdpTransport
from fleetmem.telemetry.health import Health, Status, WorkerState
from fleetmem.telemetry.selfstats import CycleStats
from unit.builders import failure, process, sample


class _Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> _Clock:
    """At 100 s."""
    return _Clock()


@pytest.fixture
def health(clock: _Clock) -> Health:
    """Of a collector that has begun: cycles of 10 s, samples of 15 s at most; so 45 s are allowed."""
    health = Health(clock)
    health.begin(10.0, 15.0)
    return health


def _sink() -> QueuedSink:
    names = FleetNames("fleetmem", ["web01"])
    encoding = SeriesEncoding(formats.statsd_plain, Retire.ZERO)
    return QueuedSink("statsd", encoding, UdpTransport("192.0.2.1", 8125), names)


def _complete(health: Health, *outcomes: Outcome, sinks: list[QueuedSink] | None = None) -> None:
    stats = CycleStats()
    for outcome in outcomes:
        stats.add(outcome, 0.0, 0.0)
    health.add(stats, stats.line(3), list(map(SinkState.of, sinks or [])))


def _get(health: Health, path: str) -> tuple[HTTPStatus, dict[str, Any]]:
    answer = health.pages()[path]("gzip")
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status, json.loads(b"".join(answer.body))


def test_before_the_first_cycle(health: Health) -> None:
    """It is alive, and not ready."""
    assert (health.status, health.is_alive, health.is_ready) == (Status.STARTING, True, False)
    assert _get(health, "/healthz") == (
        HTTPStatus.OK,
        {"status": "starting", "interval_seconds": 10.0, "last_cycle_age_seconds": None},
    )
    assert _get(health, "/readyz")[0] == HTTPStatus.SERVICE_UNAVAILABLE
    assert health.line == "no cycle yet"


def test_nothing_is_late_before_the_beginning(clock: _Clock) -> None:
    """A person may take a minute to type a passphrase."""
    health = Health(clock)
    clock.seconds += 1000
    assert health.is_alive


def test_a_completed_cycle(health: Health, clock: _Clock) -> None:
    """Both pages say yes, and what the cycle came to."""
    _complete(health, sample(process()), failure(), failure(Kind.AUTH_FAILED))
    clock.seconds += 2.5
    expected = {
        "status": "ok",
        "interval_seconds": 10.0,
        "last_cycle_age_seconds": 2.5,
        "hosts_up": 1,
        "hosts_failed": 2,
        "failures": {"unreachable": 1, "auth_failed": 1},
        "sinks": [],
    }
    assert _get(health, "/healthz") == _get(health, "/readyz") == (HTTPStatus.OK, expected)
    assert health.line == "1 of 3 hosts answered, 2 failed, 1 processes, 500 B"


def test_hosts_that_all_fail_are_no_illness(health: Health, clock: _Clock) -> None:
    """A network that is down is told; a restart of the collector would not mend it."""
    for _cycle in range(20):
        clock.seconds += 10
        _complete(health, failure())
    assert health.is_ready


@pytest.mark.parametrize("is_cycle_before", [False, True])
def test_cycles_that_are_not_completed(health: Health, clock: _Clock, is_cycle_before: bool) -> None:
    """After three intervals and the time of a sample neither page says yes; one cycle later both do again."""
    if is_cycle_before:
        _complete(health, sample())
    clock.seconds += 45.0
    assert health.is_alive
    clock.seconds += 0.1
    assert (health.status, health.is_alive, health.is_ready) == (Status.STALLED, False, False)
    assert _get(health, "/healthz")[0] == _get(health, "/readyz")[0] == HTTPStatus.SERVICE_UNAVAILABLE
    _complete(health, sample())
    assert health.is_ready


def test_a_cycle_without_an_outcome_is_none(health: Health, clock: _Clock) -> None:
    """A loop that turns while no sample ends is a stalled collector."""
    _complete(health, sample())
    for _cycle in range(5):
        clock.seconds += 10
        _complete(health)
    assert health.status is Status.STALLED
    assert health.report()["last_cycle_age_seconds"] == 50.0
    assert health.report()["hosts_up"] == 1


def test_a_reload(health: Health, clock: _Clock) -> None:
    """The time begins anew, with the new interval; it stays ready."""
    _complete(health, sample())
    clock.seconds += 40
    health.begin(100.0, 15.0)
    assert health.is_ready
    clock.seconds += 315
    assert health.is_ready
    clock.seconds += 0.1
    assert not health.is_alive


def test_a_stop(health: Health, clock: _Clock) -> None:
    """It is not ready, and alive for as long as it takes."""
    _complete(health, sample())
    health.stop()
    clock.seconds += 1000
    assert (health.status, health.is_alive, health.is_ready) == (Status.STOPPING, True, False)


def test_a_sink_that_is_away(health: Health) -> None:
    """It is told with its reason, and no reason to end the collector."""
    sink = _sink()
    sink.put(sample(process()))
    sink.problem = SinkError("connection refused")
    _complete(health, sample(process()), sinks=[sink])
    status, body = _get(health, "/healthz")
    assert status == HTTPStatus.OK
    (told,) = body["sinks"]
    assert told == {
        "name": "statsd",
        "address": sink.address,
        "problem": "connection refused",
        "waiting_points": sink.stats().queue_points,
        "dropped_points": 0,
    }
    assert told["waiting_points"] > 0
    assert health.line.endswith(", statsd away")
    sink.problem = None
    _complete(health, sample(process()), sinks=[sink])
    assert _get(health, "/healthz")[1]["sinks"][0]["problem"] is None
    assert "away" not in health.line


def test_a_worker_that_stands_still(health: Health, clock: _Clock) -> None:
    """The whole is not alive while one of its workers has no outcome for too long; one without hosts is no worry."""

    def complete(*outcomes: int) -> None:
        stats = CycleStats()
        stats.add(sample(), 0.0, 0.0)
        states = [WorkerState(7 + number, min(1, count + 1), number, count) for number, count in enumerate(outcomes)]
        health.add(stats, "", [], [*states, WorkerState(None, 0, 0, 0)])

    complete(5, 5)
    assert _get(health, "/healthz")[1]["workers"] == [
        {"pid": 7, "hosts": 1, "restarts": 0},
        {"pid": 8, "hosts": 1, "restarts": 1},
        {"pid": None, "hosts": 0, "restarts": 0},
    ]
    for _cycle in range(4):
        clock.seconds += 10
        complete(5, 0)
    assert health.is_ready
    clock.seconds += 10
    complete(5, 0)
    assert health.status is Status.STALLED
    complete(5, 1)
    assert health.is_ready
    clock.seconds += 40
    health.begin(10.0, 15.0)
    complete(5, 0)
    clock.seconds += 10
    complete(5, 0)
    assert health.is_ready
