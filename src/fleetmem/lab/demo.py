"""The lab's demo: fleetmem's own daemon against the lab, and a check of every series that it sent.

What was sent is read from the very text that goes into the UDP socket; what arrived is asked of Graphite. Nothing in
between is taken on trust.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path

from fleetmem import config
from fleetmem.build import Fleet, build_fleet
from fleetmem.errors import UsageError
from fleetmem.lab.access import settings
from fleetmem.lab.directory import Directory
from fleetmem.lab.render import Graphite, Series
from fleetmem.lab.state import State
from fleetmem.model import Failure, Host, Outcome, ProcessMemory, Sample
from fleetmem.sinks.formats import statsd_plain
from fleetmem.sinks.runner import QueuedSink
from fleetmem.sinks.series import SeriesEncoding
from fleetmem.sinks.udp import UdpTransport

GRAPHITE_PREFIX = "stats.gauges."
"""What StatsD puts before the names of gauges."""

_POLL_SECONDS = 0.5


class RecordingTransport(UdpTransport):
    """Datagrams to StatsD, with a memory.

    Attributes:
        last_values: by name, as text, what was handed to the socket last.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.last_values: dict[str, str] = {}

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Sends text, and remembers its gauges."""
        self.last_values.update(parse_gauges(text))
        await super().send(text, backlog_bytes)


def parse_gauges(text: bytes) -> dict[str, str]:
    """Returns names and values of StatsD lines."""
    return dict(line.removesuffix("|g").split(":") for line in text.decode("ascii").splitlines())


@dataclass(frozen=True, slots=True)
class Row:
    """A process of the fleet and the name of its RSS in Graphite."""

    host: str
    process: ProcessMemory
    series: str


class Watch:
    """The fleet as the demo shows it: the latest outcome of each host.

    Args:
        fleet: what is sampled.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._names = {host: fleet.names.host(host.name) for host in fleet.hosts}
        self._outcomes: dict[Host, Outcome] = {}

    def add(self, outcome: Outcome) -> None:
        """Takes the outcome of a host."""
        self._outcomes[outcome.host] = outcome

    @property
    def hosts_answering(self) -> int:
        """How many hosts have answered last time."""
        return sum(isinstance(outcome, Sample) for outcome in self._outcomes.values())

    @property
    def failures(self) -> list[Failure]:
        """Hosts that have not."""
        return [outcome for outcome in self._outcomes.values() if isinstance(outcome, Failure)]

    def biggest(self, count: int) -> list[Row]:
        """Returns the processes with the most RSS, over all hosts."""
        rows = (
            row for outcome in self._outcomes.values() if isinstance(outcome, Sample) for row in self._rows(outcome)
        )
        return nlargest(count, rows, key=lambda row: row.process.rss_bytes)

    def _rows(self, sample: Sample) -> Iterable[Row]:
        names = self._names[sample.host]
        for process in sample.shaped.processes:
            wrap = statsd_plain(self._fleet.names.prefix, names.process(process.command, process.pid))
            yield Row(sample.host.name, process, f"{GRAPHITE_PREFIX}{wrap.head}rss_bytes")


def build_recording_fleet(directory: Directory, state: State) -> tuple[Fleet, RecordingTransport]:
    """Returns the fleet of a lab and the transport, in place of the usual one, that remembers what it sends.

    Raises:
        UsageError: the environment sets something that does not fit.
    """
    fleet = build_fleet(config.load(None, settings(directory, state)), _ask_nobody)
    servers = fleet.settings.statsd.servers()
    if len(servers) != 1 or len(fleet.collector.sinks) != 1:
        raise UsageError("the demo sends to its own StatsD only: unset FLEETMEM_GRAPHITE__* and FLEETMEM_STATSD__*")
    transport = RecordingTransport(servers[0].host, servers[0].port)
    encoding = SeriesEncoding(statsd_plain, fleet.settings.statsd.retire)
    fleet.collector.sinks[:] = [QueuedSink("statsd", encoding, transport, fleet.names)]
    return fleet, transport


def _ask_nobody(_path: Path) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A series that is not in Graphite as it was sent; `found` is None where there is nothing of it."""

    name: str
    sent: str
    found: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the series sent."""

    series: int
    mismatches: list[Mismatch]

    @property
    def is_good(self) -> bool:
        """Whether something was sent, and all of it is in Graphite."""
        return self.series > 0 and not self.mismatches

    def __str__(self) -> str:
        found = self.series - len(self.mismatches)
        return f"{found} of {self.series} series sent were found in Graphite with the value sent last"


Fetch = Callable[[list[str], float], dict[str, Series]]
"""`Graphite.fetch`."""


def verify(
    last_values: Mapping[str, str],
    fetch: Fetch,
    ended_unix_seconds: float,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Verdict:
    """Compares every series sent with what Graphite has, as soon as StatsD has flushed.

    StatsD repeats each gauge at each flush, so that each series has a value that is newer than the last datagram; an
    older one proves nothing.

    Args:
        last_values: what was sent last, by name.
        fetch: reads series back.
        ended_unix_seconds: when the last datagram was sent.
        seconds: how long to wait for what is not there yet.
        sleep: waits.

    Raises:
        LabError: Graphite does not answer.
    """
    deadline = time.monotonic() + seconds
    left = dict(last_values)
    while True:
        newest = _newest(list(left), fetch, ended_unix_seconds)
        left = {name: sent for name, sent in left.items() if newest.get(name) != float(sent)}
        if not left or time.monotonic() > deadline:
            return Verdict(len(last_values), [Mismatch(name, sent, newest.get(name)) for name, sent in left.items()])
        sleep(_POLL_SECONDS)


def _newest(names: list[str], fetch: Fetch, since_unix_seconds: float) -> dict[str, float]:
    """Returns the newest value of each name that has one since a time."""
    found = fetch([GRAPHITE_PREFIX + name for name in names], since_unix_seconds)
    return {
        name.removeprefix(GRAPHITE_PREFIX): series[-1].value
        for name, series in found.items()
        if series[-1].unix_seconds >= since_unix_seconds
    }


def fetch_histories(graphite: Graphite, rows: Iterable[Row], seconds: float) -> dict[str, list[float]]:
    """Returns the RSS of the last seconds, in bytes, by series.

    Raises:
        LabError: Graphite does not answer.
    """
    found = graphite.fetch([row.series for row in rows], time.time() - seconds)
    return {name: [value for value, _unix_seconds in series] for name, series in found.items()}
