"""What fleetmem sends to, beside StatsD: carbon, collectd and Prometheus as they are, and sockets that behave as told.

Each is started with `servers.started`, or by its fixture, and keeps its ports while it is stopped and started again.
"""

import http.client
import json
import math
import secrets
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetmem.lab.directory import Directory
from fleetmem.lab.graphite import GraphiteServers, StorageRules, lab_rules
from fleetmem.lab.render import GraphiteRender

from .servers import TOOLS, Server, find_tool, free_port, is_ready, missing, udp_drops

Points = list[tuple[float, float]]
"""Unix seconds and value, oldest first."""

_READ_SECONDS = 150.0
_POLL_SECONDS = 0.02
_CHUNK_BYTES = 65536

# --- carbon ----------------------------------------------------------------------------------------------------------

_WHISPER = """\
import json, pathlib, struct, sys, whisper
root = pathlib.Path(sys.argv[1])
series = {}
for path in root.joinpath(*sys.argv[2:]).rglob("*.wsp"):
    try:
        (start, _end, step), values = whisper.fetch(str(path), 0)
    except (whisper.WhisperException, struct.error):  # carbon is just about to make this file
        continue
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    series[name] = [(start + i * step, value) for i, value in enumerate(values) if value is not None]
json.dump(series, sys.stdout)
"""


class CarbonCache(Server):
    """The carbon-cache of the lab: lines and pickles in, whisper files out.

    What it has written stays while it is stopped.
    """

    def __init__(self, folder: Path, rules: StorageRules | None = None) -> None:
        """For a cache with these rules; without, it keeps one hour, a point per second."""
        super().__init__(folder)
        self.line_port, self.pickle_port, self._query_port = (free_port() for _port in range(3))
        directory = Directory(folder)
        directory.venv = Directory(TOOLS).venv
        self._python = directory.venv / "bin" / "python"
        if not (directory.venv / "bin" / "carbon-cache.py").is_file():
            missing("carbon")
        ports = (self.line_port, self.pickle_port, self._query_port, free_port())  # the last one for GraphiteWebServer
        self.servers = GraphiteServers(directory, rules or lab_rules(1), ports)
        self._carbon = self.servers.carbon()

    def configure(self, **values: object) -> None:
        """Sets values of carbon.conf, for the next start."""
        path = self.folder / "graphite" / "conf" / "carbon.conf"
        kept = [line for line in path.read_text().splitlines() if line.partition(" ")[0] not in values]
        path.write_text("\n".join([*kept, *(f"{name} = {value}" for name, value in values.items())]) + "\n")

    @property
    def line_address(self) -> str:
        """Where it takes lines."""
        return f"127.0.0.1:{self.line_port}"

    @property
    def pickle_address(self) -> str:
        """Where it takes pickles."""
        return f"127.0.0.1:{self.pickle_port}"

    def _prepare(self) -> list[str]:
        return list(self._carbon.argv)

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self._carbon.environment}

    def _is_up(self) -> bool:
        return all(is_ready(port) for port in (self.line_port, self.pickle_port, self._query_port))

    @property
    def whisper(self) -> Path:
        """The folder of its files."""
        return self.folder / "graphite" / "storage" / "whisper"

    def names(self) -> set[str]:
        """Returns the series that it has made files for."""
        paths = (path.relative_to(self.whisper) for path in self.whisper.rglob("*.wsp"))
        return {".".join(path.with_suffix("").parts) for path in paths if path.parts[0] != "carbon"}

    def points(self, below: str = "") -> dict[str, Points]:
        """Returns every point that it has written, by series, its own left out; it writes within a second or two.

        Args:
            below: only series whose path goes on from this one; all of thousands are a second's work.
        """
        command = [str(self._python), "-P", "-c", _WHISPER, str(self.whisper), *below.split(".")]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_READ_SECONDS, check=True
        )
        series: dict[str, list[list[float]]] = json.loads(done.stdout)
        return {
            name: [(seconds, value) for seconds, value in points]
            for name, points in series.items()
            if not name.startswith("carbon.")
        }

    def gauges(self, below: str = "") -> dict[str, float]:
        """Returns the last value of every series, or of those below a path."""
        return {name: points[-1][1] for name, points in self.points(below).items() if points}

    @property
    def bad_lines_seen(self) -> int:
        """Lines that it refused, over all its starts."""
        return self.log().count("invalid line")


