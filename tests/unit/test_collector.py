import asyncio
import time
from collections.abc import Callable
from typing import cast

import pytest

from fleetmem.collector import Collector
from fleetmem.connect.link import Link, ProbeAnswer
from fleetmem.errors import HostError, Kind, Stage
from fleetmem.model import Failure, Host, Outcome, ProcessMemory, Sample, Shaped, Snapshot
from fleetmem.probe.dialogue import Dialogue
from fleetmem.probe.script import ProbeKind, Processes
from fleetmem.runtime.pattern import Pattern, end_process
from fleetmem.shape.limits import CommandGroup, Limits
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.sink import Sink

_FRAME = b"BEGIN fleetmem/1 1\nM 1000 500 0 0\nK 0 b\nP 1 0 8 4 4 4 0 init\nP 2 0 8 6 4 4 0 big\nEND 1 0 2\n"
_HOSTS = [Host(name, name) for name in ("a", "b", "c", "d")]


class FakeLink:
    """Answers with a frame, or fails; knows how many are at work at once."""

    at_work = 0
    most_at_work = 0

    def __init__(self, host: Host, answer: bytes | Exception | list[bytes]) -> None:
        self.host = host
        self.answer = answer
        self.requests: list[bytes] = []
        self.closed = 0
        self.connects_total = 2

    async def ask(self, make_request: Callable[[int], bytes], _make_first: Callable[[int], bytes]) -> ProbeAnswer:
        """Takes one turn of the event loop."""
        self.requests.append(make_request(len(self.requests) + 1))
        FakeLink.at_work += 1
        FakeLink.most_at_work = max(FakeLink.most_at_work, FakeLink.at_work)
        await asyncio.sleep(0)
        FakeLink.at_work -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, list):
            return ProbeAnswer(1234.5, self.answer.pop(0))
        return ProbeAnswer(1234.5, self.answer)

    async def close(self) -> None:
        """Counts."""
        self.closed += 1


class FakeSink:
    """Keeps what is put."""

    name = "fake"

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def put(self, outcome: Outcome) -> None:
        """Keeps it."""
        self.outcomes.append(outcome)


class WatchedShaper(Shaper):
    """Knows what it was told."""

    def __init__(self, host: Host, limits: Limits) -> None:
        super().__init__(host, limits)
        self.taken: list[float] = []
        self.closed = 0

    def shape(self, snapshot: Snapshot, taken_unix_seconds: float) -> Shaped:
        """Notes the time."""
        self.taken.append(taken_unix_seconds)
        return super().shape(snapshot, taken_unix_seconds)

    def close(self) -> None:
        """Counts."""
        self.closed += 1


class Fleet:
    """A collector over fake links and sinks."""

    def __init__(
        self,
        answers: dict[str, bytes | Exception | list[bytes]] | None = None,
        limits: Limits | None = None,
        *,
        is_strict: bool = True,
    ) -> None:
        self.answers = answers or {}
        self.limits = limits or Limits()
        self.links: dict[Host, FakeLink] = {}
        self.shapers: dict[Host, WatchedShaper] = {}
        self.sinks = [FakeSink(), FakeSink()]
        FakeLink.at_work = FakeLink.most_at_work = 0
        self.collector = Collector(
            make_link=self._make_link,
            make_dialogue=lambda _host: Dialogue(ProbeKind.STATUS, Processes.USER),
            make_shaper=self._make_shaper,
            sinks=[cast("Sink", sink) for sink in self.sinks],
            is_strict=is_strict,
        )

    def _make_link(self, host: Host) -> Link:
        self.links[host] = FakeLink(host, self.answers.get(host.name, _FRAME))
        return cast("Link", self.links[host])

    def _make_shaper(self, host: Host) -> Shaper:
        self.shapers[host] = WatchedShaper(host, self.limits)
        return self.shapers[host]

    def collect(self, at_once: int = 10) -> tuple[list[Host], list[Outcome]]:
        """Runs one cycle; returns which hosts were begun and all outcomes."""
        started: list[Host] = []
        outcomes: list[Outcome] = []
        asyncio.run(self.collector.collect(_HOSTS, at_once, started.append, outcomes.append))
        return started, outcomes


_HEAD_2 = b"M 1000000 1 0 0 0\nK 0 boot\nS - - - -\nU 1.00\n"
_ROW_2 = b"N 0 7 0 9 0 0 8 4 4 4 0 1 0 sh\n"


