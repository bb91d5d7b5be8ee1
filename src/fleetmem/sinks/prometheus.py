"""What Prometheus scrapes: the last sample of each host, as it is known at that moment.

put ──> states, one immutable value per host ──> a scrape copies the references and writes them, in a thread of its own
"""

import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import gzip_accepted
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fleetmem.model import CollectorStats, Host, Outcome, Sample
from fleetmem.sinks.exposition import COLLECTOR_FAMILY, CONTENT_TYPE, FAMILIES, Exposition, HostState, metric_name
from fleetmem.sinks.http_server import Answer, Page, Site, blocks
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.sink import SinkStats, Takes, take_all

_PATH = "/metrics"

# A thread that only computes gives the interpreter away every 5 ms (sys.getswitchinterval), and the event loop would
# wait as long for each of its turns. So a scrape rests by itself, sooner.
_WORK_SECONDS = 0.001
_REST_SECONDS = 0.0001

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_LEVEL = 3


class PrometheusSink(Site):
    """A site with `/metrics`, made from what is put into it.

    Args:
        host: an address of this machine, or a name of it; `::` is all of them.
        port: 0 takes any that is free.
        prefix: of metric names; dots become `_`.
        tags: labels of hosts in the inventory that become labels here.
        other_pages: at the same address.
    """

    def __init__(
        self,
        host: str,
        port: int,
        prefix: str,
        tags: Sequence[str] = (),
        other_pages: Mapping[str, Page] = MappingProxyType({}),
    ) -> None:
        super().__init__("prometheus", host, port, {_PATH: self._metrics, **other_pages})
        self.takes: Takes = take_all
        self._exposition = Exposition(prefix, tags)
        self._own = _OwnCounters(self._exposition.prefix, CollectorStats("", 0.0, ()))
        self._states: dict[Host, HostState] = {}
        self._scrapes = _Scrapes()

    @property
    def address(self) -> str:
        """Where the metrics are."""
        return super().address + _PATH

    def put(self, outcome: Outcome) -> None:
        """Takes the outcome of a host: the next scrape shows it."""
        state = self._states.get(outcome.host, HostState())
        self._states[outcome.host] = state.after(outcome) if isinstance(outcome, Sample) else state.after_failure()

    def put_stats(self, stats: CollectorStats) -> None:
        """Takes the collector's own counters."""
        self._own = _OwnCounters(self._exposition.prefix, stats)

    def replace_hosts(self, names: FleetNames, hosts: set[Host], unix_seconds: float) -> None:
        """Changes the fleet: hosts that left it are gone. Labels hold the hosts' own names, so none of them changes."""
        del names, unix_seconds
        current = {host: host for host in hosts}  # the same hosts perhaps, with other labels
        self._states = {current[host]: state for host, state in self._states.items() if host in current}

    def stats(self) -> SinkStats:
        """Returns its counters; what two scrapes took was sent twice."""
        return SinkStats(
            points_sent_total=self._scrapes.samples_total,
            sent_bytes_total=self._scrapes.bytes_total,
            series=sum(state.series for state in self._states.values()) + self._own.series,
            failing=int(self.problem is not None),
        )

    def _metrics(self, accepted_encodings: str) -> Answer:
        is_gzip = gzip_accepted(accepted_encodings)
        with self._scrapes.lock:  # one after the other: two at once would not be done sooner
            own = self._own
            texts, samples = _write(self._exposition, self._states.copy())
            texts.append(own.text())
            headers = {"Content-Type": CONTENT_TYPE}
            if is_gzip:
                texts = _compress(texts)
                headers["Content-Encoding"] = "gzip"
            self._scrapes.samples_total += samples + own.series
            self._scrapes.bytes_total += sum(map(len, texts))
        return Answer(HTTPStatus.OK, headers, texts)


class _Scrapes:
    """What was served so far, and that one scrape at a time is written."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.samples_total = 0
        self.bytes_total = 0


class _OwnCounters(Collector):
    """The collector's own counters, for prometheus_client to write. Never change."""

    def __init__(self, prefix: str, stats: CollectorStats) -> None:
        self._prefix = prefix
        self._stats = stats

    @property
    def series(self) -> int:
        """How many there are."""
        return len(self._stats.counters)

    def text(self) -> bytes:
        """Returns them in the text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yields a metric per measure, with the collector, and the sink that it is about, as labels."""
        metrics: dict[str, Metric] = {}
        for counter in self._stats.counters:
            name = metric_name(self._prefix, f"{COLLECTOR_FAMILY}{counter.measure}")
            if name not in metrics:
                type_ = "counter" if name.endswith("_total") else "gauge"
                metrics[name] = Metric(name.removesuffix("_total"), "See docs/metrics.md of fleetmem.", type_)
            labels = {"collector": self._stats.collector} | ({"sink": counter.sink} if counter.sink else {})
            metrics[name].add_sample(name, labels, counter.value)
        yield from metrics.values()


def _write(exposition: Exposition, states: dict[Host, HostState]) -> tuple[list[bytes], int]:
    """Returns all families, the samples of each together as the format demands, and how many samples there are."""
    by_family: dict[str, list[bytes]] = {family: [] for family in FAMILIES}
    samples = 0
    rest_at = time.perf_counter() + _WORK_SECONDS
    for host, state in states.items():
        for family, text in exposition.host(host, state).items():
            by_family[family].append(text)
        samples += state.series
        if time.perf_counter() >= rest_at:
            time.sleep(_REST_SECONDS)
            rest_at = time.perf_counter() + _WORK_SECONDS
    return [
        text for family, texts in by_family.items() if texts for text in (exposition.header(family), *texts)
    ], samples


def _compress(texts: Iterable[bytes]) -> list[bytes]:
    """Returns the texts as gzip. zlib lets others work meanwhile."""
    packer = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP)
    return [*(packer.compress(block) for block in blocks(texts)), packer.flush()]
