"""When each host is sampled: absolute times, so that delays do not add up. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappush, heapreplace
from itertools import pairwise
from typing import NamedTuple

from fleetmem.model import Host

BUNCH_SECONDS = 0.02
"""Hosts whose slots would be within this are sampled at once: the collector wakes up once for all of them, with warm
caches (decision 0012)."""


class Slot(NamedTuple):
    """The time of one host in one cycle.

    Attributes:
        cycle: number of the cycle, from 0.
        at_seconds: on the clock that the schedule was made with.
    """

    cycle: int
    at_seconds: float


class Schedule:
    """Slots of one host: `start + offset + cycle * interval`, whatever happens in between.

    Args:
        start_seconds: when cycle 0 of the fleet begins.
        interval_seconds: between two cycles.
        position: place of the host in the fleet, 0 <= position < 1: spreads hosts over the interval, in bunches.
    """

    def __init__(self, start_seconds: float, interval_seconds: float, position: float) -> None:
        bunch = math.floor(position * interval_seconds / BUNCH_SECONDS)
        self._first_at = start_seconds + bunch * BUNCH_SECONDS
        self._interval_seconds = interval_seconds

    def slot(self, cycle: int) -> Slot:
        """Returns the slot of a cycle."""
        return Slot(cycle, self._first_at + cycle * self._interval_seconds)

    def first_slot(self, from_seconds: float) -> Slot:
        """Returns the first slot that is not before a time: of a host that comes when the fleet is being sampled."""
        return self.slot(max(0, math.ceil((from_seconds - self._first_at) / self._interval_seconds)))

    def next_slot(self, after: Slot, now_seconds: float) -> tuple[Slot, int]:
        """Returns the first slot after one that is not over yet, and how many were missed in between.

        A slot that is late by less than half an interval is still taken: a small delay costs no cycle.
        """
        overdue = (now_seconds - after.at_seconds) / self._interval_seconds - 1
        missed = max(0, math.ceil(overdue - 0.5))
        return self.slot(after.cycle + 1 + missed), missed


class Grid(NamedTuple):
    """The slots of a fleet. Whoever has it finds the same ones, also who takes the place of another.

    Attributes:
        start_seconds: when cycle 0 begins, on a monotonic clock, which all processes of a machine share.
        interval_seconds: between two cycles.
        places: of the hosts that are sampled, each one's position in an interval, 0 <= place < 1.
    """

    start_seconds: float
    interval_seconds: float
    places: Mapping[Host, float]

    def schedule(self, host: Host) -> Schedule:
        """Returns the slots of a host."""
        return Schedule(self.start_seconds, self.interval_seconds, self.places[host])

    def cycle_of(self, now_seconds: float) -> int:
        """Returns the number of the cycle of a time."""
        return int((now_seconds - self.start_seconds) // self.interval_seconds)

    def end_of(self, cycle: int) -> float:
        """Returns when a cycle ends."""
        return self.start_seconds + (cycle + 1) * self.interval_seconds

    def seconds_of_cycle(self, now_seconds: float) -> float:
        """Returns how long ago the cycle of a time began."""
        return (now_seconds - self.start_seconds) % self.interval_seconds

    def share(self, hosts: Iterable[Host]) -> "Grid":
        """Returns the slots of some of the hosts."""
        return self._replace(places={host: self.places[host] for host in hosts})

    def slots_between(self, from_seconds: float, to_seconds: float) -> int:
        """Returns how many slots there are from one time until another."""
        schedules = map(self.schedule, self.places)
        return sum(each.first_slot(to_seconds).cycle - each.first_slot(from_seconds).cycle for each in schedules)

    def with_hosts(self, hosts: Sequence[Host]) -> "Grid":
        """Returns the slots of other hosts: who is there already keeps its own, the others are where there is room."""
        places = {host: self.places[host] for host in hosts if host in self.places}
        new = [host for host in hosts if host not in places]
        places |= zip(new, _spread(places.values(), len(new)), strict=True)
        return self._replace(places={host: places[host] for host in hosts})


def _spread(taken: Iterable[float], count: int) -> list[float]:
    """Returns so many more places in an interval, each in the middle of the widest gap that is left."""
    before = sorted(taken)
    if not before:
        return [number / count for number in range(count)]
    gaps = [(begin - end, begin) for begin, end in pairwise([*before, before[0] + 1])]  # the widest is the smallest
    heapify(gaps)
    places: list[float] = []
    for _ in range(count):
        width, begin = gaps[0]
        heapreplace(gaps, (width / 2, begin))
        heappush(gaps, (width / 2, begin - width / 2))
        places.append((begin - width / 2) % 1)
    return places
