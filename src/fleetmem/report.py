"""What a sampler tells of itself: counters of an interval, totals since its start, the state of its sinks."""

from dataclasses import dataclass
from typing import NamedTuple

from fleetmem.selfstats import CycleStats
from fleetmem.sinks.sink import SinkState
from fleetmem.usage import Usage


class Totals(NamedTuple):
    """Counters since the start. The fields are measures of docs/metrics.md."""

    handshakes_total: int = 0
    reconnects_total: int = 0
    logins_withheld_total: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What a sampler tells.

    Attributes:
        cycle: what happened since it told last.
        totals: since its start.
        kept_apart: names that have a hash, as they would be another's otherwise.
        usage: what its process takes of the machine; None where that cannot be known.
        sinks: the state of its own.
    """

    cycle: CycleStats
    totals: Totals
    kept_apart: int
    usage: Usage | None
    sinks: tuple[SinkState, ...]
