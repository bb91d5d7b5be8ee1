"""No loss: 50 hosts of 150 processes, 22,500 gauges a cycle, to a StatsD with the receive buffer it has by default.

The hosts are simulated; schedule, format, queue, pace and socket are those of `fleetmem run`, and StatsD is Node's.
"""

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import pytest

from fleetmem.model import Host, ProcessMemory, Sample
from fleetmem.sinks.formats import cut_lines, statsd_plain
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.queue.runner import QueuedSink
from fleetmem.sinks.series import Retire, SeriesEncoding
from fleetmem.sinks.sink import SinkStats
from fleetmem.sinks.transports.udp import MAX_DATAGRAM_BYTES, UdpTransport
from unit.builders import MEMORY, process, sample

from .servers import StatsD, sockets, wait_for

HOSTS = 50
PROCESSES = 150
CHANGED = PROCESSES // 10
REPLACED = 3  # end each cycle, and as many begin
MIB = 1024 * 1024
STOP_SECONDS = 0.2
SILENCE_SECONDS = 0.7
HALF_A_BUFFER_BYTES = 212_992 / 2  # rmem_default

_COMMANDS = ("nginx", "postgres", "python3", "java", "kworker_u8", "sshd", "systemd_journal")


class SimulatedHost:
    """A host whose processes change a little from cycle to cycle.

    Attributes:
        host: which one.
        gauges: what a receiver holds that got every sample so far.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.host = Host(name, name)
        self.gauges: dict[str, float] = {}
        self._random = random.Random(seed)  # noqa: S311 - the same hosts on every run
        self._pids = count(self._random.randrange(300, 30_000))
        self._rows = [self._new() for _row in range(PROCESSES)]

    def next(self) -> Sample:
        """Returns the sample of one more cycle: some rows have changed, some are gone, some are new."""
        for place in self._random.sample(range(PROCESSES), CHANGED):
            self._rows[place] = self._resized(self._rows[place])
        for place in self._random.sample(range(PROCESSES), REPLACED):
            self._rows[place] = self._new()
        taken = sample(*self._rows, host=self.host)
        self.gauges = dict.fromkeys(self.gauges, 0.0) | self._gauges(taken)
        return taken

    def _new(self) -> ProcessMemory:
        return self._resized(process(next(self._pids), self._random.choice(_COMMANDS)))

    def _resized(self, row: ProcessMemory) -> ProcessMemory:
        rss_bytes = self._random.randrange(4096, 900 * MIB, 4096)
        return process(row.pid, row.command, rss_bytes, rss_bytes + self._random.randrange(0, 900 * MIB, 4096))

    def _gauges(self, taken: Sample) -> dict[str, float]:
        """Returns names and values as docs/reference/metrics.md has them, not as the code under test makes them."""
        found: dict[str, float | None] = {
            "host.{}.up": 1,
            "host.{}.mem_total_bytes": MEMORY.total_bytes,
            "host.{}.mem_available_bytes": MEMORY.available_bytes,
            "host.{}.swap_total_bytes": MEMORY.swap_total_bytes,
            "host.{}.swap_free_bytes": MEMORY.swap_free_bytes,
            "host.{}.processes": PROCESSES,
            "host.{}.collect_seconds": taken.collect_seconds,
            "host.{}.oom_kills_total": MEMORY.oom_kills_total,
        }
        for row in self._rows:
            stem = f"process.{{}}.{row.command}.{row.pid}"
            found |= {
                f"{stem}.rss_bytes": row.rss_bytes,
                f"{stem}.vsz_bytes": row.vsz_bytes,
                f"{stem}.mem_percent": row.mem_percent,
            }
        return {f"fleetmem.{name.format(self.host.name)}": value for name, value in found.items() if value is not None}


@pytest.fixture
def fleet() -> list[SimulatedHost]:
    """50 hosts."""
    return [SimulatedHost(f"web{number:02}", seed=number) for number in range(HOSTS)]


@pytest.fixture(autouse=True)
def is_undisturbed(statsd: StatsD) -> Iterator[None]:
    """Lets StatsD and the sender go before other processes, where that is allowed: losses are then the pace's fault.

    A StatsD that waits for a core for longer than it may stop loses datagrams at any pace.
    """
    real_time = os.SCHED_RR | os.SCHED_RESET_ON_FORK  # nice would count within a session only
    with suppress(PermissionError):
        os.sched_setscheduler(statsd.pid, real_time, os.sched_param(2))
        os.sched_setscheduler(0, real_time, os.sched_param(1))
    yield
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def names_of(fleet: list[SimulatedHost]) -> FleetNames:
    """Returns the names of their series."""
    return FleetNames("fleetmem", [simulated.host.name for simulated in fleet])


class Stops:
    """Stops of StatsD at random moments, in the event loop of the sender: what holds one up holds up the other.

    Attributes:
        count: how many there were.
        fullest_bytes: how full the receive buffer was at the end of a stop.
    """

    def __init__(self, statsd: StatsD, seed: int = 1) -> None:
        self.count = 0
        self.fullest_bytes = 0
        self._statsd = statsd
        self._random = random.Random(seed)  # noqa: S311 - not a secret

    async def run(self) -> None:
        """Stops it until cancelled, about every 1.5 s for 200 ms."""
        while True:
            await asyncio.sleep(self._random.uniform(0.8, 1.8))
            os.kill(self._statsd.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(STOP_SECONDS)
            finally:
                self._statsd.resume()
            ((_slot, _local, _peer, _state, queues, *_rest),) = sockets(self._statsd.port, socket.SOCK_DGRAM)
            self.fullest_bytes = max(self.fullest_bytes, int(queues.partition(":")[2], 16))
            self.count += 1


async def send_cycles(
    fleet: list[SimulatedHost],
    statsd: StatsD,
    cycles: int,
    interval_seconds: float,
    *,
    silence_seconds: float = 0.0,
    stops: Stops | None = None,
) -> SinkStats:
    """Sends cycles as `fleetmem run` does.

    Args:
        fleet: hosts, which are spread over the interval.
        statsd: receiver.
        cycles: how many.
        interval_seconds: between two cycles.
        silence_seconds: in each third cycle no host answers for so long, then all that should have.
        stops: of the receiver.

    Returns:
        Counters of the sink.
    """
    transport = UdpTransport("127.0.0.1", statsd.port)
    sink = QueuedSink("statsd", SeriesEncoding(statsd_plain, Retire.ZERO), transport, names_of(fleet))
    start = time.monotonic()

    async def answer(simulated: SimulatedHost, place: int) -> None:
        for cycle in range(cycles):
            at_seconds = start + (cycle + place / len(fleet)) * interval_seconds
            if cycle % 3 == 0:
                at_seconds = max(at_seconds, start + cycle * interval_seconds + silence_seconds)
            await asyncio.sleep(at_seconds - time.monotonic())
            sink.put(simulated.next())

    background = [asyncio.create_task(sink.run())]
    if stops:
        background.append(asyncio.create_task(stops.run()))
    async with asyncio.TaskGroup() as group:
        for place, simulated in enumerate(fleet):
            group.create_task(answer(simulated, place))
    await sink.drain()
    for task in background:
        task.cancel()
    await asyncio.wait(background)
    await sink.close()
    return sink.stats()


def check_everything_arrived(fleet: list[SimulatedHost], statsd: StatsD, cycles: int, stats: SinkStats) -> None:
    """Checks the count of the sender against those of kernel and StatsD, and each gauge that StatsD holds."""
    sent = stats.datagrams_sent_total
    assert sent > cycles * HOSTS * 15
    assert stats.points_sent_total > cycles * HOSTS * PROCESSES * 3
    wait_for("StatsD has read what there is", lambda: statsd.packets_received + statsd.drops == sent)
    assert (statsd.packets_received, statsd.drops, statsd.bad_lines_seen) == (sent, 0, 0)
    assert stats.points_dropped_total == stats.retries_total == 0
    assert statsd.metrics_received == stats.points_sent_total
    expected = {name: value for simulated in fleet for name, value in simulated.gauges.items()}
    assert list(expected.values()).count(0) == stats.series_retired_total == (cycles - 1) * HOSTS * REPLACED * 3
    held = statsd.gauges()
    assert held.keys() == expected.keys()
    assert not {name: (value, held[name]) for name, value in expected.items() if held[name] != value}


some_cycles = pytest.mark.parametrize("cycles", [5, pytest.param(30, marks=pytest.mark.long)])


@pytest.mark.slow
@pytest.mark.timing
@some_cycles
def test_nothing_is_lost(fleet: list[SimulatedHost], statsd: StatsD, cycles: int) -> None:
    """Cycles of 1 s: every datagram is read; in the end StatsD holds what was sent last, final zeros included."""
    stats = asyncio.run(send_cycles(fleet, statsd, cycles, interval_seconds=1.0))
    check_everything_arrived(fleet, statsd, cycles, stats)


@pytest.mark.slow
@pytest.mark.timing
@some_cycles
def test_nothing_is_lost_on_a_reader_that_stops(fleet: list[SimulatedHost], statsd: StatsD, cycles: int) -> None:
    """The same with a StatsD that does not read for 200 ms now and then, and hosts that at times answer all at once."""
    # A cycle is 1,030 datagrams, or 343 a second. With a quarter of headroom that is just below the 428 a second up to
    # which Pace lets no more than 90 go in 200 ms, of the 92 that a receive buffer holds. A longer interval makes the
    # test longer and easier: from 5 s on there are hardly ever 90 in 200 ms, pace or not.
    stops = Stops(statsd)
    stats = asyncio.run(
        send_cycles(fleet, statsd, cycles, interval_seconds=3.0, silence_seconds=SILENCE_SECONDS, stops=stops)
    )
    check_everything_arrived(fleet, statsd, cycles, stats)
    assert stops.count > cycles * 4 / 3
    assert stops.fullest_bytes > HALF_A_BUFFER_BYTES, "the stops have put nothing to the test"


def test_without_the_spreading_most_is_lost(fleet: list[SimulatedHost], statsd: StatsD) -> None:
    """Why there are schedule and pace: the datagrams of one cycle, sent at once to a reader that stops for 200 ms."""
    encoding, names = SeriesEncoding(statsd_plain, Retire.ZERO), names_of(fleet)
    texts = [encoding.host(names, simulated.host).update(simulated.next()).text for simulated in fleet]
    datagrams = [datagram for text in texts for datagram in cut_lines(text, MAX_DATAGRAM_BYTES)]
    statsd.pause()
    until = time.monotonic() + STOP_SECONDS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for datagram in datagrams:
            sock.sendto(datagram, ("127.0.0.1", statsd.port))
    time.sleep(max(0.0, until - time.monotonic()))
    statsd.resume()
    wait_for("StatsD has read the rest", lambda: statsd.packets_received + statsd.drops == len(datagrams))
    assert statsd.drops > len(datagrams) / 2
    assert len(statsd.gauges()) < HOSTS * PROCESSES * 3 / 2
