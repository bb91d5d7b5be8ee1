"""A restart ends what is gone: series that live are remembered in the state folder."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .servers import Cli, Sshd, StatsD, wait_for

_COMMAND = "ghostly"
_PROCESSES = 60
_HOSTS = [f"127.0.1.{number}" for number in (1, 2, 3)]
_MEASURES = 3


class Processes:
    """Processes of this machine, which all hosts show."""

    def __init__(self, folder: Path) -> None:
        program = folder / _COMMAND
        shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
        self._all = [subprocess.Popen([program, "600"]) for _ in range(_PROCESSES)]

    def end(self, count: int = _PROCESSES) -> None:
        """Ends so many of them."""
        for process in self._all[:count]:
            process.kill()
            process.wait()
        del self._all[:count]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """60 of them."""
    processes = Processes(tmp_path)
    yield processes
    processes.end()


def live(statsd: StatsD, prefix: str = "fleetmem") -> set[str]:
    """Returns the series of the processes that StatsD shows alive."""
    return {name for name, value in statsd.gauges().items() if f".{_COMMAND}." in name and value and prefix in name}


class Collector:
    """fleetmem with one configuration file, which changes from start to start."""

    def __init__(self, cli: Cli, fleet: Sshd, folder: Path) -> None:
        self._cli = cli
        self._path = folder / "fleetmem.toml"
        self._options = ("-p", fleet.port, "-k", fleet.key, "--interval", 1, "-c", self._path)

    def start(self, server: str, hosts: list[str] = _HOSTS, prefix: str = "fleetmem", **env: str) -> Any:
        """Starts it."""
        names = ", ".join(f'"{host}"' for host in hosts)
        self._path.write_text(
            f'prefix = "{prefix}"\n[inventory]\nhosts = [{names}]\n[statsd]\nserver = ["{server}"]\n'
            f'[shape]\ninclude_commands = ["^{_COMMAND}$"]\n'
        )
        return self._cli.run(*self._options, **env)


@pytest.fixture
def collector(cli: Cli, fleet: Sshd, tmp_path: Path) -> Collector:
    """Fleetmem."""
    return Collector(cli, fleet, tmp_path)


def _all_live(statsd: StatsD) -> bool:
    return len(live(statsd)) == _PROCESSES * len(_HOSTS) * _MEASURES


def _remembered(cli: Cli) -> int:
    return sum(path.stat().st_size for path in cli.home.rglob("series-*.log"))


@pytest.mark.parametrize("workers", [("1", "1"), ("2", "1"), ("1", "3")])
def test_processes_that_ended_meanwhile_are_ended(
    collector: Collector, statsd: StatsD, processes: Processes, workers: tuple[str, str]
) -> None:
    """Whatever the number of workers: a StatsD that repeats its gauges shows none of them after the restart."""
    with collector.start(statsd.address, FLEETMEM_RUN__WORKERS=workers[0]) as running:
        wait_for("all live", lambda: _all_live(statsd))
        running.signal(signal.SIGTERM)
        assert running.wait(10) == 0
    processes.end(_PROCESSES - 10)
    assert _all_live(statsd)
    with collector.start(statsd.address, FLEETMEM_RUN__WORKERS=workers[1]) as running:
        wait_for("they are ended", lambda: len(live(statsd)) == 10 * len(_HOSTS) * _MEASURES)
        wait_for("some cycles", lambda: len(running.cycles()) >= 5)
        running.signal(signal.SIGTERM)
        assert running.wait(10) == 0
    assert len(live(statsd)) == 10 * len(_HOSTS) * _MEASURES


def test_after_a_kill(collector: Collector, statsd: StatsD, processes: Processes, cli: Cli) -> None:
    """What had lived for some seconds is remembered."""
    with collector.start(statsd.address) as running:
        wait_for("all live", lambda: _all_live(statsd))
        wait_for("it is written", lambda: _remembered(cli) > 1000)
        wait_for("and some cycles more", lambda: len(running.cycles()) >= 8)
        running.signal(signal.SIGKILL)
        running.wait(10)
    processes.end(_PROCESSES - 10)
    with collector.start(statsd.address):
        wait_for("they are ended", lambda: len(live(statsd)) == 10 * len(_HOSTS) * _MEASURES)


def test_what_is_called_otherwise_or_gone_is_ended(
    collector: Collector, statsd: StatsD, processes: Processes, cli: Cli
) -> None:
    """A host that left the inventory, then another prefix, then nothing: each start ends what there is no more."""
    with collector.start(statsd.address) as running:
        wait_for("all live", lambda: _all_live(statsd))
        running.signal(signal.SIGTERM)
        assert running.wait(10) == 0
    with collector.start(statsd.address, _HOSTS[:2]) as running:
        wait_for("the host is ended", lambda: not any("127_0_1_3" in name for name in live(statsd)))
        assert len(live(statsd)) == _PROCESSES * 2 * _MEASURES
        running.signal(signal.SIGTERM)
        assert running.wait(10) == 0
    with collector.start(statsd.address, _HOSTS[:2], prefix="other") as running:
        wait_for("the names are ended", lambda: not live(statsd))
        wait_for("the others live", lambda: len(live(statsd, "other")) == _PROCESSES * 2 * _MEASURES)
        running.signal(signal.SIGTERM)
        assert running.wait(10) == 0
    assert len(list(cli.home.rglob("series-*"))) == 1
    del processes


def test_another_server(collector: Collector, statsd: StatsD, processes: Processes) -> None:
    """The one before is told that its series have ended."""
    with collector.start(f"tcp://{statsd.tcp_address}") as running:
        wait_for("all live", lambda: _all_live(statsd))
        running.signal(signal.SIGTERM)
        assert running.wait(10) == 0
    with collector.start("127.0.0.1:9"):
        wait_for("all are ended there", lambda: not live(statsd))
    del processes


def test_another_shard_ends_nothing(collector: Collector, statsd: StatsD, processes: Processes) -> None:
    """Hosts that another collector samples now are that one's to end."""
    shards = ("0/2", "1/2", "0/3")
    hosts = [f"127.0.1.{number}" for number in range(1, 9)]
    with collector.start(statsd.address, hosts, FLEETMEM_INVENTORY__SHARD=shards[0]) as running:
        wait_for("some live", lambda: bool(live(statsd)))
        wait_for("some cycles", lambda: len(running.cycles()) >= 3)
        before = live(statsd)
        running.signal(signal.SIGTERM)
        assert running.wait(10) == 0
    for shard in shards[1:]:
        with collector.start(statsd.address, hosts, FLEETMEM_INVENTORY__SHARD=shard) as running:
            wait_for("some cycles", lambda running=running: len(running.cycles()) >= 5)  # type: ignore[misc]
            running.signal(signal.SIGTERM)
            assert running.wait(10) == 0
        assert before <= live(statsd)
    del processes


def test_two_with_one_configuration(collector: Collector, statsd: StatsD, processes: Processes) -> None:
    """The second one goes without, says so, and ends nothing of the first one's."""
    with collector.start(statsd.address) as first:
        wait_for("all live", lambda: _all_live(statsd))
        with collector.start(statsd.address) as second:
            wait_for("some cycles", lambda: len(second.cycles()) >= 4)
            assert any("another fleetmem uses" in str(line.get("message")) for line in second.logs())
            second.signal(signal.SIGTERM)
            assert second.wait(10) == 0
        assert _all_live(statsd)
        first.signal(signal.SIGTERM)
        assert first.wait(10) == 0
    del processes
