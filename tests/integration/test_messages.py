"""What is said of hosts that fail: in the host's own words, and by what it showed, never by a guess."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from . import servers
from .servers import Cli, Sshd, make_key, wait_for


def failure(cli: Cli, *arguments: object, seconds: float = 60.0) -> tuple[dict[str, Any], str]:
    """Returns the error of the one host of a `collect` that fails, and what it prints for people."""
    result = cli("collect", "-i", "127.0.1.1", *arguments, "--format", "jsonl", seconds=seconds)
    assert result.status == 3, result.stderr
    (outcome,) = (json.loads(line) for line in result.stdout.splitlines())
    return outcome["error"], result.stderr


# --- ways in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("methods", "more"),
    [
        ("publickey,keyboard-interactive", "keyboard-interactive"),
        ("publickey,password", "password"),
        ("publickey,publickey", "another key"),
        ("publickey,password publickey,keyboard-interactive", "password or keyboard-interactive"),
    ],
)
def test_a_key_that_is_accepted_and_is_not_enough(methods: str, more: str, cli: Cli, tmp_path: Path) -> None:
    """The host wants more than a key: that is said, with what it wants, and nobody is told to bring the key there."""
    options = f"AuthenticationMethods {methods}\nPasswordAuthentication yes\nKbdInteractiveAuthentication yes"
    with servers.sshd(tmp_path / "sshd", options=options) as sshd:
        error, screen = failure(cli, "-p", sshd.port, "-k", sshd.key)
        doctor = cli("doctor", "-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key)
    assert error["kind"] == "auth_failed"
    assert f"{sshd.key} accepted; the host also wants {more}" in error["message"]
    assert "authorized_keys" not in screen
    assert "ssh-copy-id" not in doctor.stdout
    assert "AuthenticationMethods" in doctor.stdout


def test_two_keys_that_are_both_wanted_let_us_in(cli: Cli, tmp_path: Path) -> None:
    """A host that wants two keys gets both."""
    keys = [make_key(tmp_path / name) for name in ("one", "two")]
    lines = [key.with_suffix(".pub").read_text() for key in keys]
    options = "AuthenticationMethods publickey,publickey"
    with servers.sshd(tmp_path / "sshd", public_keys=lines, options=options) as sshd:
        result = cli("collect", "-i", "127.0.1.1", "-p", sshd.port, "-k", keys[0], "-k", keys[1], "--format", "jsonl")
    assert result.status == 0, result.stderr


def test_a_host_that_takes_no_keys(cli: Cli, tmp_path: Path) -> None:
    """It is not the key that is wrong: the host lists no publickey among its ways in."""
    options = "PubkeyAuthentication no\nPasswordAuthentication yes"
    with servers.sshd(tmp_path / "sshd", options=options) as sshd:
        error, screen = failure(cli, "-p", sshd.port, "-k", sshd.key)
    assert error["kind"] == "auth_failed"
    assert "the host takes no keys, only password" in error["message"]
    assert "PubkeyAuthentication" in screen


def test_no_key_at_all(sshd: Sshd, cli: Cli) -> None:
    """Without any key, nobody is asked whether it is the wrong one."""
    error, screen = failure(cli, "-p", sshd.port)
    assert error["kind"] == "auth_failed"
    assert "has no key to log in with" in error["message"]
    assert "wrong user" not in screen
    assert "ssh-keygen" in screen


# --- the host's words ------------------------------------------------------------------------------------------------


def test_a_banner_is_in_the_message(cli: Cli, tmp_path: Path) -> None:
    """What sshd shows before the login is in the message, on one line, also where it is no UTF-8, and cut."""
    banner = tmp_path / "banner"
    banner.write_bytes(b"Wartung bis 18 Uhr, \xfcbrigens \x1b[2J\nAnsprechpartner: " + b"Betrieb " * 500)
    key = make_key(tmp_path / "stranger")
    with servers.sshd(tmp_path / "sshd", options=f"Banner {banner}") as sshd:
        error, _ = failure(cli, "-p", sshd.port, "-k", key)
        good = cli("collect", "-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, "--format", "jsonl")
    assert error["kind"] == "auth_failed"
    assert "the host said: " in error["message"]
    assert "Betrieb" in error["message"]
    assert "\x1b" not in error["message"]
    assert len(error["message"]) < 1000
    assert good.status == 0, "a banner that is not UTF-8 is no reason to fail"


@contextmanager
def greeting(text: bytes) -> Iterator[int]:
    """Serves a text to everybody who connects, and hangs up."""
    with socket.create_server(("127.0.1.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(text)
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(5)
                    while connection.recv(4096):
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"Exceeded MaxStartups\r\n", "Exceeded MaxStartups"),
        (b"Not allowed at this time\r\n", "Not allowed at this time"),
        (b"Maintenance until 18:00\r\nAsk the operators\r\n", "Maintenance until 18:00 Ask the operators"),
        (b"no newline at the end", "no newline at the end"),
        (b"SSH-1.5-old\r\n", "SSH-1.5-old"),
        (b"220 mail ESMTP\r\n", "220 mail ESMTP"),
    ],
)
def test_what_comes_before_the_version_is_in_the_message(text: bytes, said: str, cli: Cli, sshd: Sshd) -> None:
    """Sshd says there that it has too many connections, others that they are no SSH server."""
    with greeting(text) as port:
        error, _ = failure(cli, "-p", port, "-k", sshd.key)
    assert (error["stage"], error["kind"]) == ("login", "disconnected")
    assert f"the host said: {said}" in error["message"]
    assert "connection lost: Connection lost" not in error["message"]


def test_a_message_of_the_host_is_tidy(cli: Cli, tmp_path: Path) -> None:
    """A host that refuses all accounts for now (nologin) shows its text where the probe would have answered."""
    command = "echo 'System is going down at 18:00' >&2; exit 254"
    with servers.sshd(tmp_path / "sshd", options=f"ForceCommand {command}") as sshd:
        error, _ = failure(cli, "-p", sshd.port, "-k", sshd.key)
    assert error["kind"] == "command_failed"
    assert "System is going down at 18:00" in error["message"]


# --- what answers instead of the probe -------------------------------------------------------------------------------

QUICK_SECONDS = 8.0  # with the limits below: what shows at once that it is not the probe is not waited for
LIMITS = ("--command-timeout", 20)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/bin/dash -i", "not found"),
        ("/bin/bash -i", "not found"),
        ("/usr/bin/env -i /bin/bash --norc", "sample: command not found"),
        ("printf '1) status\\n2) logs\\nYour choice: '; read x; echo \"invalid choice: $x\"; sleep 60", "1) status"),
        ("/usr/bin/script -q /dev/null", "sample 1 status user"),
        ("while :; do printf 'menu> '; read x; echo \"unknown command: $x\"; done", "menu>"),
        ("echo This account is for backups only.", "This account is for backups only."),
        ("cat", "sample 1 status user"),
    ],
)
def test_something_else_answers(command: str, said: str, cli: Cli, tmp_path: Path) -> None:
    """A shell, a menu, a terminal: it is told apart quickly, with its first words, and not called overloaded."""
    with servers.sshd(tmp_path / "sshd", options=f"ForceCommand {command}") as sshd:
        started = time.monotonic()
        error, screen = failure(cli, "-p", sshd.port, "-k", sshd.key, *LIMITS)
    assert time.monotonic() - started < QUICK_SECONDS
    assert (error["stage"], error["kind"]) == ("command", "command_failed")
    assert "something other than the probe answered" in error["message"]
    assert said in error["message"]
    assert "overloaded" not in screen
    assert "ForceCommand" in screen


def test_the_probe_on_a_terminal(cli: Cli, tmp_path: Path) -> None:
    """The probe runs, but within script(1): that is said."""
    options = 'ForceCommand /usr/bin/script -qc "$SSH_ORIGINAL_COMMAND" /dev/null'
    with servers.sshd(tmp_path / "sshd", options=options) as sshd:
        error, _ = failure(cli, "-p", sshd.port, "-k", sshd.key, *LIMITS)
    assert error["kind"] == "command_failed"
    assert "terminal" in error["message"] or "something other than the probe" in error["message"]


@pytest.mark.parametrize("shell", ["fish", "sh"])
def test_a_shell_that_reads_all_before_it_runs_anything(shell: str, cli: Cli, tmp_path: Path) -> None:
    """`exec fish` in a start-up file says nothing until its input ends; before the time is up, it does."""
    program = servers.find_tool(shell) if shell == "fish" else "sh -c 'input=$(cat); eval \"$input\"'"
    with servers.sshd(tmp_path / "sshd", options=f"ForceCommand exec {program}") as sshd:
        error, _ = failure(cli, "-p", sshd.port, "-k", sshd.key, "--command-timeout", 4)
    assert error["kind"] == "command_failed"
    assert "something other than the probe answered" in error["message"]
    assert "sample" in error["message"]


def test_a_text_and_then_nothing(cli: Cli, tmp_path: Path) -> None:
    """A screen that waits for a key is no host that is slow."""
    command = "echo 'Press any key to continue'; sleep 60"
    with servers.sshd(tmp_path / "sshd", options=f"ForceCommand {command}") as sshd:
        error, _ = failure(cli, "-p", sshd.port, "-k", sshd.key, "--command-timeout", 3)
    assert error["kind"] == "command_failed"
    assert error["message"] == "something other than the probe answered within 3 s: Press any key to continue"


@pytest.mark.parametrize("text", ["echo Welcome; echo noise >&2; sleep 2", "sleep 9.3"])
def test_a_probe_that_is_slow_to_start_is_sampled(text: str, cli: Cli, tmp_path: Path) -> None:
    """One that takes most of its time for the first answer gives it, and is asked over two connections at most."""
    options = f'ForceCommand {text}; eval "$SSH_ORIGINAL_COMMAND"'
    with servers.sshd(tmp_path / "sshd", options=options) as sshd:
        words = ("-p", sshd.port, "-k", sshd.key, "--command-timeout", 12, "--interval", 1, "-o", "-")
        with cli.run("-i", "127.0.1.1", *words) as running:
            wait_for("4 samples", lambda: len(running.outcomes()) >= 4)
            outcomes = running.outcomes()
        assert not [outcome["error"] for outcome in outcomes if not outcome["ok"]]
        assert sshd.logins_total <= 2


def test_a_probe_that_is_killed(cli: Cli, tmp_path: Path) -> None:
    """The signal is named: the connection has not been lost."""
    with (
        servers.sshd(tmp_path / "sshd") as sshd,
        cli.run("-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, "-o", "-", "--interval", 1) as running,
    ):
        wait_for("a sample", running.outcomes)
        (probe,) = sshd.probes()
        os.kill(probe, signal.SIGKILL)
        failures = wait_for("a failure", lambda: [each for each in running.outcomes() if not each["ok"]])
    assert failures[0]["error"]["kind"] == "command_failed"
    assert "signal KILL" in failures[0]["error"]["message"]


# --- algorithms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ("KexAlgorithms diffie-hellman-group1-sha1", "KexAlgorithms +diffie-hellman-group1-sha1"),
        ("Ciphers 3des-cbc,aes128-cbc", "Ciphers +3des-cbc,aes128-cbc"),
        ("Ciphers aes256-ctr\nMACs hmac-sha1-96", "MACs +hmac-sha1-96"),
    ],
)
def test_algorithms_that_only_the_host_offers(options: str, setting: str, cli: Cli, tmp_path: Path) -> None:
    """They are named, with the setting that allows them; with it the host is sampled, without a word."""
    with servers.sshd(tmp_path / "sshd", options=options) as sshd:
        where = ("-p", sshd.port, "-k", sshd.key)
        error, screen = failure(cli, *where)
        assert (error["stage"], error["kind"]) == ("login", "disconnected")
        assert f"set `{setting}` in the ssh configuration" in error["message"]
        assert "something in between" not in screen
        config = cli.home / ".ssh" / "config"
        config.parent.mkdir(exist_ok=True)
        config.write_text(f"Host *\n  {setting}\n")
        result = cli("collect", "-i", "127.0.1.1", *where, "--format", "jsonl", "-q")
    assert (result.status, result.stderr) == (0, "")


def test_host_keys_that_only_the_host_has(cli: Cli, tmp_path: Path) -> None:
    """A host without a key of a kind that is wanted is told as that, with what it has."""
    (cli.home / ".ssh").mkdir()
    (cli.home / ".ssh" / "config").write_text("HostKeyAlgorithms rsa-sha2-512\n")
    with servers.sshd(tmp_path / "sshd") as sshd:
        error, _ = failure(cli, "-p", sshd.port, "-k", sshd.key)
    assert error["message"].startswith("for host key the host offers only ssh-ed25519: set `HostKeyAlgorithms +ssh")


def test_the_crypto_policies_of_rhel(cli: Cli, sshd: Sshd, tmp_path: Path) -> None:
    """What the ssh configuration of RHEL, Fedora and their like includes has names that are not known here: no word."""
    policy = tmp_path / "openssh.config"
    policy.write_text(
        "Ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes128-gcm@openssh.com,aes128-ctr\n"
        "MACs hmac-sha2-256-etm@openssh.com,hmac-sha1-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-512\n"
        "GSSAPIKeyExchange no\n"
        "GSSAPIKexAlgorithms gss-curve25519-sha256-,gss-nistp256-sha256-,gss-group14-sha256-,gss-group16-sha512-\n"
        "KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org\n"
        "HostKeyAlgorithms ecdsa-sha2-nistp256,ecdsa-sha2-nistp256-cert-v01@openssh.com,ssh-ed25519,rsa-sha2-256\n"
        "PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256,ssh-ed25519,ssh-ed25519-cert-v01@openssh.com,rsa-sha2-256\n"
        "HostbasedAcceptedAlgorithms ecdsa-sha2-nistp256,ssh-ed25519,rsa-sha2-256\n"
        "CASignatureAlgorithms ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,ssh-ed25519,rsa-sha2-256\n"
        "RequiredRSASize 2048\nRSAMinSize 2048\n"
    )
    (cli.home / ".ssh").mkdir()
    (cli.home / ".ssh" / "config").write_text(f"Include {policy}\nHost *\n  ForwardX11Trusted yes\n")
    result = cli("collect", "-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, "--format", "jsonl")
    assert result.status == 0, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_an_rsa_key_that_is_too_short(cli: Cli, tmp_path: Path) -> None:
    """RequiredRSASize holds for host keys, which are not recorded, and for ours, which are not offered."""
    (cli.home / ".ssh").mkdir()
    (cli.home / ".ssh" / "config").write_text("RequiredRSASize 3072\n")
    short = make_key(tmp_path / "short", "rsa")
    with servers.sshd(tmp_path / "sshd", options=f"HostKey {make_key(tmp_path / 'host', 'rsa')}") as sshd:
        error, _ = failure(cli, "-p", sshd.port, "-k", short)
        assert "has no key to log in with" in error["message"]
        (cli.home / ".ssh" / "known_hosts").unlink()
        only = "HostKeyAlgorithms rsa-sha2-512\nRequiredRSASize 3072\n"
        (cli.home / ".ssh" / "config").write_text(only)
        error, _ = failure(cli, "-p", sshd.port, "-k", sshd.key)
    assert error["kind"] == "host_key_unknown"
    assert "host key of 2048 bits; RequiredRSASize wants 3072" in error["message"]
    assert not (cli.home / ".ssh" / "known_hosts").exists()


def test_a_signature_of_an_authority_that_is_not_wanted(cli: Cli, tmp_path: Path) -> None:
    """CASignatureAlgorithms holds for the certificates of hosts."""
    authority = make_key(tmp_path / "authority")
    (cli.home / ".ssh").mkdir()
    (cli.home / ".ssh" / "known_hosts").write_text(f"@cert-authority * {authority.with_suffix('.pub').read_text()}")
    host_key = make_key(tmp_path / "host")
    sign = ["-q", "-s", str(authority), "-h", "-I", "host", "-n", "127.0.1.1", f"{host_key}.pub"]
    subprocess.run([servers.find_tool("ssh-keygen"), *sign], check=True)
    options = f"HostKey {host_key}\nHostCertificate {host_key}-cert.pub"
    with servers.sshd(tmp_path / "sshd", options=options) as sshd:
        where = ("-p", sshd.port, "-k", sshd.key)
        (cli.home / ".ssh" / "config").write_text("CASignatureAlgorithms ssh-ed25519\n")
        assert cli("collect", "-i", "127.0.1.1", *where).status == 0
        (cli.home / ".ssh" / "config").write_text("CASignatureAlgorithms rsa-sha2-512\n")
        error, _ = failure(cli, *where)
    assert error["kind"] == "host_key_unknown"
    assert "signed with ssh-ed25519, which is not among CASignatureAlgorithms" in error["message"]


# --- a host that hides its memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prelude",
    [
        "mount -t proc -o subset=pid proc /proc",
        ": >{folder}/empty; mount --bind {folder}/empty /proc/meminfo",
    ],
)
def test_a_host_without_meminfo(prelude: str, cli: Cli, tmp_path: Path) -> None:
    """Processes come without percentages, in every output; the doctor says so; nobody replaces authorized_keys."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount")
    commands = f'{prelude.format(folder=tmp_path)}\nexec "$@"'
    unshare = [servers.find_tool("unshare"), "--mount", "--propagation", "private", "sh", "-ec", commands, "sh"]
    with servers.sshd(tmp_path / "sshd", wrapper=unshare) as sshd:
        where = ("-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key)
        result = cli("collect", *where, "--format", "jsonl", "--detail", "process,command", "--top", 3)
        table, rows = cli("collect", *where), cli("collect", *where, "--format", "csv")
        findings = [json.loads(line) for line in cli("doctor", *where, "--format", "jsonl").stdout.splitlines()]
    assert (result.status, table.status, rows.status) == (0, 0, 0), result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["processes"]
    assert all("mem_percent" not in row and row["rss_bytes"] for row in outcome["processes"] + outcome["commands"])
    assert outcome["memory"].get("total_bytes") is None
    (finding,) = [each for each in findings if "/proc/meminfo" in each["what"]]
    assert (finding["check"], finding["severity"]) == ("host.kernel", "warning")
    assert not [each for each in findings if "authorized_keys" in each["mend"]]
