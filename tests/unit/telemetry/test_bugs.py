"""A bug of fleetmem costs one host its outcome, or one sink its points; everything else goes on."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from fleetmem.collector import Collector
from fleetmem.config import load
from fleetmem.connect.link import Link, ProbeAnswer, ProbeChannel, ProbeRequest
from fleetmem.errors import Kind, Stage
from fleetmem.model import CollectorStats, Failure, Host, Outcome, Sample, Shaped, Snapshot
from fleetmem.probe.dialogue import Dialogue
from fleetmem.probe.frame import FrameReader
from fleetmem.probe.script import ProbeKind, Processes
from fleetmem.sampling.sampler import Sampler
from fleetmem.sampling.schedule import Grid
from fleetmem.shape.limits import Limits
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.sink import Sink, SinkStats
from fleetmem.telemetry.bugs import MOST_TRACEBACKS, Bugs
from fleetmem.wiring.fleet import build
from fleetmem.wiring.fleet_spec import FleetSpec

_HOSTS = tuple(Host(f"web{number:02}", "127.0.0.1") for number in range(20))
_ODD = _HOSTS[7]
_FRAME = b"BEGIN fleetmem/1 1\nM 1000 500 0 0\nK 0 b\nP 1 0 8 4 4 4 0 init\nEND 1 0 1\n"
_CYCLES = 5


class _Link:
    """Answers, or has a bug."""

    def __init__(self, host: Host, bug: Exception | None = None) -> None:
        self.host = host
        self.bug = bug
        self.closed = 0
        self.connects_total = 1

    async def ask(self, _make_request: Callable[[int], bytes], _make_first: Callable[[int], bytes]) -> ProbeAnswer:
        await asyncio.sleep(0)
        if self.bug:
            raise self.bug
        return ProbeAnswer(time.time(), _FRAME)

    async def close(self) -> None:
        self.closed += 1


class _OddDialogue(Dialogue):
    """Has a bug."""

    def _parse_first(self, frame: bytes, asked_unix_seconds: float) -> Snapshot:
        raise KeyError("P")


class _OddShaper(Shaper):
    """Has a bug."""

    def shape(self, snapshot: Snapshot, taken_unix_seconds: float) -> Shaped:
        """Fails."""
        raise ValueError("shape")


class _Sink:
    """Keeps what it is given, and fails in the methods that it is told to."""

    def __init__(self, name: str, *broken: str) -> None:
        self.name = self.address = name
        self.broken = broken
        self.problem = None
        self.outcomes: list[Outcome] = []
        self.shipped = 0
        self.replaced = 0
        self.runs = 0
        self.is_drained = self.is_closed = False

    def _meet(self, method: str) -> None:
        if method in self.broken:
            raise IndexError(method)

    async def run(self) -> None:
        self.runs += 1
        self._meet("run")
        await asyncio.sleep(60)

    def put(self, outcome: Outcome) -> None:
        self._meet("put")
        self.outcomes.append(outcome)

    def put_stats(self, _stats: CollectorStats) -> None:
        self._meet("put_stats")
        self.shipped += 1

    def replace_hosts(self, _names: FleetNames, _hosts: set[Host], _unix_seconds: float) -> None:
        self._meet("replace_hosts")
        self.replaced += 1

    def stats(self) -> SinkStats:
        self._meet("stats")
        return SinkStats(points_sent_total=len(self.outcomes))

    async def drain(self) -> None:
        self._meet("drain")
        self.is_drained = True

    async def close(self) -> None:
        self._meet("close")
        self.is_closed = True


class _World:
    """A sampler of 20 hosts behind fakes, of which one has a bug."""

    def __init__(
        self,
        *sinks: _Sink,
        make_dialogue: Callable[[Host], Dialogue] | None = None,
        make_shaper: Callable[[Host], Shaper] | None = None,
        link_bug: Exception | None = None,
        interval_seconds: float = 0.05,
    ) -> None:
        self.links: list[_Link] = []
        self.outcomes: list[Outcome] = []
        self.parsers = self.shapers = 0
        self._link_bug = link_bug
        self._make_dialogue = make_dialogue or (lambda _host: Dialogue(ProbeKind.STATUS, Processes.USER))
        self._make_shaper = make_shaper or (lambda host: Shaper(host, Limits()))
        settings = load(None, {"run": {"interval_seconds": 1}})
        spec = FleetSpec(settings, _HOSTS, tuple(host.name for host in _HOSTS), settings.ssh.reach(), 0)
        self.collector = Collector(
            make_link=self._link,
            make_dialogue=self._dialogue,
            make_shaper=self._shaper,
            sinks=[cast("Sink", sink) for sink in sinks],
        )
        self.fleet = replace(build(spec, lambda _path: None), collector=self.collector)
        self.grid = Grid.of(interval_seconds, _HOSTS)

    def _link(self, host: Host) -> Link:
        self.links.append(_Link(host, self._link_bug if host == _ODD else None))
        return cast("Link", self.links[-1])

    def _dialogue(self, host: Host) -> Dialogue:
        self.parsers += host == _ODD
        return self._make_dialogue(host)

    def _shaper(self, host: Host) -> Shaper:
        self.shapers += host == _ODD
        return self._make_shaper(host)

    async def sample(self, on_outcome: Callable[[Outcome], None] | None = None) -> Sampler:
        """Samples 5 cycles; returns the sampler, which has stopped."""
        enough = asyncio.Event()

        def take(outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            if len(self.outcomes) >= _CYCLES * len(_HOSTS):
                enough.set()
            if on_outcome:
                on_outcome(outcome)

        sampler = Sampler(self.fleet, self.grid, take)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(sampler.run())
            await enough.wait()
            await sampler.stop()
        return sampler

    def of_odd(self) -> list[Outcome]:
        """Returns the outcomes of the host that has the bug."""
        return [outcome for outcome in self.outcomes if outcome.host == _ODD]


def _tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        vars(record)["place"]
        for record in caplog.records
        if record.name == "fleetmem.telemetry.bugs" and record.exc_info
    ]


def test_a_dialogue_that_fails_for_one_host(caplog: pytest.LogCaptureFixture) -> None:
    """In each of 5 cycles 19 hosts are sampled, one is `internal`; one traceback, and 5 bugs are counted."""
    world = _World(
        make_dialogue=lambda host: (
            _OddDialogue(ProbeKind.STATUS, Processes.USER)
            if host == _ODD
            else Dialogue(ProbeKind.STATUS, Processes.USER)
        )
    )
    asyncio.run(world.sample())
    counts = Counter(outcome.host for outcome in world.outcomes if isinstance(outcome, Sample))
    odd = world.of_odd()
    assert set(counts) == set(_HOSTS) - {_ODD}
    assert min(counts.values()) >= _CYCLES - 1
    assert all(isinstance(each, Failure) and (each.stage, each.kind) == (Stage.PARSE, Kind.INTERNAL) for each in odd)
    assert len(odd) in range(_CYCLES - 1, _CYCLES + 2)
    assert world.collector.bugs.total == len(odd)
    assert _tracebacks(caplog) == ["host web07"]
    assert world.parsers >= len(odd)  # each made anew: the one before may be half changed
    assert len([link for link in world.links if link.host == _ODD]) == 1  # its connection is as it should be


def test_a_shaper_that_fails_is_made_anew() -> None:
    """The host's outcome says so, and the shaper, which may be half changed, is not used again."""
    world = _World(make_shaper=lambda host: (_OddShaper if host == _ODD else Shaper)(host, Limits()))
    asyncio.run(world.sample())
    odd = world.of_odd()
    assert all(isinstance(each, Failure) and (each.stage, each.kind) == (Stage.SHAPE, Kind.INTERNAL) for each in odd)
    assert world.shapers >= len(odd) >= _CYCLES - 1


