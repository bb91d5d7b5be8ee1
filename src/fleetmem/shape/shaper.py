"""From a snapshot to what is worth storing of it.

filters, groups ──> levels: min_rss ──> top, budget ──> rows
selection.py        levels.py │           │ budget.py
       │ excluded             │ small     │ top, budget
       └──────────────────────┴───────────┴──────────> `other`, counted by reason
"""

from collections.abc import Iterable, Mapping, Sequence

from fleetmem.model import CommandMemory, Detail, Host, LeftOut, ProcessMemory, Shaped, Snapshot
from fleetmem.shape.budget import HostBudget
from fleetmem.shape.levels import CommandLevel, ProcessLevel, sum_of
from fleetmem.shape.limits import Limits
from fleetmem.shape.selection import Selection

OTHER = "other"
"""What the sum of everything left out is called."""


class Shaper:
    """Shapes the snapshots of one host, each in the light of those before: series that are kept tend to stay.

    The sum over the rows of a level and its `other` is the sum over the processes of the host, whatever the limits.

    Args:
        host: whose snapshots they are.
        limits: what is kept of them.
        budget: how many series there may be over time; None is no limit.

    Attributes:
        name_patterns: see `Limits`.
    """

    def __init__(self, host: Host, limits: Limits, budget: HostBudget | None = None) -> None:
        self.name_patterns = limits.name_patterns
        self._selection = Selection(host, limits)
        self._details = limits.details
        self._measures = limits.measures
        self._budget = budget
        self._commands = CommandLevel(limits, budget) if Detail.COMMAND in self._details else None
        self._processes = ProcessLevel(limits, budget) if Detail.PROCESS in self._details else None
        self._boot_id: str | None = None
        self._taken_unix_seconds: float | None = None
        self._clock_seconds = 0.0

    def undecided(self, snapshot: Snapshot) -> list[str]:
        """Returns the commands of a snapshot that meet the rules for the first time.

        `shape` applies the rules to them where nobody has called `decide` before: all at once, however long it takes.
        """
        return self._selection.undecided(snapshot.processes)

    def decide(self, commands: Iterable[str]) -> None:
        """Applies the rules to some of these commands."""
        self._selection.decide(commands)

    def shape(self, snapshot: Snapshot, taken_unix_seconds: float) -> Shaped:
        """Returns what the limits keep of a snapshot that was taken then."""
        clock_seconds = self._turn_clock(taken_unix_seconds)
        is_same_boot = snapshot.memory.boot_id == self._boot_id
        self._boot_id = snapshot.memory.boot_id
        if self._budget and self._budget.ended:
            self._budget.forget_ended(clock_seconds)
        total_bytes = snapshot.memory.total_bytes
        rows: Sequence[ProcessMemory] = snapshot.processes
        excluded: Sequence[ProcessMemory] = ()
        if not self._selection.takes_all:
            rows, excluded = self._selection.split(rows)
        left_out = {LeftOut.EXCLUDED: len(excluded)} if excluded else {}
        processes: Sequence[ProcessMemory] = ()
        commands: Sequence[CommandMemory] = ()
        other_processes = other_commands = None
        if self._commands:
            sums = self._commands.add_up(rows, total_bytes)
            commands, rest = self._commands.keep(sums, clock_seconds, is_same_boot=is_same_boot)
            counts = left_out | {reason: sum([row.procs for row in members]) for reason, members in rest.items()}
            other_commands = self._other(excluded, rest, counts, total_bytes) if counts else None
        if self._processes:
            processes, small = self._processes.keep(rows, clock_seconds, is_same_boot=is_same_boot)
            counts = left_out | {reason: len(members) for reason, members in small.items()}
            other_processes = self._other(excluded, small, counts, total_bytes) if counts else None
        return Shaped(
            memory=snapshot.memory,
            process_count=len(snapshot.processes),
            details=self._details,
            processes=processes,
            commands=commands,
            other_processes=other_processes,
            other_commands=other_commands,
            left_out=counts,
            measures=self._measures,
        )

    def close(self) -> None:
        """Gives the host's share of the fleet's budget back."""
        if self._budget:
            self._budget.close()

    def _turn_clock(self, taken_unix_seconds: float) -> float:
        """Returns seconds since the first sample; a clock that is set back stands still here."""
        if self._taken_unix_seconds is not None:
            self._clock_seconds += max(0.0, taken_unix_seconds - self._taken_unix_seconds)
        self._taken_unix_seconds = taken_unix_seconds
        return self._clock_seconds

    def _other(
        self,
        excluded: Sequence[ProcessMemory],
        left_out: Mapping[LeftOut, Sequence[ProcessMemory | CommandMemory]],
        counts: Mapping[LeftOut, int],
        total_bytes: int | None,
    ) -> CommandMemory:
        rows: list[ProcessMemory | CommandMemory] = [*excluded]
        for members in left_out.values():
            rows += members
        return sum_of(OTHER, rows, sum(counts.values()), total_bytes, self._measures)
