"""Zeros of series that have ended: each goes in three cycles in a row, and three times more where it was lost.

Several receivers repeat the last value of a gauge for ever, so a final 0 that does not arrive leaves a ghost.
"""

import logging
from collections.abc import Collection, Set
from typing import NamedTuple

log = logging.getLogger(__name__)

CYCLES = 3
"""With one datagram of twenty lost, one series of 8,000 misses all three of its zeros."""

MAX_BYTES = 32 * 1024 * 1024
"""Of zeros that are still to be sent by one sink: those of 130,000 processes."""


_NOTHING = (b"",) * CYCLES


class Room:
    """Bounds what the hosts of one sink have still to send.

    Attributes:
        used_bytes: by all of them.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.used_bytes = 0
        self._max_bytes = max_bytes
        self._is_said = False

    def change(self, more_bytes: int) -> bool:
        """Uses more, or less; returns whether there is room for that."""
        if more_bytes > 0 and self.used_bytes + more_bytes > self._max_bytes:
            if not self._is_said:
                log.warning("more series have ended than fit the memory for them: some get their final 0 only once")
                self._is_said = True
            return False
        self.used_bytes += more_bytes
        return True


class Due(NamedTuple):
    """What is to be sent in a cycle.

    Attributes:
        zeros: all of it.
        last: those of them that are the last ones of their series.
    """

    zeros: bytes
    last: bytes


class Endings:
    """The zeros that one host has still to send, as lines.

    Args:
        room: for them, shared with other hosts.

    Attributes:
        left: to be sent three times, twice, once; empty when there are none.
    """

    __slots__ = ("_room", "left")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.left: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.left)

    @property
    def lines(self) -> bytes:
        """All that are still to be sent, each once."""
        return b"".join(self.left)

    def next(self, gone: bytes = b"", alive: Set[bytes] = frozenset()) -> Due:
        """Returns the zeros of a cycle.

        Args:
            gone: of series that ended in it.
            alive: zeros of series that began in it: they get no more.
        """
        if not gone and not self.left:
            return Due(b"", b"")
        first, *others = self.left or _NOTHING
        due = [first + gone, *others]
        zeros = b"".join(due)
        if alive and not alive.isdisjoint(zeros.splitlines(keepends=True)):
            due = [without(lines, alive) for lines in due]
            zeros = b"".join(due)
        self._keep((b"", *due[:-1]))
        return Due(zeros, due[-1])

    def again(self, lost: bytes, alive: bytes = b"") -> None:
        """Takes zeros that did not arrive: they go in the next three cycles.

        Args:
            lost: these zeros.
            alive: zeros of all series that live now: they get none.
        """
        first, *others = self.left or _NOTHING
        known = lines_of(first + alive)
        wanted = dict.fromkeys(line for line in lost.splitlines(keepends=True) if line not in known)
        self._keep((first + b"".join(wanted), *(without(lines, wanted.keys()) for lines in others)))

    def forget(self, alive: bytes) -> None:
        """Drops the zeros of series that live again."""
        living = lines_of(alive)
        self._keep(tuple(without(lines, living) for lines in self.left))

    def clear(self) -> None:
        """Forgets all."""
        self._keep(())

    def _keep(self, left: tuple[bytes, ...]) -> None:
        size_bytes, before_bytes = sum(map(len, left)), sum(map(len, self.left))
        if self._room.change(size_bytes - before_bytes):
            self.left = left if size_bytes else ()
        else:
            self._room.change(-before_bytes)
            self.left = ()


def lines_of(text: bytes) -> frozenset[bytes]:
    """Returns the lines of a text."""
    return frozenset(text.splitlines(keepends=True))


def without(lines: bytes, others: Collection[bytes]) -> bytes:
    """Returns those lines that are not among others."""
    return b"".join([line for line in lines.splitlines(keepends=True) if line not in others]) if others else lines
