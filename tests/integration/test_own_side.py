"""What fails on the collector's own side: threads, streams, its own files, a user without a name. Hosts go on."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import servers
from .servers import Cli, Running, free_port, wait_for

_HOSTS = 5
_STOP_SECONDS = 5.0
_NOBODY = 54_321  # an id that no machine has a user for
# It may read all files: the interpreter may lie in a home that is closed to others.
_MAY_READ = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
_AS_NOBODY = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *_MAY_READ)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], Path]]:
    """Hosts of `lab simulate`, and the key for them."""
    folder = tmp_path_factory.mktemp("simulated")
    port = free_port()
    cli = Cli(folder)
    with cli.start("lab", "simulate", "--hosts", _HOSTS, "--processes", 5, "--port", port, "--dir", folder) as running:
        wait_for("the hosts are up", lambda: "Ctrl-C" in running.stdout)
        names = (folder / "hosts.txt").read_text().split()
        yield [f"{name}:{port}" for name in names], folder / "key"


def _flags(simulated: tuple[list[str], Path], *more: object) -> list[object]:
    hosts, key = simulated
    return ["-i", ",".join(hosts), "-u", "fleetmem", "-k", key, "-F", "none", "--host-keys", "insecure", *more]


def _config(path: Path, simulated: tuple[list[str], Path], text: str = "") -> Path:
    hosts, key = simulated
    (path / "hosts").write_text("\n".join(hosts))
    ssh = f'user = "fleetmem"\nkey = ["{key}"]\nhost_keys = "insecure"\n'
    config = path / "fleetmem.toml"
    inventory = f'[inventory]\nhosts = ["@{path}/hosts"]\nrefresh_seconds = 1\n'
    config.write_text(f"{inventory}[run]\ninterval_seconds = 0.5\n[ssh]\n{ssh}{text}")
    return config


def _go_on(running: Running) -> None:
    """Fails the test when hosts are not sampled any more."""
    before = len(running.outcomes())
    wait_for("two more cycles", lambda: len(running.outcomes()) >= before + 2 * _HOSTS)
    assert all(outcome["ok"] for outcome in running.outcomes()[before:])


def _stop(running: Running) -> None:
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.wait(_STOP_SECONDS + 3) == 0
    assert time.monotonic() - began < _STOP_SECONDS + 1


@pytest.mark.parametrize("broken", ["configuration", "ssh configuration", "key", "program"])
def test_a_reload_that_hangs(tmp_path: Path, cli: Cli, simulated: tuple[list[str], Path], broken: str) -> None:
    """Hosts are sampled meanwhile, a stop ends it, and after it has failed a reload works again."""
    ssh = tmp_path / "ssh_config"
    ssh.touch()
    settings = f'config_file = "{ssh}"\n'
    config = _config(tmp_path, simulated, settings)
    good = {path: path.read_bytes() for path in (config, ssh)}
    with cli.run("-c", config, "-o", "-") as running:
        wait_for("the first cycles", lambda: len(running.outcomes()) >= 2 * _HOSTS)
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        match broken:
            case "configuration":
                config.unlink()
                os.mkfifo(config)
            case "ssh configuration":
                ssh.unlink()
                os.mkfifo(ssh)
            case "key":
                config.write_bytes(good[config].replace(b"key = [", f'key = ["{fifo}", '.encode()))
            case "program":
                ssh.write_text('Match exec "sleep 30"\n User nobody\n')
        running.signal(signal.SIGHUP)
        _go_on(running)
        for path, data in good.items():
            path.unlink()
            path.write_bytes(data)
        wait_for(
            "the reload is over",
            lambda: "configuration taken" in running.stderr or "old one stays" in running.stderr,
        )
        count = running.stderr.count("configuration taken")
        running.signal(signal.SIGHUP)
        wait_for("a good one is taken", lambda: running.stderr.count("configuration taken") > count)
        _go_on(running)
        _stop(running)


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user, whom the limit of processes binds")
def test_no_thread_can_be_started_for_a_while(nobodys: Path, simulated: tuple[list[str], Path]) -> None:
    """Pages, the inventory and a reload work again without a restart, and hosts are sampled all the time."""
    folder, port = nobodys, free_port()
    text = f'[prometheus]\nlisten = "127.0.0.1:{port}"\n'
    config = _config(folder, (simulated[0], folder / "key"), text)
    with _run_as_nobody(folder, config) as process:
        log = folder / "log"
        wait_for("a page", lambda: _status(port, "/readyz") == 200)
        _limit_processes(process.pid, 1)
        process.send_signal(signal.SIGHUP)
        wait_for("the reload fails", lambda: "no more threads" in log.read_text())
        for _ in range(40):  # more than there are places
            _status(port, "/metrics", seconds=0.05)
        out = folder / "out.jsonl"
        size = out.stat().st_size
        wait_for("hosts are sampled", lambda: out.stat().st_size > size)
        _limit_processes(process.pid, 10_000)
        for page in ("/healthz", "/readyz", "/metrics"):
            wait_for(f"{page} answers", lambda page=page: _status(port, page) == 200)  # type: ignore[misc]
        process.send_signal(signal.SIGHUP)
        wait_for("a reload works", lambda: "configuration taken" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(_STOP_SECONDS + 3) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_a_user_without_a_name(nobodys: Path, simulated: tuple[list[str], Path]) -> None:
    """A container's user has a number alone, and no home: commands run, or say in a line what to do."""
    folder = nobodys
    key = folder / "key"
    flags = _flags((simulated[0], key), "--format", "jsonl", *servers.PATIENT)
    done = _nobody([sys.executable, "-m", "fleetmem", "collect", *map(str, flags)], folder)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == _HOSTS
    flags = ["-i", ",".join(simulated[0]), "-k", str(key), "--format", "jsonl"]
    for command in (["collect", *flags], ["hosts", "-i", "a"], ["doctor", "-i", "a"], ["config", "check", "-i", "a"]):
        done = _nobody([sys.executable, "-m", "fleetmem", *command], folder)
        assert "Traceback" not in done.stderr, command
        assert done.returncode in (0, 1, 2, 3), (command, done.stderr)


