import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fleetmem.errors import SinkError
from fleetmem.model import Host
from fleetmem.sinks import formats, runner
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.runner import Format, Sink
from fleetmem.sinks.series import Retire
from unit.builders import WEB, failure, process, sample

_DB = Host("db1", "10.0.0.2")
_REFUSED = SinkError("statsd x:1: refused")


class ScriptedTransport:
    """Does with each text what the script says: an error is raised, anything else is success."""

    def __init__(self, *script: SinkError | None, flush_error: SinkError | None = None) -> None:
        self.address = "x:1"
        self.datagrams_total = 0
        self.bytes_total = 0
        self.script = list(script)
        self.flush_error = flush_error
        self.always: SinkError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()
        self.tried: list[bytes] = []
        self.sent: list[bytes] = []
        self.backlogs: list[int] = []
        self.is_closed = False

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Follows the script, and waits for the gate."""
        self.tried.append(text)
        self.began.set()
        self.backlogs.append(backlog_bytes)
        await self.gate.wait()
        error = self.script.pop(0) if self.script else self.always
        if error:
            raise error
        self.sent.append(text)

    async def flush(self) -> None:
        """Follows the script."""
        if self.flush_error:
            raise self.flush_error

    async def close(self) -> None:
        """Remembers it."""
        self.is_closed = True


class Clock:
    """A monotonic clock that stands still but while the runner sleeps."""

    def __init__(self) -> None:
        self.now_seconds = 1000.0

    def monotonic(self) -> float:
        """Returns the time."""
        return self.now_seconds

    async def sleep(self, seconds: float) -> None:
        """Lets time pass, and others run."""
        self.now_seconds += seconds
        await _REAL_SLEEP(0)


_REAL_SLEEP = asyncio.sleep


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes only when the runner waits."""
    clock = Clock()
    monkeypatch.setattr(runner, "time", clock)  # the event loop keeps the real one
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    return clock


def _sink(transport: ScriptedTransport, retire: Retire = Retire.ZERO, *, is_graphite: bool = False) -> Sink:
    format_ = Format(formats.graphite, formats.graphite_at) if is_graphite else Format(formats.statsd)
    return Sink(format_, transport, FleetNames("p", ["web01", "db1"]), retire)


def _run(make: Callable[[], ScriptedTransport], use: Callable[[Sink, ScriptedTransport], Awaitable[None]]) -> Sink:
    """Runs a sink while it is used."""

    async def main() -> Sink:
        transport = make()
        sink = _sink(transport)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(sink.run())
            async with asyncio.timeout(60):
                await use(sink, transport)
            running.cancel()
        return sink

    return asyncio.run(main())


def test_outcomes_arrive_in_order() -> None:
    """What is put is sent, in order, and counted; drain waits for all of it."""

    async def use(sink: Sink, transport: ScriptedTransport) -> None:
        sink.put(sample(process(7)))
        sink.put(failure(host=_DB))
        sink.put_points([("p.collector.x.hosts_up", "1")], 1.0)
        await sink.drain()
        assert [text.split(b":")[0] for text in transport.sent] == [
            b"p.process.web01.nginx.7.rss_bytes",
            b"p.host.db1.up",
            b"p.collector.x.hosts_up",
        ]
        assert transport.backlogs == [len(text) + len(transport.sent[2]) for text in transport.sent[1:2]] + [
            len(transport.sent[2]),
            0,
        ]

    sink = _run(ScriptedTransport, use)
    assert (sink.points_sent_total, sink.points_dropped_total, sink.retries_total) == (12, 0, 0)
    assert sink.problem is None


def test_text_gets_the_time_of_the_sample() -> None:
    """Where the protocol carries a time it is the outcome's, not that of sending."""

    async def main() -> list[bytes]:
        transport = ScriptedTransport()
        sink = _sink(transport, is_graphite=True)
        sink.put(failure())
        sink.put_points([("a", "1")], 5.9)
        running = asyncio.create_task(sink.run())
        await sink.drain()
        running.cancel()
        return transport.sent

    assert asyncio.run(main()) == [b"p.host.web01.up 0 1700000000\n", b"a 1 5\n"]


