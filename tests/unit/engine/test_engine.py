"""What the daemon may rely on, whoever samples."""

import pytest

from fleetmem.config import load
from fleetmem.engine.engine import Engine, Work
from fleetmem.engine.local_workers import LocalWorkers
from fleetmem.model import Host
from fleetmem.sampling.schedule import Grid
from fleetmem.telemetry.bugs import Bugs
from fleetmem.wiring.fleet_spec import FleetSpec

_HOSTS = tuple(Host(f"web{number}", "x") for number in range(200))
_UNIX = 1_700_000_000.0


def _work(hosts: tuple[Host, ...] = _HOSTS) -> Work:
    settings = load(None, {})
    spec = FleetSpec(settings, hosts, (), settings.ssh.reach(), 0)
    return Work(spec, Grid.of(10.0, hosts), 0, False, {}, {})


def _engines() -> list[Engine]:
    return [LocalWorkers(count, _work(), print, lambda: _UNIX, Bugs()) for count in (0, 3)]


@pytest.mark.parametrize("engine", _engines(), ids=["here", "3 workers"])
def test_each_host_is_sampled_in_one_place(engine: Engine) -> None:
    """Here, or by one of those elsewhere; also when hosts have come and gone."""
    for hosts in (_HOSTS, _HOSTS[50:120]):
        work = _work(hosts)
        engine.take(work)
        assert len(engine.grid_here(work.grid).phases) + sum(engine.hosts_of_each) == len(hosts)


@pytest.mark.parametrize("engine", _engines(), ids=["here", "3 workers"])
def test_slots_that_nobody_has_sampled_are_missed(engine: Engine) -> None:
    """Samplers that were to begin and never did: their slots are counted, and those of this process are its own."""
    work = _work()
    engine.begin(_UNIX - 10)
    cycle = work.grid.cycle_of(_UNIX - 1)
    assert engine.has_told(cycle)
    missed = sum(report.cycle.missed for _state, report in engine.reports(cycle))
    assert missed == work.grid.slots_between(_UNIX - 10, _UNIX) - len(engine.grid_here(work.grid).phases)
