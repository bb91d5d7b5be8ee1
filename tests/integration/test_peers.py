import shutil
from collections.abc import Iterator
from math import isnan

import pytest

from measured_fleet import MeasuredFleet
from peer_figures import Cost, Size
from peer_programs import Fleetmem, Paramiko, Xargs
from peers import Place, measure_program
from simulated_hosts import SimulatedHosts

from .servers import find_tool, missing

_SIZE = Size(hosts=2, processes=40, round_trip_ms=10)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Two hosts behind a proxy."""
    find_tool("sshd")
    for program in ("ssh", "ssh-keygen", "ps", "xargs"):
        if not shutil.which(program):
            missing(program)
    with MeasuredFleet(_SIZE.hosts, _SIZE.processes) as fleet, fleet.proxy(_SIZE.round_trip_ms) as proxy:
        yield Place(fleet, proxy, _SIZE, limit_seconds=60)


def _cold(cost: Cost | None, place: Place) -> Cost:
    cost = _plausible(cost, place)
    assert cost.host_cpu_seconds > 0
    assert cost.client_cpu_seconds > 0
    return cost


def _plausible(cost: Cost | None, place: Place) -> Cost:
    """Checks all but the CPU of a cost: that of a warm cycle of two hosts is less than the noise of two starts."""
    assert cost
    assert cost.wire_bytes > _SIZE.hosts * 500
    assert cost.wall_seconds >= _SIZE.round_trip_ms / 1000
    if place.fleet.has_own_pids:
        assert 0.8 * _SIZE.processes <= cost.rows <= 1.5 * _SIZE.processes
    return cost


def test_fleetmem_is_measured_cold_and_warm(place: Place) -> None:
    """A warm cycle costs less than the login before it, on either side, and by bytes."""
    figure = measure_program(Fleetmem(), place)
    assert not figure.problem
    cold, warm = _cold(figure.cold, place), _plausible(figure.warm, place)
    assert warm.client_cpu_seconds < cold.client_cpu_seconds
    assert warm.host_cpu_seconds < cold.host_cpu_seconds
    assert warm.wire_bytes < cold.wire_bytes


def test_a_peer_is_measured_cold_and_warm(place: Place) -> None:
    """Its connections stay from one command to the next: a warm cycle costs the hosts no login."""
    figure = measure_program(Xargs(), place)
    assert not figure.problem
    cold, warm = _cold(figure.cold, place), _plausible(figure.warm, place)
    assert warm.host_cpu_seconds < cold.host_cpu_seconds
    assert warm.wire_bytes < cold.wire_bytes


def test_a_program_that_takes_too_long_is_no_figure(place: Place) -> None:
    """It is told, and what it started has ended: the hosts could not stop otherwise."""
    figure = measure_program(Xargs(), place._replace(limit_seconds=0.0))
    assert figure.cold is None
    assert figure.problem == "not within 0 s"


def test_a_peer_is_measured_on_simulated_hosts() -> None:
    """Client CPU and memory alone, of the same rows that fleetmem gets."""
    pytest.importorskip("paramiko")
    with SimulatedHosts(_SIZE.hosts, _SIZE.processes) as fleet, fleet.proxy(0) as way:
        simulated = Place(fleet, way, _SIZE, limit_seconds=60)
        for program in (Fleetmem(), Paramiko("jsonl")):
            figure = measure_program(program, simulated)
            assert not figure.problem
            assert figure.cold
            assert figure.warm
            assert figure.cold.rows == figure.warm.rows == _SIZE.processes
            assert figure.warm.client_cpu_seconds < figure.cold.client_cpu_seconds
            assert isnan(figure.cold.host_cpu_seconds)
