"""A worker as the main process sees it: started, asked, told, started again where it dies, and stopped.

run ──> start ──> orders ──> outcomes, log lines, reports ──> end of the connection ──> start again, on the same grid
"""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from fleetmem.engine.channel import MAIN_SIGNALS, Channel, LogLine, Orders, Progress, Settle, WorkerRequest
from fleetmem.errors import reason_of
from fleetmem.model import Failure, Sample
from fleetmem.runtime.side_thread import SideThread
from fleetmem.sampling.sampler import Begin, Listener
from fleetmem.sampling.schedule import Grid
from fleetmem.telemetry.bugs import Bugs
from fleetmem.telemetry.cycles import Cycles
from fleetmem.telemetry.health import WorkerState
from fleetmem.telemetry.report import Report, add_up

log = logging.getLogger(__name__)

_SETTLED_SECONDS = 60.0  # who has lived so long is started again at once
_LONGEST_WAIT_SECONDS = 30.0
_MOST_CYCLES = 100  # that are counted one by one
_EXIT_SECONDS = 2.0  # between the end of its connection and its own


class WorkerProcess:
    """A process that samples a share of the hosts.

    Args:
        number: for people, from 1.
        orders: what it is to sample.
        on_outcome: called with each outcome, where the orders want them forwarded.
        unix: returns the grid's time.
        bugs: counts what goes wrong by a fault of ours.

    Attributes:
        restarts_total: how often it was started again.
        ready: set when it can begin.
    """

    def __init__(
        self,
        number: int,
        orders: Orders,
        on_outcome: Listener,
        unix: Callable[[], float] = time.time,
        bugs: Bugs | None = None,
    ) -> None:
        self.restarts_total = 0
        self.ready = asyncio.Event()
        self._number = number
        self._orders = orders
        self._on_outcome = on_outcome
        self._bugs = bugs or Bugs()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._unix = unix
        self._cycles = Cycles()
        self._last: Report | None = None  # what it has told
        self._ended = Report(0.0)  # what is left of those before it
        self._told = asyncio.Event()
        self._stopping = asyncio.Event()
        self._has_stopped = asyncio.Event()
        self._has_begun = False
        self._told_from = 0  # the first cycle that it has not told of
        self._written_off: set[int] = set()  # cycles that it told of too late, or never
        self._missed_too_many = 0
        self._outcomes = 0
        self._untold_from: float | None = None  # slots from then on are nobody's; None before the fleet is sampled

    @property
    def hosts(self) -> int:
        """How many are its share."""
        return len(self._grid.phases)

    @property
    def _grid(self) -> Grid:
        return self._orders.spec.grid

    @property
    def pid(self) -> int | None:
        """Its process id; None while it is down."""
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Keeps it running until `stop`, and until it has delivered all."""
        deaths = 0
        while not self._stopping.is_set():
            begun = time.monotonic()
            pid, end = self.pid, "ended by a bug of the main process"
            with self._bugs.caught(f"worker {self._number}"):
                pid, end = await self._live()
            if self._stopping.is_set():
                return
            deaths = 0 if time.monotonic() - begun > _SETTLED_SECONDS else deaths + 1
            wait_seconds = min(_LONGEST_WAIT_SECONDS, 2.0 ** (deaths - 2)) if deaths > 1 else 0.0
            again = f"in {wait_seconds:g} s" if wait_seconds else "at once"
            facts = {"pid": pid, "hosts": self.hosts}
            log.error("worker %d %s; it is started again %s", self._number, end, again, extra=facts)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._stopping.wait()
            self.restarts_total += not self._stopping.is_set()

    async def _live(self) -> tuple[int | None, str]:
        """Runs one process to its end; returns its id and how it ended."""
        self._has_stopped.clear()
        ours, theirs = socket.socketpair()
        try:
            with theirs, _signals_blocked():
                self._process = process = _start(theirs)
        except OSError as error:  # no memory, no process more
            ours.close()
            return None, f"cannot be started: {reason_of(error)}"
        try:
            self._channel = channel = await Channel.open(ours)
            channel.send(self._orders)
            while (message := await channel.receive()) is not None:
                self._handle(message)
            await channel.close()
            return process.pid, _describe(await _wait(process))
        finally:
            if process.poll() is None:  # the main process ends for a reason of its own
                process.kill()
                process.wait()
            self._process = self._channel = None
            self._note_end()

    def _handle(self, message: object) -> None:
        match message:
            case Sample() | Failure():
                self._on_outcome(message)
            case LogLine():
                record = logging.makeLogRecord(message.attributes)
                logging.getLogger(record.name).handle(record)
            case Report():
                self._last = message
                self._note_cycles(message)
                self._told.set()
            case Progress.READY:
                self.ready.set()
                if self._untold_from is not None and not self._has_begun:
                    self._begin()
            case Progress.STOPPED:
                self._has_stopped.set()

    def _note_cycles(self, report: Report) -> None:
        """Keeps what it tells of cycles. What was counted as missed already, as it told nothing, is not missed again.

        Outcomes count all the same, and as many slots that are missed later do not: so the sums are right.
        """
        is_on_grid = report.interval_seconds == self._grid.interval_seconds
        for number, stats in report.cycles.items():
            self._outcomes += stats.outcomes
            if is_on_grid and number in self._written_off:
                self._written_off.remove(number)
                stats.missed = 0
                self._missed_too_many += stats.outcomes
                self._cycles.of(number).merge(stats)
            else:  # slots of an interval that is no more count in the cycle that is now
                self._cycles.of(number if is_on_grid else self._cycle_now()).merge(stats)
        if is_on_grid:
            self._told_from = max(self._told_from, report.open_from)

    def _cycle_now(self) -> int:
        return self._grid.cycle_of(self._unix())

    def begin(self, from_unix_seconds: float) -> None:
        """Lets it begin to sample, with the slots from then on; when it is ready, where it is not."""
        self._untold_from = from_unix_seconds
        if self.ready.is_set():
            self._begin()

    def _begin(self) -> None:
        now = self._unix()
        self._miss_until(now)
        if self._channel:
            self._has_begun = self._channel.send(Begin(now))
            self._told_from = self._grid.cycle_of(now)
            self._written_off.clear()

    def _note_end(self) -> None:
        """Keeps what may not be lost with a process: its totals, and that outcomes are missing."""
        if self._last:
            self._ended = add_up([self._ended, self._last.after_end()])
            self._last = None
        if self._has_begun and self._untold_from is not None:
            self._untold_from = max(self._untold_from, self._told_from * self._grid.interval_seconds)
        self._has_begun = False
        self.ready.clear()
        self._has_stopped.set()
        self._told.set()

    def _miss_until(self, unix_seconds: float) -> None:
        """Counts the slots that nobody tells of, as the process that had them is no more."""
        if self._untold_from is not None:
            self._miss_between(self._untold_from, unix_seconds)
            self._untold_from = max(self._untold_from, unix_seconds)

    def _miss_between(self, from_unix_seconds: float, to_unix_seconds: float) -> None:
        grid, begin = self._grid, from_unix_seconds
        for cycle in range(grid.cycle_of(from_unix_seconds), grid.cycle_of(to_unix_seconds) + 1)[-_MOST_CYCLES:]:
            end = min(to_unix_seconds, grid.end_of(cycle))
            self._cycles.miss(cycle, grid.slots_between(begin, end))
            begin = end

    def take(self, orders: Orders) -> None:
        """Gives it something else to sample: now, or when it is started again."""
        has_moved = orders.spec.grid.interval_seconds != self._grid.interval_seconds
        if not self._has_begun:
            self._miss_until(self._unix())
        self._orders = orders
        if has_moved:
            self.move()
        if self._channel:
            self._channel.send(orders)

    def move(self) -> None:
        """The numbers of cycles have changed, with the clock or the interval: what was counted counts now."""
        now = self._unix()
        self._cycles.fold(self._grid.cycle_of(now))
        self._written_off.clear()
        self._told_from = self._grid.cycle_of(now)
        if self._untold_from is not None:
            self._untold_from = now

    async def ask(self, wait_seconds: float, until: int | None = None) -> None:
        """Lets it tell how it is, and waits for that; what comes later is in the next report.

        Args:
            wait_seconds: for the answer.
            until: a cycle that it is to tell of in any case.
        """
        self._told.clear()
        request = WorkerRequest.REPORT if until is None else Settle(until)
        if self._channel and self._has_begun and self._channel.send(request):
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._told.wait()

    def has_told(self, cycle: int) -> bool:
        """Whether nothing more is to be expected of a cycle."""
        return not self._has_begun or self._told_from > cycle

    def report(self, until: int) -> tuple[WorkerState, Report]:
        """Returns how it is, and what it, and those before it, have told of cycles up to one.

        The slots of a process that is no more, or that tells nothing, are missed.
        """
        if not self._has_begun:
            self._miss_until(self._unix())
        elif self._told_from <= until and self._untold_from is not None:
            begin = max(self._untold_from, self._told_from * self._grid.interval_seconds)
            self._miss_between(begin, min(self._grid.end_of(until), self._unix()))
            self._written_off.update(range(self._told_from, until + 1)[-_MOST_CYCLES:])
            self._told_from = until + 1
        state = WorkerState(self.pid, self.hosts, self.restarts_total, self._outcomes)
        self._outcomes = 0
        told = add_up([self._ended, self._last] if self._last else [self._ended])
        cycles = self._cycles.take_before(until + 1)
        for stats in cycles.values():
            less = min(stats.missed, self._missed_too_many)
            stats.missed -= less
            self._missed_too_many -= less
        return state, replace(told, cycles=cycles)

    async def stop(self) -> None:
        """Lets it stop; returns when it samples no more, and has sent all outcomes."""
        self._stopping.set()
        if self._channel and self._channel.send(WorkerRequest.STOP):
            await self._has_stopped.wait()

    def kill(self) -> None:
        """Ends it at once, where it still runs."""
        if self._process:
            self._process.kill()


def _start(sock: socket.socket) -> "subprocess.Popen[bytes]":
    descriptor = sock.fileno()
    command = [sys.executable, "-P", "-m", "fleetmem.engine.worker", str(descriptor)]
    return subprocess.Popen(
        command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, close_fds=True
    )


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Lets a child begin with signals blocked that are not for it, until it has said what to do with them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, MAIN_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _wait(process: "subprocess.Popen[bytes]") -> int:
    """Returns the exit status of a process that is about to end, and is ended where it does not."""
    thread = SideThread("worker")
    try:
        async with asyncio.timeout(_EXIT_SECONDS):
            return await thread.call(process.wait)
    except TimeoutError:
        process.kill()
        return await thread.call(process.wait)
    except OSError:  # there may be no thread
        process.kill()
        return process.wait()
    finally:
        thread.end()


def _describe(status: int) -> str:
    """Returns how a process ended, for people."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-status}"
