"""Worker processes on this machine, each with its share of the hosts."""

import asyncio
from collections.abc import Callable, Sequence

from fleetmem.engine.channel import Orders
from fleetmem.engine.engine import Work
from fleetmem.engine.worker_process import WorkerProcess
from fleetmem.sampling.sampler import Listener
from fleetmem.sampling.schedule import Grid
from fleetmem.telemetry.bugs import Bugs
from fleetmem.telemetry.health import WorkerState
from fleetmem.telemetry.report import Report


class LocalWorkers:
    """An `Engine`: so many worker processes, which have all hosts between them. With none, all are sampled here.

    Args:
        count: how many; 0 for none.
        work: what they sample.
        on_outcome: called with each outcome, where the work wants them forwarded.
        unix: returns the grid's time.
        bugs: counts what goes wrong by a fault of ours.
    """

    def __init__(self, count: int, work: Work, on_outcome: Listener, unix: Callable[[], float], bugs: Bugs) -> None:
        self._workers = [
            WorkerProcess(number, orders, on_outcome, unix, bugs)
            for number, orders in enumerate(_orders(work, count), 1)
        ]

    @property
    def hosts_of_each(self) -> Sequence[int]:
        """How many hosts each worker has."""
        return [worker.hosts for worker in self._workers]

    def grid_here(self, grid: Grid) -> Grid:
        """Returns no slots where there are workers, which have all of them."""
        return grid.share(()) if self._workers else grid

    async def run(self) -> None:
        """See `Engine`."""
        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(worker.run())

    async def until_ready(self) -> None:
        """See `Engine`."""
        for worker in self._workers:
            await worker.ready.wait()

    def begin(self, from_unix_seconds: float) -> None:
        """See `Engine`."""
        for worker in self._workers:
            worker.begin(from_unix_seconds)

    def take(self, work: Work) -> None:
        """See `Engine`; there are as many workers as before."""
        for worker, orders in zip(self._workers, _orders(work, len(self._workers)), strict=True):
            worker.take(orders)

    def move(self) -> None:
        """See `Engine`."""
        for worker in self._workers:
            worker.move()

    async def ask(self, wait_seconds: float, until: int | None = None) -> None:
        """See `Engine`."""
        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(worker.ask(wait_seconds, until))

    def has_told(self, cycle: int) -> bool:
        """See `Engine`."""
        return all(worker.has_told(cycle) for worker in self._workers)

    def reports(self, until: int) -> list[tuple[WorkerState, Report]]:
        """See `Engine`."""
        return [worker.report(until) for worker in self._workers]

    async def stop(self) -> None:
        """See `Engine`."""
        for stopping in [asyncio.create_task(worker.stop()) for worker in self._workers]:
            await stopping

    def kill(self) -> None:
        """See `Engine`."""
        for worker in self._workers:
            worker.kill()


def _orders(work: Work, count: int) -> list[Orders]:
    return [Orders(spec, work.forwards, work.passphrases, work.log_levels) for spec in work.shares(count)]
