import asyncio

from fleetmem.host_tasks import HostTasks
from fleetmem.model import Host
from fleetmem.schedule import Grid, Schedule, Slot


def test_hosts_come_and_go_without_a_word_to_the_others() -> None:
    """A task begins and ends with its host; one that stays is the same task, with the slots that it had."""
    first, second, third = (Host(name, name) for name in "abc")
    slots: dict[str, Slot] = {}
    ended: list[str] = []

    async def work(host: Host, _schedule: Schedule, slot: Slot) -> None:
        assert host.name not in slots, "begun twice"
        slots[host.name] = slot
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(host.name)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            grid = Grid(100, 10, {}).with_hosts([first, second])
            tasks = HostTasks(group, work)
            tasks.replace(grid, 100)
            await asyncio.sleep(0)
            assert slots == {"a": Slot(0, 100), "b": Slot(0, 105)}
            tasks.replace(grid.with_hosts([second, third]), 127)
            await asyncio.sleep(0)
            assert ended == ["a"]
            assert slots["c"] == Slot(3, 130)
            await tasks.end()
        assert sorted(ended) == ["a", "b", "c"]

    asyncio.run(main())
