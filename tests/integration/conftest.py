"""Fixtures: servers that live for one test or one run of the suite, and fleetmem's command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import servers
from .hostile import HostileHosts, hostile_hosts
from .servers import Cli, Sshd, StatsD


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
def cli(tmp_path: Path) -> Cli:
    """The command line of fleetmem, with an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    return Cli(home)


@pytest.fixture
def hostile(fleet: Sshd) -> Iterator[HostileHosts]:
    """Hosts that misbehave; those which speak SSH let in the same key as `fleet`."""
    with hostile_hosts(fleet.key) as hosts:
        yield hosts
