"""Whose turn it is: which host is asked when, which slot had its outcome, which was missed. Pure: no loop, no clock.

    due ──> a slot is begun (`Flight`) ──> done: its outcome counts for the slot
        └─> it is pending while the sample before is not over ──> begun late by half an interval at most, or missed

A host has one slot in each cycle, and each slot is settled once: by an outcome, or as missed. A slot that was begun is
open until its outcome, or until the limits of a sample are over; one that was not begun until the next one comes. So
outcomes and missed slots add up to all slots, whatever hangs.
"""

import math
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import count

from fleetmem.model import Host
from fleetmem.sampling.schedule import Grid, GridClock

HALF = 0.5
"""Of an interval: no host is asked sooner than that after it was asked before, and no slot is begun later."""

_EARLY_SECONDS = 0.001
_RATHER_LATE = 0.45  # of an interval: so late a slot is sure to be begun
_MOST_APART = 100  # slots missed in one go that are counted in a cycle each; more are a machine that slept
_NEVER = -math.inf


class Flight:
    """A slot that was begun.

    Attributes:
        host: which is asked.
        cycle: of the slot.
        slot_unix_seconds: its time.
        late_seconds: how long after it the host was asked.
        is_missed: whether it was settled as missed, as the limits of a sample were over.
        turn: of the host.
    """

    __slots__ = ("cycle", "host", "is_missed", "late_seconds", "slot_unix_seconds", "turn")

    def __init__(self, turn: "_Turn", cycle: int, slot_unix_seconds: float, late_seconds: float) -> None:
        self.turn = turn
        self.host = turn.host
        self.cycle = cycle
        self.slot_unix_seconds = slot_unix_seconds
        self.late_seconds = late_seconds
        self.is_missed = False


class _Turn:
    """One host: the slot that comes next, the one that waits to be begun, the one that was."""

    __slots__ = ("asked_at", "at", "cycle", "flight", "host", "is_gone", "pending", "pending_at", "phase")

    def __init__(self, host: Host, phase: float, cycle: int, at: float) -> None:
        self.host = host
        self.phase = phase
        self.cycle = cycle
        self.at = at
        self.pending: int | None = None
        self.pending_at = 0.0
        self.flight: Flight | None = None
        self.is_gone = False
        self.asked_at = _NEVER


