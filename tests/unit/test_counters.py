"""Every counter of the collector moves when that happens which it counts; one that nothing here moves fails."""

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fleetmem.config import load
from fleetmem.connect.breaker import Breakers
from fleetmem.engine.channel import Channel, Orders
from fleetmem.engine.worker import Forwarder
from fleetmem.engine.worker_process import WorkerProcess
from fleetmem.errors import HostError, Kind, Stage
from fleetmem.inventory.inventory import Inventory
from fleetmem.inventory.sources import Source
from fleetmem.model import PROCESS_MEASURES, Host
from fleetmem.runtime.usage import Usage, own_usage
from fleetmem.sampling.sampler import SamplerSpec
from fleetmem.sampling.schedule import Grid
from fleetmem.shape.budget import HostBudget, SeriesPool
from fleetmem.shape.limits import Filter, Limits
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks import formats
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.queue.backlog import Bounds
from fleetmem.sinks.queue.runner import Options, QueuedSink, Transport
from fleetmem.sinks.queue.spool import Spool
from fleetmem.sinks.series import Retire, SeriesEncoding
from fleetmem.sinks.sink import SinkState, SinkStats
from fleetmem.sinks.transports import tcp
from fleetmem.sinks.transports.udp import UdpTransport
from fleetmem.telemetry.bugs import Bugs
from fleetmem.telemetry.counters import COLLECTOR_COUNTERS, SINK_COUNTERS
from fleetmem.telemetry.selfstats import ConfigState, CycleStats, SelfStats
from fleetmem.wiring.fleet_spec import FleetSpec
from unit.builders import WEB, failure, process, sample, snapshot
from unit.connect.targets import resolve
from unit.test_collector import Fleet

_BIG, _SMALL = process(1, "big", 2**20), process(2, "small", 2**10)


