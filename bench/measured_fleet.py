"""Many hosts to measure on one machine: several measured hosts, each under some addresses of its own, and a proxy.

client ──> 127.x.y.z ──delay_proxy.py──> sshd of a measured_host.py: its own PID namespace, its own processes
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from delay_proxy import DelayProxy
from measured_host import MeasuredHost, make_key

_PROCESSES_PER_HOST = 25
_MOST_HOSTS_PER_MACHINE = 10
_PER_HOST = 3
"""Processes of a connection that are in the frames of its machine: of sshd, a shell, `ps`; the probe has a few more."""


class MeasuredFleet:
    """Hosts, each with about as many processes as asked. A context manager: everything has ended when it is left.

    Hosts share a machine, or nobody could have 500 of them: ten at the most, and fewer where they have few processes,
    as each sees the sessions of the others: a tenth of its rows, give or take.

    Args:
        hosts: how many.
        processes: of each, sessions included.

    Attributes:
        hosts: their addresses.
        user: who may log in.
        key: private key that may.
        has_own_pids: whether only a host's own processes are seen on it.
    """

    def __init__(self, hosts: int, processes: int) -> None:
        self.hosts = [f"127.0.{1 + number // 250}.{1 + number % 250}" for number in range(hosts)]
        per_machine = min(_MOST_HOSTS_PER_MACHINE, max(1, processes // _PROCESSES_PER_HOST), hosts)
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetmem-hosts-")))
        self.key = make_key(folder / "key")
        self._machines: list[MeasuredHost] = []
        for number in range(-(-hosts // per_machine)):
            machine_folder = folder / str(number)
            machine_folder.mkdir()
            machine = MeasuredHost(machine_folder, max(0, processes - _PER_HOST * per_machine), self.key)
            self._machines.append(self._stack.enter_context(machine))
        self.user = self._machines[0].user
        self.has_own_pids = self._machines[0].has_own_pids
        self.start()
        self._idle_seconds = sum(machine.stop() for machine in self._machines)

    def __enter__(self) -> "MeasuredFleet":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Starts sshd everywhere."""
        for machine in self._machines:
            machine.start()

    def stop(self) -> float:
        """Stops it; returns the CPU seconds of all hosts since `start`, without those of a start and a stop.

        Every client has to be disconnected.
        """
        return sum(machine.stop() for machine in self._machines) - self._idle_seconds

    def proxy(self, round_trip_ms: float) -> DelayProxy:
        """Returns a new proxy to all hosts."""
        return DelayProxy([machine.port for machine in self._machines], round_trip_ms)
