"""Where keys stand in a TOML file, and what is wrong with one that cannot be read."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator

_TABLE = re.compile(r"\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_TABLES = re.compile(r"\[\[\s*([^\[\]]+?)\s*\]\]\s*(?:#.*)?")
_PART = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_KEY = re.compile(rf"({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_LONG_TEXT = re.compile(r'"""|' + "'''")

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_FIXES = {
    "Invalid value": 'text needs quotation marks: key = "text"; true and false are lower case; there is no null',
    "Invalid statement": "write key = value or [section]",
    "Expected '='": "write key = value or [section]",
    "Invalid initial character for a key": "a key is missing; there is no comma before }",
    "Expected newline": "write one key on each line, and text in quotation marks",
    "Unescaped '\\'": "write a regular expression in single quotes: '^a[.]b$'",
    "Illegal character": "a quotation mark may be missing",
    "Unterminated string": "a quotation mark is missing",
    'Expected "\'"': "a quotation mark is missing",
    "Unclosed array": "a ] is missing",
    "Expected ']": "a ] is missing",
    "Cannot declare": "put the keys of both under one",
    "Cannot overwrite": "remove one",
    "Duplicate inline": "remove one",
}


def key_lines(text: str) -> dict[str, int]:
    """Returns the line of each key and table of a TOML file, from 1: `ssh`, `ssh.port`, `overrides.0.match`."""
    lines: dict[str, int] = {}
    for name, number in _keys(text):
        lines.setdefault(name, number)
    return lines


def _keys(text: str) -> Iterator[tuple[str, int]]:
    """Yields keys and tables with their lines, as often as they are there."""
    counts: Counter[str] = Counter()
    table, is_text = "", False
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        was_text, is_text = is_text, is_text ^ bool(len(_LONG_TEXT.findall(line)) % 2)
        if was_text:
            continue
        if match := _TABLES.fullmatch(line):
            name = _plain(match[1])
            table = f"{name}.{counts[name]}"
            counts[name] += 1
            yield name, number
            yield table, number
        elif match := _TABLE.fullmatch(line):
            table = _plain(match[1])
            yield table, number
        elif match := _KEY.match(line):
            yield f"{table}.{_plain(match[1])}" if table else _plain(match[1]), number


def _plain(name: str) -> str:
    """Returns a dotted key without blanks and quotation marks."""
    return ".".join(part.strip().strip("\"'") for part in name.split("."))


def explain(error: tomllib.TOMLDecodeError, text: str) -> tuple[str, str, int]:
    """Returns what is wrong with a file, what to do, and the line, from 1."""
    said = str(error)
    place = _PLACE.search(said)
    said = _PLACE.sub("", said)
    line = int(place[1]) if place and place[1] else len(text.rstrip("\n").split("\n"))
    fix = next((fix for start, fix in _FIXES.items() if said.startswith(start)), "")
    if said.startswith(("Cannot declare", "Cannot overwrite")) and (name := _named_in(text, line)):
        return f"{name} is there twice, first in line {key_lines(text)[name]}", fix, line
    column = f" (column {place[2]})" if place and place[2] else ""
    return f"{said[:1].lower()}{said[1:]}{column}", fix, line


def _named_in(text: str, line: int) -> str | None:
    """Returns the key in a line that an earlier line has, too."""
    found = [name for name, number in _keys(text) if number == line]
    return next((name for name in found if key_lines(text)[name] < line), None)
