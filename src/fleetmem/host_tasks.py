"""One task per host, all on one grid of slots; hosts come and go without a word to the others."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from fleetmem.model import Host
from fleetmem.schedule import Schedule, Slot

Work = Callable[[Host, Schedule, Slot], Coroutine[None, None, None]]


class HostTasks:
    """Keeps a task running for each host.

    Args:
        group: of the tasks.
        start_seconds: when the first cycle begins.
        interval_seconds: between two cycles.
        work: what a task does, from its first slot on.
    """

    def __init__(self, group: asyncio.TaskGroup, start_seconds: float, interval_seconds: float, work: Work) -> None:
        self._group = group
        self._start_seconds = start_seconds
        self._interval_seconds = interval_seconds
        self._work = work
        self._tasks: dict[Host, asyncio.Task[None]] = {}

    def replace(self, hosts: Sequence[Host], now_seconds: float) -> None:
        """Ends the tasks of hosts that are gone, and begins those of new ones, with their first slot from now on."""
        for gone in self._tasks.keys() - set(hosts):
            self._tasks.pop(gone).cancel()
        for place, host in enumerate(hosts):
            if host not in self._tasks:
                schedule = Schedule(self._start_seconds, self._interval_seconds, place / len(hosts))
                work = self._work(host, schedule, schedule.first_slot(now_seconds))
                self._tasks[host] = self._group.create_task(work)

    def cancel(self) -> None:
        """Ends all."""
        for task in self._tasks.values():
            task.cancel()
