from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.model import Host
from fleetmem.schedule import BUNCH_SECONDS, Grid, Schedule, Slot


def test_slots_are_absolute() -> None:
    """Start, place within the interval, then one interval after the other."""
    schedule = Schedule(start_seconds=100, interval_seconds=10, position=0.5)
    assert [schedule.slot(cycle) for cycle in range(3)] == [Slot(0, 105), Slot(1, 115), Slot(2, 125)]


@pytest.mark.parametrize(
    ("now_seconds", "cycle", "missed"),
    [
        (100, 1, 0),
        (109.9, 1, 0),
        (110, 1, 0),
        (114.9, 1, 0),
        (115, 1, 0),
        (115.1, 2, 1),
        (125, 2, 1),
        (125.1, 3, 2),
        (199, 10, 9),
        (90, 1, 0),
    ],
)
def test_next_slot(now_seconds: float, cycle: int, missed: int) -> None:
    """A slot that is late by up to half an interval is still taken; what is later is missed and counted."""
    schedule = Schedule(100, 10, 0)
    assert schedule.next_slot(Slot(0, 100), now_seconds) == (Slot(cycle, 100 + 10 * cycle), missed)


_DELAYS = st.lists(st.floats(0, 500), max_size=40)


@given(st.floats(-1e6, 1e6), st.floats(0.1, 3600), st.floats(0, 1, exclude_max=True), _DELAYS)
def test_it_never_drifts(start: float, interval: float, position: float, delays: list[float]) -> None:
    """However late samples end: each slot is where it was from the beginning, and every cycle is taken or missed."""
    schedule = Schedule(start, interval, position)
    slot, missed_total, taken = schedule.slot(0), 0, 1
    for delay in delays:
        now_seconds = slot.at_seconds + delay
        following, missed = schedule.next_slot(slot, now_seconds)
        assert missed >= 0
        assert following == schedule.slot(following.cycle)
        assert following.cycle == slot.cycle + 1 + missed
        assert following.at_seconds >= now_seconds - interval / 2 - 1e-6 * max(1, abs(now_seconds))
        slot, missed_total, taken = following, missed_total + missed, taken + 1
    assert slot.cycle + 1 == taken + missed_total


@given(st.floats(0.1, 3600), st.integers(2, 500))
def test_hosts_are_spread(interval: float, hosts: int) -> None:
    """Hosts of a fleet are evenly spread over one interval, none further from its place than a bunch is long."""
    times = [Schedule(0, interval, place / hosts).slot(0).at_seconds for place in range(hosts)]
    assert times == sorted(times)
    for place, at_seconds in enumerate(times):
        late_seconds = place / hosts * interval - at_seconds
        assert -1e-9 * interval <= late_seconds < BUNCH_SECONDS + 1e-9 * interval


@given(st.integers(1, 60), st.integers(1, 2000))
def test_hosts_come_in_bunches(interval: int, hosts: int) -> None:
    """Two hosts are asked at the same time, to the last bit, or a bunch apart: the collector wakes up once for each."""
    times = sorted({Schedule(1234.5, interval, place / hosts).slot(3).at_seconds for place in range(hosts)})
    assert all(later - earlier > BUNCH_SECONDS / 2 for earlier, later in pairwise(times))
    assert len(times) <= interval / BUNCH_SECONDS + 1


@pytest.mark.parametrize(
    ("from_seconds", "slot"), [(0, Slot(0, 105)), (105, Slot(0, 105)), (105.1, Slot(1, 115)), (1000, Slot(90, 1005))]
)
def test_first_slot(from_seconds: float, slot: Slot) -> None:
    """Of a host that comes later: on the same grid, and none that is over."""
    assert Schedule(100, 10, 0.5).first_slot(from_seconds) == slot


_HOSTS = [Host(name, name) for name in "abcd"]


def test_a_grid_spreads_hosts_and_keeps_their_places() -> None:
    """Who comes later gets a place of its own; who stays, or is one of a share, has the one that it had."""
    grid = Grid(100.0, 10.0, {}).with_hosts(_HOSTS[:2])
    assert list(grid.places.values()) == [0.0, 0.5]
    after = grid.with_hosts(_HOSTS[1:])
    assert [after.places[host] for host in _HOSTS[1:]] == [0.5, 0.0, 0.75]
    assert after.share(_HOSTS[2:3]) == Grid(100.0, 10.0, {_HOSTS[2]: 0.0})
    assert after.schedule(_HOSTS[1]).slot(3) == Slot(3, 135.0)


@pytest.mark.parametrize("stay", [1000, 500])
def test_a_fleet_that_grows_or_is_replaced_stays_spread(stay: int) -> None:
    """New hosts come at the end of the list, ten at a time, and perhaps ten old ones go: no place gets crowded."""
    hosts = [Host(f"h{number}", "x") for number in range(500)]
    grid = Grid(0.0, 10.0, {}).with_hosts(hosts)
    for first in range(500, 1500, 10):
        hosts = (hosts + [Host(f"h{number}", "x") for number in range(first, first + 10)])[-stay:]
        grid = grid.with_hosts(hosts)
    assert list(grid.places) == hosts
    assert all(0 <= place < 1 for place in grid.places.values())
    in_each = Counter(int(place * 50) for place in grid.places.values())
    assert min(in_each[number] for number in range(50)) > stay / 50 / 2
    assert max(in_each.values()) < stay / 50 * 2


def test_where_a_grid_is() -> None:
    """Cycles have a number, a time since their begin and an end."""
    grid = Grid(100.0, 10.0, {})
    assert (grid.cycle_of(100.0), grid.cycle_of(119.9), grid.cycle_of(120.0)) == (0, 1, 2)
    assert (grid.end_of(0), grid.end_of(2)) == (110.0, 130.0)
    assert grid.seconds_of_cycle(123.0) == 3.0


@given(st.floats(100, 200), st.floats(0, 50), st.floats(0, 50))
def test_slots_between_times_add_up(begin: float, first: float, second: float) -> None:
    """Each slot is between two times once, whatever the times; a whole interval has one for each host."""
    grid = Grid(100.0, 10.0, {}).with_hosts(_HOSTS)
    middle, end = begin + first, begin + first + second
    assert grid.slots_between(begin, middle) + grid.slots_between(middle, end) == grid.slots_between(begin, end)
    assert grid.slots_between(100.0, 100.0) == 0
    assert grid.slots_between(101.0, 111.0) == len(_HOSTS)
    assert grid.slots_between(101.0, 106.0) == 2
