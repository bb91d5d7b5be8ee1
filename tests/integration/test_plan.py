"""`fleetmem plan`: what would be sent and what it would cost, without sending anything."""

import re
from pathlib import Path

import pytest

from .receivers import UdpReceiver
from .servers import Cli, Sshd, free_port, started


def test_it_counts_and_sends_nothing(fleet: Sshd, cli: Cli, tmp_path: Path) -> None:
    """The figures are those of the lines that it writes; no datagram leaves, no spool and no page are made."""
    lines = tmp_path / "lines"
    with started(UdpReceiver()) as receiver:
        options = ("-i", "127.0.1.[1-3]", "-p", fleet.port, "-k", fleet.key, "-g", receiver.address)
        sinks = ("--graphite", "127.0.0.1:1", "--prometheus", free_port())
        result = cli("plan", *options, *sinks, "--interval", 0.5, "--retention", "1s:1h", "-o", lines)
        assert result.status == 0, result.stderr
        assert receiver.datagrams == []
    assert not list(cli.home.rglob("*.spool"))
    sent = lines.read_text().splitlines()
    assert all(re.fullmatch(r"fleetmem\.\w+(\.\w+)+:\d+(\.\d+)?\|g", line) for line in sent)
    assert f"{len(sent):,}, of 3 of 3 hosts" in result.stdout
    # 3600 points of 12 bytes, one archive of 12, a header of 16.
    assert "43,228 bytes" in result.stdout
    assert "there are gaps" not in result.stdout
    assert "--interval is 0.5 s, the finest step of the retention 1 s" in result.stdout


def test_failed_hosts_are_told(fleet: Sshd, cli: Cli) -> None:
    """A host that does not answer is in no figure, and named with what to try."""
    options = ("-i", f"127.0.1.1,127.0.1.2:{free_port()}", "-p", fleet.port, "-k", fleet.key)
    result = cli("plan", *options, "--interval", 0.2)
    assert result.status == 1
    assert "of 1 of 2 hosts" in result.stdout
    assert "unreachable" in result.stderr
    result = cli("plan", "-i", f"127.0.1.2:{free_port()}", "-k", fleet.key, "--interval", 0.2)
    assert result.status == 3


@pytest.mark.parametrize("retention", ["", "10s", "10s:6h,15s:7d"])
def test_a_wrong_retention(cli: Cli, retention: str) -> None:
    """It is named before any host is asked."""
    for command in (("plan",), ("run", "--dry-run")):
        result = cli(*command, "-i", "127.0.1.1", "--retention", retention)
        assert result.status == 2
        assert result.stderr.startswith("fleetmem: --retention: ")


def test_the_old_flag_is_an_alias(fleet: Sshd, cli: Cli) -> None:
    """`run --dry-run` prints the same plan."""
    options = ("-i", "127.0.1.1", "-p", fleet.port, "-k", fleet.key, "--interval", 0.2)
    plans = [cli(*command, *options) for command in (("plan",), ("run", "--dry-run"))]
    assert [plan.status for plan in plans] == [0, 0], plans
    labels = [[line[:17] for line in plan.stdout.splitlines()] for plan in plans]
    assert labels[0] == labels[1]
