"""How many round trips a login costs until the first frame is here: counted by a proxy, not timed (decision 0009)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from delay_proxy import DelayProxy

from . import servers
from .servers import Agent, Cli, Sshd, make_key

HOSTS = "127.0.1.[1-2]"
_ROUND_TRIP_MS = 200
"""Longer than a host takes to answer: a frame that came later could be the answer to what it was sent meanwhile."""

FIRST, FURTHER = 6, 5
"""Round trips with the first host of a fleet, and with others: TCP, versions, keys, login (with the channel), probe."""


# Without what a login shell does for whoever runs the tests, which may take longer than a round trip.
_BARE = "SetEnv HOME=/nonexistent"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """Hosts whose shells start at once."""
    with servers.sshd(tmp_path / "sshd", options=_BARE) as server:
        yield server


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[DelayProxy]:
    """Leads to `sshd`."""
    with DelayProxy([sshd.port], _ROUND_TRIP_MS) as proxy:
        yield proxy


def collect(cli: Cli, port: int, *options: object) -> None:
    """Collects from hosts, one after the other."""
    result = cli("collect", "-s", "-p", port, "--format", "jsonl", *options)
    assert result.status == 0, result.stderr


def test_a_cold_login(sshd: Sshd, proxy: DelayProxy, cli: Cli) -> None:
    """Until a host has taken the key, the channel waits for the login; then it goes with it."""
    collect(cli, proxy.port, "-i", HOSTS, "-k", sshd.key)
    assert proxy.passed().round_trips == (FIRST, FURTHER)
    assert "dispatch_protocol_error" not in sshd.log()


def test_a_key_in_the_agent(sshd: Sshd, proxy: DelayProxy, agent: Agent, cli: Cli) -> None:
    """The agent, which may have to ask its owner, signs when the first host has said that it will take the key."""
    agent.add(sshd.key)
    collect(Cli(cli.home, {"SSH_AUTH_SOCK": str(agent.path)}), proxy.port, "-i", HOSTS)
    assert proxy.passed().round_trips == (FIRST, FURTHER)


def test_an_rsa_key(tmp_path: Path, cli: Cli) -> None:
    """Which signatures the host takes of it is known in time."""
    key = make_key(tmp_path / "key", "rsa")
    with (
        servers.sshd(tmp_path / "sshd", public_keys=[key.with_suffix(".pub").read_text()], options=_BARE) as sshd,
        DelayProxy([sshd.port], _ROUND_TRIP_MS) as proxy,
    ):
        collect(cli, proxy.port, "-i", HOSTS, "-k", key)
        assert proxy.passed().round_trips == (FIRST, FURTHER)
        assert "Failed publickey" not in sshd.log()


def test_compression(sshd: Sshd, proxy: DelayProxy, cli: Cli) -> None:
    """It begins with the login, so that the channel has to wait for that."""
    config = cli.home / "config"
    config.write_text("Compression yes\n")
    collect(cli, proxy.port, "-i", HOSTS, "-k", sshd.key, "-F", config)
    assert proxy.passed().round_trips == (FIRST, FIRST)


def test_a_forced_command(tmp_path: Path, cli: Cli) -> None:
    """It is not told what was asked for, and has its first request when it runs."""
    key = make_key(tmp_path / "key")
    line = cli("probe", "--authorized-keys", f"{key}.pub").stdout
    with (
        servers.sshd(tmp_path / "sshd", public_keys=[line], options=_BARE) as sshd,
        DelayProxy([sshd.port], _ROUND_TRIP_MS) as proxy,
    ):
        collect(cli, proxy.port, "-i", HOSTS, "-k", key)
        assert proxy.passed().round_trips == (FIRST + 1, FURTHER + 1)


def test_a_host_that_refuses_what_others_took(tmp_path: Path, cli: Cli) -> None:
    """It throws away the channel that came with that key, and gets it again with the one that it takes."""
    keys = [make_key(tmp_path / name) for name in ("one", "two")]
    publics = [key.with_suffix(".pub").read_text() for key in keys]
    with (
        servers.sshd(tmp_path / "most", public_keys=publics[:1], options=_BARE) as most,
        servers.sshd(tmp_path / "other", public_keys=publics[1:], options=_BARE) as other,
        DelayProxy([most.port], _ROUND_TRIP_MS) as to_most,
        DelayProxy([other.port], _ROUND_TRIP_MS) as to_other,
    ):
        hosts = f"127.0.1.1:{to_most.port},127.0.1.1:{to_other.port}"
        collect(cli, 22, "-i", hosts, "-k", keys[0], "-k", keys[1])
        assert to_most.passed().round_trips == (FIRST,)
        assert to_other.passed().round_trips == (FIRST + 1,)
        assert other.log().count("dispatch_protocol_error: type 90") == 1
