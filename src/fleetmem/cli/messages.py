"""What people read beside the data: messages on stderr, and progress on stdout where that has no data."""

import sys

from fleetmem.cli.screen import UNLIMITED, Screen, screen_of
from fleetmem.cli.wrapping import width_of, wrap
from fleetmem.safe_text import printable


def messages_screen() -> Screen:
    """Returns what stderr writes to. In a pipe or a log nothing is wrapped, so that what is searched for is found."""
    screen = screen_of(sys.stderr)
    return screen if screen.rows else screen._replace(columns=UNLIMITED)


def print_message(text: str) -> None:
    """Prints lines that steer no terminal, whoever's words are in them; too long ones are wrapped between words."""
    columns = messages_screen().columns
    for line in map(printable, text.split("\n")):
        indent = line[: len(line) - len(line.lstrip())]
        print("\n".join([line] if width_of(line) <= columns else wrap(line, columns, indent)), file=sys.stderr)


def report(text: str) -> None:
    """Prints how far a command is, on stdout and at once; too long lines are wrapped between words."""
    screen = screen_of(sys.stdout)
    print("\n".join(wrap(text, screen.columns)) if width_of(text) > screen.columns else text, flush=True)
