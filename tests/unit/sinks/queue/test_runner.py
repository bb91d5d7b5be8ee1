import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleetmem.errors import SinkError
from fleetmem.model import CollectorStats, Counter, Host
from fleetmem.sinks import formats
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.queue import runner
from fleetmem.sinks.queue.backlog import BATCH_BYTES, Bounds, Item
from fleetmem.sinks.queue.runner import Options, QueuedSink
from fleetmem.sinks.queue.spool import Spool
from fleetmem.sinks.series import Retire, SeriesEncoding
from unit.builders import WEB, failure, process, sample

_DB = Host("db1", "10.0.0.2")
_REFUSED = SinkError("statsd x:1: refused")


class ScriptedTransport:
    """Does with each text what the script says: an error is raised, anything else is success."""

    def __init__(self, *script: SinkError | None, flush_error: SinkError | None = None) -> None:
        self.address = "x:1"
        self.datagrams_total = 0
        self.bytes_total = 0
        self.batch_bytes = BATCH_BYTES
        self.refuses_late = True
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

    def unconfirmed(self) -> list[bytes]:
        """Nothing is kept."""
        return []

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

    def time(self) -> float:
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


def _sink(transport: ScriptedTransport, options: Options | None = None, *, is_graphite: bool = False) -> QueuedSink:
    encoding = SeriesEncoding(formats.statsd_plain, Retire.ZERO)
    if is_graphite:
        encoding = SeriesEncoding(formats.carbon_plain, Retire.NONE, formats.with_time)
    return QueuedSink("x", encoding, transport, FleetNames("p", ["web01", "db1"]), options)


def _stats(measure: str = "hosts_up", unix_seconds: float = 1.0, sink: str = "") -> CollectorStats:
    return CollectorStats("x", unix_seconds, (Counter(sink, measure, 1),))


def _totals(sink: QueuedSink) -> tuple[int, int, int]:
    """Returns points sent, points dropped, retries."""
    stats = sink.stats()
    return stats.points_sent_total, stats.points_dropped_total, stats.retries_total


def _run(
    make: Callable[[], ScriptedTransport], use: Callable[[QueuedSink, ScriptedTransport], Awaitable[None]]
) -> QueuedSink:
    """Runs a sink while it is used."""

    async def main() -> QueuedSink:
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

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        sink.put(sample(process(7)))
        sink.put(failure(host=_DB))
        sink.put_stats(_stats())
        await sink.drain()
        names = [line.split(b":")[0] for line in b"".join(transport.sent).splitlines()]
        assert names[0] == b"p.process.web01.nginx.7.rss_bytes"
        assert names[-2:] == [b"p.host.db1.up", b"p.collector.x.hosts_up"]

    sink = _run(ScriptedTransport, use)
    assert _totals(sink) == (13, 0, 0)
    assert sink.problem is None
    assert sink.stats().series == 11


def test_the_transport_knows_the_backlog() -> None:
    """It is told how many bytes wait behind what it sends: a long queue may be sent faster."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        for _ in range(5000):
            sink.put(failure())
        await sink.drain()
        assert len(transport.sent) > 1
        rest = [len(b"".join(transport.sent[number + 1 :])) for number in range(len(transport.sent))]
        assert transport.backlogs == rest

    _run(ScriptedTransport, use)


def test_text_gets_the_time_of_the_sample() -> None:
    """Where the protocol carries a time it is the outcome's, not that of sending."""

    async def main() -> list[bytes]:
        transport = ScriptedTransport()
        sink = _sink(transport, is_graphite=True)
        sink.put(failure())
        sink.put_stats(_stats(unix_seconds=5.9, sink="y"))
        running = asyncio.create_task(sink.run())
        await sink.drain()
        running.cancel()
        return transport.sent

    assert asyncio.run(main()) == [b"p.host.web01.up 0 1700000000\np.collector.x.y.hosts_up 1 5\n"]


