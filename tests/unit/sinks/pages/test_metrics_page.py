import asyncio
import gzip
import http.client
import re
import resource
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from itertools import groupby
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleetmem.errors import Kind, UsageError
from fleetmem.model import CollectorStats, Counter, Host, Outcome, Sample
from fleetmem.shape.limits import Limits
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.pages import http_server
from fleetmem.sinks.pages.exposition import Exposition, HostState
from fleetmem.sinks.pages.gzip_page import GzipPage
from fleetmem.sinks.pages.http_server import HttpAnswer, Page
from fleetmem.sinks.pages.metrics_page import PrometheusSink
from fleetmem.telemetry.counters import ALL_COUNTERS
from unit.builders import failure, process, sample

PROCESS_METRICS = 6
_DB = Host("db1", "10.0.0.2")
_STATS = CollectorStats(
    "ops1",
    1_700_000_000.0,
    (
        Counter("", "hosts_up", 3),
        Counter("", "handshakes_total", 4),
        Counter("", "cycle_seconds", 0.25),
        Counter("statsd", "points_sent_total", 12),
        Counter("prometheus", "points_sent_total", 5),
        Counter("prometheus", "failing", 0),
    ),
)


class Scrape(NamedTuple):
    """What a scrape got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as it was before compression."""
        is_packed = self.headers.get("Content-Encoding") == "gzip"
        return (gzip.decompress(self.body) if is_packed else self.body).decode("utf-8")

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """Returns the values of a metric by its labels' values, in the order of the labels' names."""
        return {
            tuple(value for _name, value in sorted(one.labels.items())): one.value
            for family in text_string_to_metric_families(self.text)
            for one in family.samples
            if one.name == name
        }


def scrape(url: str, encodings: str = "identity") -> Scrape:
    """Gets a page."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.netloc, timeout=20)
    try:
        connection.request("GET", where.path, headers={"Accept-Encoding": encodings})
        answer = connection.getresponse()
        return Scrape(answer.status, dict(answer.headers), answer.read())
    finally:
        connection.close()


def serve(
    test: Callable[[PrometheusSink], Awaitable[None]],
    other_pages: Mapping[str, Page] | None = None,
    build: Mapping[str, str] | None = None,
) -> None:
    """Runs a test against a sink that serves."""

    async def main() -> None:
        sink = PrometheusSink(
            "127.0.0.1", 0, "fleetmem", other_pages=other_pages or {}, declared=ALL_COUNTERS, build=build or {}
        )
        sink.listen()
        running = asyncio.create_task(sink.run())
        try:
            await test(sink)
        finally:
            running.cancel()
            await sink.close()

    asyncio.run(main())


def test_a_scrape() -> None:
    """What was put can be read by whoever reads Prometheus's format."""

    async def test(sink: PrometheusSink) -> None:
        sink.put(sample(process(7, 'ca"fé', 4096)))
        sink.put(failure(host=_DB))
        got = await asyncio.to_thread(scrape, sink.address)
        assert got.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert got.values("fleetmem_process_rss_bytes") == {('ca"fé', "web01", "7"): 4096}
        assert got.values("fleetmem_up") == {("web01",): 1, ("db1",): 0}
        assert got.text.endswith("\n")

    serve(test)


def test_the_samples_of_a_metric_stand_together() -> None:
    """As the format demands, however many hosts there are; what nobody has is not declared."""

    async def test(sink: PrometheusSink) -> None:
        for number in range(3):
            sink.put(sample(process(1), host=Host(f"web{number}", "10.0.0.1")))
        text = (await asyncio.to_thread(scrape, sink.address)).text
        names = [line.split("{")[0] for line in text.splitlines() if not line.startswith("#")]
        assert len([name for name, _lines in groupby(names)]) == len(set(names)) == 12 + PROCESS_METRICS
        assert "fleetmem_command" not in text

    serve(test)


def test_gzip() -> None:
    """For a client that takes it."""

    async def test(sink: PrometheusSink) -> None:
        sink.put(sample(*(process(pid) for pid in range(1, 3000))))
        plain, packed = [await asyncio.to_thread(scrape, sink.address, name) for name in ("identity", "gzip")]
        assert packed.headers["Content-Encoding"] == "gzip"
        assert "Content-Encoding" not in plain.headers
        assert packed.text == plain.text
        assert len(packed.body) < len(plain.body) / 5

    serve(test)


