"""The nouns that stages hand to each other: plain, immutable, in bytes and seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from fleetmem.errors import Cause, Kind, Stage

INTERVAL_SECONDS = 10.0
"""Between two samples of a host, where nothing else is configured."""


class Measure(StrEnum):
    """What a process can have a series of: an attribute of its row."""

    RSS_BYTES = "rss_bytes"
    VSZ_BYTES = "vsz_bytes"
    MEM_PERCENT = "mem_percent"
    PEAK_RSS_BYTES = "peak_rss_bytes"
    ANON_BYTES = "anon_bytes"
    SWAP_BYTES = "swap_bytes"


PROCESS_MEASURES = ("rss_bytes", "vsz_bytes", "mem_percent")
"""The series of a process, where nothing else is configured."""

MORE_MEASURES = ("peak_rss_bytes", "anon_bytes", "swap_bytes")
"""Those that are sent where they are asked for, and the kernel tells them."""

COMMAND_MEASURES = (*PROCESS_MEASURES, "procs")
"""The series of a command, and of `other`, where nothing else is configured."""


def measures_of_sum(measures: Sequence[str]) -> tuple[str, ...]:
    """Returns the series of a command, and of `other`, where processes have these measures.

    Peaks do not add up: each process had its own at another time.
    """
    return (*(measure for measure in measures if measure != "peak_rss_bytes"), "procs")


HOST_MEASURES = (
    "up",
    "mem_total_bytes",
    "mem_available_bytes",
    "swap_total_bytes",
    "swap_free_bytes",
    "processes",
    "collect_seconds",
    "oom_kills_total",
    "memory_pressure_some_seconds_total",
    "memory_pressure_full_seconds_total",
    "hugetlb_bytes",
)
"""A host's own series; those that its kernel or probe does not tell are not there."""


class LeftOut(StrEnum):
    """Why a process has no series of its own."""

    EXCLUDED = "excluded"
    SMALL = "small"
    TOP = "top"
    BUDGET = "budget"


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
        jump_key_paths: private keys for the last jump host, where the inventory names them.
    """

    name: str
    address: str
    port: int | None = None
    user: str | None = None
    key_paths: tuple[str, ...] = ()
    jump: str | None = None
    groups: frozenset[str] = field(default=frozenset(), compare=False)
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)
    jump_key_paths: tuple[str, ...] = ()


class ProcessMemory(NamedTuple):
    """One process in one sample. A tuple: thousands are made each cycle.

    Attributes:
        pid: process id on its host.
        uid: real user id, None where unknown.
        command: the kernel's name of it (`comm`), decoded; may be empty or hold any character.
        rss_bytes: resident set size (VmRSS). Shared pages count in every process that maps them.
        vsz_bytes: virtual size (VmSize).
        mem_percent: rss / total memory of the host * 100; None where the host does not say how much it has.
        peak_rss_bytes: highest RSS so far (VmHWM), None where the kernel or probe kind has none.
        anon_bytes: anonymous resident memory (RssAnon, Linux 4.5 and later), None where there is none.
        swap_bytes: swapped-out anonymous memory (VmSwap), None where there is none.
        started_unix_seconds: when it was started, whole seconds; None where the probe does not tell.
        hugetlb_bytes: huge pages that it has beside RSS (HugetlbPages), None where it has none.
    """

    pid: int
    uid: int | None
    command: str
    rss_bytes: int
    vsz_bytes: int
    mem_percent: float | None
    peak_rss_bytes: int | None
    anon_bytes: int | None
    swap_bytes: int | None
    started_unix_seconds: int | None = None
    hugetlb_bytes: int | None = None

    @property
    def procs(self) -> int:
        """A process counts as one of its command."""
        return 1


@dataclass(frozen=True, slots=True)
class CommandMemory:
    """All processes of one command on one host, added up. RSS sums count shared pages more than once.

    `anon_bytes` and `swap_bytes` are None where nobody asks for them, or a process has none.
    """

    command: str
    procs: int
    rss_bytes: int
    vsz_bytes: int
    mem_percent: float | None
    anon_bytes: int | None = None
    swap_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Memory of a host as `/proc/meminfo` and `/proc/vmstat` tell it; None where the kernel does not say."""

    total_bytes: int | None
    available_bytes: int | None
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    oom_kills_total: int | None
    boot_id: str | None
    hugetlb_bytes: int | None = None
    pressure: "MemoryPressure | None" = None


class MemoryPressure(NamedTuple):
    """How long processes of a host have waited for memory (PSI), as `/proc/pressure/memory` tells it.

    Attributes:
        some_seconds_total: at least one waited, since boot.
        full_seconds_total: all waited that were not idle.
        some_percent: of the last ten seconds.
        full_percent: the same for all processes with work.
    """

    some_seconds_total: float
    full_seconds_total: float
    some_percent: float
    full_percent: float


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
        other_commands: the sum of the processes whose command has no row in `commands`; None when all have one.
        left_out: processes without a row of their own at the finest level there is, by reason.
        measures: the series that each process has.
    """

    memory: HostMemory
    process_count: int
    details: frozenset[Detail]
    processes: Sequence[ProcessMemory]
    commands: Sequence[CommandMemory]
    other_processes: CommandMemory | None
    other_commands: CommandMemory | None
    left_out: Mapping[LeftOut, int]
    measures: tuple[str, ...] = PROCESS_MEASURES

    def __reduce__(self) -> tuple[object, ...]:
        """For another process: rows by columns, which takes a third of the time that an object for each does."""
        columns = tuple(zip(*self.processes, strict=True))
        rest = self.commands, self.other_processes, self.other_commands, self.left_out, self.measures
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
        slot_unix_seconds: the time of its slot on the grid, which its points carry; the moment of asking where there is
            no grid.
    """

    host: Host
    taken_unix_seconds: float
    collect_seconds: float
    received_bytes: int
    shaped: Shaped
    slot_unix_seconds: float = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Failure:
    """The other outcome of a host in a cycle: why there is no data."""

    host: Host
    taken_unix_seconds: float
    collect_seconds: float
    stage: Stage
    kind: Kind
    message: str
    cause: Cause | None = None
    slot_unix_seconds: float = field(kw_only=True)


Outcome = Sample | Failure


class CounterKind(StrEnum):
    """Whether a counter of the collector only grows, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"


class LabelledName(NamedTuple):
    """What a counter is called where names have labels of their own.

    Attributes:
        name: of several counters.
        label: tells them apart.
        value: of the label.
    """

    name: str
    label: str
    value: str


class DeclaredCounter(NamedTuple):
    """What one of the collector's own counters is.

    Attributes:
        name: with its unit; ends in `_total` where it only grows.
        kind: counter or gauge.
        unit: of its values, for people.
        meaning: one plain sentence without markup.
        page: of the documents that says more; empty for none.
        labelled: what it is called in Prometheus; its own name is an old one there. None where it has one name.
    """

    name: str
    kind: CounterKind
    unit: str
    meaning: str
    page: str = ""
    labelled: LabelledName | None = None


class Counter(NamedTuple):
    """The value of one of the collector's own counters.

    Attributes:
        sink: the sink that it is about, empty where it is about the collector.
        measure: the name that it is declared by in `telemetry.counters`.
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
        taken_unix_seconds: the begin of the cycle that they describe.
        counters: all of them.
        worker_pids: processes that sample, besides the one that reports; None for one that is down.
    """

    collector: str
    taken_unix_seconds: float
    counters: tuple[Counter, ...]
    worker_pids: tuple[int | None, ...] = ()
