"""What every sink can do, and what it tells about itself."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from fleetmem.errors import SinkError
from fleetmem.model import CollectorStats, Host, Outcome
from fleetmem.sinks.naming import FleetNames


class SinkStats(NamedTuple):
    """Values of the counters of one sink; `telemetry.counters` says what each means."""

    points_sent_total: int = 0
    points_dropped_full_total: int = 0
    points_dropped_late_total: int = 0
    retries_total: int = 0
    sent_bytes_total: int = 0
    datagrams_sent_total: int = 0
    series_retired_total: int = 0
    series: int = 0
    queue_points: int = 0
    queue_bytes: int = 0
    queue_age_seconds: float = 0.0
    spool_points: int = 0
    spool_bytes: int = 0
    spool_age_seconds: float = 0.0
    failing: int = 0

    @property
    def points_dropped_total(self) -> int:
        """Dropped for whatever reason."""
        return self.points_dropped_full_total + self.points_dropped_late_total


Takes = Callable[[str], bool]
"""Which hosts are a sink's own, by name: where there are several servers, each has its share."""


def take_all(_name: str) -> bool:
    """Takes every host."""
    return True


class Service(Protocol):
    """Works beside the collector."""

    @property
    def address(self) -> str:
        """Where to, or where it is found."""

    async def run(self) -> None:
        """Works until cancelled."""

    async def drain(self) -> None:
        """Waits until all is delivered, given up or safe on disk. Raises SinkError when points were given up."""

    async def close(self) -> None:
        """Lets go of sockets and files."""


class Sink(Service, Protocol):
    """Takes outcomes and the collector's own counters somewhere. `put` and `put_stats` return at once."""

    name: str
    """short, legal in metric names, of its own among the sinks"""
    takes: Takes
    """changes when servers are added or removed; `replace_hosts` then ends what is another's now"""
    problem: SinkError | None
    """what is wrong with the backend now"""

    def put(self, outcome: Outcome) -> None:
        """Takes the outcome of a host."""

    def put_stats(self, stats: CollectorStats) -> None:
        """Takes the collector's own counters."""

    def replace_hosts(self, names: FleetNames, hosts: set[Host], unix_seconds: float) -> None:
        """Changes the fleet: the series of hosts that left it, or are called otherwise now, end."""

    def stats(self) -> SinkStats:
        """Returns its counters."""


class SinkState(NamedTuple):
    """A sink at one moment.

    Attributes:
        name: see `Sink`.
        address: where to.
        problem: what is wrong with the backend, None when nothing is.
        counters: what it has delivered, dropped and queued so far.
    """

    name: str
    address: str
    problem: str | None
    counters: SinkStats

    @classmethod
    def of(cls, sink: Sink) -> "SinkState":
        """Returns the state of a sink now."""
        return cls(sink.name, sink.address, str(sink.problem) if sink.problem else None, sink.stats())
