"""Ansible's inventories, from a path to hosts.

Where Ansible is installed, its own loader reads them, in a process of its own: `ansible-inventory --list`. Vault,
plugins and ansible.cfg work as they do there. Otherwise ours does, with the same result for what it can read.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.connection import Leavings, host_of
from fleetmem.inventory.ansible.ini import add_ini
from fleetmem.inventory.ansible.tree import Tree
from fleetmem.inventory.ansible.vars_files import VarsFiles
from fleetmem.inventory.ansible.yaml_groups import add_yaml, is_groups
from fleetmem.inventory.documents import parse_json, parse_yaml, path_of, read_text
from fleetmem.inventory.listing import Listing, Means
from fleetmem.inventory.programs import last_line

_PROGRAM = "ansible-inventory"
# A part that cannot be read is a warning by default, and its hosts are missing without a word.
_STRICTLY = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True", "ANSIBLE_NOCOLOR": "True"}
_YAML_SUFFIXES = (".yml", ".yaml", ".json")
# What Ansible leaves out from a folder: hidden files, variables, and by the end of a name.
_NO_INVENTORY = re.compile(
    r"\..*|(?:host_vars|group_vars|vars_plugins)"
    r"|.*(?:\.pyc|\.pyo|\.swp|\.bak|~|\.rpm|\.md|\.txt|\.rst|\.orig|\.cfg|\.retry)"
)


def read(argument: str, means: Means) -> Listing:
    """Returns the hosts of a file, a program or a folder of both. Raises InventoryError."""
    path = path_of(argument)
    if not path.exists():
        raise InventoryError(f"{path}: no such file or directory")
    program = find_program()
    tree = Tree()
    variables = None
    if program:
        shown = f"{_PROGRAM} {path}"
        arguments = [program, "-i", str(path.absolute()), "--list"]
        text = means.programs.run(arguments, shown, means.timeout_seconds, _STRICTLY, _reason)
        tree.add_list(parse_json(text, shown), shown)
    else:
        variables = VarsFiles(path if path.is_dir() else path.parent)
        _load(tree, path, means, time.monotonic() + means.timeout_seconds)
    return listing_of(tree, means.ansible_labels, str(path), variables)


def find_program() -> str | None:
    """Returns Ansible's own loader: of this environment, or on the PATH; None where it is not installed."""
    beside = Path(sys.executable).parent / _PROGRAM
    return str(beside) if beside.is_file() else shutil.which(_PROGRAM)


def _reason(lines: list[str]) -> str:
    """Returns what Ansible says first of a file that it cannot read, and which one that is, which comes last."""
    first = next((line for line in lines if "Failed to parse" in line), None)
    last = last_line(lines)
    return f"{first}; {last}" if first and first != last else last


def read_list(data: Any, means: Means, where: str) -> Listing:
    """Returns the hosts of what a dynamic inventory has printed for `--list`. Raises InventoryError."""
    tree = Tree()
    tree.add_list(data, where)
    return listing_of(tree, means.ansible_labels, where)


def listing_of(tree: Tree, labels: tuple[str, ...], where: str, files: VarsFiles | None = None) -> Listing:
    """Returns the hosts of a tree, with what its files of variables say.

    Raises:
        InventoryError: a variable is wrong, a group is below itself.
    """
    try:
        tree.close()
    except InventoryError as error:
        raise InventoryError(f"{where}: {error}") from error
    groups_of = tree.memberships()
    leavings, hosts = Leavings(), []
    for name in tree.hosts():
        groups = groups_of[name]
        variables = _variables(tree, name, groups, files)
        host = host_of(name, variables, groups, labels, where, leavings)
        if host:
            hosts.append(host)
    encrypted = [f"left out, encrypted: {path}" for path in files.encrypted] if files else []
    return Listing(hosts, (*leavings.remarks(), *encrypted))


def _variables(tree: Tree, name: str, groups: list[str], files: VarsFiles | None) -> dict[str, Any]:
    """Returns what holds for a host, in Ansible's order: what is said later counts."""
    variables: dict[str, Any] = {}
    for group in groups:
        variables |= tree.groups[group].variables
    if files:
        for group in groups:
            variables |= files.of("group_vars", group)
    variables |= tree.host_variables[name]
    if files:
        variables |= files.of("host_vars", name)
    return variables


def _load(tree: Tree, path: Path, means: Means, until: float) -> None:
    """Adds a file, a program, or all of them in a folder."""
    if path.is_dir():
        for part in sorted(path.iterdir()):
            if not _NO_INVENTORY.fullmatch(part.name):
                _load(tree, part, means, until)
    elif os.access(path, os.X_OK) and is_program(path):
        _add_program(tree, path, means, until)
    else:
        _add_file(tree, path)


def is_program(path: Path) -> bool:
    """Whether a file is a script or a binary; on some file systems everything may be executed."""
    with path.open("rb") as file:
        return file.read(4).startswith((b"#!", b"\x7fELF"))


def _add_file(tree: Tree, path: Path) -> None:
    text, where = read_text(path), str(path)
    if path.suffix in _YAML_SUFFIXES:
        add_yaml(tree, parse_yaml(text, where), where)
        return
    if not path.suffix:  # may be either, and YAML comes first
        try:
            data = parse_yaml(text, where)
        except InventoryError:
            data = None
        if isinstance(data, Mapping) and is_groups(data):
            add_yaml(tree, data, where)
            return
    add_ini(tree, text, where)


def _add_program(tree: Tree, path: Path, means: Means, until: float) -> None:
    def run(*arguments: str) -> Any:
        seconds = max(0.1, until - time.monotonic())
        text = means.programs.run([str(path.absolute()), *arguments], str(path), seconds)
        return parse_json(text, str(path)) if text.strip() else {}

    data = run("--list")
    hosts = tree.add_list(data, str(path))
    if not isinstance(data.get("_meta"), Mapping) or "hostvars" not in data["_meta"]:  # an old one: asked for each
        for host in hosts:
            tree.add_variables(host, run("--host", host), f"{path}: host {host!r}")
