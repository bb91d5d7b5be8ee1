"""A spool for the event loop: its blocking calls in one thread, its trouble said once."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from fleetmem.errors import SinkError
from fleetmem.runtime.side_thread import SideThread
from fleetmem.sinks.queue.backlog import BATCH_BYTES, Backlog, Item
from fleetmem.sinks.steady_clock import SteadyClock

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class SpoolFile(Protocol):
    """Points that wait on disk. Blocks."""

    @property
    def points(self) -> int:
        """Points that wait."""

    @property
    def text_bytes(self) -> int:
        """Their size."""

    @property
    def oldest_unix_seconds(self) -> float | None:
        """When the oldest of them was taken, None when none waits."""

    def append(self, items: Sequence[Item]) -> int:
        """Takes items; returns how many points, the oldest, were dropped for them. Raises SinkError."""

    def first(self, max_bytes: int) -> list[tuple[int, Item]]:
        """Returns the oldest items, each with its key. Raises SinkError."""

    def remove(self, up_to_key: int) -> None:
        """Forgets items. Raises SinkError."""

    def expire(self, now_unix_seconds: float) -> int:
        """Forgets what is too old; returns how many points that is. Raises SinkError."""

    def close(self) -> None:
        """Closes the file. Raises SinkError."""


class Dropped(NamedTuple):
    """Points that were dropped for want of room, and for their age."""

    full: int
    late: int


class DiskQueue:
    """What waits on disk. A disk that does not work is reported, and points stay in memory, as far as they fit.

    Args:
        spool: the file.
        address: of the backend, for logs.
    """

    def __init__(self, spool: SpoolFile, address: str) -> None:
        self._spool = spool
        self._address = address
        self._thread = SideThread("spool")
        self._clock = SteadyClock()
        self._problem: str | None = None

    @property
    def points(self) -> int:
        """Points that wait."""
        return self._spool.points

    @property
    def text_bytes(self) -> int:
        """Their size as text."""
        return self._spool.text_bytes

    @property
    def age_seconds(self) -> float:
        """How long ago the oldest of them was taken, 0 when none waits."""
        oldest = self._spool.oldest_unix_seconds
        return max(0.0, self._clock.unix_seconds() - oldest) if oldest else 0.0

    async def take_over(self, backlog: Backlog) -> Dropped:
        """Moves what waits in memory to the disk."""
        now = self._clock.unix_seconds()
        # A clock that is two days ahead for some seconds, perhaps just now at the start, makes nothing old.
        late = (await self._call(lambda: self._spool.expire(now)) or 0) if self._clock.is_settled else 0
        full = 0
        while backlog:
            taken = backlog.take(BATCH_BYTES)
            waited_since = self._clock.unix_seconds() - time.monotonic()
            items = [item._replace(unix_seconds=waited_since + at) for at, item in taken]
            try:
                dropped = await self._call(lambda items=items: self._spool.append(items))  # type: ignore[misc]
            except asyncio.CancelledError:  # nobody hears whether the disk took them; twice does no harm
                backlog.put_back(taken)
                raise
            if dropped is None:
                backlog.put_back(taken)
                break
            full += dropped
            if self._problem:  # reading, and a little room now and then, prove nothing
                log.warning("%s: the spool works again", self._address)
                self._problem = None
        return Dropped(full, late)

    async def first(self) -> list[tuple[int, Item]]:
        """Returns the oldest items, each with its key; none when the disk does not work."""
        return await self._call(lambda: self._spool.first(BATCH_BYTES)) or []

    async def remove(self, up_to_key: int) -> None:
        """Forgets items that were delivered."""
        await self._call(lambda: self._spool.remove(up_to_key))

    async def close(self) -> None:
        """Closes the file."""
        await self._call(self._spool.close)
        self._thread.end()

    async def _call(self, work: Callable[[], _T]) -> _T | None:
        try:
            return await self._thread.call(work)
        except (SinkError, OSError) as error:  # OSError: there may be no thread
            if self._problem != str(error):
                log.error("%s; points wait in memory, as far as they fit", error)
                self._problem = str(error)
            return None
