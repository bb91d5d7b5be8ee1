"""A key limited to the probe, by the line that `fleetmem probe --authorized-keys` prints: that, and nothing else.

OpenSSH's own client and server. All is tried with a free key too: what the other one is refused is possible here.
"""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from . import servers
from .openssh_client import Ssh
from .servers import Cli, Sshd, descendants, environment, find_tool, free_port, make_key, sockets, wait_for

HOSTS = "127.0.1.[1-10]"
HOST = "127.0.1.1"
ALLOWED = "AllowTcpForwarding yes\nAllowAgentForwarding yes\nX11Forwarding yes\nSubsystem sftp internal-sftp"


@pytest.fixture
def both(tmp_path: Path, cli: Cli) -> Iterator[tuple[Ssh, Ssh]]:
    """A client with a free key, and one with a key limited to the probe, of a server that would allow everything."""
    free, limited = make_key(tmp_path / "free"), make_key(tmp_path / "limited")
    result = cli("probe", "--authorized-keys", f"{limited}.pub", "--from", "127.0.0.0/8")
    assert result.status == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    lines = [free.with_suffix(".pub").read_text(), result.stdout]
    with servers.sshd(tmp_path / "sshd", public_keys=lines, options=ALLOWED) as sshd:
        yield Ssh(sshd, free, cli.home), Ssh(sshd, limited, cli.home)


def test_collect_and_run_work(both: tuple[Ssh, Ssh], cli: Cli) -> None:
    """With the limited key everything that fleetmem does works as with a free one."""
    _, limited = both
    options = ("-i", HOSTS, "-p", limited.sshd.port, "-k", limited.key)
    for kind in ("status", "ps"):
        result = cli("collect", *options, "--format", "jsonl", "--probe", kind)
        assert result.status == 0, result.stderr
        assert all(len(outcome["processes"]) >= 3 for outcome in result.by_host().values())
    with cli.run(*options, "-o", "-", "--interval", 0.5) as running:
        wait_for("three cycles", lambda: len(running.cycles()) >= 3)
    assert all(outcome["ok"] for outcome in running.outcomes())


def test_keys_of_earlier_versions_go_on_working(tmp_path: Path, cli: Cli) -> None:
    """Beside new ones, whichever protocol is wanted. A line of the log says how to renew it; the doctor finds it."""
    old, new = make_key(tmp_path / "old"), make_key(tmp_path / "new")
    lines = [
        cli("probe", "--authorized-keys", f"{key}.pub", "--protocol", protocol).stdout
        for key, protocol in ((old, 1), (new, 2))
    ]
    assert lines[0] != lines[1]
    with servers.sshd(tmp_path / "sshd", public_keys=lines) as sshd:
        (cli.home / "fleetmem.toml").write_text(
            f'[inventory]\nhosts = ["127.0.1.1", "127.0.1.2"]\n[ssh]\nport = {sshd.port}\nkey = ["{new}"]\n'
            f'[probe]\nprotocol = 2\n[[overrides]]\nmatch = "127.0.1.1"\nkey = ["{old}"]\n'
        )
        (cli.home / "older.toml").write_text(
            (cli.home / "fleetmem.toml").read_text().replace("protocol = 2", "protocol = 1")
        )
        either = cli("collect", "-c", "older.toml", "--format", "jsonl")
        with cli.run("-c", "fleetmem.toml", "-o", "-", "--interval", 0.5) as running:
            wait_for("three cycles", lambda: len(running.cycles()) >= 3)
        doctor = cli("doctor", "-c", "fleetmem.toml")
    outcomes = running.outcomes()
    assert all(outcome["ok"] for outcome in outcomes)
    has_start = {
        host: {"started_unix_seconds" in row for each in outcomes if each["host"] == host for row in each["processes"]}
        for host in ("127.0.1.1", "127.0.1.2")
    }
    assert has_start == {"127.0.1.1": {False}, "127.0.1.2": {True}}
    assert either.status == 0, either.stderr
    assert "protocol" not in either.stderr
    rows = {host: outcome["processes"][0] for host, outcome in either.by_host().items()}
    assert ["started_unix_seconds" in rows[host] for host in sorted(rows)] == [False, True]
    (told,) = [line for line in running.stderr.splitlines() if "protocol 1" in line]
    assert "127.0.1.1" in told
    assert "fleetmem probe --authorized-keys KEY.pub --protocol 2" in told
    assert "an older one" in doctor.stdout


def test_the_key_is_good_from_its_addresses_only(tmp_path: Path, cli: Cli) -> None:
    """--from names where the collector is: from elsewhere the key is refused."""
    key = make_key(tmp_path / "limited")
    line = cli("probe", "--authorized-keys", f"{key}.pub", "--from", "192.0.2.10,198.51.100.0/24").stdout
    with servers.sshd(tmp_path / "sshd", public_keys=[line]) as sshd:
        result = cli("collect", "-i", HOST, "-p", sshd.port, "-k", key, "--format", "jsonl")
    assert result.by_host()[HOST]["error"]["kind"] == "auth_failed"


def is_answered_by_the_probe(done: "subprocess.CompletedProcess[str]") -> bool:
    """Whether three lines that are no request got the probe's answer to that, and nothing else was printed."""
    told = [line for line in done.stdout.replace("\r", "").splitlines() if not line.startswith(("BEGIN ", "END "))]
    return told == ["E not a request of protocol 1"] * 3


@pytest.mark.parametrize("command", [[], ["id"], ["exec", "/bin/sh"]])
def test_no_other_command_runs(both: tuple[Ssh, Ssh], tmp_path: Path, command: list[str]) -> None:
    """A command that is asked for is not run, and nothing that is typed to the probe is more than a request."""
    free, limited = both
    written = tmp_path / "written"
    typed = f"id; touch {written}\nsample $(touch {written}) status user\nsample 5 status user; `touch {written}`\n"
    assert "uid=" in free(HOST, *command, text=typed).stdout
    written.unlink(missing_ok=True)
    assert is_answered_by_the_probe(limited(HOST, *command, text=typed))
    assert not written.exists()


