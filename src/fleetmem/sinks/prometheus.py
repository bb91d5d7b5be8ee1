"""What Prometheus scrapes: the last sample of each host, as it is known at that moment.

put ──> states, one immutable value per host ──> a scrape copies the references and writes them, in a thread of its own
"""

import asyncio
import logging
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import gzip_accepted
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fleetmem.errors import SinkError, UsageError
from fleetmem.model import CollectorStats, Host, Outcome, Sample
from fleetmem.sinks.addresses import host_port
from fleetmem.sinks.exposition import COLLECTOR_FAMILY, CONTENT_TYPE, FAMILIES, Exposition, HostState, metric_name
from fleetmem.sinks.http_server import Answer, HttpServer, blocks
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.sink import SinkStats, Takes, take_all

log = logging.getLogger("fleetmem.sinks")

_LISTEN_AGAIN_SECONDS = 2.0

# A thread that only computes gives the interpreter away every 5 ms (sys.getswitchinterval), and the event loop would
# wait as long for each of its turns. So a scrape rests by itself, sooner.
_WORK_SECONDS = 0.001
_REST_SECONDS = 0.0001

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_LEVEL = 3
_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
_HTML = {"Content-Type": "text/html; charset=utf-8"}
_PAGE = (
    b"<!doctype html><title>fleetmem</title><h1>fleetmem</h1>\n"
    b'<p>The memory of a fleet, for Prometheus: <a href="/metrics">/metrics</a></p>\n'
)


class PrometheusSink:
    """Serves `/metrics`.

    Call `listen` before the first cycle: a port that is in use is said in time then. Otherwise `run` does it, again and
    again where needed: after a reload that changes the prefix alone, the port is the predecessor's for a moment.

    Args:
        listen_host: an address of this machine, or a name of it; `::` is all of them.
        listen_port: 0 takes any that is free.
        prefix: of metric names; dots become `_`.
        tags: labels of hosts in the inventory that become labels here.

    Attributes:
        problem: why nothing is served now.
    """

    def __init__(self, listen_host: str, listen_port: int, prefix: str, tags: Sequence[str] = ()) -> None:
        self.problem: SinkError | None = None
        self.name = "prometheus"
        self.takes: Takes = take_all
        self._listen_host = listen_host
        self._listen_port = listen_port
        self._exposition = Exposition(prefix, tags)
        self._own = _OwnCounters(self._exposition.prefix, CollectorStats("", 0.0, ()))
        self._states: dict[Host, HostState] = {}
        self._scrapes = _Scrapes()
        self._server: HttpServer | None = None

    @property
    def address(self) -> str:
        """Where the metrics are."""
        port = self._server.port if self._server else self._listen_port
        return f"http://{host_port(self._listen_host, port)}/metrics"

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

    def listen(self) -> None:
        """Takes the port; scrapes that come before `run` wait.

        Raises:
            UsageError: the port is in use, or the address is none of this machine.
        """
        if self._server is None:
            try:
                self._server = HttpServer(self._listen_host, self._listen_port, self._answer_to)
            except UsageError as error:
                raise UsageError(f"prometheus: {error}") from error

    async def run(self) -> None:
        """Serves until cancelled."""
        server = await self._listening()
        self.problem = None
        server.start()
        await asyncio.get_running_loop().create_future()

    async def drain(self) -> None:
        """Nothing waits: Prometheus comes for it, or does not."""

    async def close(self) -> None:
        """Frees the port."""
        self.stop_listening()

    def stop_listening(self) -> None:
        """Frees the port."""
        if self._server:
            self._server.close()
            self._server = None

    async def _listening(self) -> HttpServer:
        while self._server is None:
            try:
                self.listen()
            except UsageError as error:
                if self.problem is None:
                    log.error("%s; trying again", error)
                self.problem = SinkError(str(error))
                await asyncio.sleep(_LISTEN_AGAIN_SECONDS)
        return self._server

    def _answer_to(self, path: str, accepted_encodings: str) -> Answer:
        match path:
            case "/metrics":
                return self._metrics(is_gzip=gzip_accepted(accepted_encodings))
            case "/-/healthy":
                return Answer(HTTPStatus.OK, _TEXT, [b"fleetmem is up\n"])
            case "/":
                return Answer(HTTPStatus.OK, _HTML, [_PAGE])
            case _:
                return Answer(HTTPStatus.NOT_FOUND, _TEXT, [b"no such page; there is /metrics\n"])

    def _metrics(self, *, is_gzip: bool) -> Answer:
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