class Scene:
    """An interval of a collector with one sink, and a UDP socket that reads."""

    def __init__(self, folder: Path, receiver: socket.socket) -> None:
        self.cycle = CycleStats()
        self.fleet = Fleet()
        self.bugs = Bugs()
        self.breakers = Breakers(most_refusals=1)
        self.outcomes_dropped_total = 0
        self.worker: WorkerProcess | None = None
        self.usage: Usage | None = Usage(0.0, 0, 0, 0)
        self.names = FleetNames("p", ["web01"])
        self.hosts_file = folder / "hosts"
        self.inventory = Inventory([Source("hosts", str(self.hosts_file))])
        self.config = ConfigState()
        self._folder = folder
        self._receiver = receiver
        self._stats = SelfStats()
        self.sink = self.make_sink(UdpTransport(*receiver.getsockname()))

    def make_sink(self, transport: Transport, options: Options | None = None, spool: Spool | None = None) -> QueuedSink:
        """Returns a sink, which is the scene's from now on."""
        encoding = SeriesEncoding(formats.statsd_plain, Retire.ZERO)
        self.sink = QueuedSink("x", encoding, transport, self.names, options, spool)
        return self.sink

    def away(self, options: Options | None = None, *, with_spool: bool = False) -> QueuedSink:
        """Returns a sink whose backend is away: nobody listens on the port any more."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        spool = Spool(self._folder / "spool", 10**6, 10**12) if with_spool else None
        return self.make_sink(tcp.TcpTransport(tcp.STATSD, "127.0.0.1", port), options, spool)

    async def run_until(self, is_over: Callable[[SinkStats], bool]) -> None:
        """Runs the sink until its counters say so."""
        running = asyncio.create_task(self.sink.run())
        async with asyncio.timeout(20):
            while not is_over(self.sink.stats()):  # noqa: ASYNC110 - counters tell nobody that they changed
                await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    def values(self) -> dict[str, float]:
        """Returns what would be shipped now; counters of the sink begin with `sink.`."""
        shipped = self._stats.add(
            self.cycle,
            [SinkState.of(self.sink)],
            {
                "frames_resynced_total": self.fleet.collector.frames_resynced_total,
                "handshakes_total": self.fleet.collector.handshakes_total,
                "reconnects_total": self.fleet.collector.reconnects_total,
                "logins_withheld_total": self.breakers.withheld_total,
                "outcomes_dropped_total": self.outcomes_dropped_total,
                "bugs_total": self.bugs.total,
                "workers": self.worker is not None and self.worker.pid is not None,
                "workers_restarted_total": self.worker.restarts_total if self.worker else 0,
                "names_kept_apart": self.names.kept_apart,
                **self.inventory.stats._asdict(),
                **(self.usage._asdict() if self.usage else {}),
                **self.config._asdict(),
            },
            0.0,
        )
        return {("sink." if counter.sink else "") + counter.measure: counter.value for counter in shipped.counters}


Move = Callable[[Scene], Awaitable[None]]


async def _answer(scene: Scene, limits: Limits | None = None) -> None:
    scene.cycle.add(sample(_BIG, _SMALL, limits=limits), late_seconds=0.25, cycle_seconds=1.5)


async def _fail(scene: Scene, kind: Kind) -> None:
    scene.cycle.add(failure(kind), late_seconds=0.25, cycle_seconds=1.5)


async def _leave_out_for_the_budget(scene: Scene) -> None:
    room_for_one = HostBudget(len(PROCESS_MEASURES), SeriesPool())
    shaped = Shaper(WEB, Limits(), room_for_one).shape(snapshot(_BIG, _SMALL), 0.0)
    scene.cycle.add(replace(sample(), shaped=shaped), late_seconds=0.0, cycle_seconds=0.0)


async def _miss(scene: Scene) -> None:
    scene.cycle.missed += 1


async def _connect(scene: Scene) -> None:
    await scene.fleet.collector.sample(Host("a", "a"))


async def _fall_out_of_step(scene: Scene) -> None:
    frame = b"BEGIN fleetmem/2 1 0\nM 1000000 1 0 0 0\nK 0 boot\nS - - - -\nU 1.00\nEND 1 0 1 1 1 1\n"
    scene.fleet.answers["a"] = frame
    await scene.fleet.collector.sample(Host("a", "a"))


async def _meet_names_that_fold_to_one(scene: Scene) -> None:
    for command in ("a.b", "a-b"):
        scene.names.host("web01").command(command)


async def _read_the_inventory(scene: Scene) -> None:
    scene.hosts_file.write_text("a\n")
    scene.inventory.read()


async def _lose_the_inventory(scene: Scene) -> None:
    await _read_the_inventory(scene)
    scene.hosts_file.unlink()
    scene.inventory.refresh()


async def _leave_an_entry_out(scene: Scene) -> None:
    await _read_the_inventory(scene)
    scene.hosts_file.write_text(f"{scene.hosts_file.read_text()}\nweb 01 (prod)\n")
    scene.inventory.refresh()


async def _deliver(scene: Scene) -> None:
    scene.sink.put(sample(_BIG))
    await scene.run_until(lambda stats: not stats.queue_points and stats.points_sent_total > 0)


async def _put(scene: Scene) -> None:
    scene.sink.put(sample(_BIG))
    await asyncio.sleep(0.01)


async def _end_a_process(scene: Scene) -> None:
    scene.sink.put(sample(_BIG, _SMALL))
    scene.sink.put(sample(_BIG))


async def _put_too_much(scene: Scene) -> None:
    sink = scene.make_sink(UdpTransport("127.0.0.1", 1), Options(bounds=Bounds(max_points=5)))
    sink.put(sample(_BIG))


async def _be_late(scene: Scene) -> None:
    scene.away(Options(max_late_seconds=0.0)).put(sample(_BIG))
    await scene.run_until(lambda stats: stats.points_dropped_late_total > 0)


async def _be_away(scene: Scene) -> None:
    scene.away().put(sample(_BIG))
    await scene.run_until(lambda stats: stats.retries_total > 0)


async def _be_refused(scene: Scene) -> None:
    for number in range(2):
        with contextlib.suppress(HostError), scene.breakers.attempt(resolve(f"web{number}")):
            raise HostError(Stage.LOGIN, Kind.AUTH_FAILED, "no")


async def _forward_to_nobody(scene: Scene) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = await Channel.open(ours, max_waiting_bytes=0)
        forwarder = Forwarder(channel)
        while not forwarder.dropped_total:
            forwarder.put(sample(_BIG))
        scene.outcomes_dropped_total = forwarder.dropped_total
    await channel.close()


async def _meet_a_bug(scene: Scene) -> None:
    scene.bugs.note("host web01", KeyError("x"))


async def _restart_a_worker(scene: Scene) -> None:
    settings = load(None, {})
    spec = SamplerSpec(FleetSpec(settings, (), (), settings.ssh.reach(), 0), Grid(10.0, {}))
    scene.worker = worker = WorkerProcess(1, Orders(spec, False, {}, {}), print)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        await worker.ready.wait()
        worker.kill()
        while worker.ready.is_set() or not worker.restarts_total:  # noqa: ASYNC110 - nobody tells of an end
            await asyncio.sleep(0.01)
        await worker.ready.wait()
    scene.values = partial(dict, scene.values())  # type: ignore[method-assign] # as it is now
    await worker.stop()
    await running


async def _use_the_machine(scene: Scene) -> None:
    scene.usage = own_usage()


async def _spool(scene: Scene) -> None:
    scene.away(with_spool=True).put(sample(_BIG))
    await scene.run_until(lambda stats: stats.spool_points > 0)


async def _take_a_configuration(scene: Scene) -> None:
    scene.config = scene.config.refused().taken(1_700_000_000.0)


MOVES: dict[str, Move] = {
    "hosts_up": _answer,
    "hosts_failed": partial(_fail, kind=Kind.UNREACHABLE),
    **{f"hosts_failed_{kind}": partial(_fail, kind=kind) for kind in Kind},
    "processes": _answer,
    "processes_excluded": partial(_answer, limits=Limits(commands=Filter((), (re.compile("small"),)))),
    "processes_small": partial(_answer, limits=Limits(min_rss_bytes=2**15)),
    "processes_top": partial(_answer, limits=Limits(top=1)),
    "processes_budget": _leave_out_for_the_budget,
    "received_bytes": _answer,
    "cycle_seconds": _answer,
    **{f"{what}_{which}_seconds": _answer for what in ("host", "late") for which in ("p50", "p99", "highest")},
    "slots_total": _answer,
    "cycles_missed_total": _miss,
    "frames_resynced_total": _fall_out_of_step,
    "handshakes_total": _connect,
    "reconnects_total": _connect,
    "logins_withheld_total": _be_refused,
    "outcomes_dropped_total": _forward_to_nobody,
    "bugs_total": _meet_a_bug,
    "config_last_reload_successful": _take_a_configuration,
    "config_last_reload_success_timestamp_seconds": _take_a_configuration,
    "workers": _restart_a_worker,
    "workers_restarted_total": _restart_a_worker,
    "names_kept_apart": _meet_names_that_fold_to_one,
    "inventory_hosts": _read_the_inventory,
    "inventory_failures_total": _lose_the_inventory,
    "inventory_stale": _lose_the_inventory,
    "inventory_entries_left_out": _leave_an_entry_out,
    **dict.fromkeys(Usage._fields, _use_the_machine),
    "sink.points_sent_total": _deliver,
    "sink.points_dropped_full_total": _put_too_much,
    "sink.points_dropped_late_total": _be_late,
    "sink.retries_total": _be_away,
    "sink.sent_bytes_total": _deliver,
    "sink.datagrams_sent_total": _deliver,
    "sink.series_retired_total": _end_a_process,
    "sink.series": _put,
    "sink.queue_points": _put,
    "sink.queue_bytes": _put,
    "sink.queue_age_seconds": _put,
    "sink.spool_points": _spool,
    "sink.spool_bytes": _spool,
    "sink.spool_age_seconds": _spool,
    "sink.failing": _be_away,
}


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """A UDP socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def test_every_counter_has_something_that_moves_it() -> None:
    """A counter that is declared without a test here fails."""
    assert {*COLLECTOR_COUNTERS, *(f"sink.{name}" for name in SINK_COUNTERS)} == set(MOVES)


@pytest.mark.slow
@pytest.mark.parametrize("name", MOVES)
def test_a_counter_moves(name: str, tmp_path: Path, receiver: socket.socket) -> None:
    """From 0 to more when that happens which it counts."""

    async def main() -> None:
        scene = Scene(tmp_path, receiver)
        assert scene.values()[name] == 0
        await MOVES[name](scene)
        assert scene.values()[name] > 0
        await scene.sink.close()

    asyncio.run(main())
