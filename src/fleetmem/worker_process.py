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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from fleetmem.bugs import Bugs
from fleetmem.channel import MAIN_SIGNALS, Channel, LogLine, Orders, Progress, Request
from fleetmem.errors import reason_of
from fleetmem.health import WorkerState
from fleetmem.model import Failure, Sample
from fleetmem.report import Report, add_up
from fleetmem.sampler import Begin, Listener
from fleetmem.selfstats import CycleStats
from fleetmem.side_thread import SideThread

log = logging.getLogger("fleetmem.daemon")

_SETTLED_SECONDS = 60.0  # who has lived so long is started again at once
_LONGEST_WAIT_SECONDS = 30.0
_EXIT_SECONDS = 2.0  # between the end of its connection and its own


class WorkerProcess:
    """A process that samples a share of the hosts.

    Args:
        number: for people, from 1.
        orders: what it is to sample.
        on_outcome: called with each outcome, where the orders want them forwarded.
        bugs: counts what goes wrong by a fault of ours.

    Attributes:
        restarts_total: how often it was started again.
        ready: set when it can begin.
    """

    def __init__(self, number: int, orders: Orders, on_outcome: Listener, bugs: Bugs | None = None) -> None:
        self.restarts_total = 0
        self.ready = asyncio.Event()
        self._number = number
        self._orders = orders
        self._on_outcome = on_outcome
        self._bugs = bugs or Bugs()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._cycle = CycleStats()
        self._last: Report | None = None  # what it has told
        self._ended = Report(0.0)  # what is left of those before it
        self._told = asyncio.Event()
        self._stopping = asyncio.Event()
        self._has_stopped = asyncio.Event()
        self._has_begun = False
        self._untold_since: float | None = None  # None before the fleet is sampled

    @property
    def hosts(self) -> int:
        """How many are its share."""
        return len(self._orders.spec.grid.places)

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
                self._untold_since = time.monotonic()
                if message.start_seconds == self._orders.spec.grid.start_seconds:
                    self._cycle.merge(message.cycle)
                else:  # hosts sampled anew must not count twice
                    self._cycle.missed += message.cycle.missed
                self._told.set()
            case Progress.READY:
                self.ready.set()
                if self._untold_since is not None and not self._has_begun:
                    self._begin()
            case Progress.STOPPED:
                self._has_stopped.set()

    def begin(self, start_seconds: float) -> None:
        """Lets it begin to sample, on a grid that starts then; when it is ready, where it is not."""
        grid = self._orders.spec.grid._replace(start_seconds=start_seconds)
        self._orders = replace(self._orders, spec=replace(self._orders.spec, grid=grid))
        self._untold_since = start_seconds
        if self.ready.is_set():
            self._begin()

    def _begin(self) -> None:
        now = time.monotonic()
        self._miss_until(now)
        if self._channel:
            self._has_begun = self._channel.send(Begin(self._orders.spec.grid.start_seconds, now))

    def _note_end(self) -> None:
        """Keeps what may not be lost with a process: its totals, and that outcomes are missing."""
        if self._last:
            self._cycle.missed += self._last.in_flight
            self._ended = add_up([self._ended, self._last.after_end()])
            self._last = None
        self._has_begun = False
        self.ready.clear()
        self._has_stopped.set()
        self._told.set()

    def _miss_until(self, now: float) -> None:
        """Counts the slots that nobody has told of, as the process that had them is no more."""
        if self._untold_since is not None:
            self._cycle.missed += self._orders.spec.grid.slots_between(self._untold_since, now)
            self._untold_since = now

    def take(self, orders: Orders) -> None:
        """Gives it something else to sample: now, or when it is started again."""
        begins_anew = orders.spec.grid.start_seconds != self._orders.spec.grid.start_seconds
        if begins_anew:
            missed, self._cycle = self._cycle.missed, CycleStats()
            self._cycle.missed = missed
            self._untold_since = orders.spec.grid.start_seconds
        self._orders = orders
        if self._channel:
            self._channel.send(orders)

    async def ask(self, wait_seconds: float) -> None:
        """Lets it tell how it is, and waits for that; what comes later is told with the next report."""
        self._told.clear()
        if self._channel and self._has_begun and self._channel.send(Request.REPORT):
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._told.wait()

    def report(self) -> tuple[WorkerState, Report]:
        """Returns how it is, and what it, and those before it, have told since the last time."""
        if not self._has_begun:
            self._miss_until(time.monotonic())
        cycle, self._cycle = self._cycle, CycleStats()
        state = WorkerState(self.pid, self.hosts, self.restarts_total, cycle.samples + sum(cycle.failures.values()))
        told = add_up([self._ended, self._last] if self._last else [self._ended])
        return state, replace(told, cycle=cycle)

    async def stop(self) -> None:
        """Lets it stop; returns when it samples no more, and has sent all outcomes."""
        self._stopping.set()
        if self._channel and self._channel.send(Request.STOP):
            await self._has_stopped.wait()

    def kill(self) -> None:
        """Ends it at once, where it still runs."""
        if self._process:
            self._process.kill()


def _start(sock: socket.socket) -> "subprocess.Popen[bytes]":
    descriptor = sock.fileno()
    command = [sys.executable, "-P", "-m", "fleetmem.worker", str(descriptor)]
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
