"""One sink: outcomes in, text out. Owns the queue, the retries and the counters; a stuck sink delays nobody."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from fleetmem.errors import SinkError
from fleetmem.model import Host, Outcome
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.series import Encode, HostSeries, Retire, Text

log = logging.getLogger("fleetmem.sinks")

GIVE_UP_SECONDS = 5.0
"""A backend that refuses for longer loses points: gauges have no time of their own, late ones would be false."""

_RETRY_SECONDS = 0.5
# Without a refusal in between: UDP reports one a datagram late, be that a cycle later, and one success proves nothing.
_RECOVERED_AFTER_SECONDS = 2.0
_MAX_QUEUE_BYTES = 64 * 1024 * 1024


class Transport(Protocol):
    """Moves text to a backend."""

    address: str
    datagrams_total: int
    bytes_total: int

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Sends whole lines. Raises SinkError."""

    async def flush(self) -> None:
        """Makes sure that what was sent is on its way. Raises SinkError."""

    async def close(self) -> None:
        """Lets go of sockets."""


class Format(NamedTuple):
    """How points become text, and how text gets its time where the protocol carries one."""

    encode: Encode
    at: Callable[[bytes, float], bytes] | None = None


class Sink:
    """Formats outcomes and delivers them.

    Attributes:
        points_sent_total: delivered as far as the protocol tells.
        points_dropped_total: given up because the backend was away or the queue full.
        retries_total: deliveries that were tried again.
        problem: what is wrong with the backend now, None when nothing is.
    """

    def __init__(self, format_: Format, transport: Transport, names: FleetNames, retire: Retire) -> None:
        self.transport = transport
        self.points_sent_total = 0
        self.points_dropped_total = 0
        self.retries_total = 0
        self.problem: SinkError | None = None
        self._format = format_
        self._names = names
        self._retire = retire
        self._series: dict[Host, HostSeries] = {}
        self._queue: deque[Text] = deque()
        self._queue_bytes = 0
        self._changed = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._failing_since: float | None = None
        self._answering_since: float | None = None

    def put(self, outcome: Outcome) -> None:
        """Takes the outcome of a host; returns at once."""
        series = self._series.get(outcome.host)
        if series is None:
            names = self._names.host(outcome.host.name)
            series = HostSeries(names, self._format.encode, self._retire)
            self._series[outcome.host] = series
        self._enqueue(series.update(outcome), outcome.taken_unix_seconds)

    def put_points(self, points: list[tuple[str, str]], unix_seconds: float) -> None:
        """Takes points that belong to no host: the collector's own counters."""
        self._enqueue(Text(self._format.encode(points), len(points)), unix_seconds)

    def replace_hosts(self, names: FleetNames, hosts: set[Host], unix_seconds: float) -> None:
        """Changes the fleet: the series of hosts that left it, or are called otherwise now, end."""
        for host in list(self._series):
            is_same = host in hosts and names.host(host.name).host_stem == self._names.host(host.name).host_stem
            if not is_same:
                self._enqueue(self._series.pop(host).retire(), unix_seconds)
        self._names = names

    def _enqueue(self, item: Text, unix_seconds: float) -> None:
        if not item.points:
            return
        if self._format.at:
            item = Text(self._format.at(item.text, unix_seconds), item.points)
        self._queue.append(item)
        self._queue_bytes += len(item.text)
        while self._queue_bytes > _MAX_QUEUE_BYTES:
            self.points_dropped_total += self._take().points
        self._is_idle.clear()
        self._changed.set()

    def _take(self) -> Text:
        item = self._queue.popleft()
        self._queue_bytes -= len(item.text)
        return item

    async def run(self) -> None:
        """Delivers what comes in, until cancelled."""
        while True:
            await self._changed.wait()
            while self._queue:
                await self._deliver(self._take())
            self._changed.clear()
            self._is_idle.set()

    async def _deliver(self, item: Text) -> None:
        while True:
            try:
                await self.transport.send(item.text, self._queue_bytes)
            except SinkError as error:
                if self._has_given_up(error):
                    self.points_dropped_total += item.points
                    return
                self.retries_total += 1
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self.points_sent_total += item.points
                self._note_success()
                return

    def _has_given_up(self, error: SinkError) -> bool:
        now = time.monotonic()
        self._answering_since = None
        if self._failing_since is None:
            self._failing_since = now
        if self.problem is None or str(self.problem) != str(error):
            log.warning("%s; trying again", error)
        self.problem = error
        return now - self._failing_since >= GIVE_UP_SECONDS

    def _note_success(self) -> None:
        if self._failing_since is None:
            return
        now = time.monotonic()
        if self._answering_since is None:
            self._answering_since = now
        elif now - self._answering_since > _RECOVERED_AFTER_SECONDS:
            log.warning(
                "%s answers again after %.0f s; %d points were dropped since the start",
                self.transport.address,
                self._answering_since - self._failing_since,
                self.points_dropped_total,
            )
            self._failing_since = self._answering_since = self.problem = None

    async def drain(self) -> None:
        """Waits until everything is delivered or given up.

        Raises:
            SinkError: points were given up.
        """
        await self._is_idle.wait()
        try:
            await self.transport.flush()
        except SinkError as error:
            self._has_given_up(error)
            raise
        if self.problem and self.points_dropped_total:
            raise SinkError(f"{self.problem} ({self.points_dropped_total} points were not delivered)")

    async def close(self) -> None:
        """Lets go of the transport."""
        await self.transport.close()
