"""Things on our own side that break for a time: agent, files, programs, servers, threads, descriptors, clock, disk.

Scene     20 simulated hosts behind a `Switchboard`, `fleetmem run`, its StatsD, its file and its health page
Resource  what breaks; `break_` and `heal` may follow each other any number of times
"""

import asyncio
import fcntl
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fleetmem.lab.simulator import address_of

from .receivers import UdpReceiver
from .servers import Agent, Cli, Running, environment, find_tool, free_port, started, stop, wait_for

HOSTS = 20
INTERVAL_SECONDS = 1.0
LIMIT_SECONDS = 2.0
"""Of each step on the way to a host, and of each reading of the inventory."""

_ADDRESSES = 3 * HOSTS  # a host may move to an address that nobody knows yet
_START_SECONDS = 30.0
_HEALTH_SECONDS = 3.0
_SHIFT_SECONDS = 2 * 86_400 + 0.37
_DISK_BYTES = 4 * 1024**2
_FEW_DESCRIPTORS = 16

Settings = dict[str, dict[str, Any]]
"""A configuration by section."""


def name_of(number: int) -> str:
    """Returns what a host is called."""
    return f"h{number:02}"


ALL = [name_of(number) for number in range(HOSTS)]


# --- hosts and the lines to them -------------------------------------------------------------------------------------


