"""A worker: a process that owns one `Sampler` and obeys the main process, which has started it (see `worker_process`).

    python -m fleetmem.engine.worker DESCRIPTOR      of a socket, whose other end the main process has

It has no terminal and takes no signals: Ctrl-C and a service manager's SIGTERM, which reach all processes, are for the
main process, which tells it to stop. Where that is gone, however it went, this ends at once, and with its connections
the probes on the hosts.
"""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from logging.handlers import QueueHandler

from fleetmem.engine.channel import MAIN_SIGNALS, Channel, LogLine, Orders, Progress, Settle, WorkerRequest
from fleetmem.errors import FleetmemError
from fleetmem.model import Outcome
from fleetmem.runtime import children
from fleetmem.runtime.event_loop import first_error, raise_file_limit, run_async
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.runtime.garbage import keep_collections_short
from fleetmem.runtime.huge_pages import keep_in_huge_pages
from fleetmem.sampling.sampler import Begin, Sampler
from fleetmem.wiring.fleet import FleetParts
from fleetmem.wiring.reading import PREPARING

log = logging.getLogger("fleetmem.engine.worker")  # run as a program, it is called __main__

_PR_SET_PDEATHSIG = 1


class _ToMain(QueueHandler):
    """Sends what is logged to the main process: there is one log."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(None)  # type: ignore[arg-type] # `enqueue` is all that would use it
        self._channel = channel
        self.addFilter(_is_news)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Sends a record."""
        self._channel.send(LogLine(vars(record)))


def _is_news(record: logging.LogRecord) -> bool:
    """Whether the main process has not logged the same already, when it read what a new fleet takes."""
    return record.threadName != PREPARING or record.levelno > logging.WARNING


class Forwarder:
    """Sends outcomes to the main process, which has sinks that are there once.

    Args:
        channel: to it.

    Attributes:
        is_wanted: whether it has any.
        dropped_total: outcomes that it did not take.
    """

    def __init__(self, channel: Channel) -> None:
        self.is_wanted = True
        self.dropped_total = 0
        self._channel = channel

    def put(self, outcome: Outcome) -> None:
        """Sends an outcome, or counts it."""
        if self.is_wanted and not self._channel.send(outcome):
            if not self.dropped_total:
                log.warning("the main process does not keep up: outcomes for its sinks are dropped, and counted")
            self.dropped_total += 1


class _Worker:
    """Obeys.

    Args:
        channel: to the main process.
        orders: the first ones.
    """

    def __init__(self, channel: Channel, orders: Orders) -> None:
        """Builds what the orders describe.

        Raises:
            FleetmemError: it cannot be used any more, a key has vanished say.
        """
        self._channel = channel
        self._forwarder = Forwarder(channel)
        self._forwarder.is_wanted = orders.forwards
        self._taking = asyncio.Lock()
        with _without_warnings():
            self._sampler = Sampler.of(orders.spec, orders.passphrases.get, self._forwarder.put)
        self._allow_files(self._sampler.fleet)

    async def run(self, begin: Begin) -> None:
        """Samples until told to stop."""
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(self._obey(group)), group.create_task(keep_in_huge_pages())]
            await self._sampler.run(begin)
            for task in beside:
                task.cancel()
        self._report()

    async def _obey(self, group: asyncio.TaskGroup) -> None:
        while True:
            message = await self._channel.receive()
            match message:
                case Orders():
                    group.create_task(self._take(message))
                case WorkerRequest.REPORT:
                    self._report()
                case Settle():
                    self._report(message.cycle)
                case WorkerRequest.STOP:
                    await self._sampler.stop()
                    self._report()  # all slots that were settled, before who asked ships the last counters
                    self._channel.send(Progress.STOPPED)
                case _:
                    children.kill_all()
                    os._exit(0)  # the main process is gone; connections go with this one, and no queue keeps it

    async def _take(self, orders: Orders) -> None:
        self._forwarder.is_wanted = orders.forwards
        async with self._taking:  # one after the other: each is built from the one before
            fleet = await self._sampler.rebuild(orders.spec, orders.passphrases.get)
            self._allow_files(fleet)
            await self._sampler.take(fleet, orders.spec.grid)

    def _allow_files(self, fleet: FleetParts) -> None:
        raise_file_limit(len(fleet.hosts), fleet.files, "only {fits} hosts can be connected, the others will fail")

    def _report(self, until: int | None = None) -> None:
        report = self._sampler.report(until)
        totals = {**report.totals, "outcomes_dropped_total": self._forwarder.dropped_total}
        self._channel.send(replace(report, totals=totals))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps those to itself that the main process has logged when it built the same."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


async def _work(sock: socket.socket) -> int:
    channel = await Channel.open(sock)
    logging.getLogger().addHandler(_ToMain(channel))
    status = 0
    try:
        await _obey_from_the_start(channel)
    except* FleetmemError as group:
        log.error("worker: %s", first_error(group))
        status = ExitStatus.USAGE
    await channel.close()
    return status


async def _obey_from_the_start(channel: Channel) -> None:
    worker: _Worker | None = None
    while True:
        message = await channel.receive()
        match message:
            case Orders():
                for name, level in message.log_levels.items():
                    logging.getLogger(name).setLevel(level)
                worker = _Worker(channel, message)
                keep_collections_short()
                channel.send(Progress.READY)
            case Begin() if worker:
                await worker.run(message)
                return
            case WorkerRequest.REPORT | Settle():
                continue  # there is nothing to tell yet
            case _:
                return


def _end_with_parent() -> None:
    """Lets Linux kill this with the main process, also where it hangs and would not notice (prctl(2))."""
    with suppress(AttributeError):  # on other systems
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Works until told to stop."""
    _end_with_parent()
    for number in MAIN_SIGNALS:
        signal.signal(number, lambda *_: None)  # not SIG_IGN: a ProxyCommand would have that, too
    signal.pthread_sigmask(signal.SIG_UNBLOCK, MAIN_SIGNALS)
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)  # or a ProxyCommand would keep it open when this has died
    try:
        sys.exit(run_async(_work(sock)))
    finally:
        children.kill_all()


if __name__ == "__main__":
    main()