def test_a_refused_text_is_tried_again(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Two refusals, then success: nothing is lost, the trouble is logged once."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        sink.put(failure())
        await sink.drain()
        assert transport.tried == [b"p.host.web01.up:0|g\n"] * 3

    sink = _run(lambda: ScriptedTransport(_REFUSED, _REFUSED), use)
    assert _totals(sink) == (1, 0, 2)
    assert caplog.messages == ["statsd x:1: refused; trying again"]
    assert clock.now_seconds == 1000 + 0.5 + 1  # twice as long each time


def test_another_problem_is_logged_too(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """When the reason changes, that is news."""
    other = SinkError("statsd x:1: no route")

    async def use(sink: QueuedSink, _transport: ScriptedTransport) -> None:
        sink.put(failure())
        await sink.drain()

    _run(lambda: ScriptedTransport(_REFUSED, other, _REFUSED), use)
    assert [message.partition(";")[0] for message in caplog.messages] == [str(_REFUSED), str(other), str(_REFUSED)]
    assert clock.now_seconds > 1000


def test_it_gives_up_and_recovers(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """After 5 s of refusals points are dropped and counted; back again, it is said once."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        transport.always = _REFUSED
        for _ in range(3):
            sink.put(failure())
        with pytest.raises(SinkError, match=r"refused \(3 points were not delivered\)"):
            await sink.drain()
        assert _totals(sink)[1] == 3
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
    assert _totals(sink)[:2] == (4, 3)
    assert _totals(sink)[2] == 3  # after 0.5, 1.5 and 3.5 s; not all of the next wait is left
    recovered = [message for message in caplog.messages if "answers again" in message]
    assert recovered == ["x x:1 answers again after 5 s; 3 points were dropped since the start"]


async def _delivered(sink: QueuedSink) -> None:
    await sink._is_idle.wait()


def test_one_success_proves_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """UDP reports a refusal one datagram late: success and refusal in turn are one trouble."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        for _ in range(20):
            transport.script = [None, _REFUSED]
            sink.put(failure())
            await _delivered(sink)
            sink.put(failure())
            await _delivered(sink)
        assert sink.problem is _REFUSED

    sink = _run(ScriptedTransport, use)
    # The first one was sent before there was any trouble; the last one may have arrived: nobody knows yet.
    assert _totals(sink)[:2] == (1, 38)
    assert caplog.messages == ["statsd x:1: refused; trying again"]
    assert clock.now_seconds >= 1005


def test_one_success_after_a_pause_proves_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A single datagram that nobody refused, however late, is no recovery: the refusal follows it."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
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


def test_a_full_queue_drops_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    """The queue is bounded: what is dropped is the oldest, it is counted, and said once."""

    async def main() -> None:
        transport = ScriptedTransport()
        sink = _sink(transport, Options(bounds=Bounds(max_bytes=100)))
        for number in range(10):
            sink.put_stats(_stats(f"point{number}"))  # 25 bytes each as text
        assert _totals(sink)[1] == 6
        running = asyncio.create_task(sink.run())
        await sink._is_idle.wait()
        running.cancel()
        assert re.findall(rb"point\d", b"".join(transport.sent)) == [b"point6", b"point7", b"point8", b"point9"]
        assert _totals(sink)[0] == 4

    asyncio.run(main())
    assert len(caplog.messages) == 1


def test_a_queue_is_bounded_in_points_too() -> None:
    """Many short lines are no way around the bound."""
    sink = _sink(ScriptedTransport(), Options(bounds=Bounds(max_points=3)))
    for _ in range(10):
        sink.put_stats(_stats())
    assert (sink.stats().queue_points, sink.stats().points_dropped_full_total) == (3, 7)


def test_a_stuck_transport_does_not_hold_up_put() -> None:
    """While a send hangs, outcomes are taken at once and memory stays bounded."""

    async def main() -> None:
        transport = ScriptedTransport()
        sink = _sink(transport, Options(bounds=Bounds(max_bytes=1000)))
        running = asyncio.create_task(sink.run())
        transport.gate.clear()
        sink.put(failure())
        await transport.began.wait()
        for _ in range(1000):
            sink.put(failure())
        assert len(transport.tried) == 1
        assert sink.stats().queue_bytes <= 1000
        transport.gate.set()
        await sink._is_idle.wait()
        assert sum(_totals(sink)) == 1001
        assert _totals(sink)[1] > 900
        running.cancel()

    asyncio.run(main())


def test_outcomes_that_wait_travel_together() -> None:
    """What came while the sink was busy is one send: fuller datagrams, fewer writes."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        for _ in range(50):
            sink.put(failure())
        await sink.drain()
        assert len(transport.sent) == 1

    assert _totals(_run(ScriptedTransport, use)) == (50, 0, 0)


def test_a_transport_gets_as_much_at_once_as_it_wants() -> None:
    """A file takes more than a socket: of what waits it gets up to that many bytes, whole outcomes, at least one."""

    async def main(batch_bytes: int) -> list[int]:
        transport = ScriptedTransport()
        transport.batch_bytes = batch_bytes
        sink = _sink(transport)
        for _ in range(6):
            sink.put(failure())
        running = asyncio.create_task(sink.run())
        await sink.drain()
        running.cancel()
        return [text.count(b"\n") for text in transport.sent]

    length = len(b"fleetmem.host.web01.up:0|g\n")
    assert asyncio.run(main(1))[:2] == [1, 1]
    assert len(asyncio.run(main(length))) > len(asyncio.run(main(3 * length))) > 1
    assert len(asyncio.run(main(BATCH_BYTES))) == 1


def test_drain_tells_a_late_refusal() -> None:
    """What flush finds out is an error of the drain, and a problem of the sink."""

    async def use(sink: QueuedSink, _transport: ScriptedTransport) -> None:
        sink.put(failure())
        with pytest.raises(SinkError, match="refused"):
            await sink.drain()

    assert _run(lambda: ScriptedTransport(flush_error=_REFUSED), use).problem is _REFUSED


def test_drain_of_an_idle_sink() -> None:
    """Nothing put, nothing to wait for."""

    async def use(sink: QueuedSink, _transport: ScriptedTransport) -> None:
        await sink.drain()

    assert _totals(_run(ScriptedTransport, use)) == (0, 0, 0)


def test_hosts_that_leave_are_ended() -> None:
    """A host that left, or is called otherwise now, has its series ended; others go on untouched."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
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
        assert b"p.host.web01.up:0|g\nq.host.web01.up:0|g\n" in transport.sent[0]

    _run(ScriptedTransport, use)


def test_a_host_that_never_answered_leaves_without_a_word() -> None:
    """Where only `up` was ever sent there is nothing to end."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        sink.put(failure(host=_DB))
        await sink.drain()
        transport.sent.clear()
        sink.replace_hosts(FleetNames("p", ["web01"]), {WEB}, 0)
        await sink.drain()
        assert transport.sent == []

    _run(ScriptedTransport, use)


_ZERO = b"p.process.web01.nginx.7.rss_bytes:0|g\n"


def _zeros(transport: ScriptedTransport) -> int:
    """Returns how often nginx's 0 was sent; the text of each send is looked at and thrown away."""
    count = sum(text.count(_ZERO) for text in transport.sent)
    transport.sent.clear()
    return count


async def _cycles(sink: QueuedSink, count: int) -> None:
    """Lets so many cycles pass in which the host has no process."""
    for _ in range(count):
        sink.put(sample())
        await _delivered(sink)


@pytest.mark.slow
def test_a_host_that_left_is_ended_in_three_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    """No outcome of it comes any more: the sink sends its zeros, a cycle apart, and forgets it."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        sink._options = Options(cycle_seconds=0.05)
        sink.put(sample(process(7)))
        await _delivered(sink)
        sink.replace_hosts(FleetNames("p", ["db1"]), {_DB}, 0)
        await _delivered(sink)
        assert _zeros(transport) == 1
        await asyncio.sleep(0.5)
        assert _zeros(transport) == 2
        assert not sink._leaving
        assert sink.stats().series_retired_total == 11

    _run(ScriptedTransport, use)


def test_a_host_that_comes_back_lives() -> None:
    """A host that left and comes back, by another address say, gets no zeros for what it has."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        moved = Host("web01", "10.0.0.9")
        sink.put(sample(process(7), process(8, "sh")))
        await _delivered(sink)
        sink.replace_hosts(FleetNames("p", ["web01"]), {moved}, 0)
        await _delivered(sink)
        assert _zeros(transport) == 1
        for _ in range(3):
            sink.put(sample(process(7), host=moved))
            await _delivered(sink)
        assert b"p.process.web01.sh.8.rss_bytes:0|g\n" in transport.sent[-1]
        assert _zeros(transport) == 0

    _run(ScriptedTransport, use)


def test_a_stop_sends_the_zeros_of_later_cycles() -> None:
    """There are no later cycles: all three go before the end."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        sink.put(sample(process(7)))
        sink.put(sample())
        await sink.drain()
        assert _zeros(transport) == 3

    _run(ScriptedTransport, use)


@pytest.mark.parametrize("seconds", [5.0, 20.0, 300.0])
def test_zeros_that_were_dropped_are_sent_again(clock: Clock, seconds: float) -> None:
    """A process that ends while the backend is away is ended when that is back, however long that took."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        sink.put(sample(process(7)))
        await _delivered(sink)
        transport.always = _REFUSED
        begun = clock.now_seconds
        while clock.now_seconds < begun + seconds:
            sink.put(sample())
            await clock.sleep(1.0)
        assert _zeros(transport) == 0
        transport.always = None
        await _delivered(sink)
        transport.sent.clear()
        await _cycles(sink, 3)
        assert _zeros(transport) == 3
        await _cycles(sink, 6)
        assert _zeros(transport) <= 3
        await _cycles(sink, 1)
        assert _zeros(transport) == 0
        assert sink.stats().series_retired_total == 3

    _run(ScriptedTransport, use)


def test_zeros_that_a_full_queue_drops_are_sent_again() -> None:
    """As those that came too late."""

    async def main() -> None:
        transport = ScriptedTransport()
        sink = _sink(transport, Options(bounds=Bounds(max_points=40)))
        sink.put(sample(process(7)))
        for _ in range(20):
            sink.put(sample())
        assert sink.stats().points_dropped_full_total > 100
        async with asyncio.TaskGroup() as group:
            running = group.create_task(sink.run())
            await _delivered(sink)
            transport.sent.clear()
            await _cycles(sink, 3)
            assert _zeros(transport) == 3
            running.cancel()

    asyncio.run(main())


@pytest.mark.slow
def test_zeros_sent_before_a_refusal_are_sent_again() -> None:
    """A refusal tells of what was sent before it: zeros of the last seconds did not arrive, or nobody knows."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        sink.put(sample(process(7)))
        await _delivered(sink)
        await _cycles(sink, 5)
        assert _zeros(transport) == 3
        transport.script = [_REFUSED]
        sink.put(sample())
        await _delivered(sink)
        await _cycles(sink, 3)
        assert _zeros(transport) == 3

    _run(ScriptedTransport, use)


def test_zeros_of_a_host_that_left_are_sent_again(clock: Clock) -> None:
    """A host that leaves while the backend is away is ended when that is back."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        sink.put(sample(process(7)))
        await _delivered(sink)
        transport.always = _REFUSED
        sink.replace_hosts(FleetNames("p", ["db1"]), {_DB}, 0)
        sink.put_stats(_stats())
        while not sink.stats().points_dropped_late_total:
            await clock.sleep(1.0)
        transport.always = None
        transport.sent.clear()
        with pytest.raises(SinkError, match="points were not delivered"):
            await sink.drain()
        assert _zeros(transport) == 3

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


def test_a_spool_that_could_not_be_read_is_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails for a moment must not keep points of an earlier start until the backend is away."""
    spool = Spool(tmp_path / "spool", 10**6, 10**12)
    spool.append([Item(b"old\n", 1, 1.0)])
    first, errors = spool.first, [SinkError("disk I/O error")]
    monkeypatch.setattr(spool, "first", lambda max_bytes: _raise(errors.pop()) if errors else first(max_bytes))

    async def main() -> list[bytes]:
        transport = ScriptedTransport()
        encoding = SeriesEncoding(formats.carbon_plain, Retire.NONE, formats.with_time)
        sink = QueuedSink("x", encoding, transport, FleetNames("p", ["web01"]), spool=spool)
        async with asyncio.TaskGroup() as group, asyncio.timeout(60):
            running = group.create_task(sink.run())
            await _delivered(sink)
            assert not transport.sent
            sink.put(failure())
            await _delivered(sink)
            running.cancel()
        await sink.close()
        return transport.sent

    assert asyncio.run(main())[1:] == [b"old\n"]


def _raise(error: Exception) -> Any:
    raise error


def test_close_closes_the_transport() -> None:
    """The transport is the sink's to let go of."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        await sink.close()
        assert transport.is_closed

    _run(ScriptedTransport, use)


def test_the_collectors_own_series_end_too() -> None:
    """With another prefix, or where another server takes them now, they would stay frozen in StatsD."""

    async def use(sink: QueuedSink, transport: ScriptedTransport) -> None:
        sink.put_stats(_stats())
        await sink.drain()
        transport.sent.clear()
        sink.replace_hosts(FleetNames("p", ["web01"]), {WEB}, 0)
        assert not sink.stats().queue_points, "nothing changed for them"
        sink.replace_hosts(FleetNames("q", ["web01"]), {WEB}, 0)
        await sink.drain()
        assert transport.sent == [b"p.collector.x.hosts_up:0|g\n" * 3]
        sink.put_stats(_stats())
        sink.takes = lambda _name: False
        sink.replace_hosts(FleetNames("q", ["web01"]), {WEB}, 0)
        await sink.drain()
        assert transport.sent[-1].endswith(b"q.collector.x.hosts_up:0|g\n")
        assert sink.stats().series_retired_total == 2

    _run(ScriptedTransport, use)


class HungSpool:
    """A spool on a disk that has gone away."""

    points = text_bytes = 0
    oldest_unix_seconds = None

    def __init__(self) -> None:
        self.gate = threading.Event()

    def append(self, items: Sequence[Item]) -> int:
        """Hangs."""
        self.gate.wait(20)
        return 0

    def first(self, max_bytes: int) -> list[tuple[int, Item]]:
        """Returns nothing."""
        return []

    def remove(self, up_to_key: int) -> None:
        """Is not called."""

    def expire(self, now_unix_seconds: float) -> int:
        """Returns nothing."""
        return 0

    def close(self) -> None:
        """Is not reached."""


@pytest.mark.slow
def test_a_hung_disk_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Closing gives up on it, and says what is lost."""

    async def main() -> None:
        transport, spool = ScriptedTransport(), HungSpool()
        encoding = SeriesEncoding(formats.carbon_plain, Retire.NONE, formats.with_time)
        sink = QueuedSink("x", encoding, transport, FleetNames("p", ["web01"]), spool=spool)
        sink.put(failure())
        begun = time.monotonic()
        await sink.close()
        assert time.monotonic() - begun < 3
        assert transport.is_closed
        spool.gate.set()

    asyncio.run(main())
    assert caplog.messages == ["x:1: the disk does not answer; 1 points are lost"]
