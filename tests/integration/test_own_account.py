"""An inventory that another team keeps, with its own account: fleetmem logs in with one of its own."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from . import servers
from .servers import USER, Cli, Sshd, make_key, wait_for

HOSTS = "127.0.1.[1:3]"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Ansible's, with the user, the key and the bastion of its team; none of them is any good here."""
    path = tmp_path / "hosts.ini"
    path.write_text(
        f"""[web]
{HOSTS}
[web:vars]
ansible_user=ops
ansible_private_key_file=/home/ops/.ssh/id_ed25519
ansible_ssh_common_args=-o ProxyJump=ops@127.0.3.1:1
""",
        encoding="utf-8",
    )
    return path


def _shown(cli: Cli, flags: list[object]) -> list[dict[str, Any]]:
    shown = cli("hosts", *flags, "--format", "jsonl", FLEETMEM_INVENTORY__ANSIBLE_READER="builtin")
    return [json.loads(row) for row in shown.stdout.splitlines()]


def test_a_limited_account_of_our_own(inventory: Path, tmp_path: Path, cli: Cli) -> None:
    """With `inventory.ignore` the flags count: a key that may run the probe and nothing else is enough."""
    key = make_key(tmp_path / "own")
    line = cli("probe", "--authorized-keys", f"{key}.pub").stdout
    with servers.sshd(tmp_path / "sshd", public_keys=[line]) as sshd:
        flags: list[object] = ["--inventory", f"ansible:{inventory}", "-u", USER, "-k", key, "-p", sshd.port]
        shown = _shown(cli, flags)
        assert {(row["user"], row["jump"]) for row in shown} == {("ops", "ops@127.0.3.1:1")}, "as it always was"
        assert sshd.logins_total == 0
        flags += ["--inventory-ignore", "user,key,jump"]
        shown = _shown(cli, flags)
        assert {(row["user"], row.get("jump")) for row in shown} == {(USER, None)}
        result = cli("collect", *flags, "--format", "jsonl")
        assert result.status == 0, result.stderr
        assert [line["ok"] for line in result.by_host().values()] == [True] * 3
        assert sshd.logins_total == sshd.log().count(f"Accepted publickey for {USER} ") == 3


def test_an_override_counts_then(inventory: Path, sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """Of what is ignored, [[overrides]] decide, and [ssh] of the rest."""
    config = tmp_path / "fleetmem.toml"
    config.write_text(
        f"""[inventory]
sources = ["ansible:{inventory}"]
ignore = ["user", "key", "jump"]
[ssh]
user = "nobody-at-all"
key = ["{sshd.key}"]
port = {sshd.port}
[[overrides]]
match = "web[0:1]"
user = "{USER}"
""",
        encoding="utf-8",
    )
    outcomes = cli("collect", "-c", config, "--format", "jsonl").by_host()
    assert {host: line["ok"] for host, line in outcomes.items()} == {
        "127.0.1.1": True,
        "127.0.1.2": True,
        "127.0.1.3": False,
    }


def test_the_doctor_reports_who_overrules_us(inventory: Path, sshd: Sshd, cli: Cli) -> None:
    """A line for each of user, key and jump host; none where they are ignored, and none of hosts that are typed."""
    flags = ("--inventory", f"ansible:{inventory}", "-u", USER, "-k", sshd.key, "-p", sshd.port, "-J", "none")

    def overruled(*more: object) -> list[str]:
        lines = cli("doctor", *flags, "--connect-timeout", 1, *more, "--format", "jsonl").stdout.splitlines()
        return [found["what"] for found in map(json.loads, lines) if found["check"] == "machine.account"]

    assert overruled() == [
        f"3 hosts: user is the inventory's, ops, not {USER} of -u, ssh.user or [[overrides]]",
        f"3 hosts: key is the inventory's, /home/ops/.ssh/id_ed25519, not {sshd.key} of -k, ssh.key or [[overrides]]",
        "3 hosts: jump is the inventory's, ops@127.0.3.1:1, not none of -J, ssh.jump or [[overrides]]",
    ]
    assert overruled("--inventory-ignore", "user,key", "--inventory-ignore", "jump", "-i", f"admin@{HOSTS[:7]}.9") == []


def test_a_reload_ignores_from_then_on(inventory: Path, sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """SIGHUP reads the key; hosts that could not be logged in to answer."""
    config = tmp_path / "fleetmem.toml"
    head = f'[ssh]\nkey = ["{sshd.key}"]\nport = {sshd.port}\n[inventory]\nsources = ["ansible:{inventory}"]\n'
    config.write_text(head, encoding="utf-8")
    with cli.run("-c", config, "-o", "-", "--interval", 0.3) as running:
        wait_for("a failure", lambda: any(not outcome["ok"] for outcome in running.outcomes()))
        config.write_text(f'{head}ignore = ["user", "key", "jump"]\n', encoding="utf-8")
        running.signal(signal.SIGHUP)
        wait_for("all answer", lambda: len({line["host"] for line in running.outcomes() if line["ok"]}) == 3)
