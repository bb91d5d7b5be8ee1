"""How many series a host and the fleet may have in storage. Pure.

A budget bounds what a storage sees, not what is alive: whisper keeps a file for a series that has ended. So a series
counts from its first point until an hour after its last one.
"""

from collections.abc import Collection, Sequence

from fleetmem.model import HOST_MEASURES, PROCESS_MEASURES, Detail, measures_of_sum

REMEMBER_SECONDS = 3600
"""How long an ended series counts."""

_TICK_SECONDS = 60  # endings are booked by the minute, so that a host with endless new processes needs 61 numbers


def reserved_series(details: Collection[Detail], measures: Sequence[str] = PROCESS_MEASURES) -> int:
    """Returns the series that a host has in any case: its own, and `other` of each level."""
    return len(HOST_MEASURES) + len(measures_of_sum(measures)) * len(details)


class SeriesPool:
    """A number of series to take from, until there are no more.

    Attributes:
        room: how many there may be; None is no limit.
        used: how many are taken.
    """

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        self.used = 0

    @property
    def is_tight(self) -> bool:
        """Whether more than half of it is taken."""
        return self.room is not None and self.used * 2 > self.room

    def take(self, series: int) -> bool:
        """Takes that many, or none where they are not there."""
        if self.room is not None and self.used + series > self.room:
            return False
        self.used += series
        return True

    def give_back(self, series: int) -> None:
        """Gives back what was taken."""
        self.used -= series


class HostBudget:
    """The series that one host has taken, from its own budget and from the fleet's; first come, first served.

    Args:
        room: series of rows that the host may have, None for no limit.
        fleet: what all hosts share.

    Attributes:
        ended: minutes, and the series that ended in each and still count; oldest first, 61 at most.
    """

    def __init__(self, room: int | None, fleet: SeriesPool) -> None:
        self._own = SeriesPool(room)
        self._fleet = fleet
        self.ended: list[tuple[int, int]] = []

    @property
    def used(self) -> int:
        """Series that count now, ended ones included."""
        return self._own.used

    @property
    def is_tight(self) -> bool:
        """Whether more than half of the host's or of the fleet's budget is used."""
        return self._own.is_tight or self._fleet.is_tight

    def take(self, series: int) -> bool:
        """Takes room for new series; False, and none taken, where there is none."""
        if not self._own.take(series):
            return False
        if not self._fleet.take(series):
            self._own.give_back(series)
            return False
        return True

    def give_back(self, series: int) -> None:
        """Gives back the room of series that count no more."""
        self._own.give_back(series)
        self._fleet.give_back(series)

    def end(self, series: int, clock_seconds: float) -> None:
        """Notes that series have ended: an hour from now they count no more."""
        if not series:
            return
        minute = int(clock_seconds // _TICK_SECONDS)
        if self.ended and self.ended[-1][0] == minute:
            series += self.ended.pop()[1]
        self.ended.append((minute, series))

    def forget_ended(self, clock_seconds: float) -> None:
        """Gives back the room of what ended an hour ago."""
        while self.ended and (self.ended[0][0] + 1) * _TICK_SECONDS + REMEMBER_SECONDS <= clock_seconds:
            self.give_back(self.ended.pop(0)[1])

    def close(self) -> None:
        """Gives everything back."""
        self.give_back(self._own.used)
        self.ended.clear()
