"""Terraform: the output `inventory` of `terraform output -json`, from a file, or from a folder where that is run."""

import shutil
from collections.abc import Mapping, Set
from typing import Any

from fleetmem.errors import InventoryError
from fleetmem.inventory.documents import parse_file, parse_json, path_of
from fleetmem.inventory.entries import parse_hosts
from fleetmem.inventory.listing import Listing, Means
from fleetmem.model import Host

OUTPUT = "inventory"
"""Name of the output: a list of hosts, or an object that has them by name (see `entries.FIELDS`)."""

_PROGRAMS = ("terraform", "tofu")


def read(argument: str, means: Means) -> Listing:
    """Returns the hosts of a folder or a file. Raises InventoryError."""
    path = path_of(argument)
    if path.is_dir():
        program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
        if not program:
            raise InventoryError(
                f"{path}: {' or '.join(_PROGRAMS)} is not installed; terraform:FILE.json needs neither"
            )
        arguments = [program, f"-chdir={path}", "output", "-json", "-no-color"]
        shown = f"terraform output in {path}"
        data, where = parse_json(means.programs.run(arguments, shown, means.timeout_seconds), shown), shown
    else:
        data, where = parse_file(path), str(path)
    left_out: list[str] = []
    return Listing(parse_outputs(data, where, left_out, means.ignored)).without(left_out)


def parse_outputs(
    data: Any, where: str, left_out: list[str] | None = None, ignored: Set[str] = frozenset()
) -> list[Host]:
    """Returns the hosts of what `terraform output -json` prints.

    Args:
        data: what it prints.
        where: what messages begin with.
        left_out: takes entries that are no hosts; None where one is an error.
        ignored: fields of hosts that are not taken over.

    Raises:
        InventoryError: there is no output `inventory`, or it holds something else.
    """
    if not isinstance(data, Mapping):
        raise InventoryError(f"{where}: expected an object of outputs, as `terraform output -json` prints it")
    if OUTPUT not in data:
        there_are = f"there are {', '.join(map(str, data))}" if data else "there is none: has it been applied?"
        raise InventoryError(f"{where}: no output {OUTPUT!r}; {there_are}")
    output = data[OUTPUT]
    if not isinstance(output, Mapping) or "value" not in output:
        raise InventoryError(f"{where}: output {OUTPUT!r} has no value")
    return parse_hosts(output["value"], f"{where}: output {OUTPUT!r}", left_out, ignored)
