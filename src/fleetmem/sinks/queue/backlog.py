"""Points that wait for their backend in memory: first in, first out, bounded; what does not fit is the oldest. Pure."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from fleetmem.model import Host


class Item(NamedTuple):
    """Whole lines that came together.

    Attributes:
        text: the lines.
        points: how many points they hold.
        unix_seconds: when the points were taken.
        zeros: those of the lines that end a series.
        owner: the host whose series they are; None for the collector's own.
    """

    text: bytes
    points: int
    unix_seconds: float
    zeros: bytes = b""
    owner: Host | None = None


BATCH_BYTES = 64 * 1024
"""Items are sent, and written to disk, by that much at once."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait."""

    max_points: int = 2_000_000
    max_bytes: int = 64 * 1024 * 1024


class Backlog:
    """A queue of items.

    Args:
        bounds: of it.
        on_drop: called with each item that is dropped.

    Attributes:
        points: that wait.
        text_bytes: of the points that wait.
    """

    def __init__(self, bounds: Bounds, on_drop: Callable[[Item], None] | None = None) -> None:
        self.points = 0
        self.text_bytes = 0
        self._bounds = bounds
        self._on_drop = on_drop
        self._items: deque[tuple[float, Item]] = deque()

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, item: Item, now_seconds: float) -> int:
        """Takes an item; returns how many points, the oldest, were dropped to stay in the bounds."""
        self._items.append((now_seconds, item))
        self.points += item.points
        self.text_bytes += len(item.text)
        dropped = 0
        while self.text_bytes > self._bounds.max_bytes or self.points > self._bounds.max_points:
            dropped += self._drop()
        return dropped

    def take(self, max_bytes: int) -> list[tuple[float, Item]]:
        """Returns the oldest items with the time they were put, at least one, and no more than fit `max_bytes`."""
        taken = [(self._items[0][0], self._pop())]
        size_bytes = len(taken[0][1].text)
        while self._items and size_bytes + len(self._items[0][1].text) <= max_bytes:
            taken.append((self._items[0][0], self._pop()))
            size_bytes += len(taken[-1][1].text)
        return taken

    def put_back(self, taken: Iterable[tuple[float, Item]]) -> None:
        """Puts items back where they were; the next `put` looks at the bounds."""
        for put_seconds, item in reversed(list(taken)):
            self._items.appendleft((put_seconds, item))
            self._count(item, 1)

    def expire(self, before_seconds: float) -> int:
        """Drops what was put before that time; returns how many points."""
        dropped = 0
        while self._items and self._items[0][0] <= before_seconds:
            dropped += self._drop()
        return dropped

    def age_seconds(self, now_seconds: float) -> float:
        """Returns how long the oldest item has waited, 0 for an empty queue."""
        return now_seconds - self._items[0][0] if self._items else 0.0

    def _drop(self) -> int:
        item = self._pop()
        if self._on_drop:
            self._on_drop(item)
        return item.points

    def _pop(self) -> Item:
        _put_seconds, item = self._items.popleft()
        self._count(item, -1)
        return item

    def _count(self, item: Item, sign: int) -> None:
        self.points += sign * item.points
        self.text_bytes += sign * len(item.text)
