"""Detail and limits: one series per process or per command, the biggest, and `other` for the rest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import TypeVar

from fleetmem.model import CommandMemory, Detail, LeftOut, ProcessMemory, Shaped, Snapshot
from fleetmem.units import percent_of

_Row = TypeVar("_Row", ProcessMemory, CommandMemory)

OTHER = "other"
"""What the sum of everything left out is called."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept of a snapshot.

    Attributes:
        detail: a series per process, or one per command.
        top: keep that many per host, the largest by RSS; None keeps all.
        min_rss_bytes: leave out what is smaller.
    """

    detail: Detail = Detail.PROCESS
    top: int | None = None
    min_rss_bytes: int = 0


def shape(snapshot: Snapshot, limits: Limits) -> Shaped:
    """Returns what the limits keep; the sum of the rest is `other`, so that totals still add up."""
    total_bytes = snapshot.memory.total_bytes
    processes: tuple[ProcessMemory, ...] = ()
    commands: tuple[CommandMemory, ...] = ()
    other_processes = other_commands = None
    if limits.detail is Detail.PROCESS:
        processes, small_processes = _keep(snapshot.processes, limits)
        other_processes = _sum(OTHER, small_processes, total_bytes) if small_processes else None
    else:
        commands, small_commands = _keep(_by_command(snapshot.processes, total_bytes), limits)
        other_commands = _sum(OTHER, small_commands, total_bytes) if small_commands else None
    other = other_processes or other_commands
    return Shaped(
        memory=snapshot.memory,
        process_count=len(snapshot.processes),
        details=frozenset({limits.detail}),
        processes=processes,
        commands=commands,
        other_processes=other_processes,
        other_commands=other_commands,
        left_out={LeftOut.SMALL: other.procs} if other else {},
    )


def _keep(rows: tuple[_Row, ...], limits: Limits) -> tuple[tuple[_Row, ...], list[_Row]]:
    """Splits rows into those that the limits keep and those that they leave out."""
    if limits.top is None and not limits.min_rss_bytes:
        return rows, []
    large = [row for row in rows if row.rss_bytes >= limits.min_rss_bytes]
    kept = large if limits.top is None else nlargest(limits.top, large, key=lambda row: row.rss_bytes)
    kept_ids = {id(row) for row in kept}
    return tuple(kept), [row for row in rows if id(row) not in kept_ids]


def _by_command(processes: Iterable[ProcessMemory], total_bytes: int) -> tuple[CommandMemory, ...]:
    groups: dict[str, list[ProcessMemory]] = {}
    for process in processes:
        groups.setdefault(process.command, []).append(process)
    return tuple(_sum(command, members, total_bytes) for command, members in groups.items())


def _sum(command: str, members: Sequence[ProcessMemory | CommandMemory], total_bytes: int) -> CommandMemory:
    rss_bytes = sum(member.rss_bytes for member in members)
    return CommandMemory(
        command=command,
        procs=sum(member.procs for member in members),
        rss_bytes=rss_bytes,
        vsz_bytes=sum(member.vsz_bytes for member in members),
        mem_percent=percent_of(rss_bytes, total_bytes),
    )