def test_no_terminal(both: tuple[Ssh, Ssh]) -> None:
    """Ssh -tt: no pseudo-terminal is allocated."""
    free, limited = both
    refusal = "PTY allocation request failed"
    assert refusal not in free("-tt", HOST, "true").stderr
    done = limited("-tt", HOST, "id", text="id\n")
    assert refusal in done.stderr
    assert not done.stdout


def transfers(client: Ssh, source: Path, target: str, seconds: float) -> list[bool]:
    """Copies a file by sftp, scp and old scp, side by side; returns which of them wrote it within that time."""
    targets = [Path(f"{target}-{number}") for number in range(3)]
    scripts = [["-b", "-", HOST], [str(source), f"{HOST}:{targets[1]}"], ["-O", str(source), f"{HOST}:{targets[2]}"]]
    pipe, env = subprocess.PIPE, environment(client.home)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(client.command(program, *words), stdin=pipe, env=env, text=True))
            for program, words in zip(("sftp", "scp", "scp"), scripts, strict=True)
        ]
        assert processes[0].stdin
        processes[0].stdin.write(f"put {source} {targets[0]}\n")
        processes[0].stdin.close()
        deadline = time.monotonic() + seconds
        for process in processes:
            try:
                process.wait(deadline - time.monotonic())
            except subprocess.TimeoutExpired:
                process.kill()
    return [target.exists() for target in targets]


def test_no_file_transfer(both: tuple[Ssh, Ssh], tmp_path: Path) -> None:
    """Neither sftp nor scp, new or old, writes a file: they wait for an answer that the probe does not give."""
    free, limited = both
    (tmp_path / "source").write_text("text")
    assert transfers(free, tmp_path / "source", f"{tmp_path}/free", 20) == [True] * 3
    assert transfers(limited, tmp_path / "source", f"{tmp_path}/limited", 2) == [False] * 3


def reaches_sshd(port: int) -> bool:
    """Whether a connection to a forwarded port ends at the sshd, which speaks first."""
    with socket.create_connection((HOST, port), timeout=10) as connection:
        return connection.recv(8).startswith(b"SSH-2.0")


def test_no_port_is_forwarded_to_the_host(both: tuple[Ssh, Ssh]) -> None:
    """Ssh -L and -W: the host opens no connection for this key."""
    for client, is_free in zip(both, (True, False), strict=True):
        port = free_port(HOST)
        with client.running("-N", "-L", f"{HOST}:{port}:127.0.1.2:{client.sshd.port}", HOST):
            wait_for("ssh listens", partial(sockets, port, socket.SOCK_STREAM))
            assert reaches_sshd(port) is is_free
        done = client("-W", f"127.0.1.2:{client.sshd.port}", HOST)
        assert ("SSH-2.0" in done.stdout) is is_free
        assert ("administratively prohibited" in done.stderr) is not is_free


def test_no_port_is_forwarded_from_the_host(both: tuple[Ssh, Ssh]) -> None:
    """Ssh -R: the host listens nowhere for this key, neither at a port nor at a socket."""
    for client, is_free in zip(both, (True, False), strict=True):
        port = free_port(HOST)
        with client.running("-N", "-R", f"127.0.0.1:{port}:127.0.1.2:{client.sshd.port}", HOST) as process:
            if is_free:
                wait_for("sshd listens", partial(sockets, port, socket.SOCK_STREAM))
            else:
                assert process.wait(10) == 255
                assert process.stderr
                assert "remote port forwarding failed" in process.stderr.read()
                assert not sockets(port, socket.SOCK_STREAM)
    path = both[1].home / "listening"
    assert both[1]("-N", "-R", f"{path}:127.0.1.2:{both[1].sshd.port}", HOST).returncode == 255
    assert not path.exists()


def test_neither_agent_nor_display_is_forwarded(both: tuple[Ssh, Ssh], tmp_path: Path) -> None:
    """Ssh -A and -X: what runs on the host has no socket to our agent, and no display."""
    agent = tmp_path / "agent"
    with subprocess.Popen([find_tool("ssh-agent"), "-D", "-a", str(agent)], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for("the agent listens", agent.is_socket)
            for client, is_free in zip(both, (True, False), strict=True):
                command = "env; sleep 60" if is_free else "true"
                with client.running("-A", "-X", "-v", HOST, command, SSH_AUTH_SOCK=str(agent), DISPLAY="127.0.0.1:9"):
                    assert ("SSH_AUTH_SOCK" in names_on(client.sshd)) is is_free
                wait_for("its session is over", partial(_is_idle, client.sshd))
        finally:
            process.terminate()
    done = both[1]("-X", HOST, "true", DISPLAY="127.0.0.1:9")
    assert "X11 forwarding request failed" in done.stderr, done.stderr


def _is_idle(sshd: Sshd) -> bool:
    return not _names_on(sshd)


def names_on(sshd: Sshd) -> set[str]:
    """Returns the environment variables of what was started in a session, and waits until something was."""
    return wait_for("a session runs something", lambda: _names_on(sshd))


def _names_on(sshd: Sshd) -> set[str]:
    """Returns the environment variables of what sessions run now."""
    names: set[str] = set()
    for pid in descendants(sshd.pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # gone in the meantime
            if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sshd"):
                environment_of = Path(f"/proc/{pid}/environ").read_text()
                names |= {word.partition("=")[0] for word in environment_of.split("\0")}
    return names if "SSH_CONNECTION" in names else set()
