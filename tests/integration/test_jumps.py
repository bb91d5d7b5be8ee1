"""Jump hosts: one login for all hosts behind them, chains, networks of their own, and what happens when they fail."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from . import servers
from .hostile import refused
from .networks import Machine, line_of_machines
from .servers import Cli, Result, Sshd, wait_for

HOSTS = "127.0.1.[1-30]"
AS_INSTALLED = "MaxStartups 10:30:100\nMaxSessions 10"


@pytest.fixture
def fleet_of_30(tmp_path: Path) -> Iterator[Sshd]:
    """30 hosts on one sshd that takes no more logins at once than one does after its installation."""
    with servers.sshd(tmp_path / "hosts", options=AS_INSTALLED) as server:
        yield server


@contextmanager
def jump_hosts(folder: Path, fleet: Sshd, count: int) -> Iterator[list[Sshd]]:
    """Starts jump hosts that let in the key of the fleet, each an sshd as it is after its installation."""
    key = fleet.key.with_suffix(".pub").read_text()
    with ExitStack() as stack:
        yield [
            stack.enter_context(servers.sshd(folder / f"jump{number}", public_keys=[key], options=AS_INSTALLED))
            for number in range(count)
        ]


def connections(sshd: Sshd) -> int:
    """Returns how many connections an sshd has had."""
    return len(re.findall(r"^Connection from ", sshd.log(), re.MULTILINE))


def all_ok(result: Result, hosts: int) -> None:
    """Checks that all hosts have their data."""
    assert result.status == 0, result.stderr
    outcomes = result.by_host()
    assert len(outcomes) == hosts
    assert all(len(outcome["processes"]) >= 3 for outcome in outcomes.values())


@pytest.mark.parametrize("count", [1, 2])
def test_30_hosts_through_jump_hosts(count: int, fleet_of_30: Sshd, tmp_path: Path, cli: Cli) -> None:
    """One jump host, or two in a row: all hosts are collected, and each jump host has had one connection and login."""
    with jump_hosts(tmp_path, fleet_of_30, count) as jumps:
        through = ",".join(f"127.0.{3 + number}.1:{jump.port}" for number, jump in enumerate(jumps))
        options = ("-p", fleet_of_30.port, "-k", fleet_of_30.key, *servers.PATIENT, "--format", "jsonl")
        all_ok(cli("collect", "-i", HOSTS, "-J", through, *options), 30)
        assert [(connections(jump), jump.logins_total) for jump in jumps] == [(1, 1)] * count
    assert (connections(fleet_of_30), fleet_of_30.logins_total) == (30, 30)


def test_jump_hosts_of_the_ssh_configuration(fleet_of_30: Sshd, tmp_path: Path, cli: Cli) -> None:
    """ProxyJump, of the jump host, too; hosts that name the way otherwise, or none, share what can be shared."""
    with jump_hosts(tmp_path, fleet_of_30, 2) as (outer, inner):
        config = tmp_path / "config"
        config.write_text(
            f"""Host outer
  HostName 127.0.3.1
  Port {outer.port}
  ProxyJump none
Host inner 127.0.4.1
  HostName 127.0.4.1
  Port {inner.port}
  ProxyJump outer
Host 127.0.1.1
  ProxyJump inner
Host 127.0.1.2
  ProxyJump {servers.USER}@127.0.4.1:{inner.port}
Host 127.0.1.3
  ProxyJump outer,inner
Host 127.0.1.4
  ProxyJump outer
Host 127.0.1.5
  ProxyJump none
Host *
  ProxyJump inner
  Port {fleet_of_30.port}
  User {servers.USER}
  IdentityFile {fleet_of_30.key}
