"""Every slot is settled once, whatever clocks, loops, hosts and reloads do."""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetmem.model import Host
from fleetmem.sampling.schedule import Grid, GridClock
from fleetmem.sampling.turns import Flight, Turns

_HOSTS = [Host(f"web{number:02}", "x") for number in range(20)]
_WALL = 1_700_000_003.3
_EPSILON = 0.003


@dataclass
class World:
    """A fleet on clocks that the test moves."""

    interval: float = 10.0
    limit: float = 15.0
    hosts: list[Host] = field(default_factory=lambda: list(_HOSTS))
    now: float = 500.0
    offset: float = _WALL - 500.0
    missed: int = 0
    missed_in: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    outcomes: int = 0
    outcomes_in: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    asked: dict[Host, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    flights: list[tuple[float, Flight]] = field(default_factory=list)
    hanging: list[Flight] = field(default_factory=list)
    hangs: frozenset[Host] = frozenset()
    sample_seconds: float = 0.1

    def __post_init__(self) -> None:
        self.begun = self.now + self.offset
        clock = GridClock(self.now, self.begun)
        self.turns = Turns(Grid.of(self.interval, self.hosts), clock, self.limit, self.begun, self._miss)

    def _miss(self, cycle: int, slots: int) -> None:
        self.missed += slots
        self.missed_in[cycle] += slots

    @property
    def settled(self) -> int:
        """Slots that had their outcome, or were missed."""
        return self.outcomes + self.missed

    def step(self, seconds: float) -> None:
        """Lets the loop come round after some time: outcomes that are there, then what is due."""
        self.now += seconds
        for at, flight in sorted(self.flights, key=lambda each: each[0]):
            if at <= self.now:
                self.flights.remove((at, flight))
                self.end(flight)
        self.take()

    def end(self, flight: Flight) -> None:
        """Gives a host its outcome."""
        cycle = self.turns.done(flight, self.now)
        if cycle is not None:
            self.outcomes += 1
            self.outcomes_in[cycle] += 1

    def take(self) -> None:
        """Follows the wall clock, and asks those whose turn it is."""
        if self.turns.clock.follow(self.now, self.now + self.offset, self.interval):
            self.turns.move(self.now)
        for flight in self.turns.due(self.now):
            self.asked[flight.host].append((self.now, flight.slot_unix_seconds))
            if flight.host in self.hangs:
                self.hanging.append(flight)
            else:
                self.flights.append((self.now + self.sample_seconds, flight))

    def run(self, seconds: float, step: float = 0.02) -> None:
        """Lets time pass."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.step(step)

    def gaps(self) -> list[float]:
        """Returns the intervals between two samples of a host, of all hosts."""
        return [
            (after - before) / self.interval
            for asked in self.asked.values()
            for (before, _), (after, _) in pairwise(asked)
        ]


def test_each_host_has_each_slot_once() -> None:
    """The slots are multiples of the interval on the wall clock plus the host's phase, one after the other."""
    world = World()
    world.run(100)
    for host, asked in world.asked.items():
        phase = Grid.of(10.0, [host]).phases[host]
        slots = [slot for _at, slot in asked]
        assert slots == [slots[0] + 10 * number for number in range(len(slots))]
        assert (slots[0] - phase) % 10 == pytest.approx(0, abs=1e-5)
        assert all(-_EPSILON <= at + world.offset - slot < 0.05 for at, slot in asked)
    assert world.missed == 0
    assert set(world.asked) == set(_HOSTS)
    assert world.outcomes == sum(map(len, world.asked.values())) - len(world.flights)


def test_a_sample_that_hangs_for_ever_is_counted_by_the_grid() -> None:
    """From its limits on each slot of the host is missed as it passes; the others have all their outcomes."""
    world = World(hangs=frozenset(_HOSTS[:1]))
    world.run(60)
    before = world.missed
    for _ in range(10):
        world.run(10)
        assert world.missed == before + 1
        before = world.missed
    assert len(world.hanging) == 1
    assert world.outcomes >= 19 * 15


def test_what_comes_after_all_counts_in_the_slot_that_is_there() -> None:
    """So that sums stay exact; and the host is sampled from the next slot on."""
    world = World(hangs=frozenset(_HOSTS[:1]))
    world.run(101)
    settled, outcomes = world.settled, world.outcomes
    world.hangs = frozenset()
    world.end(world.hanging[0])
    assert (world.settled, world.outcomes) == (settled + 1, outcomes + 1)
    world.run(50)
    assert len(world.asked[_HOSTS[0]]) in (5, 6)
    assert sum(world.outcomes_in.values()) + sum(world.missed_in.values()) == world.settled


def test_an_outcome_counts_in_the_cycle_of_its_slot() -> None:
    """Also one that comes when the next cycle has begun: in each cycle all hosts have one."""
    world = World(sample_seconds=4.0)
    world.run(200)
    whole = sorted(world.outcomes_in)[1:-2]
    assert [world.outcomes_in[cycle] for cycle in whole] == [len(_HOSTS)] * len(whole)


def test_a_sample_that_is_late_by_less_than_half_costs_no_slot() -> None:
    """The next one begins at once; what is later is missed."""
    for seconds, has_missed in ((13.0, False), (16.0, True)):
        world = World(limit=30.0, sample_seconds=seconds, hosts=_HOSTS[:1])
        world.run(35)
        assert bool(world.missed) is has_missed


def test_a_lost_sample_is_missed() -> None:
    """Its task died: the slot is settled, and the host is asked in the next one."""
    world = World(hosts=_HOSTS[:1], hangs=frozenset(_HOSTS))
    world.run(10)
    world.turns.lose(world.hanging[0], world.now)
    world.turns.lose(world.hanging[0], world.now)
    assert world.missed == 1
    world.run(10)
    assert len(world.hanging) == 2


def test_a_loop_that_stood_still() -> None:
    """Slots that are over by more than half an interval are missed, each in its cycle; the rest is begun late."""
    world = World()
    world.run(30)
    before = world.settled
    world.step(35.0)
    world.run(30)
    assert world.settled - before in range(6 * 20, 7 * 20 + 1)
    assert world.missed in range(3 * 20 - 10, 4 * 20)
    assert max(world.missed_in.values()) <= 20
    assert min(world.gaps()) >= 0.5 - _EPSILON


def test_a_machine_that_slept_for_days() -> None:
    """All slots of the time are counted, at once."""
    world = World()
    world.run(30)
    world.step(2 * 86_400.0)
    world.run(20)
    assert world.missed in range(20 * 17_279, 20 * 17_281)
    assert len(world.missed_in) < 1000


@pytest.mark.parametrize("jump", [2 * 86_400.0, -2 * 86_400.0, 5.5, -7.0, 86_403.7])
def test_a_clock_that_is_set(jump: float) -> None:
    """The grid moves at once; no host is asked sooner than 0.5 or later than 1.5 intervals after its last sample."""
    world = World()
    world.run(33.3)
    world.offset += jump
    world.run(60)
    assert world.missed == 0
    assert min(world.gaps()) >= 0.5 - _EPSILON
    assert max(world.gaps()) <= 1.5 + _EPSILON
    assert all(abs(asked[-1][0] + world.offset - asked[-1][1]) < 0.05 for asked in world.asked.values())


def test_a_clock_that_is_set_does_not_let_all_hosts_be_asked_at_once() -> None:
    """Half the fleet would be late: each of them is asked when it would have been."""
    world = World(hosts=[Host(f"h{number}", "x") for number in range(1000)])
    world.run(33.3)
    before = world.now
    world.offset += 1000 * 10 + 5
    world.run(12)
    times = [at for asked in world.asked.values() for at, _slot in asked if at > before]
    assert max(sum(second <= at < second + 0.1 for at in times) for second in map(float, times[:200])) < 60


@pytest.mark.parametrize("shift", [4.5, -4.5, 0.5])
def test_a_small_difference_is_made_up_bit_by_bit(shift: float) -> None:
    """At most a tenth of an interval each cycle; then every sample is at its slot again."""
    world = World()
    world.run(33.3)
    world.offset += shift
    world.run(80)
    assert world.missed == 0
    assert min(world.gaps()) >= 0.9 - _EPSILON
    assert max(world.gaps()) <= 1.1 + _EPSILON + 0.02
    for asked in world.asked.values():
        slots = [slot for _at, slot in asked]
        assert slots == [slots[0] + 10 * number for number in range(len(slots))]
        assert abs(asked[-1][0] + world.offset - asked[-1][1]) < 0.05


def test_hosts_come_and_go_and_the_others_stay() -> None:
    """A host that leaves takes its open slots with it; one that comes has its slots from then on."""
    world = World(hosts=_HOSTS[:10])
    world.run(33)
    world.turns.replace(Grid.of(10.0, _HOSTS[5:]), world.now, 15.0)
    world.run(50)
    assert min(world.gaps()) > 0.99
    assert max(world.gaps()) < 1.01
    assert set(world.asked) == set(_HOSTS)
    assert max(len(world.asked[host]) for host in _HOSTS[:5]) <= 4
    assert world.missed == 0


def test_reloads_without_an_end_neither_ask_more_nor_less() -> None:
    """200 in 10 s at an interval of 2 s, with the interval of before and with others in turn."""
    for other in (2.0, 3.0):
        world = World(interval=2.0)
        world.run(5)
        for number in range(200):
            world.interval = other if number % 2 else 2.0
            world.turns.replace(Grid.of(world.interval, _HOSTS), world.now, 15.0)
            world.run(0.05, 0.01)
        inside = [sum(at > 505 for at, _slot in asked) for asked in world.asked.values()]
        assert max(inside) <= 10
        if other == 2.0:
            assert min(inside) >= 4
        shortest = min(after - before for asked in world.asked.values() for (before, _), (after, _) in pairwise(asked))
        assert shortest >= 1.0 - _EPSILON


@pytest.mark.parametrize("to", [1.0, 60.0, 10.5])
def test_another_interval(to: float) -> None:
    """No host is asked sooner than half the new interval after its last sample, none later than one and a half."""
    world = World()
    world.run(33)
    before = {host: asked[-1][0] for host, asked in world.asked.items()}
    world.interval = to
    world.turns.replace(Grid.of(to, _HOSTS), world.now, 15.0)
    world.run(2 * to + 1)
    for host, asked in world.asked.items():
        first = next(at for at, _slot in asked if at > before[host])
        assert first - before[host] >= to / 2 - _EPSILON
        assert first - max(before[host], 533) <= 1.5 * to + _EPSILON


_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.floats(0.1, 25)),
        st.tuples(st.just("stall"), st.floats(0.1, 60)),
        st.tuples(st.just("jump"), st.floats(-1e5, 1e5)),
        st.tuples(st.just("drift"), st.floats(-0.5, 0.5)),
        st.tuples(st.just("slow"), st.floats(0.01, 40)),
        st.tuples(st.just("hang"), st.floats(0, 1)),
        st.tuples(st.just("heal"), st.floats(0, 1)),
        st.tuples(st.just("replace"), st.floats(0, 1)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1.0, 2.0, 10.0]), _EVENTS)
