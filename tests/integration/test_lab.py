"""The lab: hosts that answer, and nothing left when it is down."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncssh
import pytest

from fleetmem.lab.directory import Directory
from fleetmem.lab.process import members
from fleetmem.lab.state import State, read_state

from .servers import TOOLS, Cli, is_alive, missing, wait_for

WORKLOADS = {"steady", "leaky", "come-and-go"}
MIB = 1024 * 1024


@pytest.fixture
def folder(tmp_path: Path, cli: Cli) -> Iterator[Path]:
    """A directory for a lab, which is stopped in the end."""
    folder = tmp_path / "lab"
    yield folder
    assert cli("lab", "down", "--dir", folder).status == 0
    assert not _pids(cli)


def _up(cli: Cli, folder: Path, *arguments: object, path: str | None = None) -> State:
    result = cli("lab", "up", "--dir", folder, "--hosts-only", *arguments, PATH=path or os.environ["PATH"])
    assert result.status == 0, result.stderr
    return _state(folder)


def _state(folder: Path) -> State:
    state = read_state(folder / "state.json")
    assert state
    return state


def _pids(cli: Cli) -> set[int]:
    """Returns the processes that descend from this test's commands: they have its home in their environment."""
    mark = f"HOME={cli.home}".encode()
    return {int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if mark in _read(path).split(b"\0")}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone in the meantime, or another user's
        return b""


def _processes(cli: Cli, folder: Path) -> dict[str, dict[str, int]]:
    """Returns RSS in bytes by host and command, as fleetmem sees it."""
    result = cli("collect", "-c", folder / "fleetmem.toml", "--format", "jsonl")
    assert result.status == 0, result.stderr
    return {
        host: {process["command"]: process["rss_bytes"] for process in outcome["processes"]}
        for host, outcome in result.by_host().items()
    }


def _path_without_unshare(tmp_path: Path) -> str:
    """Returns a PATH in which no namespace can be made."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "grep", "awk", "sleep"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return str(folder)


def test_up_collect_down(cli: Cli, folder: Path) -> None:
    """Each host has its own address and its workload; after down no process is left."""
    state = _up(cli, folder, "--hosts", 3)
    assert len(state.members) == 3
    hosts = _processes(cli, folder)
    assert sorted(hosts) == ["127.0.1.1", "127.0.1.2", "127.0.1.3"] == state.hosts
    for commands in hosts.values():
        assert commands.keys() >= {"steady", "leaky"}
        assert 20 * MIB < commands["steady"] < 60 * MIB
        if state.is_isolated:
            assert commands.keys() <= WORKLOADS | {"lab-host", "sh"}
    assert len(_pids(cli)) >= 3 * len(WORKLOADS)
    down = cli("lab", "down", "--dir", folder)
    assert (down.status, down.stdout) == (0, f"lab in {folder} stopped\n")
    assert not _pids(cli)
    assert not (folder / "state.json").exists()
    assert cli("lab", "down", "--dir", folder).stdout == f"no lab runs in {folder}\n"
    assert cli("lab", "status", "--dir", folder).status == 1


def test_printed_commands_work(cli: Cli, folder: Path) -> None:
    """The line with flags that `up` prints reaches the hosts, with their keys checked."""
    result = cli("lab", "up", "--dir", folder, "--hosts-only", "--hosts", 2)
    match = re.search(r"FLEETMEM_SSH__KNOWN_HOSTS=(\S+) fleetmem collect -k (\S+) -p (\d+) -i '(\S+)'", result.stdout)
    assert match, result.stdout
    known_hosts, key, port, hosts = match.groups()
    flags = ("-k", key, "-p", port, "-i", hosts, "--host-keys", "strict", "-q")
    assert cli("collect", *flags, FLEETMEM_SSH__KNOWN_HOSTS=known_hosts).status == 0
    assert cli("collect", *flags, FLEETMEM_SSH__KNOWN_HOSTS="/dev/null").status == 3


def test_leak_grows_and_come_and_go_comes_back(cli: Cli, folder: Path) -> None:
    """The workload moves: one process grows, another one is replaced by a new one."""
    state = _up(cli, folder, "--hosts", 1)
    (host,) = state.hosts
    before = _processes(cli, folder)[host]["leaky"]
    wait_for("it leaks", lambda: _processes(cli, folder)[host]["leaky"] > before)
    wait_for("come-and-go is away", lambda: "come-and-go" not in _processes(cli, folder)[host])
    wait_for("come-and-go is there", lambda: "come-and-go" in _processes(cli, folder)[host])


@pytest.mark.parametrize("has_unshare", [True, False])
def test_nothing_is_left_of_a_host_that_was_killed(
    cli: Cli, folder: Path, tmp_path: Path, *, has_unshare: bool
) -> None:
    """A host that gets SIGKILL takes its workload along, and down ends what users had started there."""
    state = _up(cli, folder, "--hosts", 2, path=None if has_unshare else _path_without_unshare(tmp_path))
    if not has_unshare:
        assert not state.is_isolated
        assert cli("lab", "status", "--dir", folder).stdout.count("no PID namespaces here") == 1
    assert all(commands.keys() >= {"steady", "leaky"} for commands in _processes(cli, folder).values())
    asyncio.run(_kill_a_host_at_work(cli, folder, state))
    status = cli("lab", "status", "--dir", folder)
    assert status.status == 1
    assert re.search(r"^host-1 +ENDED", status.stdout, re.MULTILINE)
    assert re.search(r"^host-2 +running", status.stdout, re.MULTILINE)
    assert cli("lab", "down", "--dir", folder).status == 0
    assert not _pids(cli)


async def _kill_a_host_at_work(cli: Cli, folder: Path, state: State) -> None:
    """Kills the first host while it runs somebody's command."""
    async with _log_in(folder, state) as connection:
        await connection.create_process("exec sleep 600")
        await asyncio.to_thread(wait_for, "it runs", lambda: _sleepers(cli))
        killed = state.members[0].identity
        os.kill(killed.pid, signal.SIGKILL)
        await asyncio.to_thread(
            wait_for, "its workload ends by itself", lambda: set(members(killed)) <= set(_sleepers(cli))
        )


