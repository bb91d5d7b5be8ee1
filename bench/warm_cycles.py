"""Warm cycles of fleetmem in a process of its own: the client's CPU per host and cycle, and where it goes.

Run by `compare.py`, which gives the parameters as JSON on the command line and reads a result as JSON from stdout.
The CPU is that of the whole process (time.process_time: user and system time, in nanoseconds) from the first request of
a block of cycles until the sink has sent its last datagram, divided by hosts and cycles.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from fleetmem import config
from fleetmem.connect.link import Link
from fleetmem.model import Host, Outcome, ProcessMemory, Sample
from fleetmem.probe import script
from fleetmem.probe.frame import FrameReader
from fleetmem.runtime.event_loop import run_async
from fleetmem.sinks.sink import Sink
from fleetmem.wiring.fleet import FleetParts, build_fleet
from stage_costs import stage_ms

_WARM_UP_CYCLES = 3


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure.

    Attributes:
        flags: fleetmem's configuration, as `fleetmem.config.load` takes it; without a sink, too.
        cycles: in one block.
        blocks: how often to measure.
        at_once: hosts sampled at the same time; few, as all frames show the helpers (grep, awk) of all of them.
    """

    flags: dict[str, Any]
    cycles: int
    blocks: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Result:
    """What came out.

    Attributes:
        cpu_ms: per host and cycle, one number for each block.
        processes: mean number of processes in a frame.
        changed_share: part of the rows of a frame that were not in the frame before, 0 to 1.
        datagrams_total: sent, as the sender counts.
        stages_ms: per host and cycle, with the share of changed rows above.
        stages_tenth_changed_ms: the same with a tenth of the rows changed.
        stages_all_changed_ms: the same with every row changed: the most that it can be.
    """

    cpu_ms: list[float]
    processes: float
    changed_share: float
    datagrams_total: int
    stages_ms: dict[str, float]
    stages_tenth_changed_ms: dict[str, float]
    stages_all_changed_ms: dict[str, float]


async def measure(task: Task) -> Result:
    """Connects, warms up, measures block by block."""
    fleet = build_fleet(config.load(None, task.flags), lambda _path: None)
    sinks = fleet.collector.sinks
    sending = [asyncio.create_task(sink.run()) for sink in sinks]
    await _cycles(fleet, _WARM_UP_CYCLES, task.at_once)
    cpu_ms = []
    for _ in range(task.blocks):
        begun = time.process_time()
        await _cycles(fleet, task.cycles, task.at_once)
        cpu_ms.append((time.process_time() - begun) * 1000 / task.cycles / len(fleet.hosts))
    before, outcomes = await _cycle(fleet, task.at_once), await _cycle(fleet, task.at_once)
    changed_share = _changed_share(before, outcomes)
    frame = await _frame(fleet, fleet.hosts[0])
    await _drain(sinks)
    for running in sending:
        running.cancel()
    await fleet.collector.close()
    return Result(
        cpu_ms=cpu_ms,
        processes=sum(sample.shaped.process_count for sample in outcomes) / len(outcomes),
        changed_share=changed_share,
        datagrams_total=sum(sink.stats().datagrams_sent_total for sink in sinks),
        stages_ms=stage_ms(frame, fleet.hosts[0], changed_share),
        stages_tenth_changed_ms=stage_ms(frame, fleet.hosts[0], 0.1),
        stages_all_changed_ms=stage_ms(frame, fleet.hosts[0], 1.0),
    )


async def _cycles(fleet: FleetParts, cycles: int, at_once: int) -> None:
    for _ in range(cycles):
        await _cycle(fleet, at_once)
    await _drain(fleet.collector.sinks)


async def _drain(sinks: list[Sink]) -> None:
    for sink in sinks:
        await sink.drain()


async def _cycle(fleet: FleetParts, at_once: int) -> list[Sample]:
    outcomes: list[Outcome] = []
    hosts = iter(fleet.hosts)

    async def work(hosts: Iterable[Host]) -> None:
        for host in hosts:
            outcomes.append(await fleet.collector.sample(host))  # noqa: PERF401 - several of these share the iterator

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work(hosts))
    samples = [outcome for outcome in outcomes if isinstance(outcome, Sample)]
    assert len(samples) == len(fleet.hosts), outcomes
    return samples


def _changed_share(before: list[Sample], after: list[Sample]) -> float:
    rows_before: dict[Host, set[ProcessMemory]] = {sample.host: set(sample.shaped.processes) for sample in before}
    rows = [(row, rows_before[sample.host]) for sample in after for row in sample.shaped.processes]
    return sum(row not in known for row, known in rows) / len(rows)


async def _frame(fleet: FleetParts, host: Host) -> bytes:
    """Returns one frame of a host as it is, for the stages to be measured with."""
    probe = fleet.settings.probe
    link = Link(host, fleet.reach, script.command(), FrameReader)
    try:
        answer = await link.ask(script.request_maker(probe.kind, probe.processes))
        return answer.frame
    finally:
        await link.close()


def main() -> None:
    """Reads the task, prints the result."""
    task = Task(**json.loads(sys.argv[1]))
    print(json.dumps(asdict(run_async(measure(task)))))


if __name__ == "__main__":
    main()