def test_other_pages() -> None:
    """A page that lists what there is, what the sink was given beside the metrics, and nothing else."""

    async def test(sink: PrometheusSink) -> None:
        base = sink.address.removesuffix("/metrics")
        listed = re.findall('<a href="(.*?)">', (await asyncio.to_thread(scrape, f"{base}/")).text)
        assert listed == ["/metrics", "/other"]
        assert (await asyncio.to_thread(scrape, f"{base}/other")).text == "here"
        unknown = await asyncio.to_thread(scrape, f"{base}/metric")
        assert (unknown.status, unknown.text) == (404, "no such page; there is /metrics, /other\n")

    serve(test, {"/other": lambda _encodings: HttpAnswer(HTTPStatus.OK, {}, [b"here"])})


def test_own_counters() -> None:
    """Those that only grow are counters; those of a sink have it as a label."""

    async def test(sink: PrometheusSink) -> None:
        sink.put_stats(_STATS)
        got = await asyncio.to_thread(scrape, sink.address)
        assert got.values("fleetmem_collector_hosts_up") == {("ops1",): 3}
        assert got.values("fleetmem_collector_cycle_seconds") == {("ops1",): 0.25}
        sent = got.values("fleetmem_collector_points_sent_total")
        assert sent == {("ops1", "statsd"): 12, ("ops1", "prometheus"): 5}
        families = {family.name: family for family in text_string_to_metric_families(got.text)}
        types = {name: family.type for name, family in families.items()}
        assert families["fleetmem_collector_hosts_up"].documentation == "Hosts that answered."
        assert types["fleetmem_collector_points_sent"] == types["fleetmem_collector_handshakes"] == "counter"
        assert types["fleetmem_collector_failing"] == types["fleetmem_collector_hosts_up"] == "gauge"
        assert sink.stats().series == 6 + PROCESS_METRICS

    serve(test)


def test_failures_by_kind() -> None:
    """The kind is a label; old names stay beside it, and say so. The sum has no series, as it would be added twice."""
    measures = {"hosts_failed": 3, "hosts_failed_auth_failed": 2, "hosts_failed_unreachable": 1}
    stats = CollectorStats("ops1", 0.0, tuple(Counter("", name, value) for name, value in measures.items()))

    async def test(sink: PrometheusSink) -> None:
        sink.put_stats(stats)
        got = await asyncio.to_thread(scrape, sink.address)
        assert got.values("fleetmem_collector_hosts_failed") == {("ops1", "auth_failed"): 2, ("ops1", "unreachable"): 1}
        assert got.values("fleetmem_collector_hosts_failed_auth_failed") == {("ops1",): 2}
        assert "hosts_failed_auth_failed Old name" in got.text
        assert "# HELP fleetmem_collector_hosts_failed Hosts that did not answer, by kind.\n" in got.text
        lines = [line for line in got.text.splitlines() if not line.startswith("#")]
        assert sink.stats().series == len(lines) == 4 + PROCESS_METRICS

    serve(test)


def test_why_a_host_fails() -> None:
    """The kind of its last failure, for as long as it fails."""

    async def test(sink: PrometheusSink) -> None:
        shown = []
        kinds = Kind.AUTH_FAILED, Kind.UNREACHABLE, Kind.UNREACHABLE, Kind.UNREACHABLE
        outcomes: list[Outcome] = [*map(failure, kinds), sample()]
        for outcome in outcomes:
            sink.put(outcome)
            got = await asyncio.to_thread(scrape, sink.address)
            lines = [line for line in got.text.splitlines() if not line.startswith("#")]
            assert sink.stats().series == len(lines)
            shown.append([labels[1] for labels in got.values("fleetmem_host_failure")])
        assert shown == [["auth_failed"], *[["unreachable"]] * 3, []]

    serve(test)


def test_what_fleetmem_is() -> None:
    """Its build, and the standard metrics of its processes, before the first cycle and with workers."""

    async def test(sink: PrometheusSink) -> None:
        got = await asyncio.to_thread(scrape, sink.address)
        assert got.values("fleetmem_build_info") == {("3.11.2", '1.0"x'): 1}
        assert got.values("process_open_fds").keys() == {()}
        began = got.values("process_start_time_seconds")[()]
        assert 0 < time.time() - began < 24 * 3600
        sink.put_stats(replace(_STATS, worker_pids=(worker.pid, None, 2**22 + 1)))
        got = await asyncio.to_thread(scrape, sink.address)
        assert got.values("process_start_time_seconds").keys() == {(), ("1",)}
        assert got.values("process_start_time_seconds")[()] == began
        assert got.values("process_resident_memory_bytes")["1",] > 0
        files = got.values("process_max_fds")[()], got.values("process_open_fds")[()]
        assert (files[0], 0 < files[1] < files[0]) == (resource.getrlimit(resource.RLIMIT_NOFILE)[0], True)
        types = {family.name: family.type for family in text_string_to_metric_families(got.text)}
        assert types["process_cpu_seconds"] == "counter"
        assert {types[name] for name in types if name.startswith("process_") and name != "process_cpu_seconds"} == {
            "gauge"
        }
        lines = [line for line in got.text.splitlines() if not line.startswith("#")]
        assert sink.stats().series == len(lines)

    with subprocess.Popen(["sleep", "60"]) as worker:
        try:
            serve(test, build={"version": '1.0"x', "python": "3.11.2"})
        finally:
            worker.kill()