def test_a_frame_that_does_not_add_up_is_asked_for_again() -> None:
    """In the same slot and with everything: it is one outcome, and the frame that was wrong is never data."""
    frames = [
        b"BEGIN fleetmem/2 1 0\n" + _HEAD_2 + _ROW_2 + b"END 1 0 1 4 8 7\n",
        b"BEGIN fleetmem/2 2 1\n" + _HEAD_2 + b"P 0 8 5 5 4 0 1 0\nEND 2 0 1 6 8 7\n",
        b"BEGIN fleetmem/2 3 0\n" + _HEAD_2 + _ROW_2.replace(b" 8 4 4 ", b" 8 6 6 ") + b"END 3 0 1 6 8 7\n",
    ]
    fleet = Fleet({_HOSTS[0].name: frames})

    async def sample_twice() -> list[Outcome]:
        return [await fleet.collector.sample(_HOSTS[0]) for _ in range(2)]

    first, second = asyncio.run(sample_twice())
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert [row.rss_bytes for row in second.shaped.processes] == [6 * 1024]
    assert fleet.collector.frames_resynced_total == 1
    assert fleet.links[_HOSTS[0]].requests == [
        b"sample 1 status user\n",
        b"sample 2 status user 1\n",
        b"sample 3 status user 0\n",
    ]
    assert [len(sink.outcomes) for sink in fleet.sinks] == [2, 2]


def test_a_long_frame_that_does_not_add_up_keeps_nobody_waiting() -> None:
    """While its host is asked again the turn is others'; what comes then is measured and charged as any long frame."""
    rows = b"".join(b"N %d %d 0 9 0 0 8 4 4 4 0 1 0 %s\n" % (slot, slot + 1, b"x" * 60) for slot in range(5000))
    begin = b"BEGIN fleetmem/2 %d 0\n" + _HEAD_2.replace(b"%", b"%%") + rows
    wrong = [begin % number + b"END %d 0 5000 1 1 1\n" % number for number in (1, 2)]
    fleet = Fleet({_HOSTS[0].name: wrong})
    locked: list[bool] = []
    ask = FakeLink.ask

    async def look(link: FakeLink, *makers: Callable[[int], bytes]) -> ProbeAnswer:
        locked.append(fleet.collector.work.long_frames.locked())
        return await ask(link, *makers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeLink, "ask", look)
        charged: list[float] = []
        patch.setattr(fleet.collector.work, "charge", lambda _host, seconds: charged.append(seconds))
        assert isinstance(asyncio.run(fleet.collector.sample(_HOSTS[0])), Failure)
    assert locked == [False, False]
    assert len(charged) == 2
    assert all(seconds > 0 for seconds in charged)
    assert not fleet.collector.work.long_frames.locked()


def test_a_host_that_never_adds_up_fails() -> None:
    """Once more in its slot, and no further: an outcome says what was wrong."""
    wrong = b"BEGIN fleetmem/2 1 0\n" + _HEAD_2 + _ROW_2 + b"END 1 0 1 4 8 8\n"
    fleet = Fleet({_HOSTS[0].name: [wrong, wrong.replace(b" 1 0\n", b" 2 0\n").replace(b"END 1", b"END 2")]})
    outcome = asyncio.run(fleet.collector.sample(_HOSTS[0]))
    assert isinstance(outcome, Failure)
    assert outcome.kind is Kind.BAD_FRAME
    assert "sums" in outcome.message


def test_a_host_all_the_way() -> None:
    """Ask, parse, shape, put: the sample is dated when the host was asked, and every sink has it."""
    fleet = Fleet(limits=Limits(top=1))
    outcome = asyncio.run(fleet.collector.sample(_HOSTS[0]))
    assert isinstance(outcome, Sample)
    assert (outcome.host, outcome.taken_unix_seconds, outcome.received_bytes) == (_HOSTS[0], 1234.5, len(_FRAME))
    assert [process.command for process in outcome.shaped.processes] == ["big"]
    assert outcome.shaped.process_count == 2
    assert outcome.collect_seconds >= 0
    assert [sink.outcomes for sink in fleet.sinks] == [[outcome], [outcome]]


def test_a_failure_is_an_outcome_too() -> None:
    """What a link raises becomes a failure with its facts, and every sink has it."""
    fleet = Fleet({"a": HostError(Stage.LOGIN, Kind.AUTH_FAILED, "no")})
    outcome = asyncio.run(fleet.collector.sample(_HOSTS[0]))
    assert isinstance(outcome, Failure)
    assert (outcome.stage, outcome.kind, outcome.message) == (Stage.LOGIN, Kind.AUTH_FAILED, "no")
    assert outcome.taken_unix_seconds > 1_600_000_000
    assert fleet.sinks[1].outcomes == [outcome]


