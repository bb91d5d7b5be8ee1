"""[[overrides]]: what is different for some hosts, and what happens to them, and to no others, when that changes."""

import json
import signal
from pathlib import Path

from . import servers
from .servers import Cli, Sshd, make_key, wait_for


def test_groups_with_settings_of_their_own(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """Port, key, jump host and kind of probe differ from group to group; a flag is stronger than all of it."""
    inventory, config = tmp_path / "hosts.json", tmp_path / "fleetmem.toml"
    inventory.write_text(
        json.dumps(
            [
                {"name": "web1", "address": "127.0.1.1", "groups": ["web"]},
                {"name": "db1", "address": "127.0.1.2", "groups": ["db"]},
                {"name": "db2", "address": "127.0.1.3", "groups": ["db"], "port": sshd.port},
            ]
        )
    )
    other = make_key(tmp_path / "other")
    with servers.sshd(tmp_path / "db", public_keys=[other.with_suffix(".pub").read_text()]) as db:
        config.write_text(
            f"""[ssh]
key = ["{sshd.key}"]
port = {sshd.port}
[inventory]
sources = ["json:{inventory}"]
[[overrides]]
match = "db"
port = {db.port}
jump = "127.0.3.1:{sshd.port}"
kind = "ps"
[[overrides]]
match = "db:!db2"
key = ["{other}"]
"""
        )
        result = cli("collect", "-c", config, "--format", "jsonl")
        assert result.status == 0, result.stderr
        assert db.logins_total == 1, "db1; the port in the inventory of db2 is nearer to it"
        assert sshd.logins_total == 3, "the jump host, web1, db2"
        swap = {host: "swap_bytes" in line["processes"][0] for host, line in result.by_host().items()}
        assert swap == {"web1": True, "db1": False, "db2": False}, "ps does not know"
        shown = cli("hosts", "-c", config, "--format", "jsonl", "-J", "none").stdout.splitlines()
        assert not any("jump" in json.loads(line) for line in shown)


def test_a_change_for_some_reconnects_those(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """After SIGHUP with another setting for one host, that one logs in again, and the others stay connected."""
    config = tmp_path / "fleetmem.toml"

    def write(more: str) -> None:
        config.write_text(f'[ssh]\nkey = ["{sshd.key}"]\nport = {sshd.port}\n{more}')

    def logins_at(address: str) -> int:
        return sshd.log().count(f" on {address} port {sshd.port}")

    write("")
    options = ("-c", config, "-i", "127.0.1.[1-3]", "-o", "-", "--interval", 0.3)
    with cli.run(*options) as running:

        def answers(after: int) -> set[str]:
            return {outcome["host"] for outcome in running.outcomes()[after:] if outcome["ok"]}

        wait_for("all answer", lambda: len(answers(0)) == 3)
        write('[[overrides]]\nmatch = "127.0.1.2"\ncompression = true\n')
        running.signal(signal.SIGHUP)
        wait_for("it is taken", lambda: "configuration taken" in running.stderr)
        before = len(running.outcomes())
        wait_for("all answer again", lambda: len(answers(before)) == 3)
        assert [logins_at(f"127.0.1.{number}") for number in (1, 2, 3)] == [1, 2, 1]
        write('[[overrides]]\nmatch = "127.0.1.9"\nuser = "x"\n')
        running.signal(signal.SIGHUP)
        wait_for("it is refused", lambda: "overrides.0.match: pattern: no host or group '127.0.1.9'" in running.stderr)
        before = len(running.outcomes())
        wait_for("all answer still", lambda: len(answers(before)) == 3)