def test_the_series_of_a_process_that_is_gone_is_gone() -> None:
    """No stale value: Prometheus sees that it ended."""

    async def test(sink: PrometheusSink) -> None:
        sink.put(sample(process(1, "a"), process(2, "b")))
        sink.put(sample(process(2, "b")))
        got = await asyncio.to_thread(scrape, sink.address)
        assert list(got.values("fleetmem_process_rss_bytes")) == [("b", "web01", "2")]

    serve(test)


def test_a_host_that_fails_and_comes_back() -> None:
    """`up` at once; its processes after the third failure."""

    async def test(sink: PrometheusSink) -> None:
        shown = []
        for outcome in (sample(process()), failure(), failure(), failure(), sample(process())):
            sink.put(outcome)
            got = await asyncio.to_thread(scrape, sink.address)
            shown.append((got.values("fleetmem_up")["web01",], len(got.values("fleetmem_process_rss_bytes"))))
        assert shown == [(1, 1), (0, 1), (0, 1), (0, 0), (1, 1)]

    serve(test)


def test_a_host_that_left() -> None:
    """Nothing of it stays; the others do."""

    async def test(sink: PrometheusSink) -> None:
        sink.put(sample(process()))
        sink.put(sample(process(), host=_DB))
        sink.replace_hosts(FleetNames("fleetmem", ["db1"]), {_DB}, 0.0)
        got = await asyncio.to_thread(scrape, sink.address)
        assert list(got.values("fleetmem_up")) == [("db1",)]
        assert "web01" not in got.text

    serve(test)


def test_stats() -> None:
    """Series as they are shown, and what scrapes took."""

    async def test(sink: PrometheusSink) -> None:
        sink.put(sample(process(1, "a"), process(2, "b"), process(3, "c"), limits=Limits(top=2)))
        sink.put_stats(_STATS)
        bodies = [(await asyncio.to_thread(scrape, sink.address, name)) for name in ("identity", "gzip")]
        lines = [line for line in bodies[0].text.splitlines() if not line.startswith("#")]
        stats = sink.stats()
        assert stats.series == len(lines) == 9 + 3 * 3 + 6 + PROCESS_METRICS
        assert stats.points_sent_total == 2 * len(lines)
        assert stats.sent_bytes_total == sum(len(got.body) for got in bodies)
        assert stats.failing == 0

    serve(test)


@pytest.mark.slow
def test_a_scrape_sees_whole_outcomes() -> None:
    """While outcomes come in, each host is shown as one of them, never as parts of two."""
    hosts = [Host(f"web{number}", "10.0.0.1") for number in range(5)]

    def outcome(host: Host, generation: int) -> Sample:
        rows = (process(pid, f"c{generation % 3}", generation) for pid in range(1, 20 + generation % 7))
        return replace(sample(*rows, host=host), taken_unix_seconds=float(generation))

    async def test(sink: PrometheusSink) -> None:
        got: list[Scrape] = []
        is_done = threading.Event()

        def scrape_on() -> None:
            while not is_done.is_set():
                got.append(scrape(sink.address, "gzip"))

        scrapers = [asyncio.create_task(asyncio.to_thread(scrape_on)) for _ in range(3)]
        generation = 0
        while len(got) < 30:
            generation += 1
            for host in hosts:
                sink.put(outcome(host, generation))
            await asyncio.sleep(0.001)  # with 0, the threads that scrape get no turn on a fast machine
        is_done.set()
        await asyncio.gather(*scrapers)
        for one in got:
            taken = one.values("fleetmem_host_sample_unix_seconds")
            counts: dict[str, int] = {}
            for (_command, name, _pid), rss_bytes in one.values("fleetmem_process_rss_bytes").items():
                assert rss_bytes == taken[name,]
                counts[name] = counts.get(name, 0) + 1
            assert counts == {name: 19 + int(at) % 7 for (name,), at in taken.items()}
        lines = [line for one in got for line in one.text.splitlines()]
        assert sink.stats().points_sent_total == sum(not line.startswith("#") for line in lines)

    serve(test)


