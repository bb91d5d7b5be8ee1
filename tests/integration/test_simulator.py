"""A simulated fleet in a process of its own, and what `fleetmem run` makes of it."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetmem.lab.simulated_host import Fault, SimulationPlan
from fleetmem.lab.simulator import address_of

from .servers import Cli, Running, wait_for

HOSTS, PROCESSES, SHARE = 200, 30, 0.02
PLAN = SimulationPlan(HOSTS, PROCESSES, 0.1, 1, dict.fromkeys(Fault, SHARE))
FAULTS = {address_of(number): PLAN.fault_of(number) for number in range(HOSTS)}


@pytest.fixture
def simulator(cli: Cli, tmp_path: Path) -> Iterator[Running]:
    """200 hosts, 4 of them with each fault."""
    shares = [word for fault in Fault for word in (f"--{fault}", SHARE)]
    size = ("--hosts", HOSTS, "--processes", PROCESSES, "--seed", 1)
    with cli.start("lab", "simulate", "--dir", tmp_path / "fleet", *size, *shares) as running:
        wait_for("the simulator listens", lambda: "Ctrl-C ends it" in running.stdout)
        yield running


def _kinds(collector: Running, host: str) -> list[str]:
    """Returns what each cycle of a host came to, `ok` or the kind of failure."""
    return ["ok" if outcome["ok"] else outcome["error"]["kind"] for outcome in collector.outcomes_of(host)]


@pytest.mark.parametrize("protocol", [1, 2])
def test_each_fault(cli: Cli, simulator: Running, tmp_path: Path, protocol: int) -> None:
    """Good hosts answer each time, each faulty one fails in the way of its fault, and none is asked twice at once."""
    config = tmp_path / "fleet" / "fleetmem.toml"
    limits = ("--connect-timeout", 60, "--command-timeout", 8)  # a slow host takes 2 s, and longer on a busy machine
    with cli.run("-c", config, "-o", "-", "--interval", 2, "--protocol", protocol, *limits) as collector:
        wait_for(
            "each host has had its outcome, and each that drops has dropped",
            lambda: (
                all(_kinds(collector, host) for host in FAULTS)
                and all("bad_frame" in _kinds(collector, host) for host in _hosts(Fault.DROPPING))
            ),
            90,
        )
        collector.signal(signal.SIGTERM)
        assert collector.wait(20) == 0
        kinds = {host: set(_kinds(collector, host)) for host in FAULTS}
        rows = [outcome["process_count"] for host in _hosts(None) for outcome in collector.outcomes_of(host)]
    assert len(_hosts(None)) == HOSTS - 4 * len(Fault)
    assert all(kinds[host] == {"ok"} for host in _hosts(None))
    assert set(rows) == {PROCESSES}
    assert all(kinds[host] == {"ok"} for host in _hosts(Fault.SLOW))
    assert all(kinds[host] == {"command_timeout"} for host in _hosts(Fault.SILENT))
    assert all(kinds[host] == {"disconnected"} for host in _hosts(Fault.REFUSING))
    assert all({"ok", "bad_frame"} <= kinds[host] for host in _hosts(Fault.DROPPING))
    assert all(kinds[host] == {"bad_frame"} for host in _hosts(Fault.FLOODING)), kinds
    reports = wait_for("it has told how it goes", lambda: re.findall(r"(\d+) requests while", simulator.stdout))
    assert set(reports) == {"0"}
    simulator.signal(signal.SIGTERM)
    assert simulator.wait(10) == 0


def _hosts(fault: Fault | None) -> list[str]:
    return [host for host, its in FAULTS.items() if its is fault]


def test_what_cannot_be(cli: Cli, tmp_path: Path) -> None:
    """A port that is taken, and shares that are more than all, are told in one line."""
    with cli.start("lab", "simulate", "--dir", tmp_path / "one", "--hosts", 1) as running:
        wait_for("it listens", lambda: "Ctrl-C ends it" in running.stdout)
        port = re.search(r"port (\d+)", running.stdout)
        assert port
        taken = cli("lab", "simulate", "--dir", tmp_path / "two", "--hosts", 1, "--port", port[1])
        assert (taken.status, taken.stderr.count("\n")) == (1, 1)
        assert f"port {port[1]}: Address already in use" in taken.stderr
    shares = cli("lab", "simulate", "--dir", tmp_path / "two", "--slow", 0.6, "--silent", 0.6)
    assert (shares.status, "more than 1 together" in shares.stderr) == (2, True)