def test_a_frame_that_cannot_be_parsed_is_a_failure() -> None:
    """Nonsense from a host is that host's failure."""
    outcome = asyncio.run(Fleet({"a": b"nonsense"}).collector.sample(_HOSTS[0]))
    assert isinstance(outcome, Failure)
    assert outcome.kind is Kind.BAD_FRAME


def test_links_and_parsers_are_kept() -> None:
    """A second sample uses the same connection, and unchanged rows that were looked at are the same objects."""

    async def sample() -> tuple[ProcessMemory, ...]:
        outcome = await fleet.collector.sample(_HOSTS[0])
        assert isinstance(outcome, Sample)
        return tuple(outcome.shaped.processes)

    async def main() -> tuple[tuple[ProcessMemory, ...], tuple[ProcessMemory, ...]]:
        return await sample(), await sample()

    fleet = Fleet()
    first, second = asyncio.run(main())
    assert second[0] is first[0]
    assert fleet.links[_HOSTS[0]].requests == [b"sample 1 status user\n", b"sample 2 status user\n"]
    assert fleet.collector.handshakes_total == 2


def test_a_cycle_has_one_outcome_for_each_host() -> None:
    """Failures do not stop others; each host is disconnected after its sample."""
    fleet = Fleet({"b": HostError(Stage.CONNECT, Kind.UNREACHABLE, "x"), "c": b""})
    started, outcomes = fleet.collect()
    assert sorted(host.name for host in started) == ["a", "b", "c", "d"]
    assert {outcome.host.name: isinstance(outcome, Sample) for outcome in outcomes} == {
        "a": True,
        "b": False,
        "c": False,
        "d": True,
    }
    assert [link.closed for link in fleet.links.values()] == [1] * 4
    assert fleet.collector.handshakes_total == 8


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (3, 3), (10, 4)])
def test_so_many_at_once(at_once: int, most: int) -> None:
    """No more hosts at the same time than asked for, and as many as that."""
    fleet = Fleet()
    fleet.collect(at_once)
    assert FakeLink.most_at_work == most


def test_a_bug_surfaces_in_strict_tests() -> None:
    """What is no HostError is ours; where the collector is strict it ends the cycle."""
    with pytest.raises(ExceptionGroup) as caught:
        Fleet({"a": KeyError("bug")}).collect()
    assert caught.group_contains(KeyError)


def test_adopt_takes_connections_over() -> None:
    """On a reload hosts that stay keep their connection; the old collector closes only the others."""

    async def main() -> None:
        for host in _HOSTS[:2]:
            await old.collector.sample(host)
        new.collector.adopt(old.collector, [_HOSTS[0], _HOSTS[2]])
        await old.collector.close()
        assert (new.collector.handshakes_total, new.collector.reconnects_total) == (4, 2)  # also those of the other
        assert [old.links[host].closed for host in _HOSTS[:2]] == [0, 1]
        await new.collector.sample(_HOSTS[0])
        assert len(old.links[_HOSTS[0]].requests) == 2
        assert not new.links
        await new.collector.close()
        assert old.links[_HOSTS[0]].closed == 1

    old, new = Fleet(), Fleet()
    asyncio.run(main())


def test_a_host_is_shaped_in_the_light_of_its_past() -> None:
    """Each host has one shaper, which is given the time of the sample, and closed when the host is forgotten."""

    async def main() -> None:
        for _ in range(2):
            await fleet.collector.sample(_HOSTS[0])
        await fleet.collector.sample(_HOSTS[1])
        await fleet.collector.forget(_HOSTS[0])
        assert [shaper.closed for shaper in fleet.shapers.values()] == [1, 0]
        await fleet.collector.close()

    fleet = Fleet()
    asyncio.run(main())
    assert {host: shaper.taken for host, shaper in fleet.shapers.items()} == {
        _HOSTS[0]: [1234.5, 1234.5],
        _HOSTS[1]: [1234.5],
    }
    assert [shaper.closed for shaper in fleet.shapers.values()] == [1, 1]