def test_hosts_may_come_and_go_during_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape shows the fleet as it was when it began."""

    async def test(sink: PrometheusSink) -> None:
        sink.put(sample())
        sink.put(sample(host=_DB))
        write = Exposition.host

        def change(exposition: Exposition, host: Host, state: HostState) -> dict[str, bytes]:
            sink.put(sample(host=Host("new", "10.0.0.3")))
            sink.replace_hosts(FleetNames("fleetmem", ["new"]), set(), 0.0)
            return write(exposition, host, state)

        monkeypatch.setattr(Exposition, "host", change)
        assert len((await asyncio.to_thread(scrape, sink.address)).values("fleetmem_up")) == 2

    serve(test)


def test_a_port_in_use_is_said_before_the_first_cycle() -> None:
    """`listen` raises; the message names the sink, the address and what to do."""

    async def test(sink: PrometheusSink) -> None:
        port = int(sink.address.split(":")[2].split("/")[0])
        with pytest.raises(UsageError, match=rf"prometheus: cannot listen on 127.0.0.1:{port}: the port is in use"):
            PrometheusSink("127.0.0.1", port, "fleetmem").listen()
        sink.listen()  # once more is no harm

    serve(test)


def test_a_sink_takes_over_the_port_of_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload makes the new sink first: it says that it has no port, and serves as soon as the old one has closed."""
    monkeypatch.setattr(http_server, "_LISTEN_AGAIN_SECONDS", 0.01)

    async def test(old: PrometheusSink) -> None:
        port = int(old.address.split(":")[2].split("/")[0])
        new = PrometheusSink("127.0.0.1", port, "other")
        assert new.address == old.address
        new.put(sample())
        running = asyncio.create_task(new.run())
        await asyncio.sleep(0)
        assert new.stats().failing == 1
        await asyncio.sleep(0.05)
        await old.close()
        while new.problem is not None:  # noqa: ASYNC110 - a sink tells nobody
            await asyncio.sleep(0.001)
        assert (await asyncio.to_thread(scrape, new.address)).values("other_up")
        running.cancel()
        await new.close()

    serve(test)
    assert caplog.text.count("trying again") == 1


def test_drain_has_nothing_to_wait_for() -> None:
    """Prometheus comes for its samples; at the end none of them is lost."""
    asyncio.run(PrometheusSink("127.0.0.1", 0, "fleetmem").drain())


def test_a_sink_that_never_listened_can_be_closed() -> None:
    """A command that fails before its first cycle closes what it has."""
    asyncio.run(PrometheusSink("127.0.0.1", 0, "fleetmem").close())


def test_ipv6_address() -> None:
    """The address can be copied into a browser."""
    assert PrometheusSink("::1", 9150, "fleetmem").address == "http://[::1]:9150/metrics"


@pytest.mark.slow
def test_scrapes_at_once_share_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen that come while one is written wait, and get the next one together: all are as new as was asked for."""
    written: list[float] = []
    goes_on = threading.Event()
    write = PrometheusSink._write

    def note(sink: PrometheusSink) -> tuple[GzipPage, int]:
        page = write(sink)
        written.append(page[0].plain_bytes)
        goes_on.wait(20)
        return page

    monkeypatch.setattr(PrometheusSink, "_write", note)

    async def test(sink: PrometheusSink) -> None:
        sink.put(sample(process(1)))
        first = asyncio.create_task(asyncio.to_thread(scrape, sink.address, "gzip"))
        while not written:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.001)
        sink.put(sample(process(1), process(2)))
        others = [asyncio.create_task(asyncio.to_thread(scrape, sink.address, "gzip")) for _ in range(4)]
        await asyncio.sleep(0.3)
        goes_on.set()
        assert len((await first).values("fleetmem_process_rss_bytes")) == 1
        for other in others:
            assert len((await other).values("fleetmem_process_rss_bytes")) == 2
        assert len(written) == 2
        await asyncio.to_thread(scrape, sink.address)  # nothing has changed since
        assert len(written) == 2

    serve(test)


def test_a_page_is_small_in_memory() -> None:
    """What is kept for clients is packed, also for one that wants it plain."""
    rows = [process(pid, f"command-{pid % 50}") for pid in range(1, 3000)]

    async def test(sink: PrometheusSink) -> None:
        for number in range(10):
            sink.put(sample(*rows, host=Host(f"web{number}", "10.0.0.1")))
        got = await asyncio.to_thread(scrape, sink.address)
        page, _points = sink._page.get()
        assert len(got.body) == page.plain_bytes > 4_000_000
        assert page.packed_bytes * 8 < page.plain_bytes
        assert "Content-Encoding" not in got.headers

    serve(test)


def test_gzip_that_is_not_wanted() -> None:
    """A weight of 0 is a no."""

    async def test(sink: PrometheusSink) -> None:
        sink.put(sample(process(1)))
        got = await asyncio.to_thread(scrape, sink.address, "gzip;q=0, identity")
        assert "Content-Encoding" not in got.headers
        assert got.values("fleetmem_up")

    serve(test)
