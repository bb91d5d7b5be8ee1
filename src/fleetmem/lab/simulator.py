"""An SSH server that answers as any number of hosts: the simulated fleet.

One listener at every loopback address; the address that a connection was made to says which host it is for.
After a real handshake it takes the probe's command and speaks the probe's protocol, or answers one `ps`, for those who
compare. It does not run what it is sent.
"""

import asyncio
import re
import socket
from contextlib import suppress

from fleetmem.connect.asyncssh_private.pipelined import send_no_decoys
from fleetmem.connect.ssh import asyncssh
from fleetmem.errors import LabError
from fleetmem.lab.access import host_key_line, make_keys
from fleetmem.lab.directory import Directory, write_private
from fleetmem.lab.simulated_host import Fault, SimulatedHost, SimulationPlan
from fleetmem.lab.simulated_probe import SimulatedProbe

MAX_HOSTS = 100_000
PS = "ps -eo pid=,rss=,vsz=,pmem=,comm="
"""What a host answers besides the probe. `ps aux` reads each command line on top: half as much again for a real one."""
_HOSTS_IN_A_NET = 250
_NETS = 250
_FIRST_NET = 1  # 127.0.0.0/16 is everybody's
_BACKLOG = 4096
_SLOW_SECONDS = 2.0
_DROPPED_EACH = 4  # frames
_FLOOD = b"P 1 0 1 1 1 1 0 flood\n" * 1000
_PROBE = "# fleetmem probe"
_PROBE_2 = "# fleetmem probe, protocol 2"
_FIRST_REQUEST = re.compile(r"' (sample \d+ \w+ \w+)$")


def address_of(number: int) -> str:
    """Returns the address of a simulated host: 127.1.0.1 to 127.1.0.250, then 127.1.1.1, and so on."""
    net, place = divmod(number, _HOSTS_IN_A_NET)
    return f"127.{_FIRST_NET + net // _NETS}.{net % _NETS}.{place + 1}"


def number_of(address: str) -> int:
    """Returns which host has an address.

    Raises:
        ValueError: none has.
    """
    _loopback, high, low, place = map(int, address.split("."))
    number = ((high - _FIRST_NET) * _NETS + low) * _HOSTS_IN_A_NET + place - 1
    if number < 0 or address_of(number) != address:
        raise ValueError(address)
    return number