def test_adopt_shapers() -> None:
    """On a reload hosts that stay keep their past, connections or not; the old collector closes only the others'."""

    async def main() -> None:
        for host in _HOSTS[:2]:
            await old.collector.sample(host)
        new.collector.adopt_shapers(old.collector, [_HOSTS[0], _HOSTS[2]])
        await old.collector.close()
        await new.collector.sample(_HOSTS[0])
        await new.collector.close()

    old, new = Fleet(), Fleet()
    asyncio.run(main())
    assert [len(old.shapers[host].taken) for host in _HOSTS[:2]] == [2, 1]
    assert [old.shapers[host].closed for host in _HOSTS[:2]] == [1, 1]
    assert not new.shapers


def test_a_shaper_without_a_connection_is_closed() -> None:
    """When the connections are taken over and the shapers are not, the old ones are closed with their collector."""

    async def main() -> None:
        await old.collector.sample(_HOSTS[0])
        new.collector.adopt(old.collector, _HOSTS)
        await old.collector.close()

    old, new = Fleet(), Fleet()
    asyncio.run(main())
    assert old.shapers[_HOSTS[0]].closed == 1
    assert old.links[_HOSTS[0]].closed == 0


def test_forget_a_host_that_is_not_there() -> None:
    """Nothing to disconnect from is no error."""
    asyncio.run(Fleet().collector.forget(_HOSTS[0]))


def _rows(*names: str) -> bytes:
    rows = [f"P {pid} 0 8 {pid} 4 4 0 {name}\n" for pid, name in enumerate(names, 1)]
    return f"BEGIN fleetmem/1 1\nM 1000 500 0 0\nK 0 b\n{''.join(rows)}END 1 0 {len(rows)}\n".encode()


def test_a_pattern_that_takes_for_ever_holds_nobody_up() -> None:
    """It counts as not found for the name that it is slow on; groups of others are as ever, and so are other hosts."""
    slow = CommandGroup(Pattern(r"^(?P<app>(?:[a-z]+)+)-[0-9]+$"), "{app}")
    fleet = Fleet({"a": _rows("web-1", "a" * 200, "db-2"), "b": _rows("web-7")}, Limits(groups=(slow,)))
    assert not cast("Pattern", slow.match).is_bounded

    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.005)

        task = asyncio.create_task(other())
        outcomes = await asyncio.gather(*map(fleet.collector.sample, _HOSTS[:2]))
        task.cancel()
        commands = [
            [row.command for row in outcome.shaped.processes] for outcome in outcomes if isinstance(outcome, Sample)
        ]
        assert commands == [["web", "a" * 200, "db"], ["web"]]
        assert turns >= 5
        await fleet.collector.close()

    asyncio.run(main())
    end_process()


def test_a_host_that_costs_more_than_its_share_is_not_asked() -> None:
    """It fails as itself, without a request, and comes back; others are asked."""
    fleet = Fleet()

    async def main() -> None:
        host, other = _HOSTS[:2]
        await fleet.collector.sample(host)
        fleet.collector.work.charge(host, 1000.0)
        fleet.collector.work.charge(host, 1000.0)
        failure = await fleet.collector.sample(host)
        assert isinstance(failure, Failure)
        assert failure.kind is Kind.BAD_FRAME
        assert "took 1000.0 s of our CPU, more than its share" in failure.message
        assert len(fleet.links[host].requests) == 1
        assert isinstance(await fleet.collector.sample(other), Sample)
        fleet.collector.work.forget(host)
        assert isinstance(await fleet.collector.sample(host), Sample)

    asyncio.run(main())


@pytest.mark.slow
def test_a_long_frame_lets_others_have_their_turns() -> None:
    """It is parsed while the event loop goes on, and its cost is charged to its host."""
    rows = b"".join(b"P %d 0 9 %d - - - n\n" % (pid, pid) for pid in range(1, 40_001))
    frame = b"BEGIN fleetmem/1 1\nM 16000000 8000000 0 0\nK 0 -\n" + rows + b"END 1 0 40000\n"
    fleet = Fleet({"a": frame})

    async def main() -> None:
        task = asyncio.create_task(fleet.collector.sample(_HOSTS[0]))
        while not task.done():
            await asyncio.sleep(0)
            assert isinstance(await fleet.collector.sample(_HOSTS[1]), Sample)
        outcome = await task
        assert isinstance(outcome, Sample)
        assert outcome.shaped.process_count == 40_000
        assert len(fleet.links[_HOSTS[1]].requests) > 5
        assert fleet.collector.work.costly[_HOSTS[0]].spent_seconds(time.monotonic()) > 0.05
        await fleet.collector.close()

    asyncio.run(main())
