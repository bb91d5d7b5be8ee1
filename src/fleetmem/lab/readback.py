"""What was sent, read back: every series that left, against what Graphite has. For the demo, and for any deployment.

What was sent is read from the very text that goes into the UDP socket; what arrived is asked of Graphite. Nothing in
between is taken on trust.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fleetmem.errors import UsageError
from fleetmem.lab.render import Series
from fleetmem.sinks.formats import statsd_plain
from fleetmem.sinks.queue.runner import QueuedSink
from fleetmem.sinks.series import SeriesEncoding
from fleetmem.sinks.transports.udp import UdpTransport
from fleetmem.wiring.fleet import FleetParts

GRAPHITE_PREFIX = "stats.gauges."
"""What StatsD puts before the names of gauges."""

_POLL_SECONDS = 0.5


class Sent(NamedTuple):
    """A value as text, and when it was handed to the socket."""

    value: str
    unix_seconds: float


class RecordingTransport(UdpTransport):
    """Datagrams to StatsD, with a memory.

    Attributes:
        sent: by name, what was handed to the socket last.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.sent: dict[str, Sent] = {}

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Sends text, and remembers its gauges."""
        now = time.time()
        self.sent.update((name, Sent(value, now)) for name, value in parse_gauges(text).items())
        await super().send(text, backlog_bytes)


def parse_gauges(text: bytes) -> dict[str, str]:
    """Returns names and values of StatsD lines."""
    return dict(line.removesuffix("|g").split(":") for line in text.decode("ascii").splitlines())


def record(fleet: FleetParts) -> RecordingTransport:
    """Gives a fleet, in place of the usual one, a transport that remembers what it sends, and returns that.

    Raises:
        UsageError: it sends to something else than one StatsD over UDP.
    """
    servers = fleet.settings.statsd.servers()
    if len(servers) != 1 or servers[0].scheme != "udp" or len(fleet.collector.sinks) != 1:
        raise UsageError(
            "what is sent can be read back from one StatsD, over UDP: set statsd.server to it, and leave "
            "graphite.server, prometheus.listen and file.path unset, also in the environment (FLEETMEM_...)"
        )
    transport = RecordingTransport(servers[0].host, servers[0].port)
    encoding = SeriesEncoding(statsd_plain, fleet.settings.statsd.retire)
    fleet.collector.sinks[:] = [QueuedSink("statsd", encoding, transport, fleet.names)]
    return transport


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
    sent: Mapping[str, Sent],
    fetch: Fetch,
    seconds: float,
    ahead_seconds: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Verdict:
    """Compares every series sent with what Graphite has, as soon as StatsD has flushed.

    StatsD sends each gauge at the next flush, and at least once more (`gaugesMaxTTL`). So each series gets a value that
    is newer than its last datagram; an older one proves nothing.

    Args:
        sent: by name.
        fetch: reads series back.
        seconds: how long to wait for what is not there yet.
        ahead_seconds: how much Graphite's clock is ahead of ours.
        sleep: waits.

    Raises:
        LabError: Graphite does not answer.
    """
    deadline = time.monotonic() + seconds
    left = {name: Sent(value, at + ahead_seconds) for name, (value, at) in sent.items()}
    while True:
        newest = _newest(left, fetch)
        left = {name: each for name, each in left.items() if newest.get(name) != float(each.value)}
        if not left or time.monotonic() > deadline:
            mismatches = [Mismatch(name, each.value, newest.get(name)) for name, each in left.items()]
            return Verdict(len(sent), mismatches)
        sleep(_POLL_SECONDS)


def _newest(sent: Mapping[str, Sent], fetch: Fetch) -> dict[str, float]:
    """Returns the newest value of each name that has one since it was sent."""
    if not sent:
        return {}
    found = fetch([GRAPHITE_PREFIX + name for name in sent], min(at for _value, at in sent.values()))
    newest = {name.removeprefix(GRAPHITE_PREFIX): series[-1] for name, series in found.items()}
    return {name: last.value for name, last in newest.items() if last.unix_seconds >= sent[name].unix_seconds}
