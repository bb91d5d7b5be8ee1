"""Thousands of hosts to compare programs on, where as many sshds would not fit: those of `fleetmem lab simulate`.

Each client logs in to a real SSH server and gets the same processes, whether it asks the probe or `ps`. What a host
would spend on that is not known, nor what went over the wire: the clients are measured, and nothing else.
"""

import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import nan
from pathlib import Path
from typing import NamedTuple

from fleet_run import SimulatedFleet


class Way(NamedTuple):
    """How to reach the hosts: straight.

    Attributes:
        port: of all.
    """

    port: int


class SimulatedHosts:
    """Hosts, of which a tenth of the processes changes each time. A context manager: all is gone when it is left.

    Args:
        hosts: how many.
        processes: of each.

    Attributes:
        hosts: their addresses.
        user: who may log in.
        key: private key that may.
        has_own_pids: as each real host would have.
    """

    has_own_pids = True

    def __init__(self, hosts: int, processes: int) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetmem-hosts-")))
        self._stack.enter_context(SimulatedFleet(hosts, processes, churn=0.1, faulty=0).running(folder))
        ssh = tomllib.loads((folder / "fleet" / "fleetmem.toml").read_text())["ssh"]
        self.hosts = (folder / "fleet" / "hosts.txt").read_text().split()
        self.user: str = ssh["user"]
        self.key = Path(ssh["key"][0])
        self._way = Way(ssh["port"])

    def __enter__(self) -> "SimulatedHosts":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """They are there already."""

    def stop(self) -> float:
        """They stay. Returns NaN: nobody knows what they would have cost."""
        return nan

    @contextmanager
    def proxy(self, _round_trip_ms: float) -> Iterator[Way]:
        """Returns the way to them."""
        yield self._way
