"""When each host is sampled: slots on the wall clock, which are the same wherever a host is sampled from. Pure."""

import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from fleetmem.model import Host

BUNCH_SECONDS = 0.02
"""Hosts whose slots would be within this are sampled at once: the collector wakes up once for all of them, with warm
caches (decision 0012)."""

TOLERANCE_SECONDS = 0.01
"""The grid leaves a difference to the wall clock alone that is no larger: two readings of a clock differ, too."""

_CATCH_UP = 0.1  # of the time that passes
_HASH_BYTES = 8


def phase_of(name: str, interval_seconds: float) -> float:
    """Returns where in an interval a host has its slot: everywhere the same, whatever the rest of the fleet."""
    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=_HASH_BYTES).digest()
    position = int.from_bytes(digest, "big") / (1 << 8 * _HASH_BYTES)
    bunches = max(1, math.floor(interval_seconds / BUNCH_SECONDS + 1e-6))
    return math.floor(min(position, 1 - 1e-9) * bunches) * min(BUNCH_SECONDS, interval_seconds)


class Grid(NamedTuple):
    """The slots of a fleet: cycle * interval + phase, in seconds since 1970. Whoever has it finds the same ones.

    Attributes:
        interval_seconds: between two cycles.
        phases: of the hosts that are sampled, in seconds from the begin of a cycle.
    """

    interval_seconds: float
    phases: Mapping[Host, float]

    @classmethod
    def of(cls, interval_seconds: float, hosts: Iterable[Host]) -> "Grid":
        """Returns the slots of these hosts."""
        return cls(interval_seconds, {host: phase_of(host.name, interval_seconds) for host in hosts})

    def share(self, hosts: Iterable[Host]) -> "Grid":
        """Returns the slots of some of the hosts."""
        return self._replace(phases={host: self.phases[host] for host in hosts})

    def slot(self, phase: float, cycle: int) -> float:
        """Returns when the slot of a cycle is, for a phase."""
        return cycle * self.interval_seconds + phase

    def first_cycle(self, phase: float, unix_seconds: float) -> int:
        """Returns the cycle of the first slot that is not before a time."""
        return math.ceil((unix_seconds - phase) / self.interval_seconds - 1e-9)

    def cycle_of(self, unix_seconds: float) -> int:
        """Returns the number of the cycle of a time."""
        return math.floor(unix_seconds / self.interval_seconds)

    def end_of(self, cycle: int) -> float:
        """Returns when a cycle ends."""
        return (cycle + 1) * self.interval_seconds

    def slots_between(self, from_unix_seconds: float, to_unix_seconds: float) -> int:
        """Returns how many slots there are from one time until another."""
        return sum(
            max(0, self.first_cycle(phase, to_unix_seconds) - self.first_cycle(phase, from_unix_seconds))
            for phase in self.phases.values()
        )


class GridClock:
    """Gives the wall clock's time to a loop that runs on a monotonic one.

    A small difference between the two is made up bit by bit, so that no interval is longer or shorter by more than a
    tenth. A large one is made up at once.

    Args:
        now_seconds: on the monotonic clock.
        wall_seconds: at the same moment, since 1970.
    """

    def __init__(self, now_seconds: float, wall_seconds: float) -> None:
        self._offset_seconds = wall_seconds - now_seconds
        self._followed_at = now_seconds

    def unix(self, now_seconds: float) -> float:
        """Returns the grid's time, since 1970."""
        return now_seconds + self._offset_seconds

    def at(self, unix_seconds: float) -> float:
        """Returns when the grid has a time, on the monotonic clock."""
        return unix_seconds - self._offset_seconds

    def follow(self, now_seconds: float, wall_seconds: float, interval_seconds: float) -> bool:
        """Compares with the wall clock; returns whether the grid has moved at once."""
        elapsed_seconds = min(max(0.0, now_seconds - self._followed_at), interval_seconds)
        self._followed_at = now_seconds
        difference = wall_seconds - now_seconds - self._offset_seconds
        if abs(difference) <= TOLERANCE_SECONDS:
            return False
        if abs(difference) >= interval_seconds / 2:
            self._offset_seconds += difference
            return True
        most = _CATCH_UP * elapsed_seconds
        self._offset_seconds += max(-most, min(most, difference))
        return False
