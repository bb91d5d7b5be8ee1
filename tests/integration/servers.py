"""Real servers for the tests, and fleetmem itself as a process: each started by its own pid, and stopped by it."""

import errno
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import pytest

from .warm import WarmProcess, WarmStarter, needs_start

REPOSITORY = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("FLEETMEM_TOOLS") or REPOSITORY / ".cache" / "tools")
USER = pwd.getpwuid(os.getuid()).pw_name

PATIENT = ("--connect-timeout", 60, "--command-timeout", 60)
"""Flags for what is about how many hosts are reached, not how fast: their probes start on one machine, at once."""

_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.05

# Below the ports that the kernel gives to outgoing connections (ip_local_port_range): while a test has a server
# stopped, none of those may take its port, nor may a client that tries again be connected with itself.
_PORTS = range(10240, 32768)

_T = TypeVar("_T")


def missing(what: str) -> NoReturn:
    """Skips the test for want of a component; under CI=true fails it."""
    reason = f"{what} is not to be had here: `make tools` installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def find_tool(name: str) -> str:
    """Returns the path of a program, from PATH, the system's folders or the folder of test tools."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    folders += [str(TOOLS / part) for part in ("root/usr/sbin", "root/usr/bin", "root/bin", "python-tools/bin")]
    return shutil.which(name, path=os.pathsep.join(folders)) or missing(name)


def wait_for(what: str, probe: Callable[[], _T], seconds: float = 60.0) -> _T:
    """Returns the first true answer of `probe`; fails the test when there is none in time.

    Args:
        what: is waited for, for people.
        probe: looks whether it is so.
        seconds: for a test of how long it takes; else the time of a machine that is busy with other tests.
    """
    deadline = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}; last answer {answer!r}")
        time.sleep(max(_POLL_SECONDS, time.monotonic() - begun))  # half of a core at the most: others wait, too


def free_port(address: str = "127.0.0.1", kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Returns a port that nothing is bound to, and that no outgoing connection will take."""
    while True:
        port = secrets.choice(_PORTS)  # not from `random`: its seed is the same for each test
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise
        return port


def stop(process: subprocess.Popen[Any]) -> None:
    """Ends a process that we started: politely, then not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()


def environment(home: Path) -> dict[str, str]:
    """Returns an environment with a home of its own, without agent and without settings of whoever runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLEETMEM_", "SSH_"))}
    return kept | {"HOME": str(home), "COLUMNS": "200"}


# --- processes of this machine ---------------------------------------------------------------------------------------


def parents() -> dict[int, int]:
    """Returns the parent of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, IndexError):  # gone in the meantime
            continue
    return found


def descendants(pid: int) -> set[int]:
    """Returns all processes below one."""
    children: dict[int, list[int]] = {}
    for child, parent in parents().items():
        children.setdefault(parent, []).append(child)
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found.update(new)
        waiting += new
    return found


def process_state(pid: int) -> str:
    """Returns the state of a process, one letter as in proc_pid_stat(5); "" for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return process_state(pid) not in ("", "Z", "X")


