"""The Graphite host of a deployment, on this machine: its own files, with other ports and a faster clock.

Its containers cannot be started here. What runs in them can: the same carbon, graphite-web, Node StatsD and nginx read
the same files.
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from fleetmem.lab.graphite import StorageRules, read_rules

from .receivers import CarbonCache, GraphiteWebServer
from .servers import REPOSITORY, TOOLS, USER, Server, find_tool, free_port, is_ready, missing, started

GRAPHITE_FILES = REPOSITORY / "deploy" / "graphite"
HOST_FILES = REPOSITORY / "terraform" / "files"
STEP_SECONDS = 10
"""The finest step, and the flush interval, in the files."""


def rules(step_seconds: int = STEP_SECONDS) -> StorageRules:
    """Returns carbon's rules as the files have them, the finest step aside."""
    found = read_rules(GRAPHITE_FILES)
    return replace(found, schemas=found.schemas.replace(f"{STEP_SECONDS}s:", f"{step_seconds}s:"))


def _changed(text: str, **values: object) -> str:
    """Returns JavaScript with other values; each key must be there, once."""
    for key, value in values.items():
        text, count = re.subn(rf"\b{key}: [^,\n]+", f"{key}: {value}", text)
        assert count == 1, f"{key} is there {count} times"
    return text


class DeployedStatsD(Server):
    """Node's StatsD with the deployment's udp.js."""

    def __init__(self, folder: Path, carbon_port: int, flush_seconds: float = STEP_SECONDS) -> None:
        super().__init__(folder)
        self.port = free_port(kind=socket.SOCK_DGRAM)
        self._changes = {
            "port": self.port,
            "address": '"127.0.0.1"',
            "mgmt_port": free_port(),
            "graphitePort": carbon_port,
            "flushInterval": int(flush_seconds * 1000),
        }

    @property
    def address(self) -> str:
        """As `-g` takes it."""
        return f"127.0.0.1:{self.port}"

    def _prepare(self) -> list[str]:
        script = TOOLS / "node_modules" / "statsd" / "stats.js"
        if not script.is_file():
            missing("Node StatsD")
        path = self.folder / "udp.js"
        path.write_text(_changed((GRAPHITE_FILES / "udp.js").read_text(), **self._changes))
        return [find_tool("node"), str(script), str(path)]

    def _is_up(self) -> bool:
        return is_ready(self.port, socket.SOCK_DGRAM)


class Proxy(Server):
    """nginx with the deployment's proxy.conf, in front of a Graphite."""

    def __init__(self, folder: Path, tls: Path, graphite_port: int) -> None:
        super().__init__(folder)
        self.port, self.grafana_port = free_port(), free_port()
        self._replaced = {
            "/etc/nginx/tls": str(tls),
            "http://graphite:80": f"http://127.0.0.1:{graphite_port}",
            "http://grafana:3000": f"http://127.0.0.1:{graphite_port}",
            "listen 443": f"listen 127.0.0.1:{self.port}",
            "listen 3000": f"listen 127.0.0.1:{self.grafana_port}",
        }

    @property
    def url(self) -> str:
        """Where Graphite is, behind it."""
        return f"https://127.0.0.1:{self.port}"

    def _prepare(self) -> list[str]:
        text = (HOST_FILES / "proxy.conf").read_text()
        for old, new in self._replaced.items():
            assert old in text
            text = text.replace(old, new)
        places = "".join(
            f"{name}_temp_path {self.folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"daemon off;\npid {self.folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{places}{text}\n}}\n"
        )
        return [find_tool("nginx"), "-e", "stderr", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def _is_up(self) -> bool:
        return is_ready(self.port)


class GraphiteHost:
    """All of it, with the files that cloud-init writes to one folder."""

    def __init__(self, folder: Path, step_seconds: int) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.step_seconds = step_seconds
        self.home.mkdir(parents=True)
        for path in HOST_FILES.iterdir():
            shutil.copy(path, self.home)

    def bootstrap(self) -> list[str]:
        """Runs bootstrap.sh; returns what it asked of systemd and Docker, which are not here."""
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        asked = self.folder / "asked"
        asked.unlink(missing_ok=True)
        for name in ("systemctl", "docker"):
            (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{asked}"\n')
            (programs / name).chmod(0o755)
        path = os.pathsep.join([str(programs), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "LOGIN_USER": USER}
        subprocess.run([str(self.home / "bootstrap.sh")], env=environment, stdin=subprocess.DEVNULL, check=True)
        return asked.read_text().splitlines()

    @contextmanager
    def serving(self) -> "Iterator[tuple[CarbonCache, DeployedStatsD, Proxy]]":
        """Starts what runs in its containers."""
        with ExitStack() as stack:
            carbon = stack.enter_context(started(CarbonCache(self.folder / "carbon", rules(self.step_seconds))))
            web = stack.enter_context(started(GraphiteWebServer(self.folder / "web", carbon)))
            statsd = DeployedStatsD(self.folder / "statsd", carbon.line_port, self.step_seconds)
            stack.enter_context(started(statsd))
            proxy = stack.enter_context(started(Proxy(self.folder / "proxy", self.home / "tls", web.port)))
            yield carbon, statsd, proxy
