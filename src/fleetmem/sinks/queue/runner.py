"""The sink runner: outcomes in, text out. Owns queue, spool, retries and counters; a stuck backend delays nobody.

                   queue in memory ────────────────> transport
put ──> encoding ──┤  while the backend is away:  ├
                   └──> spool on disk, in order ──┘
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fleetmem.errors import SinkError
from fleetmem.model import INTERVAL_SECONDS, CollectorStats, Host, Outcome
from fleetmem.runtime.stop_budget import CLOSE_SECONDS
from fleetmem.sinks.endings import CYCLES, Endings
from fleetmem.sinks.memory import OWN, SinkMemory
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.queue.backlog import Backlog, Bounds, Item
from fleetmem.sinks.queue.disk import DiskQueue, SpoolFile
from fleetmem.sinks.series import Text
from fleetmem.sinks.sink import SinkStats, Takes, take_all

log = logging.getLogger(__name__)

GIVE_UP_SECONDS = 5.0
"""Gauges without a time of their own are false when they come later; a command that ends waits no longer, either."""

_FIRST_RETRY_SECONDS = 0.5
_LAST_RETRY_SECONDS = 5.0
_SPOOL_EVERY_SECONDS = 0.5  # what would be lost if the collector were killed
# Without a refusal in between: UDP reports one a datagram late, be that a cycle later, and one success proves nothing.
_RECOVERED_AFTER_SECONDS = 2.0
_UNPROVEN_SECONDS = 10.0  # after which what was sent has arrived, where sending still works
_UNPROVEN_TOGETHER_SECONDS = 0.5
_UNPROVEN_BYTES = 4 * 1024 * 1024
_FORMER_SECONDS = 60.0


class Transport(Protocol):
    """Moves text to a backend."""

    address: str
    datagrams_total: int
    bytes_total: int
    batch_bytes: int
    """how much it is to be sent at once, where that much waits"""
    refuses_late: bool
    """whether an error tells that what was sent before is lost, as with UDP"""

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Sends whole lines. Raises SinkError."""

    async def flush(self) -> None:
        """Makes sure that what was sent is on its way. Raises SinkError."""

    def unconfirmed(self) -> list[bytes]:
        """Returns what was sent, but may be lost with the connection; each text is returned once."""

    async def close(self) -> None:
        """Lets go of sockets."""


class HostEncoding(Protocol):
    """Turns the outcomes of one host into text."""

    def update(self, outcome: Outcome) -> Text:
        """Returns the text of an outcome."""

    def retire(self) -> Text:
        """Returns the text that ends everything of a host that is sampled no more."""

    @property
    def endings(self) -> Endings:
        """The zeros that it has still to send."""

    def end_again(self, lost: bytes) -> None:
        """Takes zeros that did not arrive: they go again, except for series that live now."""

    def recall(self, zeros: bytes) -> None:
        """Takes the zeros of the series that the host had before the start: those that live no more end."""

    def lines(self) -> bytes:
        """Returns lines of all series that live, or have still to be ended; their values do not matter."""

    @property
    def count(self) -> int:
        """Series, or rows, that live now."""


class Encoding(Protocol):
    """Turns outcomes into a sink's text."""

    at: Callable[[bytes, float], bytes] | None
    """puts the time into text, where the protocol carries one"""

    def host(self, names: FleetNames, host: Host) -> HostEncoding:
        """Returns the encoding of one host's outcomes."""

    def endings(self) -> Endings:
        """Returns where zeros wait that are no host's any more."""

    def is_same_host(self, old: FleetNames, new: FleetNames, host: Host) -> bool:
        """Whether a host's encoding can stay when the fleet changes."""

    def stats(self, names: FleetNames, stats: CollectorStats) -> Text:
        """Returns the text of the collector's own counters."""

    def end_stats(self, names: FleetNames, stats: CollectorStats) -> Text:
        """Returns the text that ends the series of the collector's own counters."""


@dataclass(slots=True)
class _Trouble:
    """Since when the backend is away, since when it seems to be back, and what was sent since then."""

    since: float
    answering_since: float | None = None
    tries: int = 0
    unproven_points: int = 0