def _log_in(folder: Path, state: State) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
    return asyncssh.connect(
        state.hosts[0],
        state.port or (),
        client_keys=[str(folder / "key")],
        known_hosts=str(folder / "known_hosts"),
        config=None,
        agent_path=None,
    )


def test_host_runs_commands_as_sshd_does(cli: Cli, folder: Path) -> None:
    """Input, output, error output, exit status and signals come through; another key is refused."""
    asyncio.run(_run_commands(cli, folder, _up(cli, folder, "--hosts", 1)))


async def _run_commands(cli: Cli, folder: Path, state: State) -> None:
    async with _log_in(folder, state) as connection:
        echoed = await connection.run("cat; echo bad >&2; exit 7", input="x" * 200_000)
        assert (echoed.stdout, echoed.stderr, echoed.exit_status) == ("x" * 200_000, "bad\n", 7)
        killed = await connection.run("kill -KILL $$")
        assert killed.exit_signal
        assert killed.exit_signal[0] == "KILL"
        assert (await connection.run()).exit_status == 1
        process = await connection.create_process("trap '' HUP TERM; sleep 600 & wait")
        (sleeper,) = await asyncio.to_thread(wait_for, "it runs", lambda: _sleepers(cli))
        process.close()
        await process.wait_closed()
        await asyncio.to_thread(wait_for, "it ends with its channel", lambda: not is_alive(sleeper), 10)
    key = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            state.hosts[0], state.port or (), client_keys=[key], known_hosts=None, config=None, agent_path=None
        )


def _sleepers(cli: Cli) -> list[int]:
    return [pid for pid in _pids(cli) if _read(Path(f"/proc/{pid}/cmdline")) == b"sleep\x00600\x00"]


def test_second_up_says_so_and_changes_nothing(cli: Cli, folder: Path) -> None:
    """A lab that is up stays up, as it is; neither up nor demo takes its place."""
    state = _up(cli, folder, "--hosts", 1)
    for command in ("up", "demo"):
        second = cli("lab", command, "--dir", folder)
        assert second.status == 2
        assert "is up already" in second.stderr
    assert _state(folder) == state
    assert _processes(cli, folder).keys() == set(state.hosts)


def test_stale_state_is_cleared(cli: Cli, folder: Path) -> None:
    """After a crash the next up starts afresh, and what had survived is gone."""
    old = _up(cli, folder, "--hosts", 1)
    pids = _pids(cli)
    os.kill(old.members[0].identity.pid, signal.SIGKILL)
    new = _up(cli, folder, "--hosts", 2)
    assert not any(map(is_alive, pids))
    assert _processes(cli, folder).keys() == set(new.hosts)


def test_up_that_fails_leaves_nothing(cli: Cli, folder: Path) -> None:
    """What is in the way is told, by name."""
    (folder / "host_keys").mkdir(parents=True)
    (folder / "host_keys" / "2").write_text("no key")
    result = cli("lab", "up", "--dir", folder, "--hosts-only", "--hosts", 2)
    assert result.status == 1, result.stderr
    assert "host_keys/2: Invalid private key; delete it" in result.stderr
    assert not _pids(cli)
    assert not (folder / "state.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_foreground_lab_ends_with_its_command(cli: Cli, folder: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM stop it in order; the kernel does when even that is not possible."""
    with cli.start("lab", "up", "--dir", folder, "--hosts-only", "--hosts", 1, "--foreground") as running:
        wait_for("the lab is up", (folder / "fleetmem.toml").exists)
        state = _state(folder)
        assert _processes(cli, folder).keys() == set(state.hosts)
        os.kill(running.pid, number)
        wait_for("it ends", lambda: not running.is_running())
    wait_for("nothing is left", lambda: not _pids(cli), 5)
    assert (folder / "state.json").exists() == (number is signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("has_graphite", [True, pytest.param(False, marks=pytest.mark.long)])
def test_demo_finds_every_series_in_graphite(cli: Cli, folder: Path, has_graphite: bool) -> None:
    """With a real Graphite, which it installs in an empty directory: everything sent is found, nothing is left."""
    installed = Directory(TOOLS).venv  # by the same code, with the tools of the tests
    if has_graphite:
        if not installed.is_dir():
            missing("Graphite")
        folder.mkdir()
        (folder / installed.name).symlink_to(installed)
    for name in ("django", "carbon", "pip", "venv"):
        (cli.home / f"{name}.py").write_text("raise RuntimeError('a file in the current directory is no module')")
    result = cli("lab", "demo", "--dir", folder, "--hosts", 2, DEMO_SECONDS="10", seconds=600)
    if "pip failed" in result.stderr:
        missing("Graphite from a package index")
    output = result.stdout
    verdict = r"^(\d+) of (\d+) series sent were found in Graphite with the value sent last"
    match = re.search(verdict, output, re.MULTILINE)
    assert match, output
    assert match[1] == match[2]
    assert int(match[1]) > 2 * 3 * len(WORKLOADS)
    assert re.search(r"127\.0\.1\.1 +\d+ +steady .* ▁▁", output)
    assert result.status == 0
    assert not _pids(cli)
    assert not (folder / "state.json").exists()
