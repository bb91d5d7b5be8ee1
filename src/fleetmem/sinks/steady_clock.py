"""The time of day by a clock that does not jump: what is late, and when a file is rotated, goes by it."""

import time

_SLEW_SECONDS = 1.0  # what a clock that is kept right differs by, from one look to the next
_SETTLED_SECONDS = 60.0


class SteadyClock:
    """Follows the wall clock, but a jump only once it has lasted for a minute: some are taken back after seconds.

    Args:
        believed_seconds: a jump of at most that is followed at once.

    Attributes:
        is_settled: whether a minute has passed without a jump; until then nobody knows that the time is right.
    """

    def __init__(self, believed_seconds: float = _SLEW_SECONDS) -> None:
        self._believed_seconds = believed_seconds
        self._ahead_seconds = time.time() - time.monotonic()  # of the monotonic clock
        self._jump_seconds = 0.0
        self._since = time.monotonic()
        self.is_settled = False

    def unix_seconds(self) -> float:
        """Returns the time."""
        monotonic = time.monotonic()
        jump_seconds = time.time() - monotonic - self._ahead_seconds
        if abs(jump_seconds - self._jump_seconds) > _SLEW_SECONDS:  # there, or back
            self._jump_seconds, self._since, self.is_settled = jump_seconds, monotonic, False
        elif monotonic - self._since >= _SETTLED_SECONDS:
            self.is_settled = True
        if self.is_settled or abs(jump_seconds) <= self._believed_seconds:
            self._ahead_seconds += jump_seconds
            self._jump_seconds = 0.0
        return monotonic + self._ahead_seconds
