"""The lab as a whole: up, down.

    hosts  <──SSH──  fleetmem  ──UDP──>  StatsD  ──TCP──>  carbon ──> whisper files <── graphite-web

Each box is a process of its own. Each is recorded before the next one is started, so that `down` finds it whatever
happens in between.
"""

import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fleetmem.errors import UsageError
from fleetmem.lab import graphite, host, statsd
from fleetmem.lab.access import make_keys, write_files
from fleetmem.lab.addresses import bind_datagrams, free_ports, is_answering, listen_on_own_addresses
from fleetmem.lab.directory import Directory
from fleetmem.lab.namespace import find_namespace
from fleetmem.lab.process import Command, Limit, Process, stop
from fleetmem.lab.render import GraphiteRender
from fleetmem.lab.state import LabProcess, State, read_state

_START_SECONDS = 60.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LocalLabPlan:
    """What to start.

    Attributes:
        hosts: how many.
        interval_seconds: StatsD's flush interval and whisper's step.
        limit: when it all ends by itself.
        is_hosts_only: whether StatsD and Graphite are left out.
    """

    hosts: int
    interval_seconds: int
    limit: Limit
    is_hosts_only: bool = False


class Lab:
    """A lab that this process starts, watches and stops; as a context manager, it is up inside.

    Args:
        directory: where it keeps its things.
        plan: what to start.
        report: told what is being done.
    """

    def __init__(self, directory: Directory, plan: LocalLabPlan, report: Callable[[str], None]) -> None:
        self.directory = directory
        self.state = State(plan.interval_seconds, hosts=[], port=None, is_isolated=False)
        self._plan = plan
        self._report = report
        self._processes: list[Process] = []

    def start(self) -> None:
        """Starts it; what was started is stopped again when that fails.

        Raises:
            UsageError: it is up already.
            LabError: something does not start; with the end of its log.
        """
        if not Path("/proc/self/stat").exists():
            raise UsageError("the lab needs Linux: its hosts are measured by their /proc")
        self.directory.make()
        with self.directory.locked():
            clear_stale(self.directory)
            try:
                self._start_all()
            except BaseException:
                self.stop()
                raise

    def _start_all(self) -> None:
        servers = None if self._plan.is_hosts_only else self._start_graphite()
        addresses = self._start_hosts()
        if servers:
            self._start_statsd(servers.line_port)
            self._wait_for_graphite(servers)
        write_files(self.directory, self.state, addresses)

    def _start_graphite(self) -> graphite.GraphiteServers:
        graphite.install(self.directory, self._report)
        self._report("starting carbon, Graphite, StatsD and the hosts")
        rules = graphite.lab_rules(self._plan.interval_seconds)
        servers = graphite.GraphiteServers(self.directory, rules, free_ports(4))
        self._start(servers.carbon(), f"{_LOOPBACK}:{servers.line_port}")
        servers.prepare_web()
        self._start(servers.web(), f"{_LOOPBACK}:{servers.web_port}")
        self.state.graphite_port = servers.web_port
        return servers

    def _wait_for_graphite(self, servers: graphite.GraphiteServers) -> None:
        carbon, web = self._processes[:2]
        carbon.wait_until(lambda: is_answering(servers.line_port), _START_SECONDS)
        web.wait_until(GraphiteRender(servers.url).is_ready, _START_SECONDS)

    def _start_statsd(self, carbon_port: int) -> None:
        with bind_datagrams() as sock:
            self.state.statsd_port = sock.getsockname()[1]
            arguments = [str(sock.fileno()), str(carbon_port), str(self._plan.interval_seconds)]
            command = self._module("statsd", "statsd", arguments, sock)
            process = self._start(command, f"{_LOOPBACK}:{self.state.statsd_port}/udp")
        process.wait_until(lambda: process.has_logged(statsd.LISTENING), _START_SECONDS)

    def _start_hosts(self) -> list[tuple[str, int]]:
        """Starts the hosts; returns their addresses."""
        keys = make_keys(self.directory, self._plan.hosts)
        namespace = find_namespace()
        with ExitStack() as stack:
            sockets = [stack.enter_context(sock) for sock in listen_on_own_addresses(self._plan.hosts)]
            addresses: list[tuple[str, int]] = [sock.getsockname() for sock in sockets]
            self._name_hosts(addresses, is_isolated=bool(namespace))
            processes = [
                self._start_host(name, sock, key, namespace)
                for name, sock, key in zip(self.state.hosts, sockets, keys, strict=True)
            ]
        for process in processes:
            process.wait_until(lambda started=process: started.has_logged(host.LISTENING), _START_SECONDS)  # type: ignore[misc]
        return addresses

    def _name_hosts(self, addresses: list[tuple[str, int]], *, is_isolated: bool) -> None:
        has_own_addresses = len({address for address, _port in addresses}) == len(addresses)
        self.state.is_isolated = is_isolated
        self.state.port = addresses[0][1] if has_own_addresses else None
        self.state.hosts = [address if has_own_addresses else f"{address}:{port}" for address, port in addresses]

    def _start_host(self, name: str, sock: socket.socket, key: Path, namespace: tuple[str, ...]) -> Process:
        arguments = [str(sock.fileno()), str(key), str(self.directory.authorized_keys)]
        command = self._module("host", f"host-{key.name}", arguments, sock, namespace)
        address = name if self.state.port is None else f"{name}:{self.state.port}"
        return self._start(command, address)

    def _module(
        self, module: str, role: str, arguments: list[str], sock: socket.socket, prefix: tuple[str, ...] = ()
    ) -> Command:
        argv = [*prefix, sys.executable, "-P", "-m", f"fleetmem.lab.{module}", *arguments]
        return Command(role, argv, self.directory.logs / f"{role}.log", descriptors=(sock.fileno(),))

    def _start(self, command: Command, address: str) -> Process:
        process = Process(command, self._plan.limit)
        self._processes.append(process)
        self.state.members.append(LabProcess(command.role, address, process.identity))
        self.state.write(self.directory.state)
        return process

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_why: object) -> None:
        self.stop()

    @property
    def is_whole(self) -> bool:
        """Whether all of it runs."""
        return all(process.is_running for process in self._processes)

    def check(self) -> None:
        """Does nothing while all of it runs.

        Raises:
            LabError: a part ended; with the end of its log.
        """
        for process in self._processes:
            process.check()

    def stop(self) -> None:
        """Stops it; nothing of it is left running.

        Raises:
            LabError: something cannot be stopped.
        """
        stop(member.identity for member in self.state.members)
        for process in self._processes:
            process.reap()
        self._processes.clear()
        self.directory.state.unlink(missing_ok=True)


def clear_stale(directory: Directory) -> None:
    """Removes what is left of a lab that ended without `down`.

    Raises:
        UsageError: it has not ended, it is up.
    """
    state = read_state(directory.state)
    if state is None:
        return
    if state.is_running:
        raise UsageError(
            f"the lab in {directory.path} is up already; `fleetmem lab status` shows it, `lab down` stops it"
        )
    stop(member.identity for member in state.members)
    directory.state.unlink()


def take_down(directory: Directory) -> bool:
    """Stops the lab of a directory, whoever started it; returns whether anything was left to stop.

    Raises:
        LabError: something cannot be stopped.
    """
    if not directory.state.exists():
        return False
    with directory.locked():
        return _take_down(directory)


def _take_down(directory: Directory) -> bool:
    state = read_state(directory.state)
    if state is None:
        return False
    was_there = state.has_leftovers
    stop(member.identity for member in state.members)
    directory.state.unlink(missing_ok=True)
    return was_there
