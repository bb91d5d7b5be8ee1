"""What collect ends with: status, one clear message, never a traceback, nothing left."""

import signal
import subprocess
from pathlib import Path

import pytest

from .hostile import HostileHosts, refused
from .servers import PATIENT, Cli, Sshd, StatsD, environment, free_port, wait_for


def test_status_0_when_every_host_answered(fleet: Sshd, cli: Cli) -> None:
    """All hosts answered: 0."""
    assert cli("collect", "-i", "127.0.1.[1-3]", "-p", fleet.port, "-k", fleet.key, *PATIENT).status == 0


def test_status_1_when_some_host_failed(fleet: Sshd, cli: Cli) -> None:
    """One of two hosts failed: 1, and the other's data is there."""
    result = cli("collect", "-i", f"127.0.1.1:{fleet.port},{refused()}", "-k", fleet.key, *PATIENT, "--format", "jsonl")
    assert result.status == 1
    assert [line["ok"] for line in result.by_host().values()].count(True) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "web[1-"], "brackets do not match"),
        (["-i", "127.0.1.1", "-k", "/does/not/exist"], "no such file"),
        ([], "no hosts"),
        (["-i", "@/does/not/exist"], "hosts file /does/not/exist"),
        (["-i", "127.0.1.1", "-g", "not an address"], "statsd.server"),
        (["-i", "127.0.1.1", "--connect-timeout", "0"], "ssh.connect_timeout_seconds"),
    ],
)
def test_status_2_when_it_was_asked_for_the_impossible(arguments: list[str], message: str, cli: Cli) -> None:
    """Wrong usage: 2, and the message names what is wrong."""
    result = cli("collect", *arguments)
    assert result.status == 2
    assert message in result.stderr.lower()
    assert not result.stdout


def test_status_3_when_no_host_answered(fleet: Sshd, cli: Cli) -> None:
    """No host answered: 3."""
    assert cli("collect", "-i", refused(), "-k", fleet.key, *PATIENT).status == 3


@pytest.mark.slow
@pytest.mark.timing
def test_status_4_when_statsd_is_away(fleet: Sshd, cli: Cli) -> None:
    """Nothing listens where StatsD should: 5 to 7 s later a message that names the address, and 4; data is printed."""
    address = f"127.0.0.1:{free_port()}"
    arguments = ("collect", "-i", "127.0.1.[1-3]", "-p", fleet.port, "-k", fleet.key, *PATIENT, "--format", "jsonl")
    without = cli(*arguments)
    result = cli(*arguments, "-g", address)
    assert result.status == 4
    assert 5 <= result.seconds <= without.seconds + 7
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fleetmem: ")
    assert address in last
    assert "refused" in last
    assert len(result.by_host()) == 3


@pytest.mark.parametrize(
    ("hosts", "format_"), [("127.0.1.1", "table"), ("127.0.1.[1-50]", "jsonl"), ("127.0.1.[1-50]", "csv")]
)
def test_status_4_when_the_disk_of_the_output_is_full(hosts: str, format_: str, fleet: Sshd, cli: Cli) -> None:
    """A full disk under -o: one line that names file and reason, and 4, for little and for much output."""
    result = cli(
        *("collect", "-i", hosts, "-p", fleet.port, "-k", fleet.key, *PATIENT, "-o", "/dev/full", "--format", format_)
    )
    assert result.status == 4
    assert "output /dev/full: no space left on device" in result.stderr


@pytest.mark.parametrize("hosts", ["127.0.1.1", "127.0.1.[1-50]"])
def test_a_full_disk_under_stdout_is_told(hosts: str, fleet: Sshd, cli: Cli) -> None:
    """The same when stdout is redirected there."""
    command = cli.command("collect", "-i", hosts, "-p", fleet.port, "-k", fleet.key, *PATIENT, "--format", "jsonl")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, env=environment(cli.home), stdout=full, stderr=subprocess.PIPE, timeout=30, check=False
        )
    stderr = done.stderr.decode()
    assert "Traceback" not in stderr, stderr
    assert "no space left on device" in stderr
    assert done.returncode == 4


@pytest.mark.parametrize("hosts", ["127.0.1.1", "127.0.1.[1-50]"])
def test_a_reader_that_leaves_early_is_not_complained_about(hosts: str, fleet: Sshd, cli: Cli) -> None:
    """`fleetmem collect | head -c 1` ends in silence."""
    command = cli.command(
        "collect", "-i", hosts, "-p", fleet.port, "-k", fleet.key, *PATIENT, "--format", "jsonl", "-q"
    )
    with subprocess.Popen(
        command, env=environment(cli.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        stderr = process.stderr.read().decode()
    assert not stderr


@pytest.mark.timing
def test_ctrl_c_ends_a_slow_collect_at_once(hostile: HostileHosts, sshd: Sshd, cli: Cli) -> None:
    """SIGINT in the middle of a collect: within 1 s status 130, one line, no traceback, and nothing left on a host."""
    silent, stuck = hostile.start("never_answer"), hostile.start("stop_in_key_exchange")
    key = hostile.key
    specs = ",".join([silent, stuck, *(f"127.0.1.{number}:{sshd.port}" for number in range(1, 11))])
    options = ("-i", specs, "-k", key, "-k", sshd.key, *PATIENT, "--connect-timeout", 30, "--command-timeout", 30)
    with cli.start("collect", *options, "--format", "jsonl") as running:
        wait_for("the good ones are done", lambda: len(running.outcomes()) == 10)
        wait_for("the silent one is asked", lambda: hostile.counts(silent)["requests"])
        running.signal(signal.SIGINT)
        assert running.wait(1) == 130
        assert "interrupted, 10 of 12 hosts done" in running.stderr
    wait_for("nothing is left", lambda: not sshd.probes(), 2)


@pytest.mark.timing
def test_ctrl_c_while_values_are_sent_ends_it_too(fleet: Sshd, cli: Cli) -> None:
    """SIGINT while a collect waits for a dead StatsD: within 1 s status 130."""
    options = (
        "-i",
        f"127.0.1.1:{fleet.port}",
        "-k",
        fleet.key,
        *PATIENT,
        "-g",
        f"127.0.0.1:{free_port()}",
        "--format",
        "jsonl",
    )
    with cli.start("collect", *options, "-v") as running:
        wait_for("StatsD is found dead", lambda: "trying again" in running.stderr)
        running.signal(signal.SIGINT)
        assert running.wait(1) == 130


def test_single_takes_one_host_at_a_time(hostile: HostileHosts, cli: Cli, statsd: StatsD) -> None:
    """With -s the next host is begun when the one before is done."""
    hosts = [hostile.start("slow_once") for _ in range(2)]
    options = ("-i", ",".join(hosts), "-k", hostile.key, "-s", "-g", statsd.address, "--format", "jsonl")
    with cli.start("collect", *options) as running:
        wait_for("the first is asked", lambda: hostile.counts(hosts[0])["requests"])
        while not running.outcomes():
            assert hostile.counts(hosts[1])["logins"] == 0
        assert running.wait(10) == 0
    assert [outcome["host"] for outcome in running.outcomes()] == hosts
