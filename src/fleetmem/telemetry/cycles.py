"""What happened in each cycle, by the cycle of the slot, until it is reported. Pure."""

from collections.abc import Iterable

from fleetmem.telemetry.selfstats import CycleStats


class Cycles:
    """Keeps the counts of cycles. What comes for a cycle that was taken is taken with the next one: sums stay exact."""

    def __init__(self) -> None:
        self._stats: dict[int, CycleStats] = {}

    def of(self, cycle: int) -> CycleStats:
        """Returns the counts of a cycle, for adding to them."""
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
        return {number: self._stats.pop(number) for number in sorted(self._stats) if number < cycle}

    def fold(self, cycle: int) -> None:
        """Counts all that is there in one cycle: the numbers have changed, with the clock or the interval."""
        whole = merged(self._stats.values())
        self._stats = {cycle: whole}


def merged(cycles: Iterable[CycleStats]) -> CycleStats:
    """Returns what several come to."""
    whole = CycleStats()
    for each in cycles:
        whole.merge(each)
    return whole
