"""Failures of hosts for people: how many, of which kind, which hosts, and what to try. Equal ones stand together."""

import re
from collections import defaultdict
from collections.abc import Sequence

from fleetmem.cli.hints import hint_for
from fleetmem.cli.screen import Screen, Style
from fleetmem.cli.wrapping import wrap
from fleetmem.inventory.folding import folded_text
from fleetmem.model import Failure
from fleetmem.safe_text import printable

_NUMBER_AND_UNIT = re.compile(r"\b\d+(?:\.\d+)? ?(?:s|ms|bytes)\b")
"""What differs from host to host and from second to second in what is the same failure."""

_INDENT = "      "


def failure_lines(failures: Sequence[Failure], hosts: int, screen: Screen) -> list[str]:
    """Returns what failed, the most frequent first; nothing where nothing did.

    Args:
        failures: of hosts.
        hosts: how many there are.
        screen: where it is shown.
    """
    if not failures:
        return []
    groups: dict[tuple[str, str], list[Failure]] = defaultdict(list)
    for failure in failures:
        groups[failure.kind, _NUMBER_AND_UNIT.sub("", failure.message)].append(failure)
    lines = ["", screen.paint(f"{len(failures):,} of {hosts:,} hosts failed:", Style.BAD)]
    for _, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        lines += _group_lines(group, screen)
    return lines


def _group_lines(failures: Sequence[Failure], screen: Screen) -> list[str]:
    first = failures[0]
    names = printable(folded_text(failure.host.name for failure in failures))
    count = "1 host" if len(failures) == 1 else f"{len(failures):,} hosts"
    kind, *message = wrap(f"{first.kind}: {printable(first.message)}", screen.columns, _INDENT)
    first_line = f"  {count}: "
    head, *rest = _list_lines(first_line, names, screen.columns)
    return [
        screen.paint(first_line.rstrip(), Style.STRONG) + head.removeprefix(first_line.rstrip()),
        *rest,
        kind.replace(f"{first.kind}:", screen.paint(f"{first.kind}:", Style.BAD), 1),
        *message,
        *wrap(hint_for(first.kind, first.cause), screen.columns, f"{_INDENT}try: "),
    ]


def _list_lines(first: str, names: str, columns: int) -> list[str]:
    """Returns a list of names, which goes on after a comma; the indent of a long name gives way."""
    lines, line = [], first
    for part in re.split(r"(?<=,)", names):
        if len(line) + len(part) > columns and line.strip():
            lines.append(line.rstrip())
            line = " " * max(0, min(len(_INDENT), columns - len(part)))
        line += part
    return [*lines, line]
