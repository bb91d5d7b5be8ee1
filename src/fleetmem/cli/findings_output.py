"""Findings of `fleetmem doctor` as a table and as JSON lines."""

import json
import re
from collections.abc import Sequence
from statistics import median
from typing import TextIO

from fleetmem.cli.output import ListFormat
from fleetmem.cli.screen import Screen, Style, screen_of
from fleetmem.cli.tables import print_lines
from fleetmem.cli.wrapping import wrap, wrap_command
from fleetmem.doctor.findings import Finding, FindingGroup, Severity, fold
from fleetmem.inventory.folding import folded_text
from fleetmem.safe_text import printable, redact

_STYLES = {
    Severity.PROBLEM: Style.BAD,
    Severity.WARNING: Style.WARNING,
    Severity.NOTE: Style.NOTE,
    Severity.OK: Style.GOOD,
}
_LABEL_WIDTH = max(map(len, Severity)) + 2
_NARROW_INDENT = 2
_NARROW_COLUMNS = 80
_PROGRAM = re.compile(r"[a-z][a-z0-9/._-]*\s+(?!=)")
"""How a command begins; a setting has another sign behind its name."""


def write(findings: Sequence[Finding], file: TextIO, format_: ListFormat) -> None:
    """Writes findings: JSON lines as they are, or equal ones together for people."""
    if format_ is ListFormat.JSONL:
        file.writelines(f"{json.dumps(_to_json(finding))}\n" for finding in findings)
        return
    screen = screen_of(file)
    print_lines([line for group in fold(findings) for line in _lines(group, screen)], file)


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


def _lines(group: FindingGroup, screen: Screen) -> list[str]:
    """Returns what is shown of equal findings: in one line what is well, otherwise with the reason and a fix."""
    first = group.first
    label = f"{first.severity:<{_LABEL_WIDTH}}"
    indent = " " * (_LABEL_WIDTH if screen.columns >= _NARROW_COLUMNS else _NARROW_INDENT)
    who = f"{_who(group)}: "
    head, *lines = wrap(f"{who}{_what(group)}", screen.columns, label, indent)
    in_head = min(len(who), len(head) - len(label))
    bold = screen.paint(head[len(label) : len(label) + in_head], Style.STRONG)
    lines.insert(0, screen.paint(label, _STYLES[first.severity]) + bold + head[len(label) + in_head :])
    if first.severity is Severity.OK:
        return lines
    lines += wrap(_shown(first.why), screen.columns, f"{indent}why  ")
    lines += _fix_lines(_shown(first.mend), screen.columns, f"{indent}fix  ")
    if len({finding.mend for finding in group.findings}) > 1:
        lines += wrap("the same for the others; --format jsonl lists each", screen.columns, f"{indent}     ")
    return lines


def _fix_lines(text: str, columns: int, first: str) -> list[str]:
    """Returns a command or a setting, with the remark behind it; a command can be copied, however many lines it has."""
    if len(first) + len(text) <= columns:
        return [f"{first}{text}".rstrip()]
    rest = " " * len(first)
    fix, _sign, remark = text.partition("   # ")
    is_command = _PROGRAM.match(fix)
    lines = wrap_command(fix, columns, first, rest) if is_command else wrap(fix, columns, first)
    return lines + (wrap(remark, columns, f"{rest}# ", f"{rest}# ") if remark else [])


def _who(group: FindingGroup) -> str:
    names = group.subjects
    if len(names) == 1:
        return _shown(names[0])
    if group.first.check.area != "host":
        return _shown(", ".join(names))
    if group.first.severity is Severity.OK:
        return f"{len(names):,} hosts"
    return f"{len(names):,} hosts ({_shown(folded_text(names))})"


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
    """Returns how many are shown, equal ones together: `3 problems on 32 hosts, 0 warnings, 1 note`."""
    groups = fold(findings)
    return ", ".join(_count_of(word, groups) for word in (Severity.PROBLEM, Severity.WARNING, Severity.NOTE))


def _count_of(severity: Severity, groups: Sequence[FindingGroup]) -> str:
    own = [group for group in groups if group.first.severity is severity]
    about_hosts = [group for group in own if group.first.check.area == "host"]
    hosts = len({name for group in about_hosts for name in group.subjects})
    text = f"{len(own)} {severity}{'' if len(own) == 1 else 's'}"
    if not hosts:
        return text
    of_them = "" if len(about_hosts) == len(own) else f", {len(about_hosts)} of them"
    return f"{text}{of_them} on {hosts:,} host{'' if hosts == 1 else 's'}"
