"""The sink runner of plug-ins: outcomes in, calls of their writer out, one after the other in a thread of its own.

put ──> queue in memory, bounded ──> thread ──> SinkWriter.write
          └── while the backend is away, or the writer hangs: the oldest are dropped, and counted
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from fleetmem.errors import PluginBugError, SinkError, reason_of
from fleetmem.model import CollectorStats, Host, Outcome, Sample
from fleetmem.runtime.side_thread import SideThread, look_at_error
from fleetmem.runtime.stop_budget import CLOSE_SECONDS
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.plugin import SinkWriter
from fleetmem.sinks.queue.runner import GIVE_UP_SECONDS
from fleetmem.sinks.sink import SinkStats, Takes, take_all

log = logging.getLogger(__name__)

MAX_WAITING_ROWS = 1_000_000
"""Of outcomes that wait: their processes and commands, 60 to 100 bytes each."""

_BATCH_OUTCOMES = 500
_HANGS_SECONDS = 5.0  # after which a call that has not returned counts as a backend that is away
_FIRST_RETRY_SECONDS = 0.5
_LAST_RETRY_SECONDS = 5.0


class _Waiting(NamedTuple):
    at_seconds: float
    rows: int
    item: Outcome | CollectorStats


class WriterSink:
    """Hands outcomes to the writer of a plug-in. A point is an outcome, or the counters of an interval.

    Args:
        name: of the sink, in counters.
        writer: is this sink's own from now on.
        max_waiting_rows: see `MAX_WAITING_ROWS`.

    Attributes:
        address: where to.
        problem: what is wrong with the backend or the writer now, None when nothing is.
        takes: every host: a plug-in has one sink, in the main process.
    """

    def __init__(self, name: str, writer: SinkWriter, max_waiting_rows: int = MAX_WAITING_ROWS) -> None:
        self.name = name
        self.address = str(writer.address) or name
        self.problem: SinkError | None = None
        self.takes: Takes = take_all
        self._writer = writer
        self._max_waiting_rows = max_waiting_rows
        self._waiting: deque[_Waiting] = deque()
        self._waiting_rows = 0
        self._sent = self._sent_bytes = self._full = self._late = self._retries = 0
        self._failing_since: float | None = None
        self._is_draining = False
        self._thread = SideThread(f"sink {name}")
        self._changed = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def put(self, outcome: Outcome) -> None:
        """Takes the outcome of a host; returns at once."""
        rows = len(outcome.shaped.processes) + len(outcome.shaped.commands) if isinstance(outcome, Sample) else 0
        self._enqueue(_Waiting(time.monotonic(), rows + 1, outcome))

    def put_stats(self, stats: CollectorStats) -> None:
        """Takes the collector's own counters."""
        self._enqueue(_Waiting(time.monotonic(), len(stats.counters), stats))

    def replace_hosts(self, names: FleetNames, hosts: set[Host], unix_seconds: float) -> None:
        """Does nothing: an outcome speaks of its own time only."""

    def stats(self) -> SinkStats:
        """Returns its counters."""
        return SinkStats(
            points_sent_total=self._sent,
            points_dropped_full_total=self._full,
            points_dropped_late_total=self._late,
            retries_total=self._retries,
            sent_bytes_total=self._sent_bytes,
            queue_points=len(self._waiting),
            queue_age_seconds=time.monotonic() - self._waiting[0].at_seconds if self._waiting else 0.0,
            failing=int(self.problem is not None),
        )

    async def run(self) -> None:
        """Writes what comes in, until cancelled.

        Raises:
            PluginBugError: the writer has a bug; what it was to write is given up. It can be run again.
        """
        while True:
            while self._waiting:
                await self._deliver()
            self._is_idle.set()
            self._changed.clear()
            await self._changed.wait()

    async def drain(self) -> None:
        """Waits until everything is written or given up.

        Raises:
            SinkError: outcomes were given up.
        """
        self._is_draining = True
        await self._is_idle.wait()
        if self.problem and self._full + self._late:
            raise SinkError(f"{self.problem} ({self._full + self._late} outcomes were not delivered)")

    async def close(self) -> None:
        """Closes the writer, unless it hangs."""
        try:
            closing = self._thread.call(self._writer.close)
        except OSError:  # no thread: nothing was ever written
            return
        self._thread.end()
        done, _waiting = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
        if done and (bug := closing.exception()):
            raise PluginBugError(f"sink {self.name}: {type(bug).__name__}: {bug}") from bug

    def _enqueue(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._waiting_rows += waiting.rows
        while self._waiting_rows > self._max_waiting_rows and len(self._waiting) > 1:
            if not self._full:
                log.warning("sink %s: more outcomes wait than may; the oldest are dropped and counted", self.name)
            self._full += 1
            self._waiting_rows -= self._waiting.popleft().rows
        self._is_idle.clear()
        self._changed.set()

    async def _deliver(self) -> None:
        batch, call = self._take_batch()
        written_bytes = None
        try:
            written_bytes = await self._call(call)
        except SinkError as error:
            self._note_failure(error)
        except Exception as bug:
            self._late += len(batch)
            batch = []
            if not self._waiting:
                self._is_idle.set()
            self.problem = SinkError(f"sink {self.name}: a bug in the plug-in: {type(bug).__name__}: {bug}")
            raise PluginBugError(f"sink {self.name}: {type(bug).__name__}: {bug}") from bug
        finally:  # also when this is cancelled: they count as waiting until the end
            if written_bytes is None:
                self._put_back(batch)
        if written_bytes is None:
            await self._back_off()
        else:
            self._note_written(len(batch), written_bytes)

    def _take_batch(self) -> tuple[list[_Waiting], Callable[[], int]]:
        """Takes the oldest outcomes up to the next counters, or counters; returns them and the call that writes."""
        first = self._waiting[0].item
        if isinstance(first, CollectorStats):
            batch, call = [self._waiting.popleft()], partial(self._writer.write_stats, first)
        else:
            batch, outcomes = [], list[Outcome]()
            while self._waiting and len(batch) < _BATCH_OUTCOMES:
                item = self._waiting[0].item
                if isinstance(item, CollectorStats):
                    break
                batch.append(self._waiting.popleft())
                outcomes.append(item)
            call = partial(self._writer.write, outcomes)
        self._waiting_rows -= sum(waiting.rows for waiting in batch)
        return batch, call

    def _put_back(self, batch: list[_Waiting]) -> None:
        self._waiting.extendleft(reversed(batch))
        self._waiting_rows += sum(waiting.rows for waiting in batch)

    async def _call(self, call: Callable[[], int]) -> int:
        """Calls the writer; waits for it however long it takes, as a thread cannot be stopped."""
        try:
            future = self._thread.call(call)
        except OSError as error:
            raise SinkError(reason_of(error)) from error
        future.add_done_callback(look_at_error)
        while not (await asyncio.wait({future}, timeout=_HANGS_SECONDS))[0]:
            self._note_failure(SinkError(f"has not returned for {_HANGS_SECONDS:g} s; outcomes wait"))
        return int(future.result() or 0)

    async def _back_off(self) -> None:
        now = time.monotonic()
        since = now if self._failing_since is None else self._failing_since
        wait_seconds = min(_LAST_RETRY_SECONDS, max(_FIRST_RETRY_SECONDS, now - since))
        while wait_seconds > 0:
            if self._is_draining and now - since >= GIVE_UP_SECONDS:
                self._late += len(self._waiting)
                self._waiting.clear()
                self._waiting_rows = 0
                return
            await asyncio.sleep(min(wait_seconds, _FIRST_RETRY_SECONDS))
            wait_seconds -= _FIRST_RETRY_SECONDS
            now = time.monotonic()
        self._retries += 1

    def _note_failure(self, error: SinkError) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        problem = SinkError(f"sink {self.name}: {error}")
        if str(self.problem) != str(problem):
            log.warning("%s; trying again", problem)
        self.problem = problem

    def _note_written(self, points: int, written_bytes: int) -> None:
        self._sent += points
        self._sent_bytes += written_bytes
        if self.problem:
            dropped = self._full + self._late
            log.warning("sink %s works again; %d outcomes were dropped since the start", self.name, dropped)
        self.problem = self._failing_since = None
