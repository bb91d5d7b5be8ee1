"""One cycle, through every sink, into real receivers: the same series, the same values, read back from each."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fleetmem.model import Host, ProcessMemory, Sample
from fleetmem.sinks import formats
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.pages.exposition import command_label
from fleetmem.sinks.pages.metrics_page import PrometheusSink
from fleetmem.sinks.queue.runner import Options, QueuedSink
from fleetmem.sinks.series import Retire, SeriesEncoding
from fleetmem.sinks.transports import tcp
from fleetmem.sinks.transports.udp import UdpTransport
from fleetmem.units import format_number
from unit.builders import command_names, process, sample

from .receivers import CarbonCache, Collectd, Prometheus
from .servers import StatsD, free_port, started, wait_for

HOSTS = [Host("web01", "10.0.0.1"), Host("db.example.com", "10.0.0.2")]
EVERY_BYTE = [bytes([byte]).decode("utf-8", "surrogateescape") for byte in range(1, 256)]
Gauges = dict[str, float]


def cycle(names: Sequence[str]) -> list[Sample]:
    """Returns a cycle of two hosts, taken now: each name once on each of them, with sizes of its own."""
    outcomes = []
    for place, host in enumerate(HOSTS):
        rows: list[ProcessMemory] = [
            process(100 + number, name, 4096 * (number + 1), 2**40 + number + place)
            for number, name in enumerate(names)
        ]
        now = time.time()
        outcomes.append(replace(sample(*rows, host=host), taken_unix_seconds=now, slot_unix_seconds=now))
    return outcomes


def expected(outcomes: Sequence[Sample], prefix: str) -> Gauges:
    """Returns the gauges that a cycle is, from its rows and the plain names."""
    names = FleetNames(prefix, [host.name for host in HOSTS])
    rows = [(names.host(outcome.host.name), row) for outcome in outcomes for row in outcome.shaped.processes]
    for host, row in rows:  # first all of them: two that fold to one both get a hash
        host.process(row.command, row.pid)
    gauges: Gauges = {}
    for host, row in rows:
        head = formats.statsd_plain(prefix, host.process(row.command, row.pid)).head
        gauges[f"{head}rss_bytes"] = row.rss_bytes
        gauges[f"{head}vsz_bytes"] = row.vsz_bytes
        gauges[f"{head}mem_percent"] = float(format_number(row.mem_percent or 0))
    return gauges


def sinks(prefix: str, statsd: StatsD, collectd: Collectd, carbon: CarbonCache) -> list[QueuedSink]:
    """Returns a sink for each way to a receiver; each has a prefix of its own where they share one."""
    plain = SeriesEncoding(formats.statsd_plain, Retire.ZERO)
    lines = SeriesEncoding(formats.carbon_plain, Retire.NONE, formats.with_time)
    hosts = [host.name for host in HOSTS]
    keep = Options(max_late_seconds=None)

    def names(way: str) -> FleetNames:
        return FleetNames(f"{prefix}.{way}", hosts)

    return [
        QueuedSink("a", plain, UdpTransport("127.0.0.1", statsd.port), names("udp")),
        QueuedSink("b", plain, tcp.TcpTransport(tcp.STATSD, "127.0.0.1", statsd.tcp_port), names("tcp")),
        QueuedSink("c", plain, UdpTransport("127.0.0.1", collectd.port), names("collectd")),
        QueuedSink("d", lines, tcp.TcpTransport(tcp.CARBON_LINES, "127.0.0.1", carbon.line_port), names("line"), keep),
        QueuedSink(
            "e", lines, tcp.TcpTransport(tcp.CARBON_PICKLE, "127.0.0.1", carbon.pickle_port), names("pickle"), keep
        ),
    ]


async def deliver(all_sinks: Sequence[QueuedSink], outcomes: Sequence[Sample]) -> None:
    """Puts a cycle into all sinks, and waits until it has left."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(sink.run()) for sink in all_sinks]
        for sink in all_sinks:
            for outcome in outcomes:
                sink.put(outcome)
            await sink.drain()
            await sink.close()
        for task in running:
            task.cancel()


