"""What happened in each cycle, by the cycle of the slot, until it is told. Pure."""

from collections.abc import Iterable

from fleetmem.telemetry.selfstats import CycleStats


class Cycles:
    """Keeps the counts of cycles; what comes for a cycle that was told counts in the next one: sums stay exact."""

    def __init__(self) -> None:
        self._stats: dict[int, CycleStats] = {}
        self._first: int | None = None

    def of(self, cycle: int) -> CycleStats:
        """Returns the counts of a cycle, for adding to them."""
        if self._first is not None and cycle < self._first:
            cycle = self._first
        stats = self._stats.get(cycle)
        if stats is None:
            stats = self._stats[cycle] = CycleStats()
        return stats

    def miss(self, cycle: int, slots: int) -> None:
        """Counts slots as missed."""
        if slots:
            self.of(cycle).missed += slots

    def take_before(self, cycle: int) -> dict[int, CycleStats]:
        """Returns what happened in the cycles before one, and forgets it."""
        taken = {number: self._stats.pop(number) for number in sorted(self._stats) if number < cycle}
        self._first = cycle if self._first is None else max(self._first, cycle)
        return taken

    def fold(self, cycle: int) -> None:
        """Counts all that is there in one cycle: the numbers have changed, with the clock or the interval."""
        whole = merged(self._stats.values())
        self._stats = {cycle: whole}
        self._first = cycle


def merged(cycles: Iterable[CycleStats]) -> CycleStats:
    """Returns what several come to."""
    whole = CycleStats()
    for each in cycles:
        whole.merge(each)
    return whole