class GraphiteWebServer(Server):
    """The graphite-web of the lab, for a carbon-cache: it reads what that has not written yet, too."""

    def __init__(self, folder: Path, carbon: CarbonCache) -> None:
        super().__init__(folder)
        self._servers = carbon.servers
        self.url = self._servers.url
        self.port = self._servers.web_port

    def _prepare(self) -> list[str]:
        self._servers.prepare_web()
        return list(self._servers.web().argv)

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self._servers.web().environment}

    def _is_up(self) -> bool:
        return is_ready(self.port) and GraphiteRender(self.url).is_ready()


# --- collectd --------------------------------------------------------------------------------------------------------


class Collectd(Server):
    """The real collectd with its statsd plugin: each second it writes every gauge that it ever got to a CSV file.

    Values have six decimals. What it held is gone when it is stopped.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port(kind=socket.SOCK_DGRAM)

    @property
    def address(self) -> str:
        """As `-g` takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def _csv(self) -> Path:
        return self.folder / "csv"

    def _prepare(self) -> list[str]:
        program = find_tool("collectd")
        shutil.rmtree(self._csv, ignore_errors=True)
        lines = [
            'Hostname "host"',
            "FQDNLookup false",
            f'BaseDir "{self.folder}"',
            f'PIDFile "{self.folder}/collectd.pid"',
            "Interval 1",
            "LoadPlugin statsd",
            "LoadPlugin csv",
            f'<Plugin statsd>\nHost "127.0.0.1"\nPort "{self.port}"\nDeleteGauges false\n</Plugin>',
            f'<Plugin csv>\nDataDir "{self._csv}"\nStoreRates false\n</Plugin>',
        ]
        root = TOOLS / "root"
        if Path(program).is_relative_to(root):  # only unpacked: it looks for these below /
            lines[:0] = [
                f'PluginDir "{root}/usr/lib/collectd"',
                f'TypesDB "{root}/usr/share/collectd/types.db"',
            ]
        path = self.folder / "collectd.conf"
        path.write_text("\n".join(lines) + "\n")
        return [program, "-f", "-C", str(path)]

    def _is_up(self) -> bool:
        return is_ready(self.port, socket.SOCK_DGRAM)

    def points(self) -> dict[str, Points]:
        """Returns what it wrote for every gauge since it started: the value at the end of each second."""
        found: dict[str, Points] = {}
        for path in sorted((self._csv / "host" / "statsd").glob("gauge-*")):
            name = path.name.removeprefix("gauge-")[: -len("-YYYY-MM-DD")]
            # The first line is a heading; what follows the last line break is not yet written in full.
            rows = [line.split(",") for line in path.read_text().split("\n")[1:-1]]
            found.setdefault(name, []).extend((float(seconds), float(value)) for seconds, value in rows)
        return found

    def gauges(self) -> dict[str, float]:
        """Returns the gauges that it holds, as of the last second."""
        return {name: points[-1][1] for name, points in self.points().items() if points}

    @property
    def bad_lines_seen(self) -> int:
        """Lines that it refused, over all its starts."""
        return self.log().count("Unable to parse line")

    @property
    def drops(self) -> int:
        """Datagrams that the kernel dropped because collectd did not read them in time."""
        return udp_drops(self.port)


