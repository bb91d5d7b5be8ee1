"""Tables for people, by rich."""

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleetmem.model import CommandMemory, ProcessMemory
from fleetmem.safe_text import printable
from fleetmem.units import format_share, format_size

NO_NAME = "(no name)"
"""Shown for a process whose name is empty."""

_PIPE_COLUMNS = 120


def print_biggest(biggest: Iterable[tuple[str, ProcessMemory | CommandMemory]], file: TextIO) -> None:
    """Prints hosts and their processes or commands: as wide as the terminal, 120 columns into a pipe."""
    console = Console(file=file)
    if not console.is_terminal:
        console = Console(file=file, width=_PIPE_COLUMNS)
    console.print(_biggest_table(biggest))


def _biggest_table(biggest: Iterable[tuple[str, ProcessMemory | CommandMemory]]) -> Table:
    """Returns a table of hosts and their processes or commands."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("HOST", overflow="fold")
    table.add_column("PID", justify="right")
    table.add_column("COMMAND", overflow="fold")
    for name in ("RSS", "VSZ", "MEM%"):
        table.add_column(name, justify="right", no_wrap=True)
    for host, row in biggest:
        pid = str(row.pid) if isinstance(row, ProcessMemory) else f"({row.procs})"
        sizes = (
            format_size(row.rss_bytes),
            format_size(row.vsz_bytes),
            format_share(row.mem_percent),
        )
        table.add_row(plain(host), pid, plain(row.command or NO_NAME), *sizes)
    return table


def plain(text: str) -> Text:
    """Returns what a host or an inventory says, for a table: without markup, and steering no terminal."""
    return Text(printable(text))
