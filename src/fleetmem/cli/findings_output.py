"""Findings of `fleetmem doctor` as a table and as JSON lines."""

import json
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import TextIO

from rich.console import Console
from rich.text import Text

from fleetmem.cli.output import ListFormat
from fleetmem.doctor.findings import Finding, FindingGroup, Severity, fold
from fleetmem.safe_text import printable, redact

_NAMED = 5
_STYLES = {Severity.PROBLEM: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan", Severity.OK: "green"}


def write(findings: Sequence[Finding], file: TextIO, format_: ListFormat) -> None:
    """Writes findings: JSON lines as they are, or equal ones together for people."""
    if format_ is ListFormat.JSONL:
        file.writelines(f"{json.dumps(_to_json(finding))}\n" for finding in findings)
        return
    console = Console(file=file, soft_wrap=True, highlight=False)  # commands are to be copied whole
    for group in fold(findings):
        for line in _lines(group):
            console.print(line)


def _to_json(finding: Finding) -> dict[str, object]:
    """Returns a finding as JSON: a contract, see docs/reference/doctor.md."""
    return {
        "check": finding.check,
        "severity": finding.severity,
        "subject": finding.subject,
        "what": redact(finding.what),
        "why": finding.why,
        "mend": redact(finding.mend),
        "value": finding.value,
        "unit": finding.unit,
    }


def _lines(group: FindingGroup) -> list[Text]:
    """Returns what is shown of equal findings: in one line what is well, otherwise with reason and mend."""
    first = group.first
    style = _STYLES[first.severity]
    head = Text.assemble((f"{first.severity:<9}", style), (f"{_who(group)}: ", "bold"), _what(group))
    if first.severity is Severity.OK:
        return [head]
    lines = [head, Text(f"         why   {_shown(first.why)}"), Text(f"         mend  {_shown(first.mend)}")]
    if len({finding.mend for finding in group.findings}) > 1:
        lines.append(Text("               likewise for the others; --format jsonl has each"))
    return lines


def _who(group: FindingGroup) -> str:
    names = group.subjects
    if len(names) == 1:
        return _shown(names[0])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    listed = f"{_shown(', '.join(names[:_NAMED]))}{more}"
    if group.first.check.area != "host":
        return listed
    return f"{len(names)} hosts" if group.first.severity is Severity.OK else f"{len(names)} hosts ({listed})"


def _what(group: FindingGroup) -> str:
    what, numbers = group.first.what, _range(group.values, group.first.unit)
    return _shown(what) if numbers.removeprefix(": ") in what else f"{_shown(what)}{numbers}"


def _range(values: Sequence[float], unit: str) -> str:
    """Returns numbers in short: `: 1.5 ms`, or `: 1.5 to 20 ms, median 3`."""
    if not values:
        return ""
    if values[0] == values[-1]:
        return f": {values[0]:g} {unit}"
    return f": {values[0]:g} to {values[-1]:g} {unit}, median {median(values):.3g}"


def _shown(text: str) -> str:
    return printable(redact(text))


def count(findings: Sequence[Finding]) -> str:
    """Returns `1 problem, 2 warnings, 3 notes`."""
    counts = Counter(finding.severity for finding in findings)
    words = [Severity.PROBLEM, Severity.WARNING, Severity.NOTE]
    return ", ".join(f"{counts[word]} {word}{'' if counts[word] == 1 else 's'}" for word in words)