def test_every_slot_is_settled_once(interval: float, events: list[tuple[str, float]]) -> None:
    """Outcomes and missed slots add up to what has passed; no host is asked too soon, or twice at a time."""
    hosts = _HOSTS[:4]
    world = World(interval=interval, hosts=hosts)
    moves = 0
    for what, size in [*events, ("run", 25.0)]:
        match what:
            case "run":
                world.run(size, 0.05)
            case "stall":
                world.step(size)
            case "jump":
                world.offset += size
                moves += 1
            case "drift":
                world.offset += size * interval
                moves += 1
            case "slow":
                world.sample_seconds = size
            case "hang":
                world.hangs = frozenset(hosts[: int(size * 5)])
            case "heal":
                world.hangs = frozenset()
                hanging, world.hanging = world.hanging, []
                for flight in hanging:
                    world.end(flight)
            case "replace":
                world.turns.replace(Grid.of(interval, hosts), world.now, 15.0)
        assert world.turns.open_from(world.now) <= world.turns.clock.unix(world.now) // interval + 1
    assert min(world.gaps(), default=1) >= 0.5 - _EPSILON / interval
    open_slots = len(world.flights) + len(world.hanging)
    passed = (world.now - 500.0) / interval * len(hosts)
    slack = len(hosts) * (2 + moves) + open_slots + len(hosts) * world.turns.limit_cycles
    assert abs(world.settled - passed) <= slack
    if not moves:
        exact = Grid.of(interval, hosts).slots_between(world.begun, world.turns.clock.unix(world.now))
        assert 0 <= exact - world.settled <= len(hosts) + open_slots


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1.0, 2.0, 10.0]), st.lists(st.floats(-1e6, 1e6), max_size=8), st.floats(0.01, 0.3))
def test_a_clock_that_is_set_again_and_again(interval: float, jumps: list[float], step: float) -> None:
    """Where nothing hangs, no slot is missed, and each gap between two samples is 0.5 to 1.5 intervals."""
    world = World(interval=interval, hosts=_HOSTS[:5], sample_seconds=0.01)
    world.run(3 * interval, 0.02)
    for jump in jumps:
        world.offset += jump
        world.run(2.2 * interval, min(step, interval / 50))
    assert world.missed == 0
    tolerance = (0.02 + _EPSILON) / interval + 0.02
    assert min(world.gaps()) >= 0.5 - tolerance
    assert max(world.gaps()) <= 1.5 + tolerance


@pytest.mark.parametrize("interval", [10.0, 2.0, 1.0])
def test_each_step_has_its_point(interval: float) -> None:
    """With a step that is the interval each step has one point, however late hosts are asked: none is empty."""
    world = World(interval=interval, sample_seconds=0.3 * interval)
    world.turns.clock.follow(world.now, world.now + world.offset, interval)
    number = 0
    while len(world.asked[_HOSTS[0]]) < 500:
        number += 1
        world.step((0.02, 0.11, 0.3, 0.45)[number % 4] * interval)
        world.offset += 0.001 * (-1) ** number
    for asked in world.asked.values():
        steps = [int(slot // interval) for _at, slot in asked]
        assert steps == list(range(steps[0], steps[0] + len(steps)))
    assert world.missed == 0