def _is_there(read: Callable[[], Gauges], begin: str, wanted: Gauges) -> bool:
    found = {name: value for name, value in read().items() if name.startswith(begin)}
    return bool(found == pytest.approx(wanted, rel=1e-12, abs=1e-6))


def check_receivers(
    prefix: str, outcomes: Sequence[Sample], statsd: StatsD, collectd: Collectd, carbon: CarbonCache
) -> None:
    """Delivers a cycle every way and reads all of it back."""
    asyncio.run(deliver(sinks(prefix, statsd, collectd, carbon), outcomes))
    ways: dict[str, Callable[[], Gauges]] = {
        "udp": statsd.gauges,
        "tcp": statsd.gauges,
        "collectd": collectd.gauges,
        "line": partial(carbon.gauges, f"{prefix}.line"),
        "pickle": partial(carbon.gauges, f"{prefix}.pickle"),
    }
    for way, read in ways.items():
        wanted = expected(outcomes, f"{prefix}.{way}")
        is_there = partial(_is_there, read, f"{prefix}.{way}.process.", wanted)
        wait_for(f"{way}: the same series with the same values", is_there)
    assert statsd.bad_lines_seen == carbon.bad_lines_seen == collectd.bad_lines_seen == 0


@pytest.fixture(scope="module")
def receivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StatsD, Collectd, CarbonCache]]:
    """The receivers, for all tests of this module."""
    folder = tmp_path_factory.mktemp("receivers")
    with (
        started(StatsD(folder / "statsd")) as statsd,
        started(Collectd(folder / "collectd")) as collectd,
        started(CarbonCache(folder / "carbon")) as carbon,
    ):
        yield statsd, collectd, carbon


@pytest.mark.slow
def test_every_byte(receivers: tuple[StatsD, Collectd, CarbonCache]) -> None:
    """Each byte from 1 to 255 as a name, and all of them within names: nothing is lost, merged or changed."""
    names = [*EVERY_BYTE, *(f"a{byte}b" for byte in EVERY_BYTE)]
    check_receivers("bytes", cycle(names), *receivers)


_counter = iter(range(10**6))


@pytest.mark.slow
@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(names=st.lists(command_names(), min_size=30, max_size=60))
def test_any_names(receivers: tuple[StatsD, Collectd, CarbonCache], names: list[str]) -> None:
    """Whatever processes are called."""
    check_receivers(f"any{next(_counter)}", cycle(names), *receivers)


@pytest.mark.slow
def test_prometheus(prometheus: Callable[..., Prometheus]) -> None:
    """The real Prometheus scrapes the same processes and values; labels hold names as they are."""
    names = [*EVERY_BYTE, *(f"a{byte}b" for byte in EVERY_BYTE), "other", "", 'quo"te', "back\\slash", r"\xff"]
    outcomes = cycle(names)
    port = free_port()

    async def serve() -> None:
        sink = PrometheusSink("127.0.0.1", port, "fleetmem")
        sink.listen()
        for outcome in outcomes:
            sink.put(outcome)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(sink.run())
            await asyncio.to_thread(check)
            running.cancel()
        await sink.close()

    def check() -> None:
        target = f"127.0.0.1:{port}"
        server = prometheus(target)
        wanted = {}
        for outcome in outcomes:
            for row in outcome.shaped.processes:
                key = outcome.host.name, command_label(row.command), str(row.pid)
                wanted[*key, "fleetmem_process_rss_bytes"] = float(row.rss_bytes)
                wanted[*key, "fleetmem_process_vsz_bytes"] = float(row.vsz_bytes)
                wanted[*key, "fleetmem_process_mem_ratio"] = (row.mem_percent or 0) / 100

        def is_all_there() -> bool:
            found = {
                # An empty label is no label (prometheus.io, data model).
                (each.labels["host"], each.labels.get("command", ""), each.labels["pid"], each.name): each.value
                for each in server.samples(target)
                if each.name.startswith("fleetmem_process_")
            }
            return bool(found == pytest.approx(wanted, rel=1e-9))

        wait_for("the same series with the same values", is_all_there)
        assert server.targets()[target].health == "up"
        assert server.targets()[target].last_error == ""

    asyncio.run(serve())