def test_the_home_of_a_user_whom_nobody_knows(cli: Cli, tmp_path: Path) -> None:
    """A path below it is an error in one line, wherever it stands; in an inventory it costs that host."""
    inventory = tmp_path / "hosts.json"
    inventory.write_text('[{"name": "a", "key": "~nobody-here/key"}, {"name": "b"}]')
    done = cli("hosts", "--inventory", f"json:{inventory}")
    assert done.status == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["b"]
    assert "~nobody-here/key" in done.stderr
    for command in (["probe", "--authorized-keys", "~nobody-here/k"], ["lab", "simulate", "--dir", "~nobody-here/d"]):
        done = cli(*command)
        assert done.status in (1, 2)
        assert "Could not determine home directory" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(cli: Cli, simulated: tuple[list[str], Path], tmp_path: Path, closed: str) -> None:
    """The status is as usual; only data for a closed stdout is an error."""
    data = tmp_path / "data"
    command = cli.command("collect", *_flags(simulated, "--format", "jsonl"))
    script = f'"$@" {"" if ">&-" in closed.replace("2>&-", "") else f">{data}"} {closed}'
    environment = servers.environment(cli.home)
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command], env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == (0 if data.exists() else 4)
    assert not data.exists() or len(data.read_text().splitlines()) == _HOSTS
    if closed == ">&-":
        assert done.stderr.decode().splitlines()[-1] == "fleetmem: output: bad file descriptor"
    run = subprocess.Popen(
        [
            "sh",
            "-c",
            f'exec "$@" {closed}',
            "sh",
            *cli.command("run", *_flags(simulated, "-o", tmp_path / "out"), "--interval", "0.5"),
        ],
        env=environment,
    )
    try:
        wait_for("outcomes", lambda: (tmp_path / "out").exists() and (tmp_path / "out").stat().st_size)
        run.send_signal(signal.SIGTERM)
        assert run.wait(_STOP_SECONDS + 3) == 0
    finally:
        run.kill()
        run.wait()


@pytest.mark.parametrize("target", ["/dev/full", "a closed pipe", "a full pipe"])
def test_a_log_that_cannot_be_written(cli: Cli, simulated: tuple[list[str], Path], tmp_path: Path, target: str) -> None:
    """Hosts are sampled all the same, and the status at the end is as usual."""
    out, log = tmp_path / "out", tmp_path / "log"
    reading, writing = os.pipe()
    if target == "a full pipe":
        os.set_blocking(writing, False)
        for _ in range(1000):
            try:
                os.write(writing, b"x" * 4096)
            except BlockingIOError:
                break
        os.set_blocking(writing, True)
    if target == "a closed pipe":
        os.close(reading)
    descriptor = os.open(target, os.O_WRONLY) if target.startswith("/") else writing
    command = cli.command("run", *_flags(simulated, "-o", out), "--interval", "0.5", "-v")
    run = subprocess.Popen(command, env=servers.environment(cli.home), stderr=descriptor)
    try:
        wait_for("outcomes", lambda: out.exists() and len(out.read_text().splitlines()) > 6 * _HOSTS)
        assert not log.exists()
        run.send_signal(signal.SIGTERM)
        assert run.wait(_STOP_SECONDS + 3) == 0
    finally:
        run.kill()
        run.wait()


def test_a_stop_while_the_start_hangs(cli: Cli, tmp_path: Path) -> None:
    """SIGTERM ends a start that waits for a program, with the program."""
    pid_file = tmp_path / "pid"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nsleep 77 &\necho $! > {pid_file}\nwait\n")
    program.chmod(0o755)
    with cli.run("--inventory", f"command:{program}", "-o", "-") as running:
        pid = int(wait_for("the program runs", lambda: pid_file.exists() and pid_file.read_text()))
        _stop(running)
    wait_for("the program is gone", lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), 5)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _status(port: int, page: str, seconds: float = 2.0) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=seconds) as answer:
            return int(answer.status)
    except OSError:
        return 0


@pytest.fixture
def nobodys(simulated: tuple[list[str], Path]) -> Iterator[Path]:
    """A folder that another user can use, with the key in it.

    Not one of pytest: each pytest that starts on the machine closes the folder above them to other users.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_bytes(simulated[1].read_bytes())
        for path, mode in ((folder, 0o700), (folder / "key", 0o600)):
            os.chown(path, _NOBODY, _NOBODY)
            path.chmod(mode)
        yield folder


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


def _nobody(command: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*_AS_NOBODY, *command],
        env=_environment(),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@contextmanager
def _run_as_nobody(folder: Path, config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*_AS_NOBODY, sys.executable, "-m", "fleetmem", "run", "-c", str(config), "-o", str(folder / "out.jsonl")],
            env=_environment(),
            cwd=folder,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _limit_processes(pid: int, most: int | str) -> None:
    """Sets how many threads and processes the user of a process may have."""
    subprocess.run([*_AS_NOBODY, "prlimit", f"--pid={pid}", f"--nproc={most}:"], check=True)
