"""How many round trips a login costs until the first frame is here (decision 0009), with a real sshd.

Counted by packets, not by time: a round trip is an answer that something else waited for before it was sent. A proxy
delays both directions, so that what does not wait for an answer is sent before it comes, however busy the machine is.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from asyncssh.constants import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_KEXINIT,
    MSG_SERVICE_ACCEPT,
    MSG_SERVICE_REQUEST,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from asyncssh.packet import SSHPacketLogger

from delay_proxy import DelayProxy
from fleetmem.connect.link import Link, ProbeChannel
from fleetmem.connect.reach import Reach
from fleetmem.connect.ssh_settings import LoginLimits, ReachSettings, SshSettings
from fleetmem.model import Host
from fleetmem.probe import script
from fleetmem.probe.frame import FrameReader
from fleetmem.probe.script import ProbeKind, Processes

from . import servers
from .servers import Agent, Cli, Sshd, make_key

FIRST, FURTHER = 6, 5
"""Round trips with the first host of a fleet, and with others: TCP, versions, keys, login (with the channel), probe."""

_ROUND_TRIP_MS = 100
_PATIENCE_SECONDS = 30.0
_KEX_INIT, _KEX_REPLY, _KEY_WILL_DO = 30, 31, 60  # of RFC 5656 and RFC 4252: numbers that depend on the method
_REQUESTS = {
    *(_KEX_INIT, MSG_SERVICE_REQUEST, MSG_USERAUTH_REQUEST),
    *(MSG_CHANNEL_OPEN, MSG_CHANNEL_REQUEST, MSG_CHANNEL_DATA),
}
_ANSWERS = {
    *(MSG_KEXINIT, _KEX_REPLY, MSG_SERVICE_ACCEPT, MSG_USERAUTH_FAILURE, _KEY_WILL_DO, MSG_USERAUTH_SUCCESS),
    *(MSG_CHANNEL_OPEN_CONFIRMATION, MSG_CHANNEL_SUCCESS),
}


class Trips:
    """Counts the round trips of one connection."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begins with TCP's; the last one, in which the frame comes, is not followed by a request."""
        self.total = 2
        self._has_answer = False

    def take_sent(self, pkttype: int) -> None:
        """Takes a packet that is sent."""
        if pkttype in _REQUESTS and self._has_answer:
            self.total += 1
            self._has_answer = False

    def take_received(self, pkttype: int) -> None:
        """Takes a packet that has come."""
        self._has_answer = self._has_answer or pkttype in _ANSWERS


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Trips:
    """Counts while asyncssh sends and receives."""
    trips = Trips()
    monkeypatch.setattr(SSHPacketLogger, "log_sent_packet", lambda _self, pkttype, *_args: trips.take_sent(pkttype))
    monkeypatch.setattr(
        SSHPacketLogger, "log_received_packet", lambda _self, pkttype, *_args: trips.take_received(pkttype)
    )
    return trips


@pytest.fixture
def in_command_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request goes with the command, and not again on standard input: a frame was asked for there."""
    monkeypatch.setattr(ProbeChannel, "session_started", lambda _self: None)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """Hosts that let in one key."""
    with servers.sshd(tmp_path / "sshd") as server:
        yield server


def count(trips: Trips, folder: Path, sshds: list[Sshd], *keys: Path, options: str = "") -> list[int]:
    """Collects from hosts, one after the other, with nothing known from before; returns their round trips."""
    config = folder / "config"
    config.write_text(options)

    async def collect(proxies: list[DelayProxy]) -> list[int]:
        ssh = SshSettings(
            user=servers.USER,
            key_paths=keys,
            known_hosts_path=folder / "known",
            login_timeout_seconds=_PATIENCE_SECONDS,
            command_timeout_seconds=_PATIENCE_SECONDS,
        )
        reach = Reach(ReachSettings(ssh, LoginLimits(), (config,)), lambda _path: None)
        hosts = [
            Host(f"127.0.1.{number}", f"127.0.1.{number}", port=proxy.port) for number, proxy in enumerate(proxies)
        ]
        reach.take(reach.resolve(hosts, lambda _host: ssh))
        totals = []
        for host in hosts:
            link = Link(host, reach, script.command(), FrameReader)
            trips.begin()
            answer = await link.ask(script.request_maker(ProbeKind.STATUS, Processes.USER))
            totals.append(trips.total)
            assert b"\nEND " in answer.frame
            assert link._connection
            assert not any(channel._command for channel in link._connection._channels.values()), "kept for each host"
            await link.close()
        await reach.close()
        return totals

    proxies = [DelayProxy([sshd.port], _ROUND_TRIP_MS) for sshd in sshds]
    try:
        return asyncio.run(collect(proxies))
    finally:
        for proxy in proxies:
            proxy.__exit__()


@pytest.mark.usefixtures("in_command_only")
def test_a_cold_login(trips: Trips, sshd: Sshd, tmp_path: Path) -> None:
    """Until a host has taken the key, the channel waits for the login; then it goes with it."""
    assert count(trips, tmp_path, [sshd] * 3, sshd.key) == [FIRST, FURTHER, FURTHER]
    assert "dispatch_protocol_error" not in sshd.log()


@pytest.mark.usefixtures("in_command_only")
def test_a_key_in_the_agent(
    trips: Trips, sshd: Sshd, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent, which may have to ask its owner, signs when the first host has said that it will take the key."""
    agent.add(sshd.key)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.path))
    assert count(trips, tmp_path, [sshd] * 2) == [FIRST, FURTHER]


@pytest.mark.usefixtures("in_command_only")
def test_an_rsa_key(trips: Trips, tmp_path: Path) -> None:
    """Which signatures the host takes of it is known in time."""
    key = make_key(tmp_path / "key", "rsa")
    with servers.sshd(tmp_path / "sshd", public_keys=[key.with_suffix(".pub").read_text()]) as sshd:
        assert count(trips, tmp_path, [sshd] * 2, key) == [FIRST, FURTHER]
        assert "Failed publickey" not in sshd.log()


@pytest.mark.usefixtures("in_command_only")
def test_compression(trips: Trips, sshd: Sshd, tmp_path: Path) -> None:
    """It begins with the login, so that the channel has to wait for that."""
    assert count(trips, tmp_path, [sshd] * 2, sshd.key, options="Compression yes\n") == [FIRST, FIRST]


def test_a_forced_command(trips: Trips, tmp_path: Path, cli: Cli) -> None:
    """It is not told what was asked for, and has its first request when it runs."""
    key = make_key(tmp_path / "key")
    line = cli("probe", "--authorized-keys", f"{key}.pub").stdout
    with servers.sshd(tmp_path / "sshd", public_keys=[line]) as sshd:
        assert count(trips, tmp_path, [sshd] * 2, key) == [FIRST + 1, FURTHER + 1]


@pytest.mark.usefixtures("in_command_only")
def test_a_host_that_refuses_what_others_took(trips: Trips, tmp_path: Path) -> None:
    """It throws away the channel that came with that key, and gets it again with the one that it takes."""
    keys = [make_key(tmp_path / name) for name in ("one", "two")]
    publics = [key.with_suffix(".pub").read_text() for key in keys]
    with (
        servers.sshd(tmp_path / "most", public_keys=publics[:1]) as most,
        servers.sshd(tmp_path / "other", public_keys=publics[1:]) as other,
    ):
        assert count(trips, tmp_path, [most, other], *keys) == [FIRST, FIRST + 1]
        assert other.log().count("dispatch_protocol_error: type 90") == 1
