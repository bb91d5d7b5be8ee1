"""Series of hosts that speak protocol 2: the text is that of protocol 1, whatever happened in between."""

import random
from collections.abc import Callable

import pytest

from fleetmem.errors import HostError, Kind, Stage
from fleetmem.lab.simulated_host import SimulatedHost, SimulationPlan
from fleetmem.lab.simulated_probe import SimulatedProbe
from fleetmem.model import Failure, Outcome, Sample, Snapshot
from fleetmem.probe.dialogue import Dialogue
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import ProbeKind, Processes
from fleetmem.shape.budget import HostBudget, SeriesPool
from fleetmem.shape.limits import Limits
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.formats import statsd_plain
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.series import HostSeries, Retire, SeriesEncoding
from unit.builders import WEB

_LIMITS = {
    "all": Limits(),
    "top": Limits(top=20),
    "large": Limits(min_rss_bytes=8_000_000),
}


class _Path:
    """From frames to text, for one host."""

    def __init__(self, limits: Limits, room: int | None) -> None:
        self.shaper = Shaper(WEB, limits, HostBudget(room, SeriesPool()) if room else None)
        self.series: HostSeries = SeriesEncoding(statsd_plain, Retire.ZERO).host(FleetNames("p", ["web01"]), WEB)

    def text(self, snapshot: Snapshot | None, at: float) -> list[bytes]:
        outcome: Outcome
        if snapshot is None:
            outcome = Failure(WEB, at, 0.1, Stage.COMMAND, Kind.DISCONNECTED, "gone", slot_unix_seconds=at)
        else:
            outcome = Sample(WEB, at, 0.1, 100, self.shaper.shape(snapshot, at), slot_unix_seconds=at)
        text = self.series.update(outcome)
        assert text.points == text.text.count(b"\n")
        if snapshot is not None:
            assert self.series.count + text.zeros.count(b"\n") == text.points
        # Protocol 1 has no huge pages and no pressure.
        return sorted(line for line in text.text.splitlines() if b".hugetlb_" not in line and b"_pressure_" not in line)


@pytest.mark.parametrize("room", [None, 150, 10_000])
@pytest.mark.parametrize("limits", _LIMITS)
@pytest.mark.parametrize("churn", [0.05, 0.6])
def test_the_text_is_that_of_protocol_1(limits: str, churn: float, room: int | None) -> None:
    """With failures, new connections, frames that are lost and such that do not add up."""
    plan = SimulationPlan(1, 40, churn, 4, {})
    chance = random.Random(f"{limits} {churn} {room}")  # noqa: S311 - a history that repeats itself
    host, twin = SimulatedHost(plan, 0), SimulatedHost(plan, 0)
    probe, rows = SimulatedProbe(twin), SnapshotParser(ProbeKind.STATUS)
    dialogue = Dialogue(ProbeKind.STATUS, Processes.USER)
    paths = [_Path(_LIMITS[limits], room) for _ in range(2)]
    ask: Callable[[int], bytes] = dialogue.first_request
    for request_id in range(1, 300):
        at = 10.0 * request_id
        frame = host.frame(request_id)
        words = ask(request_id).split()
        answer = probe.frame(request_id, int(words[4]) if len(words) > 4 else 0)
        ask = dialogue.request
        event = chance.random()
        if event < 0.05:  # the answer is lost, and the connection with it
            probe, ask = SimulatedProbe(twin), dialogue.first_request
            assert paths[0].text(None, at) == paths[1].text(None, at)
            continue
        if event < 0.1:  # a line is lost on the way: nobody would notice but for the sums
            lines = answer.splitlines(keepends=True)
            body = [place for place, line in enumerate(lines) if line[:2] in (b"P ", b"N ", b"G ")]
            if body:
                del lines[chance.choice(body)]
                with pytest.raises(HostError):
                    dialogue.parse(b"".join(lines), at)
                assert paths[0].text(None, at) == paths[1].text(None, at)
                continue
        expected = paths[0].text(rows.parse(frame), at)
        assert paths[1].text(dialogue.parse(answer, at), at) == expected