# --- Prometheus ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A value of a series.

    Attributes:
        name: of the metric.
        labels: without `job`, and without `instance`, which is the target's address.
        value: number.
    """

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Target:
    """What Prometheus says of a target.

    Attributes:
        health: "up", "down", or "unknown" before the first scrape.
        last_error: why it is down; "" for no reason.
        url: that it scrapes.
    """

    health: str
    last_error: str
    url: str


class Prometheus(Server):
    """The real Prometheus, which scrapes its targets each second. What it scraped stays while it is stopped.

    It takes five seconds to start, as it applies its list of targets that late: rather one with many targets than many.
    """

    def __init__(self, folder: Path, *targets: str, **scrape: object) -> None:
        """For these targets, each an address with its port; and what else is to be in the scrape configuration."""
        super().__init__(folder)
        self.port = free_port()
        self._targets = targets
        self._scrape = scrape

    def _prepare(self) -> list[str]:
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                {
                    "job_name": "fleetmem",
                    **self._scrape,
                    "static_configs": [{"targets": list(self._targets)}],
                }
            ],
        }
        path = self.folder / "prometheus.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        return [
            find_tool("prometheus"),
            f"--config.file={path}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def _is_up(self) -> bool:
        if not is_ready(self.port) or self._get("/-/ready")[0] != http.HTTPStatus.OK:
            return False
        return self.targets().keys() == set(self._targets)

    def query(self, expression: str) -> list[Sample]:
        """Returns what a PromQL expression comes to now: an instant vector."""
        return [
            self._sample(found["metric"], found["value"][1]) for found in self._api("query", query=expression)["result"]
        ]

    def samples(self, target: str) -> list[Sample]:
        """Returns the newest sample of every series of a target; those that Prometheus adds are left out."""
        found = self.query(f'{{instance="{target}"}}')
        return [sample for sample in found if sample.name != "up" and not sample.name.startswith("scrape_")]

    def points(self, selector: str, since: str = "1h") -> list[tuple[Sample, Points]]:
        """Returns every scraped point of the series that match, each series with its newest sample."""
        return [
            (
                self._sample(found["metric"], found["values"][-1][1]),
                [(float(seconds), float(value)) for seconds, value in found["values"]],
            )
            for found in self._api("query", query=f"{selector}[{since}]")["result"]
        ]

    def targets(self) -> dict[str, Target]:
        """Returns how its targets are, by address."""
        return {
            found["labels"]["instance"]: Target(found["health"], found["lastError"], found["scrapeUrl"])
            for found in self._api("targets")["activeTargets"]
        }

    @staticmethod
    def _sample(metric: dict[str, str], value: str) -> Sample:
        labels = {key: text for key, text in metric.items() if key not in ("__name__", "job", "instance")}
        return Sample(metric.get("__name__", ""), labels, float(value))

    def _api(self, path: str, **arguments: str) -> Any:
        status, text = self._get(f"/api/v1/{path}?{urllib.parse.urlencode(arguments)}")
        assert status == http.HTTPStatus.OK, text
        return json.loads(text)["data"]

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_READ_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


# --- sockets that behave as told -------------------------------------------------------------------------------------


class _Thread(ABC):
    """A thread that serves until it is stopped."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _serve(self) -> None:
        """Does its work until `_is_over`, then closes its sockets."""

    def _start(self) -> None:
        assert not self._thread
        self._is_over.clear()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        """Closes its sockets; what it got stays."""
        if self._thread:
            self._is_over.set()
            self._thread.join()
            self._thread = None


