"""What is told to people on stderr, beside the data on stdout."""

import sys

from fleetmem.safe_text import printable


def print_message(text: str) -> None:
    """Prints lines that steer no terminal, whoever's words are in them."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr)
