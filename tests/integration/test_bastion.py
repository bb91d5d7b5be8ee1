"""A key limited to passing on, by the line that `fleetmem probe --bastion` prints: to the hosts, and nothing else.

OpenSSH's own client and server, on bastions that would allow everything. Each refusal is tried with a free key, too.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from . import servers
from .networks import line_of_machines
from .openssh_client import Ssh
from .servers import Cli, Sshd, make_key, wait_for

HOSTS = "127.0.1.[1-3]"
BASTION = "127.0.3.1"
ALLOWED = "AllowTcpForwarding yes\nAllowStreamLocalForwarding yes\nAllowAgentForwarding yes\nPermitTunnel yes"
# From docs/how-to/least-privilege.md, for the sshd of the bastion.
ADVICE = "AllowTcpForwarding local\nAllowStreamLocalForwarding no\n"

Bastion = Callable[..., Ssh]


@pytest.fixture
def bastion(tmp_path: Path, sshd: Sshd, cli: Cli) -> Iterator[Bastion]:
    """Starts bastions: each with a key of its own, and a line that is made with the flags given.

    The hosts behind are those of `sshd`, which let in the limited key of each, limited to the probe.
    """
    with ExitStack() as stack:

        def start(*flags: object, options: str = ALLOWED) -> Ssh:
            folder = tmp_path / f"bastion{len(list(tmp_path.glob('bastion*')))}"
            folder.mkdir()
            key = make_key(folder / "key")
            line = cli("probe", "--authorized-keys", f"{key}.pub", "--bastion", *flags)
            assert line.status == 0, line.stderr
            for_hosts = cli("probe", "--authorized-keys", f"{key}.pub", "--from", "127.0.0.0/8").stdout
            with (sshd.folder / "authorized_keys").open("a") as file:
                file.write(for_hosts)
            server = servers.sshd(folder / "sshd", public_keys=[line.stdout], options=options)
            return Ssh(stack.enter_context(server), key, cli.home)

        yield start


@contextmanager
def free_bastion(folder: Path, cli: Cli) -> Iterator[Ssh]:
    """Starts one with a key that may do everything."""
    with servers.sshd(folder, options=ALLOWED) as server:
        yield Ssh(server, server.key, cli.home)


def through(bastion: Ssh, sshd: Sshd) -> tuple[object, ...]:
    """Returns the flags that reach the hosts through it."""
    jump = f"{BASTION}:{bastion.sshd.port}"
    return ("-p", sshd.port, "-k", bastion.key, "-J", jump, *servers.PATIENT, "--format", "jsonl")


@pytest.mark.parametrize("targets", ["inventory", "any host", "4096"])
def test_collect_works(targets: str, bastion: Bastion, sshd: Sshd, cli: Cli) -> None:
    """One key, limited on the bastion and on the hosts: all hosts are collected, with as many targets as sshd reads."""
    words: dict[str, tuple[object, ...]] = {
        "inventory": ("-i", HOSTS, "-p", sshd.port, "-J", f"{BASTION}:22"),
        "any host": ("--permit-open", f"*:{sshd.port}"),
        "4096": ("-i", "127.0.1.[1-3],h[1-4093]", "-p", sshd.port),
    }
    limited = bastion(*words[targets])
    result = cli("collect", "-i", HOSTS, *through(limited, sshd))
    assert result.status == 0, result.stderr
    assert all(len(outcome["processes"]) >= 3 for outcome in result.by_host().values())
    assert limited.sshd.logins_total == 1


def test_no_other_target(bastion: Bastion, sshd: Sshd, cli: Cli) -> None:
    """A host that is not in the line is refused by the bastion, and so is another port of one that is."""
    limited = bastion("-i", HOSTS, "-p", sshd.port)
    outcome = cli("collect", "-i", "127.0.1.4", *through(limited, sshd)).by_host()["127.0.1.4"]
    assert outcome["error"]["kind"] == "unreachable"
    assert f"through {BASTION}:{limited.sshd.port}" in outcome["error"]["message"]
    for target in (f"127.0.1.4:{sshd.port}", f"127.0.1.1:{limited.sshd.port}"):
        assert "administratively prohibited" in limited("-W", target, BASTION).stderr
    assert "SSH-2.0" in limited("-W", f"127.0.1.1:{sshd.port}", BASTION).stdout


def test_sshd_knows_no_patterns(bastion: Bastion, sshd: Sshd) -> None:
    """As permitopen is compared letter by letter, `*` alone is any host, and the other spelling of one is another."""
    limited = bastion("--permit-open", f"127.0.1.1:{sshd.port},127.0.1.2:*")
    assert "SSH-2.0" in limited("-W", f"127.0.1.2:{sshd.port}", BASTION).stdout
    assert "administratively prohibited" in limited("-W", f"127.0.01.1:{sshd.port}", BASTION).stderr


def test_no_shell(bastion: Bastion, sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """No command, no terminal, no file."""
    limited = bastion("-i", HOSTS, "-p", sshd.port)
    with free_bastion(tmp_path / "free", cli) as free:
        for client, is_free in ((free, True), (limited, False)):
            for words in (["id"], []):
                assert ("uid=" in client(BASTION, *words, text="id\n").stdout) is is_free
            assert ("PTY allocation request failed" in client("-tt", BASTION, "true").stderr) is not is_free
            done = client("-s", BASTION, "sftp")
            assert done.returncode != 0
            assert not done.stdout
            assert client("-N", "-w", "0:0", BASTION).returncode != 0


def test_nothing_listens_on_the_bastion(bastion: Bastion, sshd: Sshd) -> None:
    """No port for -R. What OpenSSH's key options cannot forbid, Unix sockets, two lines of sshd_config do."""
    limited = bastion("-i", HOSTS, "-p", sshd.port)
    for port in (0, servers.free_port()):
        done = limited("-N", "-R", f"{port}:127.0.1.1:{sshd.port}", BASTION)
        assert done.returncode == 255
        assert "remote port forwarding failed" in done.stderr
    advised = bastion("-i", HOSTS, "-p", sshd.port, options=ADVICE)
    assert "SSH-2.0" in advised("-W", f"127.0.1.1:{sshd.port}", BASTION).stdout
    path = advised.home / "listening"
    for listen in (path, "none:1", 0):
        done = advised("-N", "-R", f"{listen}:127.0.1.1:{sshd.port}", BASTION)
        assert done.returncode == 255
        assert "remote port forwarding failed" in done.stderr
    assert not path.exists()


