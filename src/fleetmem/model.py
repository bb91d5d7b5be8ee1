"""The nouns that stages hand to each other: plain, immutable, in bytes and seconds."""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import compress
from operator import ne
from typing import Any, NamedTuple, overload

from fleetmem.errors import Kind, Stage

PROCESS_MEASURES = ("rss_bytes", "vsz_bytes", "mem_percent")
"""The series of a process: the attributes of its row that are stored."""

COMMAND_MEASURES = (*PROCESS_MEASURES, "procs")
"""The series of a command, and of `other`."""

HOST_MEASURES = (
    "up",
    "mem_total_bytes",
    "mem_available_bytes",
    "swap_total_bytes",
    "swap_free_bytes",
    "processes",
    "collect_seconds",
)
"""A host's own series."""


class LeftOut(StrEnum):
    """Why a process has no series of its own."""

    EXCLUDED = "excluded"
    SMALL = "small"
    TOP = "top"
    BUDGET = "budget"


COLLECTOR_MEASURES = (
    "hosts_up",
    "hosts_failed",
    *(f"hosts_failed_{kind}" for kind in Kind),
    "processes",
    *(f"processes_{reason}" for reason in LeftOut),
    "received_bytes",
    "cycle_seconds",
    "host_p50_seconds",
    "host_p99_seconds",
    "host_highest_seconds",
    "late_p50_seconds",
    "late_p99_seconds",
    "late_highest_seconds",
    "cycles_missed_total",
    "handshakes_total",
    "reconnects_total",
    "logins_withheld_total",
    "outcomes_dropped_total",
    "workers",
    "workers_restarted_total",
    "names_kept_apart",
    "inventory_hosts",
    "inventory_failures_total",
    "inventory_stale",
    "cpu_seconds_total",
    "rss_bytes",
    "open_files",
    "threads",
    "tasks",
)
"""The collector's own series."""


@dataclass(frozen=True, slots=True)
class Host:
    """A Linux machine that is sampled.

    Attributes:
        name: what it is called in output and in metric names; unique in an inventory.
        address: what is connected to (a name or an IP address; a name may be an alias of the ssh configuration).
        port: TCP port, or None for the one that configuration says (22 at last).
        user: login name, or None for the one that configuration says.
        key_paths: private keys, where the inventory names them; empty for those that configuration says.
        jump: jump hosts as `[user@]host[:port],...`, `none` for none; None for what configuration says.
        groups: where the inventory has put it. Neither groups nor labels make a host another one: it stays connected
            when they change.
        labels: what else the inventory says of it, an EC2 tag say.
    """

    name: str
    address: str
    port: int | None = None
    user: str | None = None
    key_paths: tuple[str, ...] = ()
    jump: str | None = None
    groups: frozenset[str] = field(default=frozenset(), compare=False)
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)


class ProcessMemory(NamedTuple):
    """One process in one sample. A tuple: thousands are made each cycle.

    Attributes:
        pid: process id on its host.
        uid: real user id, None where unknown.
        command: the kernel's name of it (`comm`), decoded; may be empty or hold any character.
        rss_bytes: resident set size (VmRSS). Shared pages count in every process that maps them.
        vsz_bytes: virtual size (VmSize).
        mem_percent: rss / total memory of the host * 100.
        peak_rss_bytes: highest RSS so far (VmHWM), None where the kernel or probe kind has none.
        anon_bytes: anonymous resident memory (RssAnon, Linux 4.5 and later), None where there is none.
        swap_bytes: swapped-out anonymous memory (VmSwap), None where there is none.
    """

    pid: int
    uid: int | None
    command: str
    rss_bytes: int
    vsz_bytes: int
    mem_percent: float
    peak_rss_bytes: int | None
    anon_bytes: int | None
    swap_bytes: int | None

    @property
    def procs(self) -> int:
        """A process counts as one of its command."""
        return 1


PID_BITS = 24
_PID_MASK = (1 << PID_BITS) - 1


def name_print(pid: int, command: str) -> int:
    """Returns 64 bits that stand for the name of a process' series: its pid, and 40 bits for its command."""
    return hash(command) & ~_PID_MASK | pid & _PID_MASK


def pids_of(names: "array[int]") -> set[int]:
    """Returns the pids in such prints."""
    return {name & _PID_MASK for name in names}


Run = tuple[int, int]
"""Rows of a sample that were in the one before, the same and in the same order: places of the first there and behind
the last; or a row that is new or has changed: NEW and its place in this sample."""

NEW = -1


