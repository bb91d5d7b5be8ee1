"""Hosts files: specifications as on the command line, one or more a line."""

from collections.abc import Iterator
from pathlib import Path

from fleetmem.errors import InventoryError
from fleetmem.inventory.documents import path_of, read_text
from fleetmem.inventory.listing import Listing, Means
from fleetmem.inventory.spec import parse_spec, split_specs
from fleetmem.model import Host


def read(argument: str, _means: Means) -> Listing:
    """Returns the hosts of a file. Raises InventoryError."""
    return Listing(list(read_hosts_file(path_of(argument))))


def read_hosts_file(path: Path) -> Iterator[Host]:
    """Yields the hosts of a file: specifications separated by white space or commas, `#` starts a comment.

    Raises:
        InventoryError: the file cannot be read, or a line is wrong; the message names file and line.
    """
    try:
        text = read_text(path)
    except InventoryError as error:
        raise InventoryError(f"hosts file {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        for part in split_specs(line.partition("#")[0]):
            try:
                yield from parse_spec(part)
            except InventoryError as error:
                raise InventoryError(f"hosts file {path}, line {number}: {error}") from error