def test_a_refused_text_is_tried_again(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Two refusals, then success: nothing is lost, the trouble is logged once."""

    async def use(sink: Sink, transport: ScriptedTransport) -> None:
        sink.put(failure())
        await sink.drain()
        assert transport.tried == [b"p.host.web01.up:0|g\n"] * 3

    sink = _run(lambda: ScriptedTransport(_REFUSED, _REFUSED), use)
    assert (sink.points_sent_total, sink.points_dropped_total, sink.retries_total) == (1, 0, 2)
    assert caplog.messages == ["statsd x:1: refused; trying again"]
    assert clock.now_seconds == 1001.0


def test_another_problem_is_logged_too(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """When the reason changes, that is news."""
    other = SinkError("statsd x:1: no route")

    async def use(sink: Sink, _transport: ScriptedTransport) -> None:
        sink.put(failure())
        await sink.drain()

    _run(lambda: ScriptedTransport(_REFUSED, other, other, _REFUSED), use)
    assert [message.partition(";")[0] for message in caplog.messages] == [str(_REFUSED), str(other), str(_REFUSED)]
    assert clock.now_seconds > 1000


def test_it_gives_up_and_recovers(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """After 5 s of refusals points are dropped and counted; back again, it is said once."""

    async def use(sink: Sink, transport: ScriptedTransport) -> None:
        transport.always = _REFUSED
        for _ in range(3):
            sink.put(failure())
        with pytest.raises(SinkError, match=r"refused \(3 points were not delivered\)"):
            await sink.drain()
        assert sink.points_dropped_total == 3
        assert clock.now_seconds == 1000 + runner.GIVE_UP_SECONDS
        assert sink.problem is _REFUSED
        transport.always = None
        for _ in range(4):
            sink.put(failure())
            await _delivered(sink)
            clock.now_seconds += 1
        assert sink.problem is None
        await sink.drain()

    sink = _run(ScriptedTransport, use)
    assert (sink.points_sent_total, sink.points_dropped_total) == (4, 3)
    assert sink.retries_total == runner.GIVE_UP_SECONDS / 0.5
    recovered = [message for message in caplog.messages if "answers again" in message]
    assert recovered == ["x:1 answers again after 5 s; 3 points were dropped since the start"]


async def _delivered(sink: Sink) -> None:
    await sink._is_idle.wait()


def test_one_success_proves_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """UDP reports a refusal one datagram late: success and refusal in turn are one trouble, given up after 5 s."""

    async def use(sink: Sink, transport: ScriptedTransport) -> None:
        for _ in range(20):
            transport.script = [None, _REFUSED]
            sink.put(failure())
            sink.put(failure())
            await _delivered(sink)
        assert sink.problem is _REFUSED

    sink = _run(ScriptedTransport, use)
    assert sink.points_dropped_total > 0
    assert caplog.messages == ["statsd x:1: refused; trying again"]
    assert clock.now_seconds >= 1005


def test_one_success_after_a_pause_proves_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A single datagram that nobody refused, however late, is no recovery: the refusal follows it."""

    async def use(sink: Sink, transport: ScriptedTransport) -> None:
        transport.script = [_REFUSED]
        for _ in range(5):
            sink.put(failure())
            await _delivered(sink)
            transport.script.append(_REFUSED)
            clock.now_seconds += 100
            sink.put(failure())
            await _delivered(sink)

    sink = _run(ScriptedTransport, use)
    assert sink.problem is _REFUSED
    assert caplog.messages == ["statsd x:1: refused; trying again"]


def test_a_full_queue_drops_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded: what is dropped is the oldest, and it is counted."""
    monkeypatch.setattr(runner, "_MAX_QUEUE_BYTES", 50)

    async def main() -> None:
        transport = ScriptedTransport()
        sink = _sink(transport)
        for number in range(10):
            sink.put_points([(f"point{number}", "1")], 0)  # 11 bytes each as text
        assert sink.points_dropped_total == 6
        running = asyncio.create_task(sink.run())
        await sink._is_idle.wait()
        running.cancel()
        assert [text[:6] for text in transport.sent] == [b"point6", b"point7", b"point8", b"point9"]
        assert sink.points_sent_total == 4

    asyncio.run(main())


def test_a_stuck_transport_does_not_hold_up_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a send hangs, outcomes are taken at once and memory stays bounded."""
    monkeypatch.setattr(runner, "_MAX_QUEUE_BYTES", 1000)

    async def use(sink: Sink, transport: ScriptedTransport) -> None:
        transport.gate.clear()
        sink.put(failure())
        await transport.began.wait()
        for _ in range(1000):
            sink.put(failure())
        assert len(transport.tried) == 1
        assert sink._queue_bytes <= 1000
        transport.gate.set()
        await sink._is_idle.wait()
        assert sink.points_sent_total + sink.points_dropped_total == 1001

    assert _run(ScriptedTransport, use).points_dropped_total > 900


def test_drain_tells_a_late_refusal() -> None:
    """What flush finds out is an error of the drain, and a problem of the sink."""

    async def use(sink: Sink, _transport: ScriptedTransport) -> None:
        sink.put(failure())
        with pytest.raises(SinkError, match="refused"):
            await sink.drain()

    assert _run(lambda: ScriptedTransport(flush_error=_REFUSED), use).problem is _REFUSED


def test_drain_of_an_idle_sink() -> None:
    """Nothing put, nothing to wait for."""

    async def use(sink: Sink, _transport: ScriptedTransport) -> None:
        await sink.drain()

    assert _run(ScriptedTransport, use).points_sent_total == 0


def test_hosts_that_leave_are_ended() -> None:
    """A host that left, or is called otherwise now, has its series ended; others go on untouched."""

    async def use(sink: Sink, transport: ScriptedTransport) -> None:
        sink.put(sample(process(7)))
        sink.put(sample(process(8), host=_DB))
        await sink.drain()
        transport.sent.clear()
        sink.replace_hosts(FleetNames("p", ["web01"]), {WEB}, 0)
        await sink.drain()
        (text,) = transport.sent
        assert b"p.process.db1.nginx.8.rss_bytes:0|g\n" in text
        assert b"web01" not in text
        transport.sent.clear()
        sink.replace_hosts(FleetNames("q", ["web01"]), {WEB}, 0)
        sink.put(failure())
        await sink.drain()
        assert b"p.host.web01.up:0|g\n" in transport.sent[0]
        assert transport.sent[1:] == [b"q.host.web01.up:0|g\n"]

    _run(ScriptedTransport, use)


def test_a_host_that_never_answered_leaves_without_a_word() -> None:
    """Where only `up` was ever sent there is nothing to end."""

    async def use(sink: Sink, transport: ScriptedTransport) -> None:
        sink.put(failure(host=_DB))
        await sink.drain()
        transport.sent.clear()
        sink.replace_hosts(FleetNames("p", ["web01"]), {WEB}, 0)
        await sink.drain()
        assert transport.sent == []

    _run(ScriptedTransport, use)


def test_a_bug_in_a_transport_surfaces() -> None:
    """What is no SinkError is ours, and ends the runner with a traceback."""

    async def main() -> None:
        transport = ScriptedTransport()
        sink = _sink(transport)
        transport.script = [KeyError("bug")]  # type: ignore[list-item]
        sink.put(failure())
        await sink.run()

    with pytest.raises(KeyError):
        asyncio.run(main())


def test_close_closes_the_transport() -> None:
    """The transport is the sink's to let go of."""

    async def use(sink: Sink, transport: ScriptedTransport) -> None:
        await sink.close()
        assert transport.is_closed

    _run(ScriptedTransport, use)
