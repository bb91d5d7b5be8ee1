"""Fixtures: servers that live for one test or one run of the suite, and fleetmem's command line."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from . import servers
from .hostile import HostileHosts, hostile_hosts
from .receivers import CarbonCache, Collectd, Prometheus
from .servers import Agent, Cli, Sshd, StatsD, find_tool, started, wait_for
from .warm import WarmStarter


@pytest.fixture(scope="session", autouse=True)
def _interrupts() -> None:
    """Lets what is started notice Ctrl-C, also where the tests run in the background of a script, which do not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd that answers on every loopback address: 127.0.1.1 to 127.0.1.50 are 50 hosts."""
    with servers.sshd(tmp_path_factory.mktemp("fleet")) as server:
        yield server


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """An sshd for one test, which may stop it, read its log and count its sessions."""
    with servers.sshd(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def statsd(tmp_path: Path) -> Iterator[StatsD]:
    """A StatsD for one test."""
    with servers.statsd(tmp_path / "statsd") as server:
        yield server


@pytest.fixture
def carbon_cache(tmp_path: Path) -> Iterator[CarbonCache]:
    """A carbon-cache for one test."""
    with started(CarbonCache(tmp_path / "carbon")) as server:
        yield server


@pytest.fixture
def collectd(tmp_path: Path) -> Iterator[Collectd]:
    """A collectd for one test."""
    with started(Collectd(tmp_path / "collectd")) as server:
        yield server


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    """Starts a Prometheus that scrapes the targets given, each an address with its port."""
    with ExitStack() as stack:

        def start(*targets: str, name: str = "prometheus", **scrape: object) -> Prometheus:
            return stack.enter_context(started(Prometheus(tmp_path / name, *targets, **scrape)))

        yield start


@pytest.fixture(scope="session")
def starter() -> Iterator[WarmStarter]:
    """Starts commands of fleetmem for the tests of one process."""
    starter = WarmStarter()
    yield starter
    starter.stop()


@pytest.fixture
def cli(tmp_path: Path, starter: WarmStarter) -> Cli:
    """The command line of fleetmem, with an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    return Cli(home, starter=starter)


@pytest.fixture
def agent(tmp_path: Path, cli: Cli) -> Iterator[Agent]:
    """An ssh-agent without keys."""
    path = tmp_path / "agent"
    with subprocess.Popen([find_tool("ssh-agent"), "-D", "-a", str(path)], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for("the agent listens", path.is_socket)
            yield Agent(path, cli.home)
        finally:
            process.terminate()


@pytest.fixture
def hostile(fleet: Sshd) -> Iterator[HostileHosts]:
    """Hosts that misbehave; those which speak SSH let in the same key as `fleet`."""
    with hostile_hosts(fleet.key) as hosts:
        yield hosts
