"""Ways to StatsD: several servers, other sockets, dialects."""

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from .receivers import UdpReceiver, UnixReceiver
from .servers import PATIENT, Cli, Sshd, started, wait_for

HOSTS = [f"127_0_1_{number}" for number in range(1, 21)]


def hosts_of(receiver: UdpReceiver) -> set[str]:
    """Returns the hosts that live at a receiver, as their `up` says."""
    gauges = receiver.gauges()
    return {host for host in HOSTS if gauges.get(f"fleetmem.host.{host}.up") == 1}


def live_series(receiver: UdpReceiver, host: str) -> set[str]:
    """Returns a host's series at a receiver that have not ended there."""
    ours = f"fleetmem.process.{host}.", f"fleetmem.host.{host}."
    return {name for name, value in receiver.gauges().items() if name.startswith(ours) and value}


@pytest.mark.slow
def test_each_host_has_its_server_and_only_a_share_moves(fleet: Sshd, cli: Cli, tmp_path: Path) -> None:
    """Two servers share the hosts; a third one takes its share, the others keep theirs; without it all is as before."""
    config = tmp_path / "config.toml"
    with ExitStack() as stack:
        receivers = [stack.enter_context(started(UdpReceiver())) for _ in range(3)]

        def configure(*servers: UdpReceiver) -> None:
            addresses = ", ".join(f'"{server.address}"' for server in servers)
            config.write_text(f"[statsd]\nserver = [{addresses}]\n[run]\ninterval_seconds = 0.5\n")

        def shares() -> list[set[str]]:
            return [hosts_of(receiver) for receiver in receivers]

        configure(*receivers[:2])
        options = (
            "-c",
            config,
            "-i",
            "127.0.1.[1-20]",
            "-p",
            fleet.port,
            "-k",
            fleet.key,
            "-o",
            "-",
            "--top",
            5,
            *PATIENT,
        )
        with cli.run(*options) as running:
            wait_for("every host is somewhere", lambda: sum(map(len, shares())) == len(HOSTS))
            first = shares()
            assert first[0]
            assert first[1]
            assert not first[0] & first[1]
            configure(*receivers)
            running.signal(signal.SIGHUP)
            wait_for("the new one has its share", lambda: hosts_of(receivers[2]))
            wait_for("every host is in one place", lambda: sum(map(len, shares())) == len(HOSTS))
            second = shares()
            assert second[0] == first[0] - second[2]
            assert second[1] == first[1] - second[2]
            for host in second[2]:  # where it was, it has ended
                assert not live_series(receivers[0], host) | live_series(receivers[1], host)
            configure(*reversed(receivers[:2]))
            running.signal(signal.SIGHUP)
            wait_for("as in the beginning", lambda: shares() == [*first[:2], set()])
            assert not [outcome for outcome in running.outcomes() if not outcome["ok"]]


def test_a_unix_socket(fleet: Sshd, cli: Cli) -> None:
    """Datagrams to a path: whole lines, every process."""
    with started(UnixReceiver()) as receiver:
        options = ("-i", "127.0.1.[1-5]", "-p", fleet.port, "-k", fleet.key, "--format", "jsonl")
        result = cli("collect", *options, "-g", f"unix://{receiver.path}")
        assert result.status == 0, result.stderr
        outcomes = result.by_host()

        def processes() -> int:
            return sum(name.startswith("fleetmem.process.") for name in receiver.gauges())

        expected = 3 * sum(len(outcome["processes"]) for outcome in outcomes.values())
        wait_for("all are there", lambda: processes() == expected)


def test_a_unix_socket_that_is_not_there(fleet: Sshd, cli: Cli, tmp_path: Path) -> None:
    """The path is named, and the status is that of a sink."""
    options = ("-i", "127.0.1.1", "-p", fleet.port, "-k", fleet.key, "-q")
    result = cli("collect", *options, "-g", f"unix://{tmp_path}/no.sock")
    assert result.status == 4
    assert f"{tmp_path}/no.sock" in result.stderr


@pytest.mark.parametrize(
    ("dialect", "begin", "end"),
    [
        ("dogstatsd", "fleetmem.host.up:1", "|g|#host:127_0_1_1"),
        ("influx", "fleetmem.host.up,host=127_0_1_1:1", "|g"),
        ("graphite", "fleetmem.host.up;host=127_0_1_1:1", "|g"),
    ],
)
def test_dialects(fleet: Sshd, cli: Cli, dialect: str, begin: str, end: str) -> None:
    """Host, command and pid as tags, as the receiver wants them."""
    with started(UdpReceiver()) as receiver:
        options = ("-i", "127.0.1.1", "-p", fleet.port, "-k", fleet.key, "-q", "-g", receiver.address)
        result = cli("collect", *options, FLEETMEM_STATSD__DIALECT=dialect)
        assert result.status == 0, result.stderr
        wait_for("up", lambda: begin + end in receiver.lines())
        processes = [line for line in receiver.lines() if line.startswith("fleetmem.process.rss_bytes")]
        assert processes
        assert all("command" in line and "pid" in line for line in processes)