class Switchboard:
    """Lines to the simulated hosts, each of which can be cut. A context manager.

    Args:
        target_port: of the hosts.

    Attributes:
        port: where it takes connections for the hosts, at their addresses.
    """

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._open: dict[int, set[asyncio.StreamWriter]] = defaultdict(set)
        self._loop = asyncio.new_event_loop()
        self._is_over = asyncio.Event()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> "Switchboard":
        self._thread.start()
        assert self._is_up.wait(_START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()
        self._loop.close()

    def cut(self, numbers: Collection[int]) -> None:
        """Ends the connections to hosts, as a router that has lost its table does."""
        asyncio.run_coroutine_threadsafe(self._cut(numbers), self._loop).result(_START_SECONDS)

    async def _cut(self, numbers: Collection[int]) -> None:
        for number in numbers:
            for writer in self._open[number]:
                writer.transport.abort()

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            servers = [
                await asyncio.start_server(partial(self._connected, group, number), address_of(number), self.port)
                for number in range(_ADDRESSES)
            ]
            self._is_up.set()
            await self._is_over.wait()
            for server in servers:
                server.close()
            await self._cut(list(self._open))

    async def _connected(
        self, group: asyncio.TaskGroup, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            from_host, to_host = await asyncio.open_connection(address_of(number), self._target_port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, to_host}
        self._open[number] |= ends
        for source, sink in ((reader, to_host), (from_host, writer)):
            passing = group.create_task(_pass_on(source, sink))
            passing.add_done_callback(lambda _task: self._open[number].difference_update(ends))


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    sink.close()


@contextmanager
def _simulated(folder: Path, home: Path) -> Iterator[int]:
    """Starts the hosts; returns their port."""
    port = free_port("0.0.0.0")  # noqa: S104 - it is at every loopback address
    command = [sys.executable, "-m", "fleetmem", "lab", "simulate", "--hosts", str(_ADDRESSES), "--processes", "10"]
    with (folder / "hosts.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--dir", str(folder / "hosts")],
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for("the hosts are there", lambda: "Ctrl-C" in (folder / "hosts.log").read_text(), _START_SECONDS)
        yield port
    finally:
        stop(process)


# --- the scene -------------------------------------------------------------------------------------------------------


class Scene:
    """`fleetmem run` and all that it works with.

    Attributes:
        folder: for files.
        home: of who runs it.
        key: that all hosts let in.
        lines: to the hosts.
        statsd: gets everything; what comes there is known also while the disk is full.
        settings: the configuration; what breaks may change it before the start.
        hosts: the inventory, by number.
        variables: of the environment.
        wrapper: words in front of the command.
    """

    def __init__(self, folder: Path, lines: Switchboard, statsd: UdpReceiver) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.key = folder / "hosts" / "key"
        self.lines = lines
        self.statsd = statsd
        self.config = folder / "fleetmem.toml"
        self.inventory = folder / "hosts.json"
        self.records = folder / "memory.jsonl"
        self.health = f"127.0.0.1:{free_port()}"
        self.hosts = [{"name": name_of(number), "address": address_of(number)} for number in range(HOSTS)]
        self.variables: dict[str, str] = {}
        self.wrapper: list[str] = []
        limits = {f"{step}_timeout_seconds": LIMIT_SECONDS for step in ("connect", "login", "command")}
        self.settings: Settings = {
            "inventory": {
                "sources": [f"json:{self.inventory}"],
                "refresh_seconds": 1,
                "timeout_seconds": LIMIT_SECONDS,
            },
            "ssh": {"user": "fleetmem", "port": lines.port, "key": [str(self.key)], "config_file": "none", **limits},
            "statsd": {"server": [statsd.address]},
            "file": {"path": str(self.records), "rotate_size": 0},
            "run": {"interval_seconds": INTERVAL_SECONDS, "health_listen": self.health},
        }
        self.settings["ssh"]["host_keys"] = "insecure"
        self._running: Running | None = None

    @property
    def running(self) -> Running:
        """The process."""
        assert self._running
        return self._running

    def write_inventory(self) -> None:
        """Writes the hosts."""
        write_whole(self.inventory, json.dumps(self.hosts))

    def configuration(self) -> str:
        """Returns the configuration as text. JSON's texts, numbers, lists and truth values are TOML's, too."""
        sections = ((name, values) for name, values in self.settings.items() if values)
        return "\n".join(
            f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
            for name, values in sections
        )

    def set(self, section: str, **values: Any) -> None:
        """Sets values of the configuration, before the start."""
        self.settings[section] = self.settings.get(section, {}) | values

    @contextmanager
    def run(self) -> Iterator[Running]:
        """Starts it."""
        write_whole(self.config, self.configuration())
        self.write_inventory()
        with Cli(self.home, self.variables, self.wrapper).run("-c", self.config) as self._running:
            yield self._running

    def is_healthy(self) -> bool:
        """Whether the health page says so."""
        try:
            with urllib.request.urlopen(f"http://{self.health}/healthz", timeout=_HEALTH_SECONDS) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def descriptors(self) -> int:
        """Returns how many files it has open."""
        return len(list(Path(f"/proc/{self.running.pid}/fd").iterdir()))

    def threads(self) -> int:
        """Returns how many threads it has."""
        return len(list(Path(f"/proc/{self.running.pid}/task").iterdir()))

    def ups(self, start: int = 0) -> dict[str, list[bool]]:
        """Returns whether each outcome of each host was good, as StatsD has them, from that datagram on."""
        names = {str(host["name"]).replace(".", "_"): str(host["name"]) for host in self.hosts}
        found: dict[str, list[bool]] = {name: [] for name in names.values()}
        for datagram in self.statsd.datagrams[start:]:
            for line in datagram.decode().splitlines():
                path, _colon, value = line.partition(":")
                parts = path.split(".")
                if parts[1] == "host" and parts[-1] == "up":
                    found[names[parts[2]]].append(value == "1|g")
        return found

    def written(self) -> list[dict[str, Any]]:
        """Returns what its file holds."""
        return [json.loads(line) for line in self.records.read_text().splitlines()]


def write_whole(path: Path, text: str) -> None:
    """Writes a file as an editor does: whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Starts what `fleetmem run` works with."""
    with ExitStack() as stack:
        (folder / "home").mkdir()
        hosts_port = stack.enter_context(_simulated(folder, folder / "home"))
        lines = stack.enter_context(Switchboard(hosts_port))
        yield Scene(folder, lines, stack.enter_context(started(UdpReceiver())))


# --- resources -------------------------------------------------------------------------------------------------------


class Resource:
    """One thing that breaks. A context manager: nothing of it is left.

    Args:
        scene: to which it belongs; its settings are changed before the start.
        mode: how it breaks, where there are several ways.

    Attributes:
        dependents: numbers of the hosts that may fail while it is broken.
        is_other_user: whether somebody else than root runs fleetmem.
        is_file_written: whether the file of outcomes is written while it is broken.
        is_page_up: whether the health page answers meanwhile.
    """

    dependents: Collection[int] = ()
    is_other_user = False
    is_file_written = True
    is_page_up = True

    def __init__(self, scene: Scene, mode: str = "") -> None:
        self.scene = scene
        self.mode = mode
        self.stack = ExitStack()

    def __enter__(self) -> "Resource":
        with self.stack:
            self._prepare()
            self._kept = self.stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
        self._kept.close()

    def break_(self) -> None:
        """Breaks it, and lets fleetmem need it."""
        self._break()

    def heal(self) -> None:
        """Mends it."""
        self._heal()

    def check(self) -> None:
        """Checks what else must be so in the end."""
        self._check()

    def _prepare(self) -> None:
        """Makes it, and says so in the settings."""

    def _break(self) -> None:
        raise NotImplementedError

    def _heal(self) -> None:
        raise NotImplementedError

    def _check(self) -> None:
        """Checks nothing."""

    def cut_dependents(self) -> None:
        """Lets hosts log in again."""
        self.scene.lines.cut(self.dependents)


class SshAgent(Resource):
    """An agent that takes connections and answers nothing. Hosts 10 to 19 have a key file."""

    dependents = range(10)

    def _prepare(self) -> None:
        path = self.scene.folder / "agent"
        command = [find_tool("ssh-agent"), "-D", "-a", str(path)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.stack.callback(stop, self._process)
        self.stack.callback(self._heal)
        wait_for("the agent listens", path.is_socket)
        Agent(path, self.scene.home).add(self.scene.key)
        self.scene.variables["SSH_AUTH_SOCK"] = str(path)
        self.scene.set("ssh", key=[])
        for host in self.scene.hosts[10:]:
            host["key"] = str(self.scene.key)

    def _break(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        self.cut_dependents()

    def _heal(self) -> None:
        self._process.send_signal(signal.SIGCONT)


def spoil(path: Path, mode: str) -> None:
    """Puts something else in the place of a file."""
    path.unlink()
    if mode == "fifo":
        os.mkfifo(path)
    elif mode == "endless":
        path.symlink_to("/dev/zero")
    elif mode == "garbage":
        path.write_bytes(b"\0\xff[[ = \n" * 100)
    elif mode == "folder":
        path.mkdir()
    else:
        assert mode == "removed"


def restore(path: Path, data: bytes) -> None:
    """Puts a file in its place again."""
    with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
        path.unlink()
    if path.is_dir():
        path.rmdir()
    path.write_bytes(data)
    path.chmod(0o600)


class KeyFile(Resource):
    """The key of half of the hosts, which log in again while it is not there; and the inventory names it anew."""

    dependents = range(10)

    def _prepare(self) -> None:
        self._path = self.scene.folder / "other_key"
        self._data = self.scene.key.read_bytes()
        restore(self._path, self._data)
        self.stack.callback(self._heal)
        self._times = 0
        for number in self.dependents:
            self.scene.hosts[number]["key"] = str(self._path)

    def _break(self) -> None:
        spoil(self._path, self.mode)
        self._change_inventory()
        self.cut_dependents()

    def _change_inventory(self) -> None:
        self._times += 1
        for number in self.dependents:
            self.scene.hosts[number]["user"] = "fleetmem" if self._times % 2 else "somebody"
        self.scene.write_inventory()

    def _heal(self) -> None:
        restore(self._path, self._data)
        if self._times:
            self.scene.write_inventory()


class ReloadedFile(Resource):
    """A file that SIGHUP reads."""

    def _path(self) -> Path:
        return self.scene.config

    def _break(self) -> None:
        self._data = self._path().read_bytes()
        spoil(self._path(), self.mode)
        self.stack.callback(restore, self._path(), self._data)
        self.scene.running.signal(signal.SIGHUP)

    def _heal(self) -> None:
        restore(self._path(), self._data)
        self.scene.running.signal(signal.SIGHUP)


class SshConfiguration(ReloadedFile):
    """The ssh configuration, which all hosts are reached by."""

    def _prepare(self) -> None:
        path = self._path()
        path.write_text("Host *\n    ServerAliveInterval 15\n")
        self.scene.set("ssh", config_file=str(path))

    def _path(self) -> Path:
        return self.scene.folder / "ssh_config"


class KnownHosts(Resource):
    """The file of known hosts, when hosts come at addresses that are not in it: locked by somebody, or a FIFO."""

    dependents = range(5)

    def _prepare(self) -> None:
        self._path = self.scene.folder / "known_hosts"
        self._path.write_bytes(b"")
        self._moves = 0
        self._lock: int | None = None
        self._data = b""
        self.stack.callback(self._mend)
        self.scene.set("ssh", host_keys="accept-new", known_hosts=str(self._path))

    def _break(self) -> None:
        self._data = self._path.read_bytes()
        if self.mode == "locked":
            self._lock = os.open(self._path, os.O_RDWR)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        else:
            spoil(self._path, self.mode)
        self._moves += 1
        for number in self.dependents:
            self.scene.hosts[number]["address"] = address_of(number + self._moves * HOSTS)
        self.scene.write_inventory()

    def _heal(self) -> None:
        self._mend()

    def _mend(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        elif self._data:
            restore(self._path, self._data)


class InventoryProgram(Resource):
    """A program that hangs, prints what nobody can read, or prints for ever."""

    def _prepare(self) -> None:
        program, self._mode_file = self.scene.folder / "inventory", self.scene.folder / "mode"
        self._mode_file.write_text("good")
        program.write_text(
            f"#!/bin/sh\ncase $(cat {self._mode_file}) in\n"
            f"good) cat {self.scene.inventory} ;;\nhangs) sleep 1000 ;;\ngarbage) echo '[{{]' ;;\n"
            "endless) exec cat /dev/zero ;;\nesac\n"
        )
        program.chmod(0o755)
        self.scene.set("inventory", sources=[f"command:{program}"])

    def _break(self) -> None:
        write_whole(self._mode_file, self.mode)

    def _heal(self) -> None:
        write_whole(self._mode_file, "good")


class InventoryServer(Resource):
    """An HTTP server that answers nothing, a byte now and then, or 500."""

    def _prepare(self) -> None:
        self._is_broken = threading.Event()
        self._is_over = threading.Event()
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.stack.callback(server.server_close)
        self.stack.callback(thread.join)
        self.stack.callback(server.shutdown)
        self.stack.callback(self._is_over.set)
        for host in self.scene.hosts:
            host["name"] = host["address"]  # targets have no other name
        self.scene.set("inventory", sources=[f"http_sd:http://127.0.0.1:{server.server_port}/targets"])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        broken, over, mode, scene = self._is_broken, self._is_over, self.mode, self.scene

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answers with the hosts, or as it is told."""
                if broken.is_set() and mode == "500":
                    self.send_error(500)
                    return
                while broken.is_set() and mode == "hangs" and not over.wait(0.05):
                    continue
                groups = [{"targets": [host["address"]], "labels": {}} for host in scene.hosts]
                body = json.dumps(groups).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                while broken.is_set() and mode == "drips" and body and not over.wait(0.2):
                    self.wfile.write(body[:1])
                    self.wfile.flush()
                    body = body[1:]
                self.wfile.write(body)

            def handle(self) -> None:
                """Answers, as long as the other side is there."""
                with suppress(OSError):
                    super().handle()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        return Handler

    def _break(self) -> None:
        self._is_broken.set()

    def _heal(self) -> None:
        self._is_broken.clear()


class NameServer(Resource):
    """A name server that hears nothing. Hosts 0 to 9 are known by name."""

    dependents = range(10)

    def _prepare(self) -> None:
        if os.getuid() != 0:
            pytest.skip("only root can have a name server and a resolv.conf of its own")
        self._is_silent = threading.Event()
        self._is_over = threading.Event()
        address = f"127.77.{secrets.randbelow(250)}.{1 + secrets.randbelow(250)}"
        sock = self.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((address, 53))
        sock.settimeout(0.05)
        thread = threading.Thread(target=self._serve, args=(sock,))
        thread.start()
        self.stack.callback(thread.join)
        self.stack.callback(self._is_over.set)
        resolv, nsswitch = self.scene.folder / "resolv.conf", self.scene.folder / "nsswitch.conf"
        resolv.write_text(f"nameserver {address}\noptions timeout:1 attempts:2\n")
        nsswitch.write_text("hosts: files dns\n")
        mounts = f"mount --bind {resolv} /etc/resolv.conf && mount --bind {nsswitch} /etc/nsswitch.conf"
        self.scene.wrapper = [find_tool("unshare"), "--mount", "/bin/sh", "-c", f'{mounts} && exec "$@"', "sh"]
        if subprocess.run([*self.scene.wrapper, "true"], check=False, capture_output=True).returncode:
            pytest.skip("mount namespaces are not permitted here")
        for number in self.dependents:
            self.scene.hosts[number]["address"] = f"{name_of(number)}.example.com"

    def _serve(self, sock: socket.socket) -> None:
        while not self._is_over.is_set():
            with suppress(TimeoutError):
                question, sender = sock.recvfrom(512)
                if not self._is_silent.is_set():
                    sock.sendto(_answer(question), sender)

    def _break(self) -> None:
        self._is_silent.set()
        self.cut_dependents()

    def _heal(self) -> None:
        self._is_silent.clear()


def _answer(question: bytes) -> bytes:
    """Returns what a name server answers (RFC 1035): the address of a host, to a question for A; else none."""
    labels, at = [], 12
    while size := question[at]:
        labels.append(question[at + 1 : at + 1 + size].decode())
        at += 1 + size
    kind = struct.unpack(">H", question[at + 1 : at + 3])[0]
    found = labels[0] in ALL and kind == 1
    head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, int(found), 0, 0)
    answer = b""
    if found:
        address = socket.inet_aton(address_of(ALL.index(labels[0])))
        answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + address
    return head + question[12 : at + 5] + answer


class Threads(Resource):
    """No thread and no process may be started (RLIMIT_NPROC), as a user of its own: it does not bind root."""

    dependents = range(5)
    is_other_user = True
    is_page_up = False

    def _prepare(self) -> None:
        if os.getuid() != 0:
            pytest.skip("only root can be somebody else")
        uid = 50_000 + secrets.randbelow(10_000)
        for path in (self.scene.folder, *self.scene.folder.rglob("*")):
            os.chown(path, uid, uid)
        words = [f"--re{kind}id={uid}" for kind in ("u", "g")]
        self.scene.wrapper = [find_tool("setpriv"), *words, "--clear-groups"]
        can = [*self.scene.wrapper, sys.executable, "-c", "import fleetmem.cli"]
        if subprocess.run(can, check=False, capture_output=True).returncode:
            pytest.skip("another user can not read this checkout")

    def _break(self) -> None:
        limits = Path(f"/proc/{self.scene.running.pid}/limits").read_text()
        self._before = next(line.split()[3] for line in limits.splitlines() if line.startswith("Max processes"))
        self._limit("0")
        self.cut_dependents()

    def _heal(self) -> None:
        self._limit(self._before)

    def _limit(self, soft: str) -> None:
        words = ["prlimit", "--pid", str(self.scene.running.pid), f"--nproc={soft}:"]  # root may not in a container
        subprocess.run([*self.scene.wrapper, *words], check=True)


class Descriptors(Resource):
    """No more file may be opened; what is open stays so."""

    dependents = range(10)
    is_page_up = False

    def _prepare(self) -> None:
        self._before: tuple[int, int] | None = None

    def _break(self) -> None:
        pid = self.scene.running.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        self._before = self._before or before
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_FEW_DESCRIPTORS, before[1]))
        self.cut_dependents()

    def _heal(self) -> None:
        if self._before:
            resource.prlimit(self.scene.running.pid, resource.RLIMIT_NOFILE, self._before)


_SHIFTED_CLOCK = """\
import mmap, os, struct, time
_file = os.open({path!r}, os.O_RDONLY)
_shift, _real = mmap.mmap(_file, 8, prot=mmap.PROT_READ), time.time
os.close(_file)
time.time = lambda: _real() + struct.unpack("d", _shift)[0]
time.time_ns = lambda: int(time.time() * 1e9)
"""


class WallClock(Resource):
    """The wall clock jumps two days ahead, and back, while carbon is away; the monotonic clock goes on as it does.

    It is Python's that jumps, by a `sitecustomize` of the process: libfaketime makes sleeps fail with EINVAL.
    """

    def _prepare(self) -> None:
        self._shift = self.scene.folder / "shift"
        self._shift.write_bytes(struct.pack("d", 0.0))
        modules = self.scene.folder / "modules"
        modules.mkdir()
        (modules / "sitecustomize.py").write_text(_SHIFTED_CLOCK.format(path=str(self._shift)))
        self.scene.variables["PYTHONPATH"] = str(modules)
        self.scene.set("graphite", server=f"127.0.0.1:{free_port()}", spool_dir=str(self.scene.folder / "spool"))

    def _set(self, seconds: float) -> None:
        with self._shift.open("r+b", buffering=0) as file:
            file.write(struct.pack("d", seconds))

    def _break(self) -> None:
        self._set(_SHIFT_SECONDS)

    def _heal(self) -> None:
        self._set(0)

    def _check(self) -> None:
        last = [line for line in self.scene.written() if "collector" in line][-1]["counters"]
        dropped = {name: value for name, value in last.items() if "dropped" in name and value}
        assert not dropped, dropped
        assert [path.name for path in self.scene.folder.glob("memory*")] == [self.scene.records.name], "it was rotated"


class Disk(Resource):
    """The disk with the file of outcomes, the spool and the state is full."""

    is_file_written = False

    def _prepare(self) -> None:
        if os.getuid() != 0:
            pytest.skip("only root can mount a disk")
        folder = self.scene.folder / "disk"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("mounts are not permitted here")
        self.stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        self._filler = folder / "filler"
        self.scene.records = folder / "memory.jsonl"
        self.scene.set("file", path=str(self.scene.records))
        self.scene.set("graphite", server=f"127.0.0.1:{free_port()}", spool_dir=str(folder / "spool"))
        self.scene.set("run", state_dir=str(folder / "state"))

    def _break(self) -> None:
        with suppress(OSError), self._filler.open("wb", buffering=0) as filler:
            while filler.write(b"\0" * 4096):
                continue

    def _heal(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextmanager
def folder_for(kind: type[Resource], tmp_path: Path) -> Iterator[Path]:
    """Returns a folder; where another user runs fleetmem, one that is open to them, as pytest's own are not."""
    if not kind.is_other_user:
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="fleetmem-test-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)
