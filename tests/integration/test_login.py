"""Ways in: kinds of keys, passphrases, the agent, login shells, jump hosts, the ssh configuration."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import servers
from .hostile import refused
from .servers import Cli, Sshd, environment, find_tool, make_key, wait_for
from .terminal import on_terminal

PASSPHRASE = "correct horse"  # noqa: S105 - of a key that lives for one test
HOSTS = "127.0.1.[1-10]"


@pytest.fixture
def key_folder(tmp_path: Path) -> Path:
    """A place for keys."""
    folder = tmp_path / "keys"
    folder.mkdir()
    return folder


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "pem"), [("rsa", True), ("rsa", False), ("ecdsa", True), ("ecdsa", False), ("ed25519", False)]
)
def test_collects_with_each_kind_of_key(kind: str, pem: bool, key_folder: Path, cli: Cli) -> None:
    """RSA and ECDSA in PEM and OpenSSH format, ed25519 in OpenSSH format: all let us in."""
    key = make_key(key_folder / "key", kind, pem=pem)
    assert ("BEGIN OPENSSH" in key.read_text()) is not pem
    with servers.sshd(key_folder / "sshd", public_keys=[key.with_suffix(".pub").read_text()]) as sshd:
        result = cli("collect", "-i", "127.0.1.1", "-p", sshd.port, "-k", key, "--format", "jsonl")
    assert result.status == 0, result.stderr


def test_collects_with_a_certificate(key_folder: Path, cli: Cli) -> None:
    """A key whose certificate lies beside it is let in by the authority that signed it."""
    authority, key = make_key(key_folder / "ca"), make_key(key_folder / "key")
    sign = ["-q", "-s", str(authority), "-I", "test", "-n", servers.USER, str(key.with_suffix(".pub"))]
    subprocess.run([find_tool("ssh-keygen"), *sign], check=True)
    options = f"TrustedUserCAKeys {authority}.pub"
    with servers.sshd(key_folder / "sshd", public_keys=[], options=options) as sshd:
        result = cli("collect", "-i", "127.0.1.1", "-p", sshd.port, "-k", key, "--format", "jsonl")
    assert result.status == 0, result.stderr


def test_uses_the_usual_key_in_the_home_folder(sshd: Sshd, cli: Cli) -> None:
    """Without -k, ~/.ssh/id_ed25519 is tried, as ssh does."""
    folder = cli.home / ".ssh"
    folder.mkdir(mode=0o700)
    (folder / "id_ed25519").write_bytes(sshd.key.read_bytes())
    (folder / "id_ed25519").chmod(0o600)
    result = cli("collect", "-i", HOSTS, "-p", sshd.port, "--format", "jsonl")
    assert result.status == 0, result.stderr


def test_uses_the_keys_of_the_agent(sshd: Sshd, cli: Cli, tmp_path: Path) -> None:
    """Without -k, a key that only the agent has lets us in, on many hosts."""
    path = tmp_path / "agent"
    with subprocess.Popen([find_tool("ssh-agent"), "-D", "-a", str(path)], stdout=subprocess.DEVNULL) as agent:
        try:
            wait_for("the agent listens", path.is_socket)
            env = environment(cli.home) | {"SSH_AUTH_SOCK": str(path)}
            subprocess.run([find_tool("ssh-add"), "-q", str(sshd.key)], env=env, check=True, stdin=subprocess.DEVNULL)
            options = ("-i", HOSTS, "-p", sshd.port, "--format", "jsonl")
            assert cli("collect", *options).status == 3, "without the agent there is no way in"
            result = cli("collect", *options, SSH_AUTH_SOCK=str(path))
        finally:
            agent.terminate()
    assert result.status == 0, result.stderr
    assert len(result.by_host()) == 10


# --- passphrases -----------------------------------------------------------------------------------------------------


@pytest.fixture
def encrypted(key_folder: Path) -> Iterator[tuple[Path, Sshd]]:
    """A key with a passphrase, and an sshd that lets it in."""
    key = make_key(key_folder / "encrypted", passphrase=PASSPHRASE)
    with servers.sshd(key_folder / "sshd", public_keys=[key.with_suffix(".pub").read_text()]) as server:
        yield key, server


def test_a_passphrase_is_typed_once_for_many_hosts(encrypted: tuple[Path, Sshd], cli: Cli) -> None:
    """One prompt that names the key, no echo, then all hosts."""
    key, sshd = encrypted
    options = ("-i", HOSTS, "-p", sshd.port, "-k", key, "--format", "jsonl")
    with on_terminal(cli, "collect", *options) as terminal:
        terminal.expect(f"Passphrase for {key}: ")
        terminal.type(PASSPHRASE)
        terminal.finish()
    assert terminal.status == 0, terminal.screen
    assert terminal.screen.count("Passphrase for") == 1
    assert PASSPHRASE not in terminal.screen
    assert len(servers.by_host(terminal.output.read_text())) == 10


def test_a_wrong_passphrase_is_asked_for_again(encrypted: tuple[Path, Sshd], cli: Cli) -> None:
    """A typing mistake costs a second prompt, and no login."""
    key, sshd = encrypted
    with on_terminal(cli, "collect", "-i", HOSTS, "-p", sshd.port, "-k", key, "--format", "jsonl") as terminal:
        terminal.expect("Passphrase for")
        terminal.type("wrong")
        terminal.expect("Passphrase for", 2)
        terminal.type(PASSPHRASE)
        terminal.finish()
    assert terminal.status == 0, terminal.screen


def test_three_wrong_passphrases_are_a_usage_error(encrypted: tuple[Path, Sshd], cli: Cli) -> None:
    """After three wrong ones: status 2, one line that names the key; no host was connected to."""
    key, sshd = encrypted
    with on_terminal(cli, "collect", "-i", HOSTS, "-p", sshd.port, "-k", key) as terminal:
        for times in range(1, 4):
            terminal.expect("Passphrase for", times)
            terminal.type("wrong")
        terminal.finish()
    assert terminal.status == 2, terminal.screen
    assert f"fleetmem: key {key}: wrong passphrase" in terminal.screen
    assert "Traceback" not in terminal.screen
    assert "Connection from" not in sshd.log()


def test_an_encrypted_key_without_a_terminal_is_a_usage_error(encrypted: tuple[Path, Sshd], cli: Cli) -> None:
    """Nobody can be asked: status 2 at once, and the message says what to do."""
    key, sshd = encrypted
    result = cli("collect", "-i", HOSTS, "-p", sshd.port, "-k", key)
    assert result.status == 2
    assert f"key {key} is encrypted" in result.stderr
    assert "ssh-add" in result.stderr


# --- login shells ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "fish", "csh", "busybox ash"])
@pytest.mark.parametrize("kind", ["status", "ps"])
def test_the_probe_starts_from_any_login_shell(shell: str, kind: str, key_folder: Path, cli: Cli) -> None:
    """The command goes through bash, dash, zsh, fish, csh and busybox ash unharmed."""
    program, *words = shell.split()
    if program in ("zsh", "fish", "csh") and not shutil.which(program):
        pytest.skip(f"{program} is not installed, and `make tools` does not: few people log in with it")
    command = shlex.join([find_tool(program), *words])
    home = key_folder / "home"
    home.mkdir()
    options = f'ForceCommand HOME={home} exec {command} -c "$SSH_ORIGINAL_COMMAND"'
    with servers.sshd(key_folder / "sshd", options=options) as sshd:
        result = cli(
            "collect", "-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, "--format", "jsonl", "--probe", kind
        )
    assert result.status == 0, result.stderr
    assert len(result.by_host()["127.0.1.1"]["processes"]) >= 3


def test_a_noisy_login_shell_is_no_harm(key_folder: Path, cli: Cli) -> None:
    """What rc files print before the probe runs is no part of a frame."""
    noise = "printf 'Welcome\\nBEGIN fleetmem/1 7\\nlast login: '; echo warning >&2"
    options = f'ForceCommand {noise}; exec sh -c "$SSH_ORIGINAL_COMMAND"'
    with servers.sshd(key_folder / "sshd", options=options) as sshd:
        result = cli("collect", "-i", HOSTS, "-p", sshd.port, "-k", sshd.key, "--format", "jsonl")
    assert result.status == 0, result.stderr
    assert all(len(outcome["processes"]) >= 3 for outcome in result.by_host().values())


def test_an_account_without_a_shell_is_told_by_its_words(key_folder: Path, cli: Cli) -> None:
    """What the host says instead of a frame is in the message."""
    options = "ForceCommand echo This account is currently not available.; exit 1"
    with servers.sshd(key_folder / "sshd", options=options) as sshd:
        result = cli("collect", "-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, "--format", "jsonl")
    error = result.by_host()["127.0.1.1"]["error"]
    assert error["kind"] == "command_failed"
    assert "This account is currently not available." in error["message"]


# --- host keys -------------------------------------------------------------------------------------------------------


def test_a_new_host_stays_connected_over_key_exchanges(key_folder: Path, cli: Cli) -> None:
    """New keys every second, as sshd wants here: the host key recorded at the login is good for all of them."""
    with servers.sshd(key_folder / "sshd", options="RekeyLimit default 1s") as sshd:
        options = ("-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, "-o", "-", "--interval", 0.3, "-vv")
        with cli.run(*options) as running:
            wait_for("three key exchanges", lambda: running.stderr.count("Completed key exchange") >= 3)
            cycles = len(running.outcomes())
            wait_for("samples after them", lambda: len(running.outcomes()) >= cycles + 2)
            assert all(outcome["ok"] for outcome in running.outcomes())
    assert sshd.logins_total == 1


# --- jump hosts and the ssh configuration ----------------------------------------------------------------------------

JUMP = "127.0.3.1"


def connections_at(sshd: Sshd, address: str) -> int:
    """Returns how many connections came in at an address."""
    return len(re.findall(rf"Connection from \S+ port \d+ on {re.escape(address)} port", sshd.log()))


def test_all_hosts_are_reached_over_one_connection_to_the_jump_host(sshd: Sshd, cli: Cli) -> None:
    """-J: 10 hosts are collected, the jump host saw one connection, and each host one that came from there."""
    jump = f"{JUMP}:{sshd.port}"
    result = cli("collect", "-i", HOSTS, "-p", sshd.port, "-k", sshd.key, "-J", jump, "--format", "jsonl")
    assert result.status == 0, result.stderr
    assert len(result.by_host()) == 10
    assert connections_at(sshd, JUMP) == 1
    assert [connections_at(sshd, f"127.0.1.{number}") for number in range(1, 11)] == [1] * 10
    assert sshd.logins_total == 11


def test_a_bad_host_behind_a_jump_host_fails_alone(sshd: Sshd, cli: Cli) -> None:
    """One refused host behind the jump host is `unreachable`; the others are collected."""
    down = refused()
    options = ("-i", f"{HOSTS},{down}", "-p", sshd.port, "-k", sshd.key, "-J", f"{JUMP}:{sshd.port}")
    result = cli("collect", *options, "--format", "jsonl")
    assert result.status == 1, result.stderr
    bad = {host: line["error"] for host, line in result.by_host().items() if not line["ok"]}
    assert list(bad) == [down]
    assert bad[down]["kind"] == "unreachable"
    assert "jump host" in bad[down]["message"]


def test_a_jump_host_that_is_down_is_named_and_tried_once(sshd: Sshd, cli: Cli) -> None:
    """Every host behind it fails with its name; status 3."""
    down = refused()
    result = cli("collect", "-i", HOSTS, "-p", sshd.port, "-k", sshd.key, "-J", down, "--format", "jsonl")
    assert result.status == 3
    errors = [line["error"] for line in result.by_host().values()]
    assert len(errors) == 10
    assert {error["kind"] for error in errors} == {"unreachable"}
    assert all(f"jump host {down}" in error["message"] for error in errors)
    assert connections_at(sshd, "127.0.1.1") == 0


def test_the_ssh_configuration_names_address_port_user_and_key(sshd: Sshd, cli: Cli, tmp_path: Path) -> None:
    """-F: aliases resolve as ssh resolves them, ProxyJump to a bastion whose host key is known included."""
    (cli.home / ".ssh").mkdir(mode=0o700)
    (cli.home / ".ssh" / "known_hosts").write_text(f"[{JUMP}]:{sshd.port} {sshd.host_public_key}\n")
    config = tmp_path / "ssh_config"
    config.write_text(
        f"""Host web1
  Hostname 127.0.1.1
Host web2
  Hostname 127.0.1.2
  ProxyJump bastion
Host bastion
  Hostname {JUMP}
Host *
  Port {sshd.port}
  User {servers.USER}
  IdentityFile {sshd.key}
"""
    )
    result = cli("collect", "-i", "web[1-2]", "-F", config, "--format", "jsonl")
    assert result.status == 0, result.stderr
    assert set(result.by_host()) == {"web1", "web2"}
    assert connections_at(sshd, JUMP) == 1
