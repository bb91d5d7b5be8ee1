"""The figures of `peers.py`: what they are, their table, and where fleetmem is behind. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

from report import number

OURS = "fleetmem"


class Size(NamedTuple):
    """What a figure was measured with."""

    hosts: int
    processes: int
    round_trip_ms: float

    def __str__(self) -> str:
        return f"{self.hosts} hosts, {self.processes} processes, {self.round_trip_ms:g} ms"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one cycle over all hosts takes.

    Attributes:
        wall_seconds: until the command has ended; of a warm cycle of fleetmem, which spreads its hosts over the
            interval, the slowest answer of a host.
        client_cpu_seconds: of the command and all that it starts and leaves behind.
        host_cpu_seconds: of all hosts together; NaN where they are simulated.
        memory_bytes: PSS of the client's processes, the highest sum.
        wire_bytes: TCP's payload in both directions; likewise.
        rows: processes that a host told, on average.
    """

    wall_seconds: float
    client_cpu_seconds: float
    host_cpu_seconds: float
    memory_bytes: int
    wire_bytes: float
    rows: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One program at one size.

    Attributes:
        program: its name.
        size: what it had to do.
        cold: from nothing; None when that failed.
        warm: a further cycle over connections that are there; likewise.
        problem: why a part is missing.
    """

    program: str
    size: Size
    cold: Cost | None
    warm: Cost | None
    problem: str = ""

    def part(self, name: str) -> Cost | None:
        """Returns `cold` or `warm`."""
        return self.cold if name == "cold" else self.warm


class Comparison(NamedTuple):
    """Fleetmem and a peer, one kind of CPU at one size.

    Attributes:
        size: of both.
        part: `cold` or `warm`.
        side: `client` or `host`.
        peer: the other program.
        ours_ms: for each host.
        theirs_ms: likewise.
    """

    size: Size
    part: str
    side: str
    peer: str
    ours_ms: float
    theirs_ms: float

    @property
    def is_ahead(self) -> bool:
        """Whether fleetmem takes less."""
        return self.ours_ms < self.theirs_ms

    def __str__(self) -> str:
        return (
            f"{self.part}, {self.side} CPU, {self.size}: {self.ours_ms:.3g} ms a host, "
            f"{self.peer} {self.theirs_ms:.3g} ({self.ours_ms / self.theirs_ms:.2f})"
        )


def comparisons(figures: Iterable[Figure]) -> list[Comparison]:
    """Returns fleetmem against each peer, for each size, cold and warm, on the client and on the hosts.

    What failed is compared with nothing; `missing` tells it.
    """
    figures = list(figures)
    ours = {figure.size: figure for figure in figures if figure.program == OURS}
    return [
        Comparison(figure.size, part, side, figure.program, *pair)
        for figure in figures
        if figure.program != OURS and figure.size in ours
        for part in ("cold", "warm")
        for side, pair in _pairs_ms(ours[figure.size].part(part), figure.part(part), figure.size.hosts).items()
    ]


def _pairs_ms(ours: Cost | None, theirs: Cost | None, hosts: int) -> dict[str, tuple[float, float]]:
    if not ours or not theirs:
        return {}
    per_host = 1000 / hosts
    pairs = {"client": (ours.client_cpu_seconds * per_host, theirs.client_cpu_seconds * per_host)}
    if not isnan(ours.host_cpu_seconds + theirs.host_cpu_seconds):
        pairs["host"] = (ours.host_cpu_seconds * per_host, theirs.host_cpu_seconds * per_host)
    return pairs


def missing(figures: Iterable[Figure]) -> list[str]:
    """Returns what could not be measured, and why."""
    return [f"{figure.program}, {figure.size}: {figure.problem}" for figure in figures if figure.problem]


def is_ahead_everywhere(figures: Iterable[Figure]) -> bool:
    """Whether fleetmem takes less than every peer, and all of its own figures are there.

    Without anything to compare it is not.
    """
    figures = list(figures)
    compared = comparisons(figures)
    has_ours = all(figure.cold and figure.warm for figure in figures if figure.program == OURS)
    return bool(compared) and has_ours and all(comparison.is_ahead for comparison in compared)


_COLUMNS = ("hosts", "processes", "round trip, ms", "program", "wall, s", "client CPU", "host CPU", "memory, MB", "KB")


def markdown(figures: Iterable[Figure]) -> str:
    """Returns the table, each cell cold / warm: CPU in ms for each host, KB on the wire for each host."""
    lines = [_row(_COLUMNS), _row("---" for _ in _COLUMNS)]
    for figure in figures:
        size = figure.size
        cold, warm = (_cells(figure.part(part), size.hosts) for part in ("cold", "warm"))
        cells = (" / ".join(pair) for pair in zip(cold, warm, strict=True))
        program = f"{figure.program}: {figure.problem}" if figure.problem else figure.program
        lines.append(_row((str(size.hosts), str(size.processes), f"{size.round_trip_ms:g}", program, *cells)))
    return "\n".join(lines)


def _cells(cost: Cost | None, hosts: int) -> tuple[str, ...]:
    if not cost:
        return ("-",) * 5
    return (
        number(cost.wall_seconds),
        number(cost.client_cpu_seconds / hosts * 1000),
        _known(cost.host_cpu_seconds / hosts * 1000),
        f"{cost.memory_bytes / 1_000_000:.0f}",
        _known(cost.wire_bytes / hosts / 1000),
    )


def _known(value: float) -> str:
    return "-" if isnan(value) else number(value)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