def probes_below(pid: int) -> set[int]:
    """Returns the probes below a process: shells whose command line begins with the probe's first comment."""
    found = set()
    parent_of = parents()
    for candidate in descendants(pid):
        try:
            words = Path(f"/proc/{candidate}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # Not sshd or a login shell that has the whole command as one word: the probe has the script as its third.
        if len(words) > 3 and words[3].startswith(b"# fleetmem probe") and is_alive(candidate):
            found.add(candidate)
    return {probe for probe in found if parent_of.get(probe) not in found}  # a fork of one on its way to awk is none


def rss_bytes(pid: int) -> int:
    """Returns the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert match
    return int(match[1]) * 1024


# --- servers of our own ----------------------------------------------------------------------------------------------


class Startable(Protocol):
    """What `started` starts and stops."""

    def start(self) -> None:
        """Starts it and waits until it is ready."""

    def stop(self) -> None:
        """Stops it, where it was started."""


_S = TypeVar("_S", bound=Startable)


@contextmanager
def started(server: _S) -> Iterator[_S]:
    """Starts a server, and stops it in the end."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


def sockets(port: int, kind: socket.SocketKind) -> list[list[str]]:
    """Returns the columns of /proc/net/udp or tcp (proc(5)) for the IPv4 sockets that are bound to a port."""
    table = Path("/proc/net/udp" if kind == socket.SOCK_DGRAM else "/proc/net/tcp").read_text()
    rows = [line.split() for line in table.splitlines()[1:]]
    return [row for row in rows if row[1].endswith(f":{port:04X}")]


def is_ready(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    """Whether a server listens at a port. Unlike a connection, asking the kernel is nothing that the server counts."""
    state = "07" if kind == socket.SOCK_DGRAM else "0A"  # that of every UDP socket that is not connected; LISTEN
    return any(row[3] == state for row in sockets(port, kind))


def udp_drops(port: int) -> int:
    """Returns how many datagrams the kernel dropped since the socket at this port is there, its queue being full."""
    return sum(int(row[12]) for row in sockets(port, socket.SOCK_DGRAM))


class Server(ABC):
    """A process of our own that serves: on ports that stay the same while it is stopped and started again."""

    def __init__(self, folder: Path) -> None:
        """For a server that has its files in this folder; `start` starts it."""
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Writes what it needs to its folder; returns the command that starts it."""

    @abstractmethod
    def _is_up(self) -> bool:
        """Whether it is ready."""

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process
        return self._process.pid

    def log(self) -> str:
        """Returns what it wrote so far, from all its starts."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        assert not self._process
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self._prepare()
        with (self.folder / "server.log").open("ab") as log:
            self._process = process = subprocess.Popen(
                command, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        name = type(self).__name__
        wait_for(f"{name} is ready", lambda: self._is_up() or process.poll() is not None, _START_SECONDS)
        assert process.poll() is None, f"{name} ended:\n{self.log()}"

    def stop(self) -> None:
        """Ends it (SIGTERM), also where it is paused."""
        if self._process:
            if self._process.poll() is None:
                self.resume()
            stop(self._process)
            self._process = None

    def pause(self) -> None:
        """Halts it (SIGSTOP): its ports stay open, and it reads nothing until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_for("it halts", lambda: process_state(self.pid) == "T")

    def resume(self) -> None:
        """Lets it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)


# --- OpenSSH ---------------------------------------------------------------------------------------------------------


def make_key(path: Path, kind: str = "ed25519", *, pem: bool = False, passphrase: str = "") -> Path:
    """Makes a key pair with ssh-keygen and returns the path of the private one."""
    command = [find_tool("ssh-keygen"), "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path)]
    if kind == "rsa":
        command += ["-b", "2048"]
    if pem:
        command += ["-m", "PEM"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@dataclass
class Sshd:
    """An OpenSSH server of our own.

    Attributes:
        folder: its configuration, keys and log.
        port: where it listens, on every loopback address.
        key: a private key that it lets in.
        wrapper: words in front of its command.
    """

    folder: Path
    port: int
    key: Path
    wrapper: Sequence[str] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Process id of the listener."""
        assert self._process
        return self._process.pid

    @property
    def host_public_key(self) -> str:
        """Type and key, as known_hosts has them."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def log(self) -> str:
        """Returns what it logged so far."""
        path = self.folder / "sshd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def logins_total(self) -> int:
        """Logins by key so far."""
        return self.log().count("Accepted publickey")

    def start(self) -> None:
        """Starts it and waits until it listens."""
        before = self.log().count("Server listening")
        command = [find_tool("sshd"), "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "sshd.log")]
        self._process = process = subprocess.Popen([*self.wrapper, *command], stdin=subprocess.DEVNULL)
        wait_for(
            "sshd listens",
            lambda: self.log().count("Server listening") > before or process.poll() is not None,
            _START_SECONDS,
        )
        assert process.poll() is None, self.log()

    def stop(self) -> None:
        """Stops it with all its sessions, as a host that is switched off."""
        if self._process:
            below = descendants(self._process.pid)
            stop(self._process)
            for pid in below:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._process = None

    def probes(self) -> set[int]:
        """Returns the pids of the probes that run in its sessions."""
        return probes_below(self.pid)


@contextmanager
def sshd(
    folder: Path,
    *,
    public_keys: Sequence[str] | None = None,
    options: str = "",
    user: str = USER,
    seen_as: Path | None = None,
    wrapper: Sequence[str] = (),
) -> Iterator[Sshd]:
    """Starts an sshd that lets in one new key, or the keys given.

    Args:
        folder: for its files.
        public_keys: lines for authorized_keys; None for those of a new key.
        options: lines for sshd_config, which count before the usual ones.
        user: who logs in.
        seen_as: where that user sees `folder`, where it is another place.
        wrapper: words in front of its command, which end with running that in their place.
    """
    if os.getuid() == 0:
        if not Path("/run/sshd").is_dir():
            missing("/run/sshd, which sshd wants as root,")
        try:
            pwd.getpwnam("sshd")
        except KeyError:
            missing("the user sshd, which sshd wants as root,")
    folder.mkdir(parents=True, exist_ok=True)
    make_key(folder / "host_key")
    key = make_key(folder / "user_key")
    lines = [key.with_suffix(".pub").read_text()] if public_keys is None else public_keys
    (folder / "authorized_keys").write_text("".join(line.rstrip("\n") + "\n" for line in lines))
    port = free_port("0.0.0.0")  # noqa: S104 - only a wild card answers on 50 loopback addresses: sshd takes 16 names
    # HOME: the .bashrc of whoever runs the tests may take seconds, and let 50 logins wait for each other.
    (folder / "sshd_config").write_text(
        f"""{options}
Port {port}
ListenAddress 0.0.0.0
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {seen_as or folder}/authorized_keys
AllowUsers {user}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 300
LogLevel VERBOSE
SetEnv HOME={folder}
"""
    )
    server = Sshd(folder, port, key, wrapper)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@dataclass
class Agent:
    """An ssh-agent of our own."""

    path: Path
    home: Path

    def add(self, *keys: Path, passphrase: str = "") -> None:
        """Adds keys, with their certificates where these are beside them."""
        program = self.home / "askpass"
        program.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
        program.chmod(0o700)
        env = environment(self.home) | {"SSH_AUTH_SOCK": str(self.path), "DISPLAY": ":0", "SSH_ASKPASS": str(program)}
        env |= {"SSH_ASKPASS_REQUIRE": "force"}
        for key in keys:
            subprocess.run([find_tool("ssh-add"), "-q", str(key)], env=env, check=True, stdin=subprocess.DEVNULL)


# --- Node StatsD -----------------------------------------------------------------------------------------------------


class StatsD(Server):
    """The real StatsD, on UDP and TCP, with a way to read what it holds.

    It flushes once an hour: until then its counters are not set back, and count from its start. Gauges do not need it.
    Where that is allowed it goes before other processes: one that waits for a core loses datagrams at any pace.

    Attributes:
        settings: for the next start, over what is said here.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port(kind=socket.SOCK_DGRAM)
        self.tcp_port = free_port()
        self.management_port = free_port()
        self.settings: dict[str, object] = {}

    @property
    def address(self) -> str:
        """As `-g` takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def tcp_address(self) -> str:
        """Address and port of its TCP server."""
        return f"127.0.0.1:{self.tcp_port}"

    def _prepare(self) -> list[str]:
        script = TOOLS / "node_modules" / "statsd" / "stats.js"
        if not script.is_file():
            missing("Node StatsD")
        config = {
            "servers": [
                {"server": "./servers/udp", "address": "127.0.0.1", "port": self.port},
                {"server": "./servers/tcp", "address": "127.0.0.1", "port": self.tcp_port},
            ],
            "mgmt_address": "127.0.0.1",
            "mgmt_port": self.management_port,
            "flushInterval": 3_600_000,
            "backends": [],
            **self.settings,
        }
        path = self.folder / "statsd.js"
        path.write_text(json.dumps(config))
        return [find_tool("node"), str(script), str(path)]

    def start(self) -> None:
        """Starts it, and returns once it listens."""
        super().start()
        with suppress(PermissionError):
            os.sched_setscheduler(self.pid, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))

    def _is_up(self) -> bool:
        ports = (self.tcp_port, self.management_port)
        return is_ready(self.port, socket.SOCK_DGRAM) and all(is_ready(port) for port in ports)

    def gauges(self) -> dict[str, float]:
        """Returns the gauges that it holds now, its own left out."""
        return {name: value for name, value in self._numbers("gauges").items() if not name.startswith("statsd.")}

    @property
    def bad_lines_seen(self) -> int:
        """Lines that it refused."""
        return int(self._numbers("counters")["statsd.bad_lines_seen"])

    @property
    def packets_received(self) -> int:
        """Datagrams, and pieces of TCP streams, that it read."""
        return int(self._numbers("counters")["statsd.packets_received"])

    @property
    def metrics_received(self) -> int:
        """Lines that it read, the bad ones among them."""
        return int(self._numbers("counters")["statsd.metrics_received"])

    @property
    def drops(self) -> int:
        """Datagrams that the kernel dropped because StatsD did not read them in time."""
        return udp_drops(self.port)

    def _numbers(self, command: str) -> dict[str, float]:
        """Parses what Node prints for an object: on one line where it fits, otherwise on one for each number."""
        found = re.findall(r"[{,]\s+(?:'([^']*)'|(\w+)): (-?Infinity|NaN|[-+.\deE]+)", self._ask(command))
        return {quoted or plain: float(value) for quoted, plain, value in found}

    def _ask(self, command: str) -> str:
        with socket.create_connection(("127.0.0.1", self.management_port), timeout=5) as connection:
            connection.sendall(command.encode() + b"\n")
            answer = b""
            while not answer.endswith(b"END\n\n"):
                chunk = connection.recv(65536)
                if not chunk:
                    raise OSError("StatsD closed the connection")
                answer += chunk
        return answer.decode()


@contextmanager
def statsd(folder: Path) -> Iterator[StatsD]:
    """Starts a StatsD of our own."""
    with started(StatsD(folder)) as server:
        yield server


# --- fleetmem --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a command came to."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    def by_host(self) -> dict[str, dict[str, Any]]:
        """Returns the JSON lines of stdout, by host."""
        return by_host(self.stdout)


def by_host(text: str) -> dict[str, dict[str, Any]]:
    """Returns JSON lines by host; each host has exactly one."""
    lines = [json.loads(line) for line in text.splitlines()]
    hosts = {line["host"]: line for line in lines}
    assert len(hosts) == len(lines), "a host has two outcomes"
    return hosts


@dataclass(frozen=True)
class Cli:
    """fleetmem's command line, with a home of its own, and perhaps more in its environment.

    Attributes:
        home: see there.
        variables: of the environment.
        wrapper: words in front of its command.
        starter: starts it, where there is no wrapper; None for a new interpreter each time.
    """

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    wrapper: Sequence[str] = ()
    starter: WarmStarter | None = None

    @property
    def cold(self) -> "Cli":
        """The same with a new interpreter each time, as `/proc/<pid>/cmdline` and `environ` show it."""
        return replace(self, starter=None)

    def command(self, *arguments: object) -> list[str]:
        """Returns the words of a command."""
        return [*self.wrapper, sys.executable, "-m", "fleetmem", *map(str, arguments)]

    def __call__(self, *arguments: object, seconds: float = 150.0, **env: str) -> Result:
        """Runs a command to its end."""
        began = time.monotonic()
        running = Running(self._start(*arguments, **env))
        try:
            status = running.wait(seconds)
        finally:
            running.kill()
        took = time.monotonic() - began
        assert "Traceback" not in running.stderr, running.stderr
        return Result(status, running.stdout, running.stderr, took)

    def _start(self, *arguments: object, **env: str) -> "subprocess.Popen[bytes] | WarmProcess":
        variables = {**self.variables, **env}
        whole = {**environment(self.home), **variables}
        if self.starter and not self.wrapper and not needs_start(variables):
            return self.starter.start([str(argument) for argument in arguments], whole, self.home)
        return subprocess.Popen(
            self.command(*arguments),
            env=whole,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @contextmanager
    def run(self, *arguments: object, **env: str) -> "Iterator[Running]":
        """Starts `fleetmem run` with JSON logs, and kills it in the end where it still runs."""
        with self.start("run", "--log-format", "json", *arguments, **env) as running:
            yield running

    @contextmanager
    def start(self, *arguments: object, **env: str) -> "Iterator[Running]":
        """Starts a command that takes its time, and kills it in the end where it still runs."""
        running = Running(self._start(*arguments, **env))
        try:
            yield running
            assert "Traceback" not in running.stderr, running.stderr
        finally:
            running.kill()


class Running:
    """A fleetmem process. Its output is read as it comes, and each line of JSON parsed once."""

    def __init__(self, process: subprocess.Popen[bytes] | WarmProcess) -> None:
        self._process = process
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._parsed: dict[str, list[dict[str, Any]]] = {"stdout": [], "stderr": []}
        self._readers = [
            threading.Thread(target=self._read, args=("stdout", process.stdout)),
            threading.Thread(target=self._read, args=("stderr", process.stderr)),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: Any) -> None:
        for line in stream:
            self._lines[name].append(line.decode())

    def _json(self, name: str) -> list[dict[str, Any]]:
        parsed = self._parsed[name]
        parsed += [json.loads(line) for line in self._lines[name][len(parsed) :]]
        return list(parsed)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it wrote there so far."""
        return "".join(self._lines["stdout"])

    @property
    def stderr(self) -> str:
        """What it wrote there so far."""
        return "".join(self._lines["stderr"])

    def logs(self) -> list[dict[str, Any]]:
        """Returns its log lines so far (JSON)."""
        return self._json("stderr")

    def cycles(self) -> list[dict[str, Any]]:
        """Returns the lines at the end of each cycle."""
        return [line for line in self.logs() if "median_delay_ms" in line]

    def outcomes(self) -> list[dict[str, Any]]:
        """Returns the JSON lines of stdout so far (for `-o -`)."""
        return self._json("stdout")

    def outcomes_of(self, host: str) -> list[dict[str, Any]]:
        """Returns those of one host."""
        return [outcome for outcome in self.outcomes() if outcome["host"] == host]

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Returns its exit status; fails the test when it does not end in time."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still runs after {seconds:g} s; its log:\n{self.stderr[-2000:]}")
        self._join()
        return status

    def kill(self) -> None:
        """Ends it at once, where it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(_STOP_SECONDS)
