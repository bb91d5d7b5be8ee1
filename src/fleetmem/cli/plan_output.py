"""What `fleetmem plan` prints: hosts, figures and warnings, for people or as one JSON object."""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import TextIO

from fleetmem.capacity.estimate import Capacity
from fleetmem.capacity.load import HostLoad
from fleetmem.cli.screen import Screen, Style, screen_of
from fleetmem.cli.tables import Column, layout, print_lines
from fleetmem.cli.wrapping import wrap
from fleetmem.safe_text import printable

_HOSTS_SHOWN = 20
_LABEL_COLUMNS = 18


class PlanFormat(StrEnum):
    """How a plan is written."""

    TABLE = "table"
    JSON = "json"


HostRow = tuple[str, HostLoad, int]
"""A host's name, what it sends, and how many of its series are new."""


def write_plan(
    capacity: Capacity, hosts: Sequence[HostRow], notes: Sequence[str], format_: PlanFormat, file: TextIO
) -> None:
    """Writes a plan.

    Args:
        capacity: what it comes to.
        hosts: that were asked; none where nobody was.
        notes: what one must know to read it.
        format_: how.
        file: where.
    """
    if format_ is PlanFormat.JSON:
        file.write(json.dumps(_to_json(capacity, hosts, notes), indent=2) + "\n")
        return
    screen = screen_of(file)
    lines = _host_lines(hosts, screen) if hosts else []
    for section in capacity.sections:
        lines.append(screen.paint(section.title, Style.STRONG))
        for figure in section.figures:
            label = f"  {figure.label}".ljust(_LABEL_COLUMNS)
            lines += wrap(figure.text, screen.columns, label, " " * _LABEL_COLUMNS)
    for note in notes:
        lines += wrap(note, screen.columns, "note: ", "      ")
    for warning in capacity.warnings:
        first, *rest = wrap(warning, screen.columns, "warning: ", "         ")
        lines += [screen.paint(first, Style.WARNING), *rest]
    print_lines(lines, file)


def _to_json(capacity: Capacity, hosts: Sequence[HostRow], notes: Sequence[str]) -> dict[str, object]:
    sections = {section.key: {each.key: each.value for each in section.figures} for section in capacity.sections}
    asked = [
        {
            "host": name,
            "processes": load.processes,
            "processes_without_series": load.left_out,
            "series": len(load.names),
            "new_series": new,
        }
        for name, load, new in hosts
    ]
    return {**sections, "hosts_asked": asked, "notes": list(notes), "warnings": capacity.warnings}


def _host_lines(hosts: Sequence[HostRow], screen: Screen) -> list[str]:
    columns = [
        Column("HOST", is_name=True),
        Column("PROCESSES", rank=1),
        Column("IN OTHER", rank=2),
        Column("SERIES"),
        Column("NEW"),
    ]
    ordered = sorted(hosts, key=lambda row: len(row[1].names), reverse=True)
    for name, load, new in ordered[:_HOSTS_SHOWN]:
        figures = load.processes, load.left_out, len(load.names), new
        for column, cell in zip(columns, (printable(name), *(f"{figure:,}" for figure in figures)), strict=True):
            column.cells.append(cell)
    more = len(ordered) - _HOSTS_SHOWN
    return [*layout(columns, screen), *([f"and {more} hosts with fewer series"] if more > 0 else []), ""]
