"""What the main process counts of a worker's slots, also where that is down, hangs, or tells late."""

from dataclasses import replace

from fleetmem.config import load
from fleetmem.engine.channel import Orders, Progress
from fleetmem.engine.worker_process import WorkerProcess
from fleetmem.model import Host
from fleetmem.sampling.sampler import SamplerSpec
from fleetmem.sampling.schedule import Grid
from fleetmem.telemetry.report import Report
from fleetmem.telemetry.selfstats import CycleStats
from fleetmem.wiring.fleet_spec import FleetSpec
from unit.builders import sample

_HOSTS = tuple(Host(f"web{number}", "x") for number in range(10))
_CYCLE = 170_000_000
_UNIX = _CYCLE * 10.0


class _Channel:
    """Takes everything."""

    def send(self, _message: object) -> bool:
        """Takes it."""
        return True


class _Scene:
    """A worker of ten hosts, on a clock that the test moves."""

    def __init__(self, *, is_running: bool = True) -> None:
        self.unix = _UNIX
        settings = load(None, {})
        fleet = FleetSpec(settings, _HOSTS, (), settings.ssh.reach(), 0)
        orders = Orders(SamplerSpec(fleet, Grid.of(10.0, _HOSTS)), False, {}, {})
        self.worker = WorkerProcess(1, orders, lambda _outcome: None, lambda: self.unix)
        self.is_running = is_running
        if is_running:
            self.start()
        self.worker.begin(_UNIX)

    def start(self) -> None:
        """The process is ready."""
        self.worker._channel = _Channel()  # type: ignore[assignment]
        self.worker._handle(Progress.READY)

    def end(self) -> None:
        """The process is gone."""
        self.worker._channel = None
        self.worker._note_end()

    def hear(self, outcomes: int, missed: int = 0, cycle: int = _CYCLE) -> None:
        """The worker tells of a cycle that is over."""
        stats = CycleStats()
        for _ in range(outcomes):
            stats.add(sample(), 0.0, 0.0)
        stats.missed = missed
        self.worker._handle(Report(10.0, {cycle: stats}, cycle + 1))

    def tell(self, cycle: int) -> tuple[int, int]:
        """Returns outcomes and missed slots of what is told with a cycle, which has been over for a second."""
        self.unix = max(self.unix, (cycle + 1) * 10.0 + 1)
        stats = self.worker.report(cycle)[1].cycle
        return stats.outcomes, stats.missed


def test_a_worker_that_works() -> None:
    """What it tells is what counts; a cycle that it has not told of is to be waited for."""
    scene = _Scene()
    assert not scene.worker.has_told(_CYCLE)
    scene.hear(9, 1)
    assert scene.worker.has_told(_CYCLE)
    assert scene.tell(_CYCLE) == (9, 1)


def test_a_worker_that_has_not_begun() -> None:
    """All slots are missed until it does, in their cycles; nothing is waited for."""
    scene = _Scene(is_running=False)
    assert scene.worker.has_told(_CYCLE)
    assert scene.tell(_CYCLE) == (0, 10)
    assert scene.tell(_CYCLE + 1) == (0, 10)
    scene.unix = _UNIX + 26
    scene.start()
    before = Grid.of(10.0, _HOSTS).slots_between(_UNIX + 20, _UNIX + 26)
    scene.hear(10 - before, 0, _CYCLE + 2)
    assert scene.tell(_CYCLE + 2) == (10 - before, before)


def test_a_worker_that_is_stopped() -> None:
    """Its slots are missed while it tells nothing. What it tells in the end makes none of them count twice."""
    scene = _Scene()
    assert [scene.tell(_CYCLE + number) for number in range(3)] == [(0, 10)] * 3
    scene.hear(4, 6)
    scene.hear(0, 10, _CYCLE + 1)
    scene.hear(0, 10, _CYCLE + 2)
    scene.hear(3, 7, _CYCLE + 3)
    assert scene.tell(_CYCLE + 3) == (7, 3)  # 40 slots, 7 outcomes
    scene.hear(10, 0, _CYCLE + 4)
    assert scene.tell(_CYCLE + 4) == (10, 0)


def test_a_worker_that_dies() -> None:
    """What it has not told is missed, until the next one begins."""
    scene = _Scene()
    scene.hear(10)
    scene.unix = _UNIX + 14
    scene.end()
    assert scene.tell(_CYCLE) == (10, 0)
    scene.unix = _UNIX + 25
    scene.start()
    assert scene.tell(_CYCLE + 1) == (0, 10)
    before = Grid.of(10.0, _HOSTS).slots_between(_UNIX + 20, _UNIX + 25)
    scene.hear(10 - before, 0, _CYCLE + 2)
    assert scene.tell(_CYCLE + 2) == (10 - before, before)


def test_another_interval() -> None:
    """Slots of the old one that are told of late count in the cycle that is now."""
    scene = _Scene()
    orders = scene.worker._orders
    spec = replace(orders.spec, grid=Grid.of(5.0, _HOSTS))
    scene.unix = _UNIX + 10
    scene.worker.take(replace(orders, spec=spec))
    scene.hear(8, 2)
    outcomes, missed = 0, 0
    for cycle in range(2 * _CYCLE + 2, 2 * _CYCLE + 4):
        stats = CycleStats()
        stats.missed = 10
        scene.worker._handle(Report(5.0, {cycle: stats}, cycle + 1))
        scene.unix = (cycle + 1) * 5.0 + 1
        told = scene.worker.report(cycle)[1].cycle
        outcomes, missed = outcomes + told.outcomes, missed + told.missed
    assert (outcomes, missed) == (8, 22)


def test_a_clock_that_is_set() -> None:
    """What was told counts in the cycle that is now; nothing is missed for the cycles that the clock jumped over."""
    scene = _Scene()
    scene.hear(10)
    scene.unix += 1_000_000
    scene.worker.move()
    cycle = int(scene.unix // 10)
    scene.hear(10, 0, cycle)
    assert scene.tell(cycle) == (20, 0)
