"""Writes docs/img/demo.svg: the demo as it looks on a terminal, made from a run of the demo itself.

    demo_picture.py FLEETMEM FILE.svg [COLUMNS LINES SECONDS]

Runs `FLEETMEM lab demo` on a pseudo-terminal. A terminal emulator (pyte) has its screen; it is drawn when the table has
been there for SECONDS. The picture names no font of another server: the reader's own monospace is used.
Needs pyte, which is in requirements/docs.txt.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import pyte

CELL_WIDTH, CELL_HEIGHT, MARGIN = 8.4, 18, 14
START_SECONDS = 180  # the first start installs Graphite
BACKGROUND, FOREGROUND = "#1e1e2e", "#d9dce8"
COLOURS = {
    "black": "#585b70", "red": "#f38ba8", "green": "#a6e3a1", "brown": "#f9e2af", "blue": "#89b4fa",
    "magenta": "#cba6f7", "cyan": "#94e2d5", "white": "#bac2de", "default": FOREGROUND,
}  # fmt: skip


def watch(command: list[str], columns: int, lines: int, seconds: float) -> Any:
    """Runs a program on a terminal of that size, and returns its screen after so many seconds."""
    screen = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    settings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(lines)}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=settings, start_new_session=True
    )
    os.close(theirs)
    end, has_table = time.monotonic() + START_SECONDS, False
    try:
        while (left := end - time.monotonic()) > 0 and process.poll() is None:
            if select.select([ours], [], [], left)[0]:
                stream.feed(os.read(ours, 65536))
            if not has_table and any("leaky" in line for line in screen.display):
                end, has_table = time.monotonic() + seconds, True
        if process.poll() is not None:
            sys.exit(f"{command[0]} ended too early:\n" + "\n".join(screen.display))
        return [[screen.buffer[row][column] for column in range(columns)] for row in range(lines)]
    finally:
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    os.read(ours, 65536)
                except OSError:
                    break
        process.wait(60)
        os.close(ours)


def _colour(name: str) -> str:
    return COLOURS.get(name.removeprefix("bright"), f"#{name}" if len(name) == 6 else FOREGROUND)


def _runs(row: list[Any]) -> list[tuple[int, str, str, bool]]:
    """Returns the pieces of a line that look the same: first column, text, colour, whether it is bold."""
    pieces, column = [], 0
    for (colour, bold), cells in groupby(row, key=lambda cell: (cell.bg if cell.reverse else cell.fg, cell.bold)):
        text = "".join(cell.data for cell in cells)
        if text.strip():
            start = len(text) - len(text.lstrip())
            pieces.append((column + start, text.strip(), _colour(colour), bold))
        column += len(text)
    return pieces


def draw(rows: list[list[Any]]) -> str:
    """Returns a screen as SVG, without the empty lines at its end."""
    while rows and not any(cell.data.strip() for cell in rows[-1]):
        rows = rows[:-1]
    width = round(len(rows[0]) * CELL_WIDTH + 2 * MARGIN)
    height = len(rows) * CELL_HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        ' aria-label="fleetmem lab demo on a terminal">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>',
        '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">',
    ]
    for number, row in enumerate(rows):
        for column, text, colour, bold in _runs(row):
            x, y = MARGIN + column * CELL_WIDTH, MARGIN + number * CELL_HEIGHT + 13
            weight = ' font-weight="bold"' if bold else ""
            parts.append(
                f'<text x="{x:.1f}" y="{y}" textLength="{len(text) * CELL_WIDTH:.1f}" lengthAdjust="spacingAndGlyphs"'
                f' fill="{colour}"{weight}>{escape(text)}</text>'
            )
    return "\n".join([*parts, "</g>", "</svg>", ""])


def main() -> None:
    """Makes the picture."""
    program, file, *size = sys.argv[1:]
    columns, lines, seconds = (int(each) for each in size) if size else (110, 30, 45)
    picture = draw(watch([program, "lab", "demo", "--dir", ".lab"], columns, lines, seconds))
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
