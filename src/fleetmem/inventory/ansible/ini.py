"""Ansible's INI inventories, as its `ini` plugin reads them. Pure."""

import ast
import re
import shlex
import warnings
from typing import Any

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.host_ranges import expand
from fleetmem.inventory.ansible.tree import Tree
from fleetmem.inventory.spec import is_address, without_brackets

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_SHOWN = 60
_CHILD = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")


def add_ini(tree: Tree, text: str, where: str) -> None:
    """Adds the groups and hosts of a file to a tree.

    Raises:
        InventoryError: a line is wrong; the message names it.
    """
    reader = _IniReader(tree)
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line[0] in ";#":
            continue
        try:
            reader.read(line, f"{where}, line {number}")
        except InventoryError as error:
            raise InventoryError(f"{where}, line {number}: {error}") from error
    reader.check(where)


class _IniReader:
    """Where in the file it is: which group, and which kind of lines."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._group, self._kind = "ungrouped", "hosts"
        self._declared = set(tree.groups)
        self._named: dict[str, str] = {}

    def read(self, line: str, where: str) -> None:
        """Reads a line; a host that cannot be understood costs that host, all else is an error."""
        if section := _SECTION.fullmatch(line):
            self._begin(section[1], section[2] or "hosts")
        elif line.startswith("[") and line.endswith("]") and not is_address(without_brackets(line)):
            raise InventoryError(f"{line!r} is not a section; one looks like [web], [web:vars] or [all:children]")
        elif self._kind == "hosts":
            self._add_hosts(line, where)
        elif self._kind == "vars":
            name, sign, value = line.partition("=")
            if not sign:
                raise InventoryError(f"expected name=value in [{self._group}:vars]")
            self._tree.groups[self._group].variables[name.strip()] = parse_value(value.strip())
        else:
            self._add_child(line)

    def _begin(self, group: str, kind: str) -> None:
        if kind not in ("hosts", "vars", "children"):
            raise InventoryError(f"[{group}:{kind}]: a section is of hosts, vars or children")
        self._group, self._kind = group, kind
        self._tree.add_group(group)
        if kind == "vars":
            self._named.setdefault(group, f"[{group}:vars]")
        else:
            self._declared.add(group)

    def _add_child(self, line: str) -> None:
        match = _CHILD.fullmatch(line)
        if not match:
            raise InventoryError(f"{line!r} is not the name of a group")
        self._named.setdefault(match[1], f"[{self._group}:children]")
        self._tree.add_group(match[1])
        self._tree.groups[self._group].children[match[1]] = None

    def _add_hosts(self, line: str, where: str) -> None:
        try:
            names, port = expand(without_brackets(line.split()[0]))
        except InventoryError as error:
            self._tree.left_out.append(f"{where}: {error}")
            return
        try:
            variables = {} if port is None else {"ansible_port": port}
            variables |= _variables(line)
        except ValueError as error:  # of shlex, a quotation without its end; and ours
            reason = f"{where}: {error} (all of {line[:_SHOWN]!r} is left out)"
            self._tree.refused |= {name: reason for name in names if name not in self._tree.refused}
            variables = {}
        if line.startswith("[") and line.split()[0].endswith("]") and ":" in names[0]:
            self._tree.made_legal.append(f"{where}: {line.split()[0]} is taken for the address in it")
        for name in names:
            self._tree.add_host(name, self._group, variables)

    def check(self, where: str) -> None:
        """Raises InventoryError where a group is spoken of that there is not, as Ansible does."""
        for group, place in self._named.items():
            if group not in self._declared:
                raise InventoryError(f"{where}: {place} names group {group!r}, which has no section of its own")


def _variables(line: str) -> dict[str, Any]:
    """Returns the variables behind a host.

    Raises:
        ValueError: they are none.
    """
    _pattern, *pairs = shlex.split(line, comments=True)
    variables: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise InventoryError(f"expected name=value after the host, not {name!r}")
        variables[name] = parse_value(value)
    return variables


def parse_value(text: str) -> Any:
    """Returns what a value means: a Python literal where it is one, else the text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return text