@dataclass(slots=True)
class _Totals:
    sent: int = 0
    full: int = 0
    late: int = 0
    retries: int = 0
    retired: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how much may wait.

    Attributes:
        max_late_seconds: points that could not be delivered for so long are dropped, None keeps them.
        bounds: of the queue in memory.
        cycle_seconds: between two zeros of a series whose host is sampled no more.
    """

    max_late_seconds: float | None = GIVE_UP_SECONDS
    bounds: Bounds = field(default_factory=Bounds)
    cycle_seconds: float = INTERVAL_SECONDS


class _Zeros(NamedTuple):
    """Zeros that were sent within half a second, and may be lost all the same: owners, and the lines of each.

    There is no object for each: thousands that live for seconds bring on one garbage collection after the other.
    """

    at_seconds: float
    owners: list[Host | None]
    lines: list[bytes]


class QueuedSink:
    """Formats outcomes and delivers them.

    Args:
        name: of the sink, in counters.
        encoding: the sink's format.
        transport: to its backend.
        names: of the fleet.
        options: bounds.
        spool: where points wait while the backend is away, None for in memory.

    Attributes:
        problem: what is wrong with the backend now, None when nothing is.
        takes: which hosts are its own, by name.
    """

    def __init__(
        self,
        name: str,
        encoding: Encoding,
        transport: Transport,
        names: FleetNames,
        options: Options | None = None,
        spool: SpoolFile | None = None,
    ) -> None:
        self.name = name
        self.problem: SinkError | None = None
        self.takes: Takes = take_all
        self._options = options or Options()
        self._encoding = encoding
        self._transport = transport
        self._names = names
        self._disk = DiskQueue(spool, transport.address) if spool else None
        self._is_spooling = spool is not None  # there may be points from an earlier start
        self._memory: SinkMemory | None = None
        self._hosts: dict[Host, HostEncoding] = {}
        self._by_name: dict[str, Host] = {}
        self._own_zeros = b""  # of the collector's own counters
        self._last_stats: CollectorStats | None = None
        self._backlog = Backlog(self._options.bounds, self._lose)
        self._leaving: dict[str, Endings] = {}  # zeros of hosts that are sampled no more, by name; "" is the collector
        self._next_zeros_at = 0.0
        self._unproven: deque[_Zeros] = deque()
        self._unproven_bytes = 0
        self._totals = _Totals()
        self._trouble: _Trouble | None = None
        self._is_draining = False
        self._changed = asyncio.Event()
        self._is_idle = asyncio.Event()
        if self._is_spooling:
            self._changed.set()
        else:
            self._is_idle.set()

    @property
    def address(self) -> str:
        """Where to."""
        return self._transport.address

    def put(self, outcome: Outcome) -> None:
        """Takes the outcome of a host; returns at once."""
        host = outcome.host
        encoding = self._hosts.get(host)
        if encoding is None:
            if not self.takes(host.name):
                return
            encoding = self._hosts[host] = self._encoding.host(self._names, host)
            self._by_name[host.name] = host
            if self._memory:
                encoding.recall(self._memory.recall(host.name))
            if endings := self._leaving.pop(host.name, None):
                encoding.end_again(endings.lines)
                endings.clear()
        self._enqueue(encoding.update(outcome), outcome.slot_unix_seconds, host)

    def put_stats(self, stats: CollectorStats) -> None:
        """Takes the collector's own counters."""
        if self._memory and (remembered := self._memory.recall(OWN)):
            self._end_again(None, remembered)
        if self.takes(stats.collector):
            self._last_stats = stats
            zeros = self._encoding.end_stats(self._names, stats).zeros
            if endings := self._leaving.get(OWN):
                endings.forget(zeros)
            if self._memory and zeros != self._own_zeros:
                self._memory.note(OWN, zeros, b"")
                self._own_zeros = zeros
            self._enqueue(self._encoding.stats(self._names, stats), stats.taken_unix_seconds)

    def replace_hosts(self, names: FleetNames, hosts: set[Host], unix_seconds: float) -> None:
        """Changes the fleet: the series of hosts that left it, or are called otherwise now, end."""
        for host in list(self._hosts):
            is_ours = host in hosts and self.takes(host.name)
            if not is_ours or not self._encoding.is_same_host(self._names, names, host):
                encoding = self._hosts.pop(host)
                if self._by_name.get(host.name) == host:
                    del self._by_name[host.name]
                self._enqueue(encoding.retire(), unix_seconds, host)
                self._leave(host, encoding.endings)
        stats = self._last_stats
        if stats and (names.prefix != self._names.prefix or not hosts or not self.takes(stats.collector)):
            self._last_stats = None
            ended, endings = self._encoding.end_stats(self._names, stats), self._encoding.endings()
            self._enqueue(ended, unix_seconds)
            endings.next(ended.zeros)
            self._own_zeros = b""
            self._leave(None, endings)
        self._names = names

    def stats(self) -> SinkStats:
        """Returns its counters."""
        totals, backlog, disk = self._totals, self._backlog, self._disk
        return SinkStats(
            points_sent_total=totals.sent,
            points_dropped_full_total=totals.full,
            points_dropped_late_total=totals.late,
            retries_total=totals.retries,
            sent_bytes_total=self._transport.bytes_total,
            datagrams_sent_total=self._transport.datagrams_total,
            series_retired_total=totals.retired,
            series=sum(encoding.count for encoding in self._hosts.values()),
            queue_points=backlog.points,
            queue_bytes=backlog.text_bytes,
            queue_age_seconds=backlog.age_seconds(time.monotonic()),
            spool_points=disk.points if disk else 0,
            spool_bytes=disk.text_bytes if disk else 0,
            spool_age_seconds=disk.age_seconds if disk else 0.0,
            failing=int(self.problem is not None),
        )

    def _enqueue(self, text: Text, unix_seconds: float, owner: Host | None = None) -> None:
        if self._memory and (text.begun or text.last):
            self._memory.note(owner.name if owner else OWN, text.begun, text.last)
        if not text.points:
            return
        self._totals.retired += text.ended
        at = self._encoding.at
        timed = at(text.text, unix_seconds) if at else text.text
        item = Item(timed, text.points, unix_seconds, text.zeros, owner)
        if dropped := self._backlog.put(item, time.monotonic()):
            self._drop_full(dropped)
        self._is_idle.clear()
        self._changed.set()

    def _drop_full(self, points: int) -> None:
        if points and not self._totals.full:
            log.warning("%s: more points wait than may; the oldest are dropped and counted from here on", self.address)
        self._totals.full += points

    def _lose(self, item: Item) -> None:
        if item.zeros:
            self._end_again(item.owner, item.zeros)

    def _end_again(self, owner: Host | None, zeros: bytes) -> None:
        """Lets zeros that did not arrive go again: a receiver that repeats its gauges would never end the series."""
        encoding = self._hosts.get(owner) if owner else None
        if encoding:
            encoding.end_again(zeros)
        else:
            endings = self._encoding.endings()
            endings.again(zeros)
            self._leave(owner, endings)

    def _leave(self, owner: Host | None, endings: Endings) -> None:
        """Keeps zeros that no outcome will bring."""
        if not endings:
            return
        if not self._leaving:
            self._next_zeros_at = time.monotonic() + self._options.cycle_seconds
        name = owner.name if owner else OWN
        if name in self._leaving:
            self._leaving[name].again(endings.lines)
            endings.clear()
        else:
            self._leaving[name] = endings

    def _send_zeros(self) -> None:
        """Sends the zeros that no outcome brings, once."""
        for name, endings in list(self._leaving.items()):
            host = self._by_name.get(name)
            if host:  # it is back, by another address say
                self._hosts[host].end_again(endings.lines)
                endings.clear()
            else:
                self._enqueue(_only_zeros(endings), time.time(), Host(name, "") if name else None)
            if not endings:
                del self._leaving[name]
        self._next_zeros_at = time.monotonic() + self._options.cycle_seconds

    def _send_last_zeros(self) -> None:
        """Sends all zeros that would go in later cycles: there are none."""
        for host, encoding in self._hosts.items():
            for _cycle in range(CYCLES):
                self._enqueue(_only_zeros(encoding.endings), time.time(), host)
        for _cycle in range(CYCLES):  # not until there are none: those that a full queue drops come back
            self._send_zeros()

    def remember(self, memory: SinkMemory | None) -> None:
        """Keeps the names of its series there, and takes from there what lived before the start."""
        self._memory = memory
        if memory:
            memory.attach(self)

    def owners(self) -> list[str]:
        """Returns the hosts that have series, or have had some that are still to be ended."""
        return [*self._by_name, *(name for name in self._leaving if name not in self._by_name), *self._own_owner]

    @property
    def _own_owner(self) -> list[str]:
        return [OWN] if self._own_zeros and OWN not in self._leaving else []

    def series_of(self, owner: str) -> bytes:
        """Returns lines of all series of a host that live, or have still to be ended; their values do not matter."""
        leaving = self._leaving.get(owner)
        lines = leaving.lines if leaving else b""
        if owner == OWN:
            return lines + self._own_zeros
        host = self._by_name.get(owner)
        return lines + (self._hosts[host].lines() if host else b"")

    def _end_remembered(self, memory: SinkMemory) -> None:
        """Ends the series of hosts that were sampled before the start, and are no more; forgets those of others."""
        for name in memory.owners():
            is_here = self._names.is_sampled_here(name) and memory.samples
            is_former = isinstance(self, FormerSink)
            if not is_former and (name == OWN or (is_here and self.takes(name))):
                continue
            zeros = memory.recall(name)
            if is_former or is_here or (memory.is_main and not self._names.is_of_fleet(name)):
                self._totals.retired += zeros.count(b"\n")
                self._end_again(Host(name, "") if name else None, zeros)
                memory.note(name, b"", b"")
        self._next_zeros_at = time.monotonic()

    async def _until_changed(self) -> None:
        """Waits for something to do."""
        if not self._leaving:
            await self._changed.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._next_zeros_at - time.monotonic())):
                await self._changed.wait()
        if time.monotonic() >= self._next_zeros_at:
            self._send_zeros()

    async def run(self) -> None:
        """Delivers what comes in, until cancelled."""
        if self._memory:
            self._end_remembered(self._memory)
        while True:
            await self._until_changed()
            self._changed.clear()
            while self._backlog or self._is_spooling:
                disk = self._disk if self._is_spooling else None
                is_delivered = await (self._deliver_spooled(disk) if disk else self._deliver_queued())
                if not is_delivered and self._trouble and not await self._back_off(self._trouble):
                    break
            self._is_idle.set()

    async def _deliver_queued(self) -> bool:
        taken = self._backlog.take(self._transport.batch_bytes)
        is_sent = False
        try:
            is_sent = await self._send(b"".join(item.text for _at, item in taken), self._backlog.text_bytes)
        finally:  # also when it is cancelled: what is in the queue at the end goes to the spool
            if not is_sent:
                self._backlog.put_back(taken)
        if is_sent:
            self._note_sent(sum(item.points for _at, item in taken))
            self._keep_unproven(taken)
        if self._disk:  # what waits there though nothing is wrong could not be read before: once more, after the rest
            self._is_spooling = not is_sent or (bool(self._disk.points) and not self._backlog)
        return is_sent

    async def _deliver_spooled(self, disk: DiskQueue) -> bool:
        await self._fill(disk)
        found = await disk.first()
        if not found:
            self._is_spooling = False
            return True
        if not await self._send(b"".join(item.text for _key, item in found), disk.text_bytes):
            return False
        self._note_sent(sum(item.points for _key, item in found))
        await disk.remove(found[-1][0])
        return True

    async def _fill(self, disk: DiskQueue) -> None:
        dropped = await disk.take_over(self._backlog)
        self._drop_full(dropped.full)
        self._totals.late += dropped.late

    async def _send(self, text: bytes, backlog_bytes: int) -> bool:
        try:
            await self._transport.send(text, backlog_bytes)
        except SinkError as error:
            self._note_failure(error)
            return False
        return True

    async def _back_off(self, trouble: _Trouble) -> bool:
        """Waits for the next try; returns whether there is to be one."""
        next_try = time.monotonic() + min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(trouble.tries, 10))
        trouble.tries += 1
        while True:
            if self._disk:
                await self._fill(self._disk)
                if self._is_draining:
                    return False
            else:
                self._drop_late(trouble)
                if not self._backlog:
                    return True
            left = next_try - time.monotonic()
            if left <= 0:
                break
            await asyncio.sleep(min(left, _SPOOL_EVERY_SECONDS))
        self._totals.retries += 1
        return True

    def _drop_late(self, trouble: _Trouble) -> None:
        now, most = time.monotonic(), self._options.max_late_seconds
        if self._is_draining and now - trouble.since >= GIVE_UP_SECONDS:
            self._totals.late += self._backlog.expire(now)
        elif most is not None:
            self._totals.late += self._backlog.expire(now - most)

    def _keep_unproven(self, sent: list[tuple[float, Item]]) -> None:
        """Keeps the zeros that were sent until it is clear that the backend was there."""
        now = time.monotonic()
        for _at, item in sent:
            if item.zeros:
                if not self._unproven or self._unproven[-1].at_seconds < now - _UNPROVEN_TOGETHER_SECONDS:
                    self._unproven.append(_Zeros(now, [], []))
                self._unproven[-1].owners.append(item.owner)
                self._unproven[-1].lines.append(item.zeros)
                self._unproven_bytes += len(item.zeros)
        while self._unproven and (
            self._unproven[0].at_seconds < now - _UNPROVEN_SECONDS or self._unproven_bytes > _UNPROVEN_BYTES
        ):
            self._unproven_bytes -= sum(map(len, self._unproven.popleft().lines))

    def _note_failure(self, error: SinkError) -> None:
        unproven, self._unproven, self._unproven_bytes = self._unproven, deque(), 0
        for zeros in unproven:
            for owner, lines in zip(zeros.owners, zeros.lines, strict=True):
                self._end_again(owner, lines)
        if self._trouble is None:
            self._trouble = _Trouble(time.monotonic())
        self._trouble.answering_since = None
        self._totals.late += self._trouble.unproven_points
        self._trouble.unproven_points = 0
        if self.problem is None or str(self.problem) != str(error):
            log.warning("%s; trying again", error)
        self.problem = error

    def _note_sent(self, points: int) -> None:
        trouble = self._trouble
        if trouble is None:
            self._totals.sent += points
            return
        if self._transport.refuses_late:
            trouble.unproven_points += points
        else:
            self._totals.sent += points
        now = time.monotonic()
        trouble.tries = 0
        if trouble.answering_since is None:
            trouble.answering_since = now
        if now - trouble.answering_since > _RECOVERED_AFTER_SECONDS:
            log.warning(
                "%s %s answers again after %.0f s; %d points were dropped since the start",
                self.name,
                self.address,
                trouble.answering_since - trouble.since,
                self.stats().points_dropped_total,
            )
            self._prove()
            self._trouble = self.problem = None

    def _prove(self) -> None:
        """Nothing was refused for long enough: what was sent has arrived, as far as one can know."""
        if self._trouble:
            self._totals.sent += self._trouble.unproven_points
            self._trouble.unproven_points = 0

    async def drain(self) -> None:
        """Waits until everything is delivered, given up or safe on disk.

        Raises:
            SinkError: points were given up.
        """
        self._send_last_zeros()
        self._is_draining = True
        await self._is_idle.wait()
        try:
            await self._transport.flush()
        except SinkError as error:
            self._note_failure(error)
            if not self._disk:
                raise
        else:
            self._prove()
        if not self._disk and self.problem and self.stats().points_dropped_total:
            dropped = self.stats().points_dropped_total
            raise SinkError(f"{self.problem} ({dropped} points were not delivered)")

    async def close(self) -> None:
        """Lets go of transport and spool; what is not delivered stays on disk where there is a spool."""
        if self._disk:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._close_disk(self._disk)
            except TimeoutError:
                log.error("%s: the disk does not answer; %d points are lost", self.address, self._backlog.points)
        await self._transport.close()
        if self._memory:
            self._memory.detach(self)

    async def _close_disk(self, disk: DiskQueue) -> None:
        for text in self._transport.unconfirmed():
            self._backlog.put(Item(text, text.count(b"\n"), time.time()), time.monotonic())
        await self._fill(disk)
        if disk.points:
            log.warning("%s: %d points wait on disk for the next start", self.address, disk.points)
        await disk.close()


class FormerSink(QueuedSink):
    """Ends the series in a server that was configured before the start, and is no more."""

    async def run(self) -> None:
        """Ends them, within a minute; then it has nothing to do."""
        self.takes = lambda _name: False
        with suppress(TimeoutError):
            async with asyncio.timeout(_FORMER_SECONDS):
                await super().run()
        await asyncio.Event().wait()

    async def drain(self) -> None:
        """Waits a moment for what is on its way: nobody sends there any more, so nobody hears that it is away."""
        with suppress(SinkError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await super().drain()


def _only_zeros(endings: Endings) -> Text:
    zeros, last = endings.next()
    return Text(zeros, zeros.count(b"\n"), zeros=zeros, last=last)