class Turns:
    """The turns of a fleet.

    Args:
        grid: the slots.
        clock: the grid's time.
        limit_seconds: what a sample may take.
        from_unix_seconds: slots from then on are theirs.
        miss: called with a cycle and how many of its slots were missed.
    """

    def __init__(
        self,
        grid: Grid,
        clock: GridClock,
        limit_seconds: float,
        from_unix_seconds: float,
        miss: Callable[[int, int], None],
    ) -> None:
        self.clock = clock
        self._grid = grid
        self._miss = miss
        self._limit_seconds = limit_seconds
        self._turns: dict[Host, _Turn] = {}
        self._order = count()
        self._heap: list[tuple[float, int, _Turn, int]] = []
        self._add(grid.phases, from_unix_seconds)

    @property
    def _half_seconds(self) -> float:
        return HALF * self._grid.interval_seconds

    @property
    def limit_cycles(self) -> int:
        """How many cycles a slot that was begun stays open for its outcome."""
        return limit_cycles(self._grid.interval_seconds, self._limit_seconds)

    @property
    def next_at(self) -> float:
        """When something is due, on the monotonic clock; never where there are no hosts."""
        return self._heap[0][0] if self._heap else math.inf

    def open_from(self, now_seconds: float) -> int:
        """Returns the first cycle that has slots which are not settled."""
        current = self._grid.cycle_of(self.clock.unix(now_seconds))
        return min((self._oldest(turn) for turn in self._turns.values()), default=current)

    def _oldest(self, turn: _Turn) -> int:
        if turn.flight and not turn.flight.is_missed:
            return turn.flight.cycle
        return turn.cycle if turn.pending is None else turn.pending

    def due(self, now_seconds: float) -> list[Flight]:
        """Settles what is over, and begins what is due; returns what is begun."""
        flights: list[Flight] = []
        heap, until = self._heap, now_seconds + _EARLY_SECONDS
        while heap and heap[0][0] <= until:
            _at, _number, turn, cycle = heappop(heap)
            if turn.is_gone:
                continue
            if cycle == turn.cycle:
                self._advance(turn, now_seconds)
            elif cycle != turn.pending:
                continue
            if flight := self._begin(turn, now_seconds):
                flights.append(flight)
        return flights

    def _advance(self, turn: _Turn, now_seconds: float) -> None:
        """The next slot of a host has come: what it had before is over."""
        if turn.pending is not None:
            self._miss(turn.pending, 1)
            turn.pending = None
        interval = self._grid.interval_seconds
        passed = max(0, math.ceil((now_seconds - turn.at) / interval - HALF - 1e-9))
        if passed:
            self._miss_passed(turn.cycle, passed)
            turn.cycle += passed
            turn.at = self._at(turn)
        flight = turn.flight
        if flight and not flight.is_missed and turn.cycle - flight.cycle >= self.limit_cycles:
            flight.is_missed = True
            self._miss(flight.cycle, 1)
        if turn.at <= now_seconds + _EARLY_SECONDS:
            turn.pending, turn.pending_at = turn.cycle, turn.at
            turn.cycle += 1
            turn.at = self._at(turn)
        self._push(turn.at, turn, turn.cycle)

    def _miss_passed(self, cycle: int, passed: int) -> None:
        if passed > _MOST_APART:
            self._miss(cycle + passed - 1, passed)
            return
        for number in range(cycle, cycle + passed):
            self._miss(number, 1)

    def _begin(self, turn: _Turn, now_seconds: float) -> Flight | None:
        """Begins the slot of a host that is pending, where it may be."""
        if turn.pending is None or turn.flight:
            return None
        earliest = turn.asked_at + self._half_seconds
        latest = turn.pending_at + self._half_seconds
        if now_seconds < earliest - _EARLY_SECONDS:
            if earliest <= latest:
                self._push(earliest, turn, turn.pending)
            return None
        if now_seconds > latest + _EARLY_SECONDS:
            return None
        slot = self._grid.slot(turn.phase, turn.pending)
        turn.flight = flight = Flight(turn, turn.pending, slot, max(0.0, now_seconds - turn.pending_at))
        turn.pending, turn.asked_at = None, now_seconds
        return flight

    def done(self, flight: Flight, now_seconds: float) -> int | None:
        """Settles a slot by its outcome; returns the cycle that the outcome counts in.

        An outcome that comes after the limits of a sample counts in the slot that is there now: its own was missed. It
        counts in none where the host has left.
        """
        turn = flight.turn
        if turn.flight is not flight:
            return None
        turn.flight = None
        if not flight.is_missed:
            cycle = flight.cycle
        elif turn.pending is not None:
            cycle, turn.pending = turn.pending, None
        else:
            cycle = turn.cycle
            turn.cycle += 1
            turn.at = self._at(turn)
            self._push(turn.at, turn, turn.cycle)
        if turn.pending is not None:  # it may still be begun
            self._push(now_seconds, turn, turn.pending)
        return cycle

    def lose(self, flight: Flight, now_seconds: float) -> None:
        """Settles a slot whose sample ended without an outcome as missed."""
        turn = flight.turn
        if turn.flight is not flight:
            return
        turn.flight = None
        if not flight.is_missed:
            self._miss(flight.cycle, 1)
        if turn.pending is not None:
            self._push(now_seconds, turn, turn.pending)

    def replace(self, grid: Grid, now_seconds: float, limit_seconds: float) -> None:
        """Changes the fleet: hosts come, with their first slot from now on, and go; who stays keeps its slots.

        With another interval each host has the slots of the new grid from now on, and is asked half of that after it
        was asked before at the soonest.
        """
        has_moved = grid.interval_seconds != self._grid.interval_seconds
        self._limit_seconds = limit_seconds
        for host in self._turns.keys() - grid.phases.keys():
            turn = self._turns.pop(host)
            turn.is_gone, turn.flight = True, None
        if has_moved:
            for turn in self._turns.values():
                if turn.pending is not None:
                    self._miss(turn.pending, 1)
                    turn.pending = None
        self._grid = grid
        unix = self.clock.unix(now_seconds)
        if has_moved:
            self._heap.clear()
            for turn in self._turns.values():
                turn.phase = grid.phases[turn.host]
                turn.cycle = grid.first_cycle(turn.phase, unix)
                turn.at = self._at(turn)
                if turn.flight:
                    turn.flight.cycle = grid.cycle_of(unix)
                self._push(turn.at, turn, turn.cycle)
        self._add((host for host in grid.phases if host not in self._turns), unix)

    def move(self, now_seconds: float) -> None:
        """Follows a clock that has moved at once: the next slot of each host comes 0.5 to 1.5 intervals after its last.

        Slots that only the clock has jumped over are none: the hosts were not asked less.
        """
        interval = self._grid.interval_seconds
        self._heap.clear()
        for turn in self._turns.values():
            last_at = turn.at - interval
            before = turn.cycle
            earliest = max(last_at + self._half_seconds, now_seconds - self._half_seconds + _EARLY_SECONDS)
            if passed := int((earliest - last_at - self._half_seconds) / interval):  # the loop stood still as well
                self._miss_passed(before, passed)
            turn.cycle = self._grid.first_cycle(turn.phase, self.clock.unix(earliest))
            turn.at = self._at(turn)
            moved = turn.cycle - before
            if turn.flight:
                turn.flight.cycle += moved
            if turn.pending is not None:
                turn.pending += moved
                self._push(now_seconds, turn, turn.pending)
            # Where it would have been already, it has about the time it had, or half the fleet would be asked at once.
            before_at = min(last_at + interval, turn.at + _RATHER_LATE * interval)
            self._push(turn.at if turn.at >= now_seconds else max(before_at, now_seconds), turn, turn.cycle)

    def _add(self, hosts: Iterable[Host], from_unix_seconds: float) -> None:
        for host in hosts:
            phase = self._grid.phases[host]
            cycle = self._grid.first_cycle(phase, from_unix_seconds)
            turn = self._turns[host] = _Turn(host, phase, cycle, self.clock.at(self._grid.slot(phase, cycle)))
            self._heap.append((turn.at, next(self._order), turn, cycle))
        heapify(self._heap)

    def _at(self, turn: _Turn) -> float:
        return self.clock.at(self._grid.slot(turn.phase, turn.cycle))

    def _push(self, at: float, turn: _Turn, cycle: int) -> None:
        heappush(self._heap, (at, next(self._order), turn, cycle))


def limit_cycles(interval_seconds: float, limit_seconds: float) -> int:
    """Returns in how many cycles a sample is over that is begun late, and takes as long as it may."""
    return max(1, math.ceil(limit_seconds / interval_seconds + HALF))