class Changes(NamedTuple):
    """What is different from the sample before.

    Attributes:
        runs: all rows of this sample, in their order.
        new: places of rows whose names were not there before.
        gone: places, in the sample before, of rows whose names are there no more.
        is_in_place: whether each row that is the same has the place that it had, and there are as many rows as before.
    """

    runs: list[Run]
    new: list[int]
    gone: list[int]
    is_in_place: bool


class RowKeys(NamedTuple):
    """Two numbers for each row of a sample: all that has to be remembered of it to see what is new in the next one.

    Nine of ten rows are what they were. Python's hash of text is keyed by a secret of this run: no host can make two
    rows alike, and by chance two are in 1 of 2**64 comparisons.

    Attributes:
        prints: 64 bits that stand for all of a row.
        names: 64 bits that stand for what its series are called by.
        scale: what else the rows depend on: those of two samples with different ones are all different.
    """

    prints: "array[int]" = array("q")
    names: "array[int]" = array("q")
    scale: int = 0

    def runs_of(self, prints: Sequence[int], scale: int) -> tuple[list[Run], bool]:
        """Returns the rows of the next sample by where they are in this one, and whether all of them are in place."""
        if scale == self.scale and len(prints) == len(self.prints):
            # Mostly no process has come or gone: half the work.
            changed = list(compress(range(len(prints)), map(ne, self.prints, prints)))
            if {self.prints[place] for place in changed}.isdisjoint([prints[place] for place in changed]):
                return _runs_between(changed, len(prints)), True
        return self._runs_by_print(prints, scale), False

    def _runs_by_print(self, prints: Sequence[int], scale: int) -> list[Run]:
        places = dict(zip(self.prints, range(len(self.prints)), strict=True)) if scale == self.scale else {}
        runs: list[Run] = []
        begin = end = 0
        for place, old in enumerate(map(places.get, prints)):
            if old == end:
                end += 1
                continue
            if begin < end:
                runs.append((begin, end))
            if old is None:
                runs.append((NEW, place))
                begin = end = NEW
            else:
                begin, end = old, old + 1
        if begin < end:
            runs.append((begin, end))
        return runs

    def changes_to(self, after: "RowKeys", runs: list[Run] | None = None, *, is_in_place: bool = False) -> Changes:
        """Returns what is different in the next sample.

        Args:
            after: its keys.
            runs: its rows, where they are known already.
            is_in_place: of these runs, as `runs_of` says.
        """
        if runs is None:
            runs, is_in_place = self.runs_of(after.prints, after.scale)
        if after.names == self.names:
            return Changes(runs, [], [], is_in_place)
        fresh = [end for begin, end in runs if begin == NEW]
        left = fresh if is_in_place else self._left_by(runs)  # those that have changed or are gone
        before, now = {self.names[place] for place in left}, {after.names[place] for place in fresh}
        new = [place for place in fresh if after.names[place] not in before]
        return Changes(runs, new, [place for place in left if self.names[place] not in now], is_in_place)

    def _left_by(self, runs: list[Run]) -> list[int]:
        left: list[int] = []
        at = 0
        for begin, end in sorted(runs):
            if begin != NEW:
                left += range(at, begin)
                at = end
        left += range(at, len(self.names))
        return left


def _runs_between(changed: list[int], count: int) -> list[Run]:
    """Returns the runs of so many rows, of which these have changed in place."""
    runs: list[Run] = []
    at = 0
    for place in changed:
        if at < place:
            runs.append((at, place))
        runs.append((NEW, place))
        at = place + 1
    if at < count:
        runs.append((at, count))
    return runs


class ProcessTable(Sequence[ProcessMemory]):
    """The processes of one sample: keys, what has changed, and rows where somebody looks.

    Args:
        keys: see below.
        before: the keys of the sample before.
        changes: from there to here.
        new: rows by place that are made already.
        make: makes all rows.

    Attributes:
        keys: of the rows.
    """

    __slots__ = ("_before", "_changes", "_make", "_new", "_rows", "keys")

    def __init__(
        self,
        keys: RowKeys,
        before: RowKeys,
        changes: Changes,
        new: Mapping[int, ProcessMemory],
        make: Callable[[], tuple[ProcessMemory, ...]],
    ) -> None:
        self.keys = keys
        self._before = before
        self._changes = changes
        self._new = new
        self._make = make
        self._rows: tuple[ProcessMemory, ...] | None = None

    @classmethod
    def of(cls, rows: Sequence[ProcessMemory]) -> "ProcessTable":
        """Returns the table of rows that are there already."""
        if isinstance(rows, ProcessTable):
            return rows
        names = array("q", [name_print(row.pid, row.command) for row in rows])
        keys = RowKeys(array("q", map(hash, rows)), names)
        return cls(keys, keys, Changes([], [], [], is_in_place=True), {}, lambda: tuple(rows))

    def changes_since(self, before: RowKeys) -> Changes:
        """Returns what is different from another sample of the host: mostly the one before, for which it is known."""
        return self._changes if before is self._before else before.changes_to(self.keys)

    @property
    def rows(self) -> tuple[ProcessMemory, ...]:
        """All of them."""
        if self._rows is None:
            self._rows = self._make()
        return self._rows

    def __len__(self) -> int:
        return len(self.keys.prints)

    def __iter__(self) -> Iterator[ProcessMemory]:
        return iter(self.rows)

    def __eq__(self, other: object) -> bool:
        return self.rows == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.rows)

    @overload
    def __getitem__(self, place: int) -> ProcessMemory: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[ProcessMemory, ...]: ...

    def __getitem__(self, place: int | slice) -> ProcessMemory | tuple[ProcessMemory, ...]:
        if isinstance(place, int) and (row := self._new.get(place)):
            return row
        return self.rows[place]


