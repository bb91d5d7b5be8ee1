"""One cycle: what becomes of sinks."""

import asyncio
from typing import cast

from fleetmem.errors import SinkError
from fleetmem.sampling.once import _deliver, _drain, _run
from fleetmem.sinks.sink import Sink, SinkStats
from fleetmem.telemetry.bugs import Bugs


class _Recovered:
    """A sink that lost points to a backend which works again."""

    address = "graphite:2003"

    async def drain(self) -> None:
        """Has nothing left."""

    def stats(self) -> SinkStats:
        """Returns what was lost."""
        return SinkStats(points_sent_total=5, points_dropped_full_total=1, points_dropped_late_total=2)


def test_points_that_were_lost_on_the_way_are_a_failed_sink() -> None:
    """Whatever the backend does now: status 4."""
    problem = asyncio.run(_drain(cast("Sink", _Recovered())))
    assert str(problem) == "graphite:2003: 3 points were not delivered"


class _Broken(_Recovered):
    """A sink whose work ends with a bug, with points left."""

    name = "broken"
    problem: SinkError | None = None

    async def run(self) -> None:
        """Fails."""
        raise IndexError("run")

    async def drain(self) -> None:
        """Waits for what nobody does any more."""
        await asyncio.sleep(60)


def test_a_sink_that_a_bug_has_ended_is_not_waited_for() -> None:
    """The bug is counted, which makes status 70, and the sink has failed."""
    bugs = Bugs()

    async def main() -> SinkError | None:
        sink = cast("Sink", _Broken())
        async with asyncio.timeout(10):
            return await _deliver(sink, asyncio.create_task(_run(sink, bugs)), bugs)

    assert str(asyncio.run(main())) == "graphite:2003: a bug in fleetmem ended the delivery"
    assert bugs.total == 1
