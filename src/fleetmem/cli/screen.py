"""What is known of the screen that text goes to: its size, and whether it shows colours."""

import os
from enum import StrEnum
from typing import NamedTuple, TextIO

UNLIMITED = 1_000_000
"""The width where there is no terminal and COLUMNS is not set: nothing is wrapped or cut."""

_LEAST_COLUMNS = 20
_RESET = "\x1b[0m"


class Style(StrEnum):
    """How text stands out: never the only sign of what it means."""

    BAD = "\x1b[1;31m"
    WARNING = "\x1b[33m"
    GOOD = "\x1b[32m"
    NOTE = "\x1b[36m"
    STRONG = "\x1b[1m"
    FAINT = "\x1b[2m"


class Screen(NamedTuple):
    """A terminal, or what stands for one where text goes to a pipe or a file.

    Attributes:
        columns: its width.
        rows: its height; None where it is no terminal.
        has_colour: whether text may be coloured.
        is_unicode: whether it shows more than ASCII.
        can_redraw: whether the cursor can be moved.
    """

    columns: int = UNLIMITED
    rows: int | None = None
    has_colour: bool = False
    is_unicode: bool = True
    can_redraw: bool = False

    def paint(self, text: str, style: Style) -> str:
        """Returns the text in a style; as it is where there are no colours."""
        return f"{style.value}{text}{_RESET}" if self.has_colour and text else text


def screen_of(stream: TextIO) -> Screen:
    """Returns what a stream writes to. COLUMNS and LINES win over the size that the terminal reports."""
    is_unicode = (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-").startswith("utf")
    columns, rows = _size_of(stream)
    if rows is None:
        return Screen(_number("COLUMNS") or UNLIMITED, is_unicode=is_unicode)
    can_redraw = os.environ.get("TERM", "dumb") not in ("", "dumb")
    return Screen(
        max(_LEAST_COLUMNS, _number("COLUMNS") or columns),
        _number("LINES") or rows,
        can_redraw and not os.environ.get("NO_COLOR"),
        is_unicode,
        can_redraw,
    )


def _size_of(stream: TextIO) -> tuple[int, int | None]:
    """Returns columns and rows, 80 and 24 where the terminal does not know; no rows where there is no terminal."""
    try:
        if not stream.isatty():
            return UNLIMITED, None
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # closed, or no file of the system's
        return UNLIMITED, None
    return columns or 80, rows or 24


def _number(name: str) -> int | None:
    """Returns a size that the environment gives, None where it gives none."""
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) <= 4 and int(text) else None
