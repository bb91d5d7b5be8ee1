import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from fleetmem.errors import PluginBugError, SinkError
from fleetmem.model import CollectorStats, Counter, Outcome
from fleetmem.sinks.plugin import SinkWriter
from fleetmem.sinks.queue import writer as module
from fleetmem.sinks.queue.writer import WriterSink
from fleetmem.telemetry.bugs import Bugs
from unit.builders import failure, process, sample

_STATS = CollectorStats("ops1", 5.0, (Counter("", "hosts_up", 1),))


class ScriptedWriter(SinkWriter):
    """Does with each call what the script says: an error is raised, anything else is success."""

    address = "somewhere"

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.always: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.written: list[object] = []
        self.threads: set[str] = set()
        self.is_closed = False

    def write(self, outcomes: Sequence[Outcome]) -> int:
        """Follows the script."""
        return self._take(list(outcomes))

    def write_stats(self, stats: CollectorStats) -> int:
        """Likewise."""
        return self._take([stats])

    def _take(self, items: list[object]) -> int:
        self.threads.add(threading.current_thread().name)
        self.gate.wait(10)
        if error := self.script.pop(0) if self.script else self.always:
            raise error
        self.written += items
        return 10 * len(items)

    def close(self) -> None:
        """Closes it."""
        self.is_closed = True


def _run(sink: WriterSink, use: Callable[[Bugs], Awaitable[None]]) -> Bugs:
    """Uses a sink that runs as a sampler runs it; returns the bugs that there were."""
    bugs = Bugs()

    async def main() -> None:
        running = asyncio.create_task(bugs.keep_running("sink x", sink.run))
        try:
            async with asyncio.timeout(20):
                await use(bugs)
        finally:
            running.cancel()
            await sink.close()

    asyncio.run(main())
    return bugs


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LAST_RETRY_SECONDS", 0.02)


def test_all_is_written_in_order_in_one_thread() -> None:
    """Outcomes and counters; what they come to is counted, and the writer is closed in the end."""
    writer = ScriptedWriter()
    sink = WriterSink("x", writer)
    items: list[Outcome] = [sample(process(1)), failure(), sample(process(2))]

    async def use(_bugs: Bugs) -> None:
        sink.put(items[0])
        sink.put(items[1])
        sink.put_stats(_STATS)
        sink.put(items[2])
        await sink.drain()

    assert _run(sink, use).total == 0
    assert writer.written == [*items[:2], _STATS, items[2]]
    assert writer.threads == {"sink x"}
    assert writer.is_closed
    stats = sink.stats()
    assert (stats.points_sent_total, stats.sent_bytes_total, stats.points_dropped_total) == (4, 40, 0)
    assert (stats.queue_points, stats.failing, sink.address) == (0, 0, "somewhere")


def test_a_backend_that_is_away_gets_the_same_outcomes_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it is away: nothing is lost, doubled or out of order. That it is away, and back, is logged once."""
    monkeypatch.setattr(module, "GIVE_UP_SECONDS", 0.0)  # for a drain
    writer = ScriptedWriter(*[SinkError("refused")] * 3)
    sink = WriterSink("x", writer)
    outcomes = [sample(process(pid)) for pid in range(1, 4)]

    async def use(_bugs: Bugs) -> None:
        writer.gate.clear()
        sink.put(outcomes[0])
        await asyncio.sleep(0.05)  # it is being written
        for outcome in outcomes[1:]:
            sink.put(outcome)
        writer.gate.set()
        while len(writer.written) < len(outcomes):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)

    _run(sink, use)
    assert writer.written == outcomes
    assert (sink.stats().retries_total, sink.stats().failing, sink.problem) == (3, 0, None)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "sink x: refused; trying again",
        "sink x works again; 0 outcomes were dropped since the start",
    ]


def test_the_oldest_outcomes_give_way() -> None:
    """What waits is bounded in rows: a writer that hangs fills no memory, and what is dropped is counted."""
    writer = ScriptedWriter()
    sink = WriterSink("x", writer, max_waiting_rows=10)
    outcomes = [sample(process(1), process(2)) for _ in range(8)]  # of three rows each

    async def use(_bugs: Bugs) -> None:
        writer.gate.clear()
        sink.put(outcomes[0])
        await asyncio.sleep(0.05)  # it is being written
        for outcome in outcomes[1:]:
            sink.put(outcome)
        assert sink.stats().queue_points == 3
        writer.gate.set()
        await sink.drain()

    _run(sink, use)
    assert len(writer.written) == 4
    assert writer.written[1:] == outcomes[5:]
    assert (sink.stats().points_sent_total, sink.stats().points_dropped_full_total) == (4, 4)


@pytest.mark.slow
def test_a_writer_that_hangs_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as failing meanwhile; no second call is made beside the first, and nothing is lost."""
    monkeypatch.setattr(module, "_HANGS_SECONDS", 0.05)
    writer = ScriptedWriter()
    sink = WriterSink("x", writer)
    outcomes = [sample(process(1)), sample(process(2))]

    async def use(_bugs: Bugs) -> None:
        writer.gate.clear()
        sink.put(outcomes[0])
        await asyncio.sleep(0.3)
        sink.put(outcomes[1])
        assert "has not returned for 0.05 s" in str(sink.problem)
        assert sink.stats().failing == 1
        writer.gate.set()
        await sink.drain()

    _run(sink, use)
    assert writer.written == outcomes
    assert sink.problem is None


@pytest.mark.slow
def test_a_bug_of_the_writer_costs_what_it_was_to_write(caplog: pytest.LogCaptureFixture) -> None:
    """It is noted as the plug-in's, with its traceback; what comes later is written."""
    writer = ScriptedWriter(KeyError("pid"))
    sink = WriterSink("x", writer)
    later = sample(process(2))

    async def use(bugs: Bugs) -> None:
        sink.put(sample(process(1)))
        with pytest.raises(SinkError, match="a bug in the plug-in: KeyError: 'pid'"):
            await sink.drain()
        while not bugs.total:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        sink.put(later)
        await sink.drain()

    assert _run(sink, use).total == 1
    assert writer.written == [later]
    assert (sink.stats().points_dropped_late_total, sink.stats().points_sent_total, sink.problem) == (1, 1, None)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.getMessage().startswith("a bug in a plug-in, please report it to its author")
    assert record.exc_info
    assert isinstance(record.exc_info[1], PluginBugError)
    assert isinstance(record.exc_info[1].__cause__, KeyError)


def test_a_drain_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that stays away is told, with what it costs."""
    monkeypatch.setattr(module, "GIVE_UP_SECONDS", 0.1)
    writer = ScriptedWriter()
    writer.always = SinkError("refused")
    sink = WriterSink("x", writer)

    async def use(_bugs: Bugs) -> None:
        for _ in range(5):
            sink.put(sample(process(1)))
        with pytest.raises(SinkError, match=r"sink x: refused \(5 outcomes were not delivered\)"):
            await sink.drain()

    _run(sink, use)
    assert sink.stats().points_dropped_late_total == 5


def test_the_protocol_of_plug_ins_is_light() -> None:
    """Who writes a plug-in imports neither ssh, nor an event loop, nor what checks the configuration."""
    heavy = ("asyncio", "asyncssh", "pydantic", "rich", "typer", "uvloop", "fleetmem.wiring", "fleetmem.config")
    code = f"import sys, fleetmem.sinks.plugin; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
