"""How soon `run` knows what is wrong with a host, and how soon it is back."""

import shutil
import subprocess
import time
from pathlib import Path

from . import servers
from .networks import Machine, line_of_machines
from .servers import Cli, Running, find_tool, make_key, wait_for

ADDRESS = "10.219.0.1"


def ip(machine: Machine, *words: str) -> str:
    """Runs `ip` in a machine; returns what it prints."""
    command = [find_tool("ip"), "-n", machine.name, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kinds(running: Running) -> list[str]:
    """Returns the kinds of all failures so far, `ok` for samples, in order."""
    return ["ok" if each["ok"] else each["error"]["kind"] for each in running.outcomes()]


def test_a_host_that_is_cut_off_in_silence(tmp_path: Path, cli: Cli) -> None:
    """What swallows its packets looks like a host that hangs for one outcome; then it is told, and comes back."""
    with line_of_machines(2, hosts=1) as (near, far), servers.sshd(tmp_path / "sshd", wrapper=far.wrapper) as sshd:
        mac = ip(far, "-o", "link", "show", "far").split("link/ether ")[1].split()[0]
        ip(near, "neigh", "replace", ADDRESS, "lladdr", mac, "dev", "near", "nud", "permanent")
        limits = ("--connect-timeout", 2, "--command-timeout", 2, "--interval", 2)
        ours = Cli(cli.home, wrapper=near.wrapper)
        with ours.run("-i", ADDRESS, "-p", sshd.port, "-k", sshd.key, *limits, "-o", "-") as running:
            wait_for("a sample", lambda: "ok" in kinds(running), 30)
            ip(far, "addr", "del", f"{ADDRESS}/24", "dev", "far")
            wait_for("the true kind", lambda: "connect_timeout" in kinds(running), 30)
            failed = [kind for kind in kinds(running) if kind != "ok"]
            assert failed.index("connect_timeout") <= 2, failed
            assert set(failed) <= {"command_timeout", "connect_timeout"}
            ip(far, "addr", "add", f"{ADDRESS}/24", "dev", "far")
            wait_for("it is back", lambda: kinds(running)[-1] == "ok", 60)
            assert sshd.logins_total == 1, "it may have been at work on a sample: the connection stays"


def test_a_host_that_hangs_gets_no_second_sample(tmp_path: Path, cli: Cli) -> None:
    """Its way is open: it is still called slow, over the one connection, with the one probe."""
    hang = 'eval "$SSH_ORIGINAL_COMMAND"'
    with servers.sshd(tmp_path / "sshd", options=f"ForceCommand {hang}") as sshd:
        limits = ("--connect-timeout", 2, "--command-timeout", 2, "--interval", 1)
        with cli.run("-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, *limits, "-o", "-") as running:
            wait_for("a sample", lambda: "ok" in kinds(running), 30)
            (probe,) = sshd.probes()
            below = servers.descendants(probe) | {probe}
            subprocess.run(["kill", "-STOP", *map(str, below)], check=True)
            wait_for("failures", lambda: kinds(running).count("command_timeout") >= 4, 30)
            assert sshd.logins_total == 1
            assert sshd.probes() == {probe}
            subprocess.run(["kill", "-CONT", *map(str, below)], check=True)
            wait_for("it is back", lambda: kinds(running)[-1] == "ok", 30)
            assert sshd.logins_total == 1


def test_a_key_that_is_mended_is_tried_at_once(tmp_path: Path, cli: Cli) -> None:
    """Hosts refuse a key, or are spared it; once the file holds the right one, all are sampled without a wait."""
    key = make_key(tmp_path / "key")
    with servers.sshd(tmp_path / "sshd") as sshd:
        words = ("-p", sshd.port, "-k", key, "--interval", 1, "-o", "-")
        with cli.run("-i", "127.0.1.[1-20]", *words) as running:
            wait_for("all are refused", lambda: len(kinds(running)) >= 40 and "ok" not in kinds(running), 30)
            assert set(kinds(running)) == {"auth_failed"}
            for suffix in (".pub", ""):
                shutil.copyfile(f"{sshd.key}{suffix}", tmp_path / "new")
                (tmp_path / "new").chmod(0o600)
                (tmp_path / "new").replace(f"{key}{suffix}")
            begun = time.monotonic()
            wait_for("all are sampled", lambda: kinds(running)[-20:] == ["ok"] * 20, 40)
    assert time.monotonic() - begun < 40


def test_a_key_of_a_jump_host_that_is_mended(tmp_path: Path, cli: Cli) -> None:
    """The wait of a jump host ends likewise."""
    key = make_key(tmp_path / "key")
    with servers.sshd(tmp_path / "sshd") as sshd:
        words = ("-p", sshd.port, "-k", key, "-J", f"127.0.1.1:{sshd.port}", "--interval", 1, "-o", "-")
        with cli.run("-i", "127.0.1.2", *words) as running:
            wait_for("it is refused", lambda: kinds(running).count("auth_failed") >= 3, 30)
            for suffix in (".pub", ""):
                shutil.copyfile(f"{sshd.key}{suffix}", f"{key}{suffix}")
            wait_for("it is sampled", lambda: kinds(running)[-1] == "ok", 40)