class TcpReceiver(_Thread):
    """Accepts every connection, and reads as fast as it is told to.

    Attributes:
        bytes_per_second: how fast, all connections together; 0 for not at all, which a test may change at any time.
        connections_total: accepted so far.
    """

    def __init__(self, bytes_per_second: float = math.inf, *, buffer_bytes: int | None = None) -> None:
        """For a receiver of this pace.

        Args:
            bytes_per_second: as the attribute.
            buffer_bytes: size of the kernel's receive buffer (SO_RCVBUF), small for a sender that is to notice soon;
                the sender's own buffer takes some MB more.
        """
        super().__init__()
        self.bytes_per_second = bytes_per_second
        self.port = free_port()
        self.connections_total = 0
        self._buffer_bytes = buffer_bytes
        self._texts: list[bytearray] = []
        self._open: dict[socket.socket, bytearray] = {}
        self._is_dropping = threading.Event()
        self._has_dropped = threading.Event()

    @property
    def address(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """Connections that neither side has closed, as far as it has read."""
        return len(self._open)

    @property
    def texts(self) -> list[bytes]:
        """What each connection has sent so far, in the order they came in."""
        return [bytes(text) for text in self._texts]

    def lines(self) -> list[str]:
        """Returns the whole lines so far, those of each connection together."""
        return [line.decode() for text in self.texts for line in text.split(b"\n")[:-1]]

    def start(self) -> None:
        """Starts to listen."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        if self._buffer_bytes is not None:  # connections get the listener's
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        self._start()

    def drop_connections(self) -> None:
        """Closes the connections there are; one with data that was not read ends with a reset, as the kernel has it."""
        self._has_dropped.clear()
        self._is_dropping.set()
        assert self._has_dropped.wait(5.0)

    def _serve(self) -> None:
        allowance = 0.0
        before = time.monotonic()
        with self._listener:
            while not self._is_over.is_set():
                if self._is_dropping.is_set():
                    self._close_all()
                    self._is_dropping.clear()
                    self._has_dropped.set()
                now = time.monotonic()
                pace = self.bytes_per_second
                # Unused allowance is not saved up: after a silence it does not read all at once.
                allowance = math.inf if math.isinf(pace) else min(allowance + (now - before) * pace, max(pace / 10, 1))
                before = now
                wanted = [self._listener, *(self._open if allowance >= 1 else ())]
                for sock in select.select(wanted, [], [], _POLL_SECONDS)[0]:
                    if sock is self._listener:
                        self._accept()
                    elif allowance >= 1:
                        allowance -= self._read(sock, int(min(allowance, _CHUNK_BYTES)))
            self._close_all()

    def _accept(self) -> None:
        connection, _peer = self._listener.accept()
        text = bytearray()
        self._texts.append(text)
        self._open[connection] = text
        self.connections_total += 1

    def _read(self, connection: socket.socket, most: int) -> int:
        try:
            data = connection.recv(most)
        except OSError:  # reset by the sender
            data = b""
        if not data:
            del self._open[connection]
            connection.close()
        else:
            self._open[connection] += data
        return len(data)

    def _close_all(self) -> None:
        while self._open:
            self._open.popitem()[0].close()


class _DatagramReceiver(_Thread):
    """Keeps each datagram.

    Attributes:
        datagrams: what came so far, in its order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.datagrams: list[bytes] = []

    def lines(self) -> list[str]:
        """Returns the lines so far; the last one of a datagram need not end."""
        return [line.decode() for datagram in self.datagrams for line in datagram.removesuffix(b"\n").split(b"\n")]

    def gauges(self) -> dict[str, float]:
        """Returns the last value of each gauge; every line must be one."""
        found = {}
        for line in self.lines():
            name, _colon, rest = line.partition(":")
            value, _bar, kind = rest.partition("|")
            assert name, line
            assert kind == "g", line
            found[name] = float(value)
        return found

    @abstractmethod
    def _bind(self) -> socket.socket:
        """Returns its socket."""

    def start(self) -> None:
        """Binds its socket and starts to read."""
        self._socket = self._bind()
        self._socket.settimeout(_POLL_SECONDS)
        self._start()

    def _serve(self) -> None:
        with self._socket:
            while not self._is_over.is_set():
                try:
                    self.datagrams.append(self._socket.recv(_CHUNK_BYTES))
                except TimeoutError:
                    continue


class UdpReceiver(_DatagramReceiver):
    """A UDP socket that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port(kind=socket.SOCK_DGRAM)

    @property
    def address(self) -> str:
        """As `-g` takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def drops(self) -> int:
        """Datagrams that the kernel dropped because they were not read in time."""
        return udp_drops(self.port)

    def _bind(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", self.port))
        return sock


class UnixReceiver(_DatagramReceiver):
    """A Unix datagram socket that keeps what it gets; while it is stopped its path is not there."""

    def __init__(self) -> None:
        super().__init__()
        # Not below pytest's folder: a path has room for 107 bytes (unix(7)).
        self.path = Path(tempfile.gettempdir()) / f"fleetmem-{secrets.token_hex(8)}" / "statsd.sock"

    def _bind(self) -> socket.socket:
        self.path.parent.mkdir(mode=0o700)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(self.path))
        return sock

    def stop(self) -> None:
        """Closes its socket and removes its path; what it got stays."""
        super().stop()
        shutil.rmtree(self.path.parent, ignore_errors=True)
