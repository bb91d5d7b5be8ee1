"""One cycle over a fleet, and all of it delivered: what `collect` does, without a terminal."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from fleetmem.errors import SinkError
from fleetmem.model import Host, Outcome
from fleetmem.sinks.sink import Sink
from fleetmem.telemetry.bugs import Bugs
from fleetmem.wiring.fleet import FleetParts

_DISCONNECT_SECONDS = 1.0


async def sample_once(
    fleet: FleetParts,
    at_once: int,
    on_start: Callable[[Host], None],
    on_outcome: Callable[[Outcome], None],
) -> list[SinkError]:
    """Samples each host once, lets the sinks deliver, and disconnects.

    Args:
        fleet: which hosts, and where to send what they say.
        at_once: hosts at the same time.
        on_start: called when a host's turn comes.
        on_outcome: called with each outcome.

    Returns:
        What went wrong with the sinks.
    """
    bugs = fleet.collector.bugs
    try:
        async with asyncio.TaskGroup() as group:
            running = {sink: group.create_task(_run(sink, bugs)) for sink in fleet.collector.sinks}
            await fleet.collector.collect(fleet.hosts, at_once, on_start, on_outcome)
            # Side by side: each may take its time to give up.
            draining = [group.create_task(_deliver(sink, task, bugs)) for sink, task in running.items()]
            problems = [await task for task in draining]
            for sink_task in running.values():
                sink_task.cancel()
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCONNECT_SECONDS):
                await fleet.collector.close()
        for sink in fleet.collector.sinks:
            with bugs.caught(f"sink {sink.name}"):
                await sink.close()
        await fleet.reach.close()
    return [problem for problem in problems if problem]


async def _run(sink: Sink, bugs: Bugs) -> bool:
    """Lets a sink work; returns whether a bug ended that."""
    with bugs.caught(f"sink {sink.name}"):
        await sink.run()
        return False
    return True


async def _deliver(sink: Sink, running: asyncio.Task[bool], bugs: Bugs) -> SinkError | None:
    """Waits until a sink has delivered all, or a bug keeps it from that; returns what is wrong."""
    draining = asyncio.create_task(_drain(sink))
    await asyncio.wait([draining, running], return_when=asyncio.FIRST_COMPLETED)
    with bugs.caught(f"sink {sink.name}"):
        if not (running.done() and running.result()):
            return await draining
    draining.cancel()
    return sink.problem or SinkError(f"{sink.address}: a bug in fleetmem ended the delivery")


async def _drain(sink: Sink) -> SinkError | None:
    try:
        await sink.drain()
    except SinkError as error:
        return error
    dropped = sink.stats().points_dropped_total  # by a backend that works again, or for want of room
    return SinkError(f"{sink.address}: {dropped} points were not delivered") if dropped else None
