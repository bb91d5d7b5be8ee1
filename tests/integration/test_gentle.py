"""Gentle at scale: what a wrong key, a limit or a setting for some hosts comes to on the hosts."""

import re
import signal
from pathlib import Path

from . import servers
from .servers import Cli, Sshd, make_key, wait_for

HOSTS_30 = "127.0.1.[1-30]"


def tries(sshd: Sshd) -> int:
    """Returns how many logins were tried with a key that sshd refused."""
    return sshd.log().count("Failed publickey")


def connections(sshd: Sshd) -> int:
    """Returns how many connections came in."""
    return len(re.findall(r"^Connection from ", sshd.log(), re.MULTILINE))


def test_a_wrong_key_for_100_cycles(tmp_path: Path, cli: Cli) -> None:
    """One host is tried once in its minute, and of 30 hosts five: neither is asked again for 100 cycles."""
    wrong = make_key(tmp_path / "wrong")
    with servers.sshd(tmp_path / "one") as one, servers.sshd(tmp_path / "many") as many:
        options = ("-k", wrong, "-o", "-", "--interval", 0.1, *servers.PATIENT)
        with (
            cli.run("-i", "127.0.1.1", "-p", one.port, *options) as alone,
            cli.run("-i", HOSTS_30, "-p", many.port, *options) as fleet,
        ):
            wait_for("100 cycles of one host", lambda: len(alone.outcomes()) >= 100)
            wait_for("100 cycles of 30 hosts", lambda: len(fleet.outcomes()) >= 100 * 30)
            assert (connections(one), tries(one)) == (1, 1)
            assert tries(many) == 5
            assert connections(many) <= 30, "some were on their way when the fifth was refused; none came again"
            assert {outcome["error"]["kind"] for outcome in fleet.outcomes()} == {"auth_failed"}
            assert [line["message"] for line in fleet.logs()].count(
                f"5 hosts have refused {servers.USER} with these keys, and none has let it in; "
                "the others are not tried, except one now and then"
            ) == 1


def test_a_wrong_key_in_collect(tmp_path: Path, cli: Cli) -> None:
    """Five hosts are tried; the others say why they are not, and what to do."""
    wrong = make_key(tmp_path / "wrong")
    with servers.sshd(tmp_path / "sshd") as sshd:
        result = cli("collect", "-i", HOSTS_30, "-p", sshd.port, "-k", wrong, *servers.PATIENT, "--format", "jsonl")
        assert tries(sshd) == 5
    assert result.status == 3
    messages = [outcome["error"]["message"] for outcome in result.by_host().values()]
    assert sum(message == f"{servers.USER} is refused with {wrong}" for message in messages) == 5
    told = "hosts have refused root with these keys, and none has let it in; fix it on one of them first"
    assert sum(told.replace("root", servers.USER) in message for message in messages) == 25


def test_hosts_that_miss_the_key_are_no_wrong_key(tmp_path: Path, cli: Cli) -> None:
    """Once one has let us in, all are tried: ten hosts that refuse stop nobody."""
    right = make_key(tmp_path / "right")
    public_keys = [right.with_suffix(".pub").read_text()]
    with servers.sshd(tmp_path / "good", public_keys=public_keys) as good, servers.sshd(tmp_path / "bad") as bad:
        hosts = f"127.0.1.[1-3]:{good.port},127.0.2.[1-10]:{bad.port}"
        result = cli("collect", "-s", "-i", hosts, "-k", right, *servers.PATIENT, "--format", "jsonl")
        assert tries(bad) == 10
    assert sum(outcome["ok"] for outcome in result.by_host().values()) == 3


def test_the_right_key_after_a_reload(tmp_path: Path, cli: Cli) -> None:
    """The key is put right and SIGHUP sent: all hosts are collected at once, none waits for the end of its minute."""
    key = make_key(tmp_path / "key")
    right = make_key(tmp_path / "right")
    with servers.sshd(tmp_path / "sshd", public_keys=[right.with_suffix(".pub").read_text()]) as sshd:
        options = ("-p", sshd.port, "-k", key, "-o", "-", "--interval", 0.5, *servers.PATIENT)
        with cli.run("-i", "127.0.1.[1-10]", *options) as running:
            wait_for("all are refused", lambda: len({each["host"] for each in running.outcomes()}) == 10)
            key.write_bytes(right.read_bytes())
            key.with_suffix(".pub").write_bytes(right.with_suffix(".pub").read_bytes())
            running.signal(signal.SIGHUP)
            wait_for(
                "all are collected", lambda: len({each["host"] for each in running.outcomes() if each["ok"]}) == 10
            )
        assert tries(sshd) == 5


def test_a_wrong_host_key_for_many_cycles(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """A host whose key has changed is not asked in each cycle either."""
    known = tmp_path / "known"
    other = " ".join(make_key(tmp_path / "other").with_suffix(".pub").read_text().split()[:2])
    known.write_text(f"[127.0.1.1]:{sshd.port} {other}\n")
    options = ("-p", sshd.port, "-k", sshd.key, "--known-hosts", known, "-o", "-", "--interval", 0.1)
    with cli.run("-i", "127.0.1.1", *options) as running:
        wait_for("50 cycles", lambda: len(running.outcomes()) >= 50)
        assert connections(sshd) == 1


# --- open files ------------------------------------------------------------------------------------------------------


def limited(cli: Cli, files: int) -> Cli:
    """Returns a command line with a limit of open files that it cannot raise; root could raise any but for setpriv."""
    drop = ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"]
    return Cli(cli.home, wrapper=["/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *drop])


def test_more_hosts_than_open_files(fleet: Sshd, cli: Cli) -> None:
    """`collect` takes them in turns and says so, once; with the limit that it names it has nothing to say."""
    options = ("-i", HOSTS_30, "-p", fleet.port, "-k", fleet.key, *servers.PATIENT, "--format", "jsonl")
    result = limited(cli, 72)("collect", *options)
    assert result.status == 0, result.stderr
    assert len(result.by_host()) == 30
    (line,) = [line for line in result.stderr.splitlines() if "open files" in line]
    assert "30 hosts need 94 open files, 72 are allowed: 8 hosts at a time. `ulimit -n 94`" in line
    enough = limited(cli, 94)("collect", *options)
    assert enough.status == 0, enough.stderr
    assert "open files" not in enough.stderr


def test_run_says_that_hosts_will_fail(fleet: Sshd, cli: Cli) -> None:
    """A daemon keeps its connections: those beyond the limit fail, with the reason and what to do."""
    options = ("-i", HOSTS_30, "-p", fleet.port, "-k", fleet.key, *servers.PATIENT, "-o", "-", "--interval", 1)
    with limited(cli, 40).run(*options) as running:
        wait_for("each host has its outcome", lambda: len({each["host"] for each in running.outcomes()}) == 30)
        (line,) = [line["message"] for line in running.logs() if "are allowed" in line["message"]]
        assert "only 1 hosts can be connected, the others will fail" in line
        errors = [each["error"] for each in running.outcomes() if not each["ok"]]
        assert errors
        assert all("too many open files on this machine: raise its limit" in error["message"] for error in errors)
        assert any(each["ok"] for each in running.outcomes())