def test_no_unix_socket_is_reached(bastion: Bastion, sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """The sockets of the bastion's other programs are no targets: no agent, no container engine."""
    limited = bastion("--permit-open", f"*:{sshd.port},127.0.1.1:*")
    with (
        free_bastion(tmp_path / "free", cli) as free,
        socket.socket(socket.AF_UNIX) as other,
        ExitStack() as forwarding,
    ):
        other.bind(str(tmp_path / "other"))
        other.listen()
        other.setblocking(False)
        for client, is_free in ((free, True), (limited, False)):
            path = tmp_path / f"forwarded-{is_free}"
            forwarding.enter_context(client.running("-N", "-L", f"{path}:{tmp_path}/other", BASTION))
            wait_for("ssh listens", path.exists)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                if is_free:
                    wait_for("the other program is reached", lambda: is_called(other))
                else:
                    assert not connection.recv(1), "the bastion refuses, and ssh closes"
                    assert not is_called(other)


def is_called(server: socket.socket) -> bool:
    """Whether a connection waits at a server."""
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_from_names_the_bastion_on_hosts(tmp_path: Path, cli: Cli) -> None:
    """Hosts see the address of the bastion: a line that names it lets the key in, one with the collector's does not."""
    seen_as = {"10.219.1.254": None, "10.219.0.254": "auth_failed"}  # the bastion, the collector
    keys = {address: make_key(tmp_path / address) for address in seen_as}
    lines = [cli("probe", "--authorized-keys", f"{key}.pub", "--from", source).stdout for source, key in keys.items()]
    to_hosts = [
        cli("probe", "--authorized-keys", f"{key}.pub", "--bastion", "--permit-open", "10.219.1.1:*").stdout
        for key in keys.values()
    ]
    with (
        line_of_machines(3, hosts=1) as (ours, middle, last),
        servers.sshd(tmp_path / "hosts", public_keys=lines, wrapper=last.wrapper) as hosts,
        servers.sshd(tmp_path / "bastion", public_keys=to_hosts, wrapper=middle.wrapper) as jump,
    ):
        for source, kind in seen_as.items():
            words = ("-i", "10.219.1.1", "-p", hosts.port, "-k", keys[source], "-J", f"10.219.0.1:{jump.port}")
            outcome = Cli(cli.home, wrapper=ours.wrapper)("collect", *words, *servers.PATIENT, "--format", "jsonl")
            assert outcome.by_host()["10.219.1.1"].get("error", {}).get("kind") == kind, outcome.stderr
