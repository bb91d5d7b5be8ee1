"""Tables for people: as wide as the screen, one line a row. Only names are cut, and only where they must be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from fleetmem.cli.screen import Screen, Style, screen_of
from fleetmem.cli.wrapping import cut, width_of, wrap
from fleetmem.model import CommandMemory, ProcessMemory, Sample
from fleetmem.safe_text import printable
from fleetmem.units import format_share, format_size

if TYPE_CHECKING:
    from rich.text import Text

NO_NAME = "(no name)"
"""Shown for a process whose name is empty."""

_UNKNOWN = "-"
_NAME_COLUMNS = 24
"""A name need not be shown in more before other columns are."""

_LEAST_NAME_COLUMNS = 6
_WIDE_GAP_COLUMNS = 80
"""Columns of narrower screens stand closer together."""


@dataclass(slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: above it.
        cells: what stands in it, with nothing in it that steers a terminal.
        is_name: its cells begin at the left and may be cut; others end at the right and never are.
        rank: 0 is always shown; of the others the highest goes first where there is no room.
    """

    title: str
    is_name: bool = False
    rank: int = 0
    cells: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        """What it takes to show all of it."""
        return max(map(width_of, (self.title, *self.cells)))


def layout(columns: Sequence[Column], screen: Screen) -> list[str]:
    """Returns a table as lines that fit the screen: its header, then its rows."""
    gap = 2 if screen.columns >= _WIDE_GAP_COLUMNS else 1
    shown = _chosen(columns, screen.columns, gap)
    widths = _widths(shown, screen.columns - gap * (len(shown) - 1))
    lines = []
    for cells in zip(*([column.title, *column.cells] for column in shown), strict=True):
        fitted = [_fit(cell, column, width, screen) for cell, column, width in zip(cells, shown, widths, strict=True)]
        lines.append((" " * gap).join(fitted).rstrip())
    return [screen.paint(lines[0], Style.STRONG), *lines[1:]]


def _chosen(columns: Sequence[Column], room: int, gap: int) -> list[Column]:
    """Returns the columns that there is room for, names in part."""
    shown = list(columns)
    while sum(_wanted(column) for column in shown) + gap * (len(shown) - 1) > room:
        last = max(shown, key=lambda column: column.rank)
        if not last.rank:
            break
        shown.remove(last)
    return shown


def _wanted(column: Column) -> int:
    return min(column.width, _NAME_COLUMNS) if column.is_name else column.width


def _widths(columns: Sequence[Column], room: int) -> list[int]:
    """Returns the width of each column: the widest names give way first."""
    widths = [column.width for column in columns]
    names = [index for index, column in enumerate(columns) if column.is_name]
    while sum(widths) > room and names:
        widest = max(names, key=lambda index: widths[index])
        if widths[widest] <= _LEAST_NAME_COLUMNS:
            break
        second = max((widths[index] for index in names if widths[index] < widths[widest]), default=0)
        most = [index for index in names if widths[index] == widths[widest]]
        excess = -(-(sum(widths) - room) // len(most))
        for index in most:
            less = min(excess, widths[index] - max(second, _LEAST_NAME_COLUMNS), sum(widths) - room)
            widths[index] -= max(0, less)
    return widths


def _fit(cell: str, column: Column, width: int, screen: Screen) -> str:
    if column.is_name:
        shown = cut(cell, width, screen)
        return shown + " " * (width - width_of(shown))
    return " " * (width - width_of(cell)) + cell


@dataclass(slots=True)
class Totals:
    """What a fleet comes to.

    Attributes:
        hosts: that answered.
        rss_bytes: of all processes.
        used_bytes: memory of hosts that is not available.
        total_bytes: memory of these hosts.
    """

    hosts: int = 0
    processes: int = 0
    rss_bytes: int = 0
    used_bytes: int = 0
    total_bytes: int = 0

    def add(self, sample: Sample, rows: Sequence[ProcessMemory | CommandMemory]) -> None:
        """Adds a host with all its rows."""
        self.hosts += 1
        self.processes += sample.shaped.process_count
        self.rss_bytes += sum(row.rss_bytes for row in rows)
        memory = sample.shaped.memory
        if memory.total_bytes and memory.available_bytes is not None:
            self.used_bytes += memory.total_bytes - memory.available_bytes
            self.total_bytes += memory.total_bytes


def biggest_lines(
    biggest: Sequence[tuple[str, ProcessMemory | CommandMemory]], totals: Totals, screen: Screen
) -> list[str]:
    """Returns hosts with their processes or commands, and below them what share of the fleet these are."""
    return [*layout(_biggest_columns(biggest), screen), *foot_lines([row for _host, row in biggest], totals, screen)]


def foot_lines(rows: Sequence[ProcessMemory | CommandMemory], totals: Totals, screen: Screen) -> list[str]:
    """Returns what the rows of a table are of all, and the memory of the hosts."""
    processes, rss_bytes = sum(row.procs for row in rows), sum(row.rss_bytes for row in rows)
    hosts = f"{totals.hosts:,} host{'' if totals.hosts == 1 else 's'}"
    text = (
        f"{processes:,} of {totals.processes:,} processes on {hosts}: "
        f"{format_size(rss_bytes)} of {format_size(totals.rss_bytes)} RSS (shared pages count in each process)."
    )
    if totals.total_bytes:
        text += f" Memory in use: {format_size(totals.used_bytes)} of {format_size(totals.total_bytes)}."
    return wrap(text, screen.columns)


def _biggest_columns(biggest: Sequence[tuple[str, ProcessMemory | CommandMemory]]) -> list[Column]:
    columns = [
        Column("HOST", is_name=True),
        Column("PID"),
        Column("USER", rank=4),
        Column("COMMAND", is_name=True),
        Column("RSS"),
        Column("SWAP", rank=3),
        Column("PEAK", rank=5),
        Column("ANON", rank=6),
        Column("VSZ", rank=2),
        Column("MEM%", rank=1),
    ]
    for host, row in biggest:
        if isinstance(row, ProcessMemory):
            pid, uid, more = str(row.pid), row.uid, (row.swap_bytes, row.peak_rss_bytes, row.anon_bytes)
        else:
            pid, uid, more = f"({row.procs})", None, (None, None, None)
        swap, peak, anon = map(_size, more)
        user = _UNKNOWN if uid is None else str(uid) if uid else "root"
        sizes = format_size(row.rss_bytes), swap, peak, anon, format_size(row.vsz_bytes), format_share(row.mem_percent)
        cells = printable(host), pid, user, printable(row.command or NO_NAME), *sizes
        for column, cell in zip(columns, cells, strict=True):
            column.cells.append(cell)
    return columns


def _size(size_bytes: int | None) -> str:
    return _UNKNOWN if size_bytes is None else format_size(size_bytes)


def print_lines(lines: Sequence[str], file: TextIO) -> None:
    """Prints lines, with a sign in place of each character that the file cannot have."""
    text = "".join(f"{line}\n" for line in lines)
    if not screen_of(file).is_unicode:
        text = text.encode("ascii", "backslashreplace").decode("ascii")
    file.write(text)


def plain(text: str) -> "Text":
    """Returns what a host or an inventory says, for a table of rich: without markup, and steering no terminal."""
    from rich.text import Text  # here: a twentieth of a start without it

    return Text(printable(text))