def test_a_link_that_fails_is_made_anew() -> None:
    """It is closed, and the next sample begins with another one."""
    world = _World(link_bug=RuntimeError("link"))
    asyncio.run(world.sample())
    links = [link for link in world.links if link.host == _ODD]
    assert len(links) == len(world.of_odd())
    assert all(link.closed == 1 for link in links)
    assert {each.kind for each in world.of_odd() if isinstance(each, Failure)} == {Kind.INTERNAL}


def test_what_cannot_be_made_is_one_hosts_failure() -> None:
    """Also a bug before the host is asked."""

    def make(host: Host) -> Dialogue:
        if host == _ODD:
            raise AttributeError("make")
        return Dialogue(ProbeKind.STATUS, Processes.USER)

    world = _World(make_dialogue=make)
    asyncio.run(world.sample())
    assert {each.kind for each in world.of_odd() if isinstance(each, Failure)} == {Kind.INTERNAL}


@pytest.mark.parametrize("method", ["put", "put_stats", "replace_hosts", "run", "drain", "close", "stats"])
def test_a_bug_in_one_sink(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """It changes no outcome and stops no other sink; it is counted, and logged once."""
    broken, well = _Sink("broken", method), _Sink("well")

    async def main() -> None:
        sampler = await world.sample()
        sampler.put_stats(CollectorStats("ops1", 0.0, ()))
        sampler.put_stats(CollectorStats("ops1", 0.0, ()))
        assert [state.name for state in sampler.report().sinks] == ["broken", "well"]
        assert sampler.report().totals["bugs_total"] == world.collector.bugs.total

    world = _World(broken, well)
    world.fleet.collector.sinks[:] = [cast("Sink", broken), cast("Sink", well)]
    world.fleet.sinks.clear()
    asyncio.run(main())
    assert all(isinstance(outcome, Sample) for outcome in world.outcomes)
    assert well.outcomes == world.outcomes
    assert (well.shipped, well.runs, well.is_drained, well.is_closed) == (2, 1, True, True)
    if method != "replace_hosts":
        assert world.collector.bugs.total >= 1
        assert len(_tracebacks(caplog)) == 1


def test_replacing_hosts_goes_on_behind_a_broken_sink() -> None:
    """A refresh of the inventory reaches every other sink."""
    broken, well = _Sink("broken", "replace_hosts"), _Sink("well")

    async def main() -> None:
        sampler = Sampler(world.fleet, world.grid)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(sampler.run())
            await asyncio.sleep(0.01)
            await sampler.take(world.fleet, world.grid)
            await sampler.stop()

    world = _World(broken, well)
    asyncio.run(main())
    assert well.replaced == 1
    assert world.collector.bugs.total == 1


@pytest.mark.slow
def test_a_sink_whose_work_ends_with_a_bug_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time after a longer wait."""
    monkeypatch.setattr("fleetmem.telemetry.bugs._FIRST_WAIT_SECONDS", 0.05)
    broken = _Sink("broken", "run")
    world = _World(broken, interval_seconds=0.2)
    asyncio.run(world.sample())
    assert 3 <= broken.runs <= 6


def test_a_bug_in_the_output() -> None:
    """Counted; all hosts are sampled on, and their outcomes counted."""

    def fail(_outcome: Outcome) -> None:
        raise TypeError("output")

    async def main() -> None:
        sampler = await world.sample(fail)
        assert sampler.report().totals["bugs_total"] == len(world.outcomes)

    world = _World()
    asyncio.run(main())


def test_a_strict_sampler_ends_with_a_bug() -> None:
    """For tests: what nobody expects fails them."""
    world = _World(link_bug=RuntimeError("link"))
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(Sampler(world.fleet, world.grid, is_strict=True).run())
    assert caught.group_contains(RuntimeError)


def test_tracebacks_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """One for each place and type, with a message that is cut, and so many in all; the rest is counted."""
    bugs = Bugs()
    for _ in range(3):
        bugs.note("host web01", KeyError("x" * 10**6))
        bugs.note("host web01", ValueError("y"))
    assert len(_tracebacks(caplog)) == 2
    assert max(len(record.getMessage()) for record in caplog.records) < 2000
    for number in range(2 * MOST_TRACEBACKS):
        bugs.note(f"host db{number}", KeyError("x"))
    assert len(_tracebacks(caplog)) == MOST_TRACEBACKS
    assert bugs.total == 6 + 2 * MOST_TRACEBACKS
    assert caplog.records[-1].levelno == logging.ERROR


def test_a_bug_while_bytes_come_in_surfaces_where_the_host_is_asked() -> None:
    """To asyncssh it would be a lost connection."""

    class Reader(FrameReader):
        def feed(self, data: bytes) -> bytes | None:
            raise IndexError("feed")

    async def main() -> None:
        channel = ProbeChannel(Reader(), ProbeRequest(1, b"sample 1\n"))
        channel.connection_made(cast("object", _Channel()))  # type: ignore[arg-type]
        asking = asyncio.create_task(
            channel.ask(ProbeRequest(1, b"")) if channel.first is None else _ask_first(channel)
        )
        await asyncio.sleep(0)
        channel.data_received(b"x", None)
        with pytest.raises(IndexError):
            await asking
        assert channel.ended
        assert channel.ended.kind is Kind.INTERNAL

    async def _ask_first(channel: ProbeChannel) -> ProbeAnswer:
        assert channel.first
        return await channel.ask(channel.first)

    asyncio.run(main())


class _Channel:
    """Takes what is written."""

    def write(self, _data: bytes) -> None:
        """Takes it."""

    def close(self) -> None:
        """Is closed."""
