"""One task per host, all on one grid of slots; hosts come and go without a word to the others."""

import asyncio
from collections.abc import Callable, Coroutine, Set

from fleetmem.model import Host
from fleetmem.schedule import Grid, Schedule, Slot

Work = Callable[[Host, Schedule, Slot], Coroutine[None, None, None]]


class HostTasks:
    """Keeps a task running for each host.

    Args:
        group: of the tasks.
        work: what a task does, from its first slot on.
    """

    def __init__(self, group: asyncio.TaskGroup, work: Work) -> None:
        self._group = group
        self._work = work
        self._tasks: dict[Host, asyncio.Task[None]] = {}

    def replace(self, grid: Grid, from_seconds: float, anew: Set[Host] = frozenset()) -> None:
        """Ends the tasks of hosts that are gone, and begins those of new ones, with their first slot from a time on.

        Args:
            grid: of the hosts that are sampled.
            from_seconds: see above.
            anew: hosts whose tasks end and begin again.
        """
        for gone in self._tasks.keys() - (grid.places.keys() - anew):
            self._tasks.pop(gone).cancel()
        for host in grid.places:
            if host not in self._tasks:
                schedule = grid.schedule(host)
                work = self._work(host, schedule, schedule.first_slot(from_seconds))
                self._tasks[host] = self._group.create_task(work)

    async def end(self) -> None:
        """Ends all, and waits until they have ended."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values())
