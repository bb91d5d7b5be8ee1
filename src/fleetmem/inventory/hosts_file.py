"""Hosts files: specifications as on the command line, one or more a line."""

import re
from collections.abc import Iterator
from pathlib import Path

from fleetmem.errors import InventoryError
from fleetmem.inventory.documents import path_of, read_text
from fleetmem.inventory.entries import one_entry
from fleetmem.inventory.listing import Listing, Means
from fleetmem.inventory.spec import parse_spec, split_specs
from fleetmem.model import Host

_SHOWN = 60
_COMMA = re.compile(r",(?![^\[\]]*\])")


def read(argument: str, _means: Means) -> Listing:
    """Returns the hosts of a file. Raises InventoryError."""
    left_out: list[str] = []
    return Listing(list(read_hosts_file(path_of(argument), left_out))).without(left_out)


def read_hosts_file(path: Path, left_out: list[str] | None = None) -> Iterator[Host]:
    """Yields the hosts of a file: specifications separated by white space or commas, `#` starts a comment.

    What stands between two commas is one entry: of `web 01 (prod)` nothing is taken, neither `web` nor `01`.

    Args:
        path: of the file.
        left_out: takes entries that are no hosts; None where one is an error.

    Raises:
        InventoryError: the file cannot be read, or an entry is wrong; the message names file and line.
    """
    try:
        text = read_text(path)
    except InventoryError as error:
        raise InventoryError(f"hosts file {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        for part in filter(str.strip, _COMMA.split(line.partition("#")[0])):
            hosts: list[Host] = []
            with one_entry(left_out):
                hosts = _hosts_of(part.strip(), f"hosts file {path}, line {number}")
            yield from hosts


def _hosts_of(part: str, where: str) -> list[Host]:
    specs = split_specs(part)
    try:
        return [host for spec in specs for host in parse_spec(spec)]
    except InventoryError as error:
        whole = f" (all of {part[:_SHOWN]!r} is left out)" if len(specs) > 1 else ""
        raise InventoryError(f"{where}: {error}{whole}") from error