class Simulator:
    """A simulated fleet. A context manager: connections and listener are gone when it is left.

    Args:
        directory: where keys, hosts file and configuration are written.
        plan: what the fleet does.
        port: TCP port, 0 for any that is free.

    Attributes:
        port: where it listens.
        hosts: how many it answers as.
        connections: that are open with a probe in them.
        frames_total: sent so far.
        logins_total: so far.
        doubles_total: requests that came while the host was at work on another: must stay 0.
        crowds_total: connections to a host that had one already: must stay 0.
    """

    def __init__(self, directory: Directory, plan: SimulationPlan, port: int = 0) -> None:
        self.port = port
        self.hosts = plan.hosts
        self.connections = 0
        self.frames_total = self.logins_total = self.doubles_total = self.crowds_total = 0
        self._sessions: dict[int, int] = {}
        self._at_work: set[int] = set()
        self._directory = directory
        self._plan = plan
        self._hosts: dict[int, SimulatedHost] = {}
        self._server: asyncssh.SSHAcceptor | None = None
        self._listener: socket.socket | None = None

    async def __aenter__(self) -> "Simulator":
        """Listens, and writes what is needed to get in.

        Raises:
            LabError: the port is taken, or the directory cannot be written.
        """
        self._directory.make()
        (host_key,) = make_keys(self._directory, 1)
        self._listener = _listen(self.port)
        self.port = self._listener.getsockname()[1]
        self._write_files()
        self._server = await asyncssh.listen(
            sock=self._listener,
            server_factory=lambda: _Server(self),
            server_host_keys=[str(host_key)],
            authorized_client_keys=str(self._directory.authorized_keys),
            encoding=None,
            allow_pty=False,
            line_editor=False,
            agent_forwarding=False,
            gss_host=None,
            login_timeout=60,
            backlog=_BACKLOG,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._server.wait_closed()

    def _write_files(self) -> None:
        addresses = [address_of(number) for number in range(self._plan.hosts)]
        host_key = host_key_line(self._directory)
        known = "".join(f"[{address}]:{self.port} {host_key}\n" for address in addresses)
        write_private(self._directory.hosts_file, "".join(f"{address}\n" for address in addresses).encode())
        write_private(self._directory.known_hosts, known.encode())
        write_private(self._directory.config, self._configuration().encode())

    def _configuration(self) -> str:
        return (
            "# The simulated fleet: fleetmem collect -c THIS_FILE\n"
            f'[inventory]\nhosts = ["@{self._directory.hosts_file}"]\n\n'
            f'[ssh]\nuser = "fleetmem"\nport = {self.port}\nkey = ["{self._directory.key}"]\n'
            f'known_hosts = "{self._directory.known_hosts}"\nhost_keys = "strict"\n'
        )

    def host(self, number: int) -> SimulatedHost:
        """Returns a host; its processes go on over connections."""
        if number not in self._hosts:
            self._hosts[number] = SimulatedHost(self._plan, number)
        return self._hosts[number]

    def add_session(self, number: int) -> None:
        """Counts a connection with a probe in it."""
        others = self._sessions.get(number, 0)
        self._sessions[number] = others + 1
        self.connections += 1
        self.crowds_total += others > 0

    def remove_session(self, number: int) -> None:
        """Counts it no more."""
        self._sessions[number] -= 1
        self.connections -= 1

    def begin(self, number: int) -> None:
        """Counts a request that a host is at work on from now on."""
        self.doubles_total += number in self._at_work
        self._at_work.add(number)

    def end(self, number: int) -> None:
        """Counts that it is done: answered, or given up."""
        self._at_work.discard(number)

    def fault_of(self, number: int) -> Fault | None:
        """Returns what is wrong with a host."""
        return self._plan.fault_of(number)

    def has(self, number: int) -> bool:
        """Whether there is such a host."""
        return number < self._plan.hosts


class _Server(asyncssh.SSHServer):
    """One connection."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._number = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Finds out which host is meant."""
        try:
            self._number = number_of(conn.get_extra_info("sockname")[0])
        except ValueError:
            conn.abort()
            return
        simulator = self._simulator
        if not simulator.has(self._number) or simulator.fault_of(self._number) is Fault.REFUSING:
            conn.abort()

    def session_requested(self) -> "_Session":
        """Serves a channel."""
        self._simulator.logins_total += 1
        return _Session(self._simulator, self._number)


class _Session(asyncssh.SSHServerSession[bytes]):
    """The probe at the other end of a channel."""

    def __init__(self, simulator: Simulator, number: int) -> None:
        self._simulator = simulator
        self._number = number
        self._host = simulator.host(number)
        self._fault = simulator.fault_of(number)
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._buffer = b""
        self._probe: SimulatedProbe | None = None  # where it speaks protocol 2
        self._first = b""
        self._is_ps = False
        self._frames = 0
        self._is_writable = True
        self._is_flooding = False
        self._pending: asyncio.TimerHandle | None = None
        self._is_at_work = False

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """The channel is open."""
        self._channel = chan
        self._simulator.add_session(self._number)
        send_no_decoys(chan.get_connection())  # as OpenSSH

    def exec_requested(self, command: str) -> bool:
        """Takes the probe, of which the first request is the words behind it, and `ps`; nothing else."""
        first = _FIRST_REQUEST.search(command)
        self._first = first[1].encode() if first else b""
        self._is_ps = PS in command
        if _PROBE_2 in command:
            self._probe = SimulatedProbe(self._host)
        return self._is_ps or _PROBE in command

    def session_started(self) -> None:
        """Answers the first request."""
        if self._is_ps and self._channel:
            self._channel.write(self._host.ps())
            self._channel.exit(0)
        elif self._first:
            self._answer(self._first)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Answers requests."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if line != self._first:  # the first request comes again
                self._answer(line)

    def eof_received(self) -> bool:
        """The input has ended: the probe ends with it, but not one that hangs."""
        return self._fault is Fault.SILENT

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed."""
        self._channel = None
        self._simulator.remove_session(self._number)
        self._end()
        if self._pending:
            self._pending.cancel()

    def pause_writing(self) -> None:
        """The collector does not read on."""
        self._is_writable = False

    def resume_writing(self) -> None:
        """It does again."""
        self._is_writable = True
        self._flood()

    def _answer(self, line: bytes) -> None:
        verb, request_id, _kind, _which, *base = line.split(b" ")
        if verb != b"sample":
            return
        self._simulator.begin(self._number)
        self._is_at_work = True
        self._frames += 1
        if self._probe:
            frame = self._probe.frame(int(request_id), int(base[0]) if base else 0)
        else:
            frame = self._host.frame(int(request_id))
        match self._fault:
            case None | Fault.REFUSING:
                self._write(frame)
            case Fault.SLOW:
                self._pending = asyncio.get_running_loop().call_later(_SLOW_SECONDS, self._write, frame)
            case Fault.DROPPING if self._frames % _DROPPED_EACH:
                self._write(frame)
            case Fault.DROPPING:
                self._drop(frame[: len(frame) // 2])
            case Fault.FLOODING:
                self._is_flooding = True
                self._flood()
            case Fault.SILENT:
                pass

    def _end(self) -> None:
        if self._is_at_work:
            self._is_at_work = False
            self._simulator.end(self._number)

    def _write(self, frame: bytes) -> None:
        self._pending = None
        self._end()
        if self._channel:
            with suppress(BrokenPipeError):  # the collector has left, which `connection_lost` will say soon
                self._channel.write(frame)
                self._simulator.frames_total += 1

    def _drop(self, half: bytes) -> None:
        if self._channel:
            with suppress(BrokenPipeError):
                self._channel.write(half)
            self._channel.get_connection().close()

    def _flood(self) -> None:
        """Writes for as long as it is read, a piece at a time: other hosts are to be answered, too."""
        if self._is_flooding and self._is_writable and self._channel:
            with suppress(BrokenPipeError):  # the collector has had enough
                self._channel.write(_FLOOD)
                asyncio.get_running_loop().call_soon(self._flood)


def _listen(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(PermissionError):  # Linux before 5.7, not as root: others are refused when they connect
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")  # no address is all of 127.0.0.0/8
        sock.bind(("", port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise LabError(f"port {port}: {error.strerror}; give another one with --port") from error
    return sock