@dataclass(frozen=True, slots=True)
class CommandMemory:
    """All processes of one command on one host, added up. RSS sums count shared pages more than once."""

    command: str
    procs: int
    rss_bytes: int
    vsz_bytes: int
    mem_percent: float


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Memory of a host as `/proc/meminfo` and `/proc/vmstat` tell it; None where the kernel does not say."""

    total_bytes: int
    available_bytes: int | None
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    oom_kills_total: int | None
    boot_id: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one frame means: the host's memory and its processes, in the order of the frame."""

    memory: HostMemory
    processes: Sequence[ProcessMemory]


class Detail(StrEnum):
    """What gets series of its own."""

    PROCESS = "process"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Shaped:
    """A snapshot after filters and limits: what is worth storing.

    Attributes:
        memory: of the host, untouched.
        process_count: processes in the snapshot, before any limit.
        details: which of the two levels there are.
        processes: those kept one by one (detail `process`).
        commands: those kept by command (detail `command`).
        other_processes: the sum of the processes that have no row of their own, so that totals still add up; None when
            all have one.
        other_commands: likewise, beside `commands`.
        left_out: processes without a row of their own at the finest level there is, by reason.
    """

    memory: HostMemory
    process_count: int
    details: frozenset[Detail]
    processes: Sequence[ProcessMemory]
    commands: Sequence[CommandMemory]
    other_processes: CommandMemory | None
    other_commands: CommandMemory | None
    left_out: Mapping[LeftOut, int]

    def __reduce__(self) -> tuple[object, ...]:
        """For another process: rows by columns, which takes a third of the time that an object for each does."""
        columns = tuple(zip(*self.processes, strict=True))
        rest = self.commands, self.other_processes, self.other_commands, self.left_out
        return _shaped, (self.memory, self.process_count, self.details, columns, *rest)


def _shaped(
    memory: HostMemory, process_count: int, details: frozenset[Detail], columns: tuple[Sequence[Any], ...], *rest: Any
) -> Shaped:
    processes = tuple(map(ProcessMemory._make, zip(*columns, strict=True)))
    return Shaped(memory, process_count, details, processes, *rest)


@dataclass(frozen=True, slots=True)
class Sample:
    """The good outcome of a host in a cycle.

    Attributes:
        host: which one.
        taken_unix_seconds: when the host was asked, by the collector's clock.
        collect_seconds: from asking (and connecting, where that was needed) to the parsed frame.
        received_bytes: size of the frame on the wire, before encryption.
        shaped: the data.
    """

    host: Host
    taken_unix_seconds: float
    collect_seconds: float
    received_bytes: int
    shaped: Shaped


@dataclass(frozen=True, slots=True)
class Failure:
    """The other outcome of a host in a cycle: why there is no data."""

    host: Host
    taken_unix_seconds: float
    collect_seconds: float
    stage: Stage
    kind: Kind
    message: str


Outcome = Sample | Failure


class Counter(NamedTuple):
    """One of the collector's own counters.

    Attributes:
        sink: the sink that it is about, empty where it is about the collector.
        measure: what is counted, with its unit, as in docs/metrics.md; ends in `_total` when it only grows.
        value: never negative.
    """

    sink: str
    measure: str
    value: float


@dataclass(frozen=True, slots=True)
class CollectorStats:
    """The collector's own counters at one moment.

    Attributes:
        collector: which collector, as a legal name.
        taken_unix_seconds: when.
        counters: all of them.
    """

    collector: str
    taken_unix_seconds: float
    counters: tuple[Counter, ...]
