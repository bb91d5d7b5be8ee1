from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.model import Host
from fleetmem.sampling.schedule import BUNCH_SECONDS, TOLERANCE_SECONDS, Grid, GridClock, phase_of

_HOSTS = [Host(name, name) for name in "abcd"]
_UNIX = 1_700_000_000.0


@given(st.text(max_size=20), st.sampled_from([0.01, 0.05, 0.2, 0.5, 1.0, 2.0, 10.0, 60.0, 3600.0]))
def test_a_phase_is_within_the_interval(name: str, interval: float) -> None:
    """So that a slot is in the cycle that its number says; in bunches, for each of which there is one wake-up."""
    phase = phase_of(name, interval)
    assert 0 <= phase < interval
    assert phase / BUNCH_SECONDS == pytest.approx(round(phase / BUNCH_SECONDS))


def test_a_phase_is_the_same_everywhere() -> None:
    """A hash of the name alone, which no start, machine or version of Python changes; any name has one."""
    assert [phase_of(name, 10.0) for name in ("web01", "web02", "db.example.com")] == [6.0, 4.46, 2.14]
    assert 0 <= phase_of("\udcff", 10.0) < 10


def test_hosts_are_spread() -> None:
    """Each second of an interval has about as many hosts as any other."""
    in_each = Counter(int(phase_of(f"web{number:05}.example.com", 10.0)) for number in range(10_000))
    assert len(in_each) == 10
    assert min(in_each.values()) > 850
    assert max(in_each.values()) < 1150


def test_a_grid_does_not_depend_on_the_rest_of_the_fleet() -> None:
    """Who stays, is one of a share, or is alone, has the slots that it had."""
    grid = Grid.of(10.0, _HOSTS)
    assert grid.share(_HOSTS[2:3]) == Grid.of(10.0, _HOSTS[2:3])
    assert Grid.of(10.0, [Host("a", "elsewhere")]).phases[Host("a", "elsewhere")] == grid.phases[_HOSTS[0]]


def test_slots_are_multiples_of_the_interval_on_the_wall_clock() -> None:
    """Plus the phase; a cycle is the interval that they are in."""
    grid = Grid.of(10.0, _HOSTS)
    for phase in grid.phases.values():
        cycle = grid.first_cycle(phase, _UNIX)
        slot = grid.slot(phase, cycle)
        assert _UNIX <= slot < _UNIX + 10
        assert (slot - phase) % 10 == pytest.approx(0, abs=1e-6)
        assert grid.cycle_of(slot) == cycle
    assert grid.end_of(170_000_000) == 1_700_000_010


@given(st.floats(100, 200), st.floats(0, 50), st.floats(0, 50))
def test_slots_between_times_add_up(begin: float, first: float, second: float) -> None:
    """Each slot is between two times once, whatever the times; a whole interval has one for each host."""
    grid = Grid.of(10.0, _HOSTS)
    middle, end = begin + first, begin + first + second
    assert grid.slots_between(begin, middle) + grid.slots_between(middle, end) == grid.slots_between(begin, end)
    assert grid.slots_between(100.0, 100.0) == 0
    assert grid.slots_between(101.0, 111.0) == len(_HOSTS)


def test_a_clock_follows_bit_by_bit() -> None:
    """A small difference is made up by a tenth of the time that passes; a tiny one is left alone."""
    clock = GridClock(500.0, _UNIX)
    assert not clock.follow(501.0, _UNIX + 1 + TOLERANCE_SECONDS / 2, 10.0)
    assert clock.unix(501.0) == _UNIX + 1
    assert not clock.follow(502.0, _UNIX + 2 + 0.5, 10.0)
    assert clock.unix(502.0) == pytest.approx(_UNIX + 2.1)
    assert not clock.follow(600.0, _UNIX + 100.5, 10.0)
    assert clock.unix(600.0) == pytest.approx(_UNIX + 100.5)
    assert clock.at(_UNIX + 100.5) == pytest.approx(600.0)


@pytest.mark.parametrize("jump", [5.0, -5.0, 86_400.0, -1e6])
def test_a_clock_follows_at_once(jump: float) -> None:
    """From half an interval on."""
    clock = GridClock(500.0, _UNIX)
    assert clock.follow(501.0, _UNIX + 1 + jump, 10.0)
    assert clock.unix(501.0) == pytest.approx(_UNIX + 1 + jump)
