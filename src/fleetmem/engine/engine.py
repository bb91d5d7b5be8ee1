"""What samples the part of a fleet that the process of `fleetmem run` does not sample itself.

    Daemon ──share_out, begin, take──> Engine ──> samplers elsewhere: worker processes
       └──ask, reports, stop─────────────┘

The daemon owns what there is once: signals, inventory, own counters, and sinks other than StatsD's. Beside its own
`Sampler` it knows samplers through this protocol alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from fleetmem.sampling.sampler import SamplerSpec
from fleetmem.sampling.schedule import Grid
from fleetmem.telemetry.health import WorkerState
from fleetmem.telemetry.report import Report
from fleetmem.wiring.fleet_spec import FleetSpec


class Work(NamedTuple):
    """A fleet to be sampled, and what whoever samples it has to know.

    Attributes:
        fleet: hosts, and how to reach, ask and shape them.
        grid: the slots of all its hosts.
        generation: of the configuration; the same one where only hosts are different.
        forwards: whether each outcome is wanted here, for sinks that there are once.
        passphrases: of keys that are encrypted.
        log_levels: by logger.
    """

    fleet: FleetSpec
    grid: Grid
    generation: int
    forwards: bool
    passphrases: Mapping[Path, str]
    log_levels: Mapping[str, int]

    def shares(self, count: int) -> list[SamplerSpec]:
        """Returns the shares of so many samplers."""
        shares = self.fleet.shares(count) if count else []
        return [SamplerSpec(share, self.grid.share(share.hosts), self.generation) for share in shares]


class Engine(Protocol):
    """Samples a fleet's hosts elsewhere, and tells how that goes."""

    @property
    def hosts_of_each(self) -> Sequence[int]:
        """How many hosts each of its samplers has; empty where it has none, and all hosts are sampled here."""

    def grid_here(self, grid: Grid) -> Grid:
        """Returns those slots of a fleet that are left for this process."""

    async def run(self) -> None:
        """Keeps its samplers running until `stop`, and until they have delivered all."""

    async def until_ready(self) -> None:
        """Waits until each of them can begin."""

    def begin(self, from_unix_seconds: float) -> None:
        """Lets them sample, with the slots from then on; one that is not ready begins when it is."""

    def take(self, work: Work) -> None:
        """Gives them something else to sample, while they go on."""

    def move(self) -> None:
        """The numbers of cycles have changed, with the clock: what was counted counts now."""

    async def ask(self, wait_seconds: float, until: int | None = None) -> None:
        """Lets them tell how they are, and waits for that; what comes later is in the next report.

        Args:
            wait_seconds: for the answers.
            until: a cycle that they are to tell of in any case.
        """

    def has_told(self, cycle: int) -> bool:
        """Whether nothing more is to be expected of a cycle."""

    def reports(self, until: int) -> list[tuple[WorkerState, Report]]:
        """Returns how each is, and what it has told of cycles up to one."""

    async def stop(self) -> None:
        """Lets them stop; returns when they sample no more, and have sent all outcomes."""

    def kill(self) -> None:
        """Ends at once what still runs."""
