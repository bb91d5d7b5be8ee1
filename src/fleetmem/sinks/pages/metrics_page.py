"""What Prometheus scrapes: the last sample of each host, as it is known at that moment.

put ──> states, one immutable value per host ──> a scrape copies the references and writes them, in a thread of its own

Scrapes that come while a page is written wait for the next one, and share it. So a page is never older than the
request for it, and one page is written at a time, however many clients there are.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING

from fleetmem.model import CollectorStats, DeclaredCounter, Host, Outcome, Sample
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.pages.exposition import CONTENT_TYPE, FAMILIES, Exposition, HostState
from fleetmem.sinks.pages.gzip_page import GzipPage, Part
from fleetmem.sinks.pages.http_request import accepts_gzip
from fleetmem.sinks.pages.http_server import HttpAnswer, Page, Site
from fleetmem.sinks.pages.own_metrics import OwnMetrics
from fleetmem.sinks.sink import SinkStats, Takes, take_all

if TYPE_CHECKING:
    from fleetmem.sinks.pages.web_guard import WebGuardFiles

_PATH = "/metrics"

# A thread that only computes gives the interpreter away every 5 ms (sys.getswitchinterval), and the event loop would
# wait as long for each of its turns. So a scrape rests by itself, sooner.
_WORK_SECONDS = 0.001
_REST_SECONDS = 0.0001


class PrometheusSink(Site):
    """A site with `/metrics`, made from what is put into it.

    Args:
        host: an address of this machine, or a name of it; `::` is all of them.
        port: 0 takes any that is free.
        prefix: of metric names; dots become `_`.
        tags: labels of hosts in the inventory that become labels here.
        other_pages: at the same address.
        names: that clients may reach it by, see `HttpServer`.
        declared: what each of the collector's own counters is, by name.
        build: labels of `build_info`: versions of fleetmem and of what it runs on.
        guard: who is let in; None for everybody, without TLS.
    """

    def __init__(
        self,
        host: str,
        port: int,
        prefix: str,
        tags: Sequence[str] = (),
        other_pages: Mapping[str, Page] = MappingProxyType({}),
        names: Collection[str] = (),
        declared: Mapping[str, DeclaredCounter] = MappingProxyType({}),
        build: Mapping[str, str] = MappingProxyType({}),
        guard: "WebGuardFiles | None" = None,
    ) -> None:
        super().__init__("prometheus", host, port, {_PATH: self._metrics, **other_pages}, [_PATH], names, guard)
        self.takes: Takes = take_all
        self._exposition = Exposition(prefix, tags)
        self._own_metrics = partial(OwnMetrics, prefix, declared, build, guard)
        self._own = self._own_metrics(None)
        self._states: dict[Host, HostState] = {}
        self._page = _SharedPage(self._write)
        self._lock = threading.Lock()
        self._sent_points = self._sent_bytes = 0

    @property
    def address(self) -> str:
        """Where the metrics are."""
        return super().address + _PATH

    def put(self, outcome: Outcome) -> None:
        """Takes the outcome of a host: the next scrape shows it."""
        state = self._states.get(outcome.host, HostState())
        self._states[outcome.host] = (
            state.after(outcome) if isinstance(outcome, Sample) else state.after_failure(outcome.kind)
        )
        self._page.generation += 1

    def put_stats(self, stats: CollectorStats) -> None:
        """Takes the collector's own counters."""
        self._own = self._own_metrics(stats)
        self._page.generation += 1

    def replace_hosts(self, names: FleetNames, hosts: set[Host], unix_seconds: float) -> None:
        """Changes the fleet: hosts that left it are gone. Labels hold the hosts' own names, so none of them changes."""
        del names, unix_seconds
        current = {host: host for host in hosts}  # the same hosts perhaps, with other labels
        self._states = {current[host]: state for host, state in self._states.items() if host in current}
        self._page.generation += 1

    def stats(self) -> SinkStats:
        """Returns its counters; what two scrapes took was sent twice."""
        return SinkStats(
            points_sent_total=self._sent_points,
            sent_bytes_total=self._sent_bytes,
            series=sum(state.series for state in self._states.values()) + self._own.series,
            failing=int(self.problem is not None),
        )

    def _metrics(self, accepted_encodings: str) -> HttpAnswer:
        page, points = self._page.get()
        headers = {"Content-Type": CONTENT_TYPE, "Vary": "Accept-Encoding"}
        is_gzip = accepts_gzip(accepted_encodings)
        size_bytes = page.packed_bytes if is_gzip else page.plain_bytes
        with self._lock:
            self._sent_points += points
            self._sent_bytes += size_bytes
        if is_gzip:
            return HttpAnswer(HTTPStatus.OK, headers | {"Content-Encoding": "gzip"}, page.blocks, size_bytes)
        return HttpAnswer(HTTPStatus.OK, headers, page.plain(), size_bytes)

    def _write(self) -> tuple[GzipPage, int]:
        own = self._own
        parts, points = _write_states(self._exposition, self._states.copy())
        text = Part()
        text.write(own.text())
        return GzipPage([*parts, text]), points + own.series


class _SharedPage:
    """The page as it was written last, with the points in it.

    Args:
        write: writes it.

    Attributes:
        generation: grows when another page would be written.
    """

    def __init__(self, write: Callable[[], tuple[GzipPage, int]]) -> None:
        self.generation = 0
        self._write = write
        self._lock = threading.Lock()
        self._page: tuple[GzipPage, int] | None = None
        self._of_generation = -1
        self._begun_seconds = 0.0

    def get(self) -> tuple[GzipPage, int]:
        """Returns a page that shows all that was there when this was called; waits for one, or writes it."""
        asked_seconds = time.monotonic()
        with self._lock:
            is_current = self._of_generation == self.generation or self._begun_seconds >= asked_seconds
            if self._page is None or not is_current:
                self._page = None  # so that it is not there beside the new one
                self._of_generation, self._begun_seconds = self.generation, time.monotonic()
                self._page = self._write()
            return self._page


def _write_states(exposition: Exposition, states: dict[Host, HostState]) -> tuple[list[Part], int]:
    """Returns all families, the samples of each together as the format demands, and how many samples there are."""
    parts: dict[str, Part] = {}
    samples = 0
    rest_at = time.perf_counter() + _WORK_SECONDS
    for host, state in states.items():
        for family, text in exposition.host(host, state).items():
            if not (part := parts.get(family)):
                part = parts[family] = Part()
                part.write(exposition.header(family))
            part.write(text)
        samples += state.series
        if time.perf_counter() >= rest_at:
            time.sleep(_REST_SECONDS)
            rest_at = time.perf_counter() + _WORK_SECONDS
    return [parts[family] for family in FAMILIES if family in parts], samples
