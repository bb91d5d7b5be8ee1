"""What a lab consists of, as it is recorded in its directory: enough to use it, look at it and stop it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fleetmem.errors import LabError
from fleetmem.lab.directory import write_private
from fleetmem.lab.process import Identity, is_alive, members


@dataclass(frozen=True, slots=True)
class LabProcess:
    """A process of the lab: what it does, where it can be reached, which one it is."""

    role: str
    address: str
    identity: Identity

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return is_alive(self.identity)


@dataclass(slots=True)
class State:
    """A lab.

    Attributes:
        interval_seconds: StatsD's flush interval and whisper's step.
        hosts: as `-i` takes them.
        port: of every host, None where each has its own in `hosts`.
        is_isolated: whether each host has its own PID namespace.
        statsd_port: UDP port, None in a lab of hosts only.
        graphite_port: TCP port of Graphite's web server, None in a lab of hosts only.
        members: the processes.
    """

    interval_seconds: int
    hosts: list[str]
    port: int | None
    is_isolated: bool
    statsd_port: int | None = None
    graphite_port: int | None = None
    members: list[LabProcess] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        """Whether any process of it runs."""
        return any(member.is_running for member in self.members)

    @property
    def has_leftovers(self) -> bool:
        """Whether anything at all is left of its processes, children included."""
        return any(members(member.identity) for member in self.members)

    @property
    def graphite_url(self) -> str | None:
        """Where Graphite's web server is, None in a lab of hosts only."""
        return f"http://127.0.0.1:{self.graphite_port}" if self.graphite_port else None

    def write(self, path: Path) -> None:
        """Records it."""
        write_private(path, json.dumps(asdict(self), indent=2).encode())


def read_state(path: Path) -> State | None:
    """Returns the lab that is recorded in a file, None where there is none.

    Raises:
        LabError: the file is not one of ours.
    """
    try:
        return _decode(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LabError(f"{path} cannot be read ({error}); if no lab runs there, delete it") from error


def _decode(data: dict[str, Any]) -> State:
    decoded = [LabProcess(each["role"], each["address"], Identity(**each["identity"])) for each in data.pop("members")]
    return State(**data, members=decoded)
