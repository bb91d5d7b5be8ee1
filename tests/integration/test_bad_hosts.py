"""Hosts that are away, lie, flood or stall: each gets its own failure kind in time, the good ones their snapshot."""

import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .hostile import NOT_UTF8, HostileHosts, refused
from .servers import Cli, Result, Sshd, by_host, environment, find_tool, make_key, sshd

GOOD = [f"127.0.1.{number}" for number in range(1, 21)]
CHANGED = "127.0.1.21"


@dataclass
class BadFleet:
    """20 good hosts among bad ones.

    Attributes:
        specs: all hosts, as `-i` takes them.
        failures: kind by host, of those that must fail.
        whole: hosts that must not, by what they are.
    """

    specs: list[str]
    failures: dict[str, str]
    whole: dict[str, str]


@pytest.fixture
def bad_fleet(fleet: Sshd, hostile: HostileHosts, cli: Cli, tmp_path: Path) -> Iterator[BadFleet]:
    """All the hosts of the acceptance criterion, and some more."""
    other_key = " ".join(make_key(tmp_path / "other_host_key").with_suffix(".pub").read_text().split()[:2])
    (cli.home / ".ssh").mkdir(mode=0o700)
    (cli.home / ".ssh" / "known_hosts").write_text(f"[{CHANGED}]:{fleet.port} {other_key}\n")
    with sshd(tmp_path / "locked", public_keys=[]) as locked:
        failures = {
            refused(): "unreachable",
            hostile.start("say_nothing"): "login_timeout",
            hostile.start("stop_in_key_exchange"): "login_timeout",
            hostile.start("close_in_key_exchange"): "disconnected",
            hostile.start("speak_http"): "disconnected",
            f"127.0.2.100:{locked.port}": "auth_failed",
            CHANGED: "host_key_changed",
            "nohost.invalid": "unresolvable",
            f"{'a' * 64}.example.com": "unresolvable",
            hostile.start("never_answer"): "command_timeout",
            hostile.start("flood"): "bad_frame",
            hostile.start("flood_in_frame"): "bad_frame",
            hostile.start("cut_in_frame"): "bad_frame",
            hostile.start("stall_in_frame"): "command_timeout",
            hostile.start("count_wrong"): "bad_frame",
            hostile.start("no_shell"): "command_failed",
            hostile.start("command_missing"): "command_missing",
        }
        whole = {
            hostile.start("banner"): "banner",
            hostile.start("many_processes"): "many processes",
            hostile.start("not_utf8"): "not UTF-8",
        }
        yield BadFleet([*GOOD, *failures, *whole], failures, whole)


def check(fleet: BadFleet, result: Result) -> None:
    """Checks every host's outcome."""
    outcomes = result.by_host()
    assert set(outcomes) == set(fleet.specs)
    kinds = {host: outcome["error"]["kind"] for host, outcome in outcomes.items() if not outcome["ok"]}
    assert kinds == fleet.failures
    assert result.status == 1
    for host in GOOD:
        assert len(outcomes[host]["processes"]) >= 3
    whole = {what: outcomes[host]["processes"] for host, what in fleet.whole.items()}
    assert len(whole["banner"]) >= 3
    assert [process["pid"] for process in whole["many processes"]] == list(range(1, 20_001))
    assert [process["rss_bytes"] for process in whole["many processes"]] == [
        (1000 + pid) * 1024 for pid in range(1, 20_001)
    ]
    names = [process["command"].encode("utf-8", "surrogateescape") for process in whole["not UTF-8"]]
    assert names == NOT_UTF8


@pytest.mark.slow
@pytest.mark.timing
# Those of 5 s are the defaults; how they hold is the same.
@pytest.mark.parametrize("limit_seconds", [3, pytest.param(5, marks=pytest.mark.long)])
def test_each_bad_host_gets_its_kind_and_the_good_ones_are_complete(
    limit_seconds: int, bad_fleet: BadFleet, fleet: Sshd, cli: Cli
) -> None:
    """The bad hosts cost the run one limit, and less than a second more than the others take by themselves."""
    limits = () if limit_seconds == 5 else ("--connect-timeout", limit_seconds, "--command-timeout", limit_seconds)
    options = ("-p", fleet.port, "-k", fleet.key, "--format", "jsonl", *limits)
    alone = cli("collect", "-i", ",".join([*GOOD, *bad_fleet.whole]), *options)
    assert alone.status == 0, alone.stderr
    result = cli("collect", "-i", ",".join(bad_fleet.specs), *options)
    check(bad_fleet, result)
    assert result.seconds <= limit_seconds + alone.seconds + 1


def test_report_says_what_to_do_about_each_failure(bad_fleet: BadFleet, fleet: Sshd, cli: Cli) -> None:
    """Each failed host is named on stderr with its kind and something to try."""
    failures = {host: kind for host, kind in bad_fleet.failures.items() if "timeout" not in kind}
    result = cli("collect", "-i", ",".join(failures), "-p", fleet.port, "-k", fleet.key, "--format", "jsonl")
    assert result.status == 3
    assert f"{len(failures)} of {len(failures)} hosts failed:" in result.stderr
    for host, kind in failures.items():
        _head, _colon, tail = result.stderr.partition(host)
        told, advice = tail.splitlines()[1:3]
        assert told.strip().startswith(f"{kind}: "), (host, result.stderr)
        assert advice.strip().startswith("try: ")
    assert "status 1: This account is currently not available." in result.stderr
    assert "status 127: fish: Unknown command: /bin/sh" in result.stderr


@pytest.mark.slow
@pytest.mark.timing
def test_a_dead_name_server_delays_nobody(fleet: Sshd, cli: Cli, tmp_path: Path) -> None:
    """40 names that a dead name server never answers are `unresolvable` after 5 s; names from files are not delayed."""
    unshare = find_tool("unshare")
    (tmp_path / "hosts").write_text("127.0.1.1 good1\n127.0.1.2 good2\n")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.2.250\n")
    mounts = " && ".join(f"mount --bind {tmp_path}/{name} /etc/{name}" for name in ("hosts", "resolv.conf"))
    if subprocess.run([unshare, "-m", "sh", "-c", mounts], capture_output=True, check=False).returncode:
        pytest.skip("the kernel lets nobody but root have /etc/resolv.conf of their own")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dead:
        try:
            dead.bind(("127.0.2.250", 53))
        except PermissionError:
            pytest.skip("port 53 is for root")
        words = cli.command("collect", "-i", "bad[1-40].example.com,good[1-2]", "-p", fleet.port, "-k", fleet.key)
        started = time.monotonic()
        done = subprocess.run(
            [unshare, "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", *words, "--format", "jsonl"],
            env=environment(cli.home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert time.monotonic() - started <= 7
    outcomes = by_host(done.stdout.decode())
    assert outcomes["good1"]["ok"]
    assert outcomes["good2"]["ok"]
    kinds = [outcome["error"]["kind"] for outcome in outcomes.values() if not outcome["ok"]]
    assert kinds == ["unresolvable"] * 40
    assert done.returncode == 1


def test_a_host_is_not_left_out_when_all_fail(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """Without any answer the exit status is 3."""
    specs = [refused(), hostile.start("no_shell")]
    result = cli("collect", "-i", ",".join(specs), "-k", fleet.key, "--format", "jsonl")
    assert result.status == 3
    assert set(result.by_host()) == set(specs)