"""
        )
        all_ok(
            cli("collect", "-i", "127.0.1.[1-9],inner,outer", "-F", config, *servers.PATIENT, "--format", "jsonl"), 11
        )
        assert inner.logins_total == 1 + 1, "once as a jump host, once as a host"
        assert outer.logins_total == 1 + 1
        assert fleet_of_30.logins_total == 9
        result = cli("hosts", "-i", "127.0.1.[1-9],inner,outer", "-F", config, "--format", "jsonl")
        ways = {line["host"]: line.get("jump") for line in map(json.loads, result.stdout.splitlines())}
        assert ways["127.0.1.1"] == "outer,inner"
        assert ways["127.0.1.5"] is None
        assert ways["inner"] == "outer"
        assert ways["outer"] is None


def test_a_jump_host_with_ipv6(tmp_path: Path, cli: Cli) -> None:
    """`-J [::1]:port`, and hosts with IPv6 behind it."""
    listen = "ListenAddress ::1"
    with (
        servers.sshd(tmp_path / "hosts", options=listen) as hosts,
        jump_hosts_on(tmp_path / "jump", hosts, listen) as jump,
    ):
        options = ("-k", hosts.key, "-J", f"{servers.USER}@[::1]:{jump.port}", *servers.PATIENT, "--format", "jsonl")
        result = cli("collect", "-i", f"[::1]:{hosts.port}", *options)
        if "cannot assign requested address" in result.stderr:
            pytest.skip("this machine has no IPv6")
        all_ok(result, 1)
        assert jump.logins_total == 1


@contextmanager
def jump_hosts_on(folder: Path, hosts: Sshd, options: str) -> Iterator[Sshd]:
    """Starts one jump host with options of its own."""
    key = hosts.key.with_suffix(".pub").read_text()
    with servers.sshd(folder, public_keys=[key], options=options) as jump:
        yield jump


def test_a_jump_host_that_forwards_nothing(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """It is told with what would have to change there; each host fails, and the jump host is logged in to once."""
    with jump_hosts_on(tmp_path / "jump", sshd, "AllowTcpForwarding no") as jump:
        options = (
            "-p",
            sshd.port,
            "-k",
            sshd.key,
            "-J",
            f"127.0.3.1:{jump.port}",
            *servers.PATIENT,
            "--format",
            "jsonl",
        )
        result = cli("collect", "-i", "127.0.1.[1-5]", *options)
        assert jump.logins_total == 1
    assert result.status == 3
    for outcome in result.by_host().values():
        assert outcome["error"]["kind"] == "unreachable"
        assert f"through 127.0.3.1:{jump.port}" in outcome["error"]["message"]
        assert "AllowTcpForwarding" in outcome["error"]["message"]


def test_a_jump_host_that_lets_nobody_in(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """All hosts behind it fail with its name and its failure, it is tried once, and none of them is tried."""
    other = servers.make_key(tmp_path / "other").with_suffix(".pub").read_text()
    with servers.sshd(tmp_path / "jump", public_keys=[other]) as jump:
        options = (
            "-p",
            sshd.port,
            "-k",
            sshd.key,
            "-J",
            f"127.0.3.1:{jump.port}",
            *servers.PATIENT,
            "--format",
            "jsonl",
        )
        result = cli("collect", "-i", HOSTS, *options)
        assert connections(jump) == 1
    assert result.status == 3
    errors = [outcome["error"] for outcome in result.by_host().values()]
    assert len(errors) == 30
    assert {(error["stage"], error["kind"]) for error in errors} == {("login", "auth_failed")}
    assert all(error["message"].startswith(f"jump host 127.0.3.1:{jump.port}: ") for error in errors)
    assert connections(sshd) == 0


def test_the_key_of_a_jump_host_is_checked(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """An unknown one is recorded, a changed one refused: for a jump host as for any other."""
    known = cli.home / ".ssh" / "known_hosts"
    with jump_hosts(tmp_path, sshd, 1) as (jump,):
        options = (
            "-p",
            sshd.port,
            "-k",
            sshd.key,
            "-J",
            f"127.0.3.1:{jump.port}",
            *servers.PATIENT,
            "--format",
            "jsonl",
        )
        strict = cli("collect", "-i", "127.0.1.1", *options, "--host-keys", "strict")
        assert strict.by_host()["127.0.1.1"]["error"]["kind"] == "host_key_unknown"
        assert "jump host 127.0.3.1" in strict.by_host()["127.0.1.1"]["error"]["message"]
        all_ok(cli("collect", "-i", "127.0.1.1", *options), 1)
        assert f"[127.0.3.1]:{jump.port} {jump.host_public_key}\n" in known.read_text()
        known.write_text(f"[127.0.3.1]:{jump.port} {sshd.host_public_key}\n")
        changed = cli("collect", "-i", "127.0.1.1", *options)
        assert changed.by_host()["127.0.1.1"]["error"]["kind"] == "host_key_changed"
        assert f"jump host 127.0.3.1:{jump.port}: host key is" in changed.by_host()["127.0.1.1"]["error"]["message"]


def test_hosts_that_only_the_jump_host_can_reach(tmp_path: Path, cli: Cli) -> None:
    """In networks of their own: directly there is no way to the hosts, through the jump host all are collected."""
    with line_of_machines(3, hosts=30) as machines, in_networks(tmp_path, machines) as (jump, fleet):
        ours = Cli(cli.home, wrapper=machines[0].wrapper)
        options = ("-p", fleet.port, "-k", fleet.key, *servers.PATIENT, "--format", "jsonl")
        hosts = "10.219.1.[1-30]"
        direct = ours("collect", "-i", hosts, *options)
        assert direct.status == 3
        assert {outcome["error"]["kind"] for outcome in direct.by_host().values()} == {"unreachable"}
        all_ok(ours("collect", "-i", hosts, "-J", f"10.219.0.1:{jump.port}", *options), 30)
        assert (connections(jump), jump.logins_total, fleet.logins_total) == (1, 1, 30)


def test_hosts_behind_two_networks(tmp_path: Path, cli: Cli) -> None:
    """Likewise where the second jump host can only be reached through the first."""
    with line_of_machines(4, hosts=5) as machines, in_networks(tmp_path, machines) as (outer, inner, fleet):
        ours = Cli(cli.home, wrapper=machines[0].wrapper)
        options = ("-p", fleet.port, "-k", fleet.key, *servers.PATIENT, "--format", "jsonl")
        hosts = "10.219.2.[1-5]"
        alone = ours("collect", "-i", hosts, "-J", f"10.219.1.1:{inner.port}", *options)
        assert alone.status == 3
        through = f"10.219.0.1:{outer.port},10.219.1.1:{inner.port}"
        all_ok(ours("collect", "-i", hosts, "-J", through, *options), 5)
        assert [server.logins_total for server in (outer, inner, fleet)] == [1, 1, 5]


@contextmanager
def in_networks(folder: Path, machines: list[Machine]) -> Iterator[list[Sshd]]:
    """Starts an sshd on each machine but the first; all let in the key of the last one."""
    with ExitStack() as stack:
        last = stack.enter_context(servers.sshd(folder / "hosts", options=AS_INSTALLED, wrapper=machines[-1].wrapper))
        key = last.key.with_suffix(".pub").read_text()
        jumps = [
            stack.enter_context(
                servers.sshd(folder / machine.name, public_keys=[key], options=AS_INSTALLED, wrapper=machine.wrapper)
            )
            for machine in machines[1:-1]
        ]
        yield [*jumps, last]


def test_a_jump_host_that_goes_away_and_comes_back(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """While it is away its hosts fail with its name; once it is back they answer again, over one new connection."""
    with jump_hosts(tmp_path, sshd, 1) as (jump,):
        name = f"127.0.3.1:{jump.port}"
        options = ("-p", sshd.port, "-k", sshd.key, "-J", name, "-o", "-", "--interval", 0.5, *servers.PATIENT)
        with cli.run("-i", "127.0.1.[1-5]", *options) as running:

            def newest() -> list[dict[str, object]]:
                return list({outcome["host"]: outcome for outcome in running.outcomes()}.values())

            wait_for("all hosts answer", lambda: len(newest()) == 5 and all(each["ok"] for each in newest()))
            jump.stop()

            def all_know() -> bool:
                errors = [each.get("error") for each in newest()]
                return all(isinstance(error, dict) and f"jump host {name}" in error["message"] for error in errors)

            wait_for("all hosts fail for the jump host", all_know)
            logins = jump.logins_total
            jump.start()
            # The jump host is tried every few seconds, and no host has to wait for the 15 s of one that refuses.
            wait_for("all hosts answer again", lambda: all(each["ok"] for each in newest()), 12)
            assert jump.logins_total == logins + 1
            assert [line for line in running.logs() if "answers again" in str(line)]


def test_a_jump_host_that_is_not_there(sshd: Sshd, cli: Cli) -> None:
    """It is tried a few times in 30 cycles, not 30 times 10; each host has its name in each of them."""
    down = refused()
    options = ("-p", sshd.port, "-k", sshd.key, "-J", down, "-o", "-", "--interval", 0.1)
    with cli.run("-i", "127.0.1.[1-10]", *options) as running:
        wait_for("30 cycles", lambda: len(running.outcomes()) >= 300)
        messages = {outcome["error"]["message"] for outcome in running.outcomes()}
    assert all(message.startswith(f"jump host {down}: ") for message in messages)
    assert len([message for message in messages if "next attempt" not in message]) == 1
    assert connections(sshd) == 0


def test_workers_share_a_jump_host(fleet_of_30: Sshd, tmp_path: Path, cli: Cli) -> None:
    """Each worker has one login at the jump host for all of its hosts; at the end none is left."""
    with jump_hosts(tmp_path, fleet_of_30, 1) as (jump,):
        through = f"127.0.3.1:{jump.port}"
        options = ("-p", fleet_of_30.port, "-k", fleet_of_30.key, "-J", through, "-o", "-", *servers.PATIENT)
        with cli.run("-i", HOSTS, "--workers", 2, "--interval", 1, *options) as running:
            wait_for("all hosts", lambda: len({each["host"] for each in running.outcomes() if each["ok"]}) == 30)
            running.signal(signal.SIGTERM)
            assert running.wait(5) == 0
        assert (connections(jump), jump.logins_total) == (2, 2)
    assert fleet_of_30.logins_total == 30
