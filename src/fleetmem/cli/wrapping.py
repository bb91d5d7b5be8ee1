"""Text that fits a width: wrapped between words, and names cut with an ellipsis. Pure."""

import re
from collections.abc import Iterable, Iterator

from fleetmem.cli.screen import Screen

_COMMAND_OR_WORD = re.compile(r"[^\s`]*`[^`]*`[^\s`]*|\d[\d.,]*\s(?:s|ms|B|[KMGT]iB)\b\S*|\S+")
"""A number and its unit are one word."""

_QUOTED = r"(?:'[^']*'|\"[^\"]*\"|[^\s'\"])+"
_OPTION_OR_WORD = re.compile(rf"-{{1,2}}\w[\w-]*\s+(?!-){_QUOTED}|{_QUOTED}|\S+")

Word = tuple[str, bool]
"""A word, and whether the space before it is in a command, which goes on behind a backslash."""


def width_of(text: str) -> int:
    """Returns how many columns a terminal takes for a text: Chinese characters take two, accents none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # here: most text needs no table of characters

    return cell_len(text)


def wrap(text: str, columns: int, first: str = "", rest: str | None = None) -> list[str]:
    """Returns lines that end between words. A word that is longer than a line is left whole, without its indent.

    A command between backquotes stays on one line where it fits; otherwise a backslash ends each of its lines, so that
    it can be copied.

    Args:
        text: words; other white space becomes one space.
        columns: the width of a line.
        first: what stands before the first line.
        rest: what stands before the others; as many spaces where it is not given.
    """
    rest = " " * width_of(first) if rest is None else rest
    return _fill(_words(text, columns - width_of(rest)), columns, first, rest)


def wrap_command(text: str, columns: int, first: str, rest: str) -> list[str]:
    """Returns a command line in lines that can be copied: each but the last ends with a backslash.

    An option stays with its value.
    """
    parts = [match[0] for match in _OPTION_OR_WORD.finditer(text)]
    return _fill([(part, index > 0) for index, part in enumerate(parts)], columns, first, rest)


def _fill(words: Iterable[Word], columns: int, first: str, rest: str) -> list[str]:
    lines: list[str] = []
    line, is_empty = first, True
    for word, is_continued in words:
        room = columns - width_of(line) - (2 if is_continued else 0)
        if not is_empty and width_of(word) + 1 > room:
            lines.append(f"{line} \\" if is_continued else line)
            line, is_empty = _indent(rest, columns - width_of(word)), True
        line += word if is_empty else f" {word}"
        is_empty = False
    return [*lines, line.rstrip()]


def _indent(rest: str, room: int) -> str:
    """Returns what stands before a line; spaces of it give way to a long word."""
    return rest if rest.strip() else rest[: max(0, room)]


def _words(text: str, columns: int) -> Iterator[Word]:
    """Yields words. One may be a command with its spaces; a command that is longer than a line is several."""
    for match in _COMMAND_OR_WORD.finditer(text):
        word = " ".join(match[0].split())
        if width_of(word) <= columns:
            yield word, False
        else:
            yield from ((part, index > 0) for index, part in enumerate(word.split()))


def cut(name: str, columns: int, screen: Screen) -> str:
    """Returns a name that fits: its middle gives way to an ellipsis, as both ends tell names apart."""
    if width_of(name) <= columns:
        return name
    sign = "…" if screen.is_unicode else "~"
    if columns <= 1:
        return sign[:columns]
    tail = _last(name, (columns - 1) // 3)
    return f"{_first(name, columns - 1 - width_of(tail))}{sign}{tail}"


def _first(name: str, columns: int) -> str:
    """Returns as much of the beginning as fits."""
    if name.isascii():
        return name[:columns]
    end = 0
    for end, character in enumerate(name):
        columns -= width_of(character)
        if columns < 0:
            return name[:end]
    return name[: end + 1]


def _last(name: str, columns: int) -> str:
    """Returns as much of the end as fits."""
    return _first(name[::-1], columns)[::-1]
