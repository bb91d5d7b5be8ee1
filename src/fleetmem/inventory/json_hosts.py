"""JSON from a file or a program: a list of hosts, Ansible's `--list`, Prometheus' targets, or Terraform's outputs."""

import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.source import read_list
from fleetmem.inventory.documents import parse_file, parse_json, path_of
from fleetmem.inventory.entries import parse_hosts
from fleetmem.inventory.listing import Listing, Means
from fleetmem.inventory.programs import last_line
from fleetmem.inventory.prometheus import is_targets, parse_targets
from fleetmem.inventory.terraform import OUTPUT, parse_outputs


def read_file(argument: str, means: Means) -> Listing:
    """Returns the hosts of a file. Raises InventoryError."""
    path = path_of(argument)
    return parse_any(parse_file(path), means, str(path))


def read_program(argument: str, means: Means) -> Listing:
    """Returns the hosts that a program prints. Raises InventoryError."""
    try:
        arguments = shlex.split(argument)
    except ValueError as error:
        raise InventoryError(f"command: {error}") from error
    if not arguments:
        raise InventoryError("command: expected a program and its arguments")
    if arguments[0].startswith("~"):  # no shell does it
        arguments[0] = str(path_of(arguments[0]))
    shown = f"command {arguments[0]}"
    output = means.programs.run(arguments, shown, means.timeout_seconds, reason=partial(_reason, arguments[1:]))
    return parse_any(parse_json(output, shown), means, shown)


def _reason(arguments: list[str], lines: list[str]) -> str:
    """Returns the last line that a program has said, without the arguments that it was given: they may be secret."""
    reason = last_line(lines)
    for argument in sorted(arguments, key=len, reverse=True):
        if len(argument) > 1:
            reason = reason.replace(argument, "***")
    return reason


def parse_any(data: Any, means: Means, where: str) -> Listing:
    """Returns the hosts of a document, whichever of the four it is.

    Raises:
        InventoryError: it is none of them.
    """
    left_out: list[str] = []
    if is_targets(data):
        return parse_targets(data, where, left_out).without(left_out)
    if isinstance(data, list):
        return Listing(parse_hosts(data, where, left_out, means.ignored)).without(left_out)
    if isinstance(data, Mapping) and isinstance(output := data.get(OUTPUT), Mapping) and "value" in output:
        return Listing(parse_outputs(data, where, left_out, means.ignored)).without(left_out)
    if isinstance(data, Mapping) and ("_meta" in data or any(_is_group(group) for group in data.values())):
        return read_list(data, means, where)
    raise InventoryError(
        f"{where}: neither a list of hosts, nor Ansible's --list, nor targets of Prometheus, nor outputs of Terraform"
    )


def _is_group(value: Any) -> bool:
    """Whether a value is a group of `--list`; hosts are a list there, unlike in a YAML inventory."""
    return isinstance(value, list) or (isinstance(value, Mapping) and bool({"hosts", "children", "vars"} & set(value)))
