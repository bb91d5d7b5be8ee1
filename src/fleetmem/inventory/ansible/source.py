"""Ansible's inventories, from a path to hosts.

Where Ansible is installed, its own loader reads them, in a process of its own: `ansible-inventory --list`. Vault,
plugins and ansible.cfg work as they do there. Otherwise ours does, with the same result for what it can read.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.ansible_config import read_settings
from fleetmem.inventory.ansible.connection import TAKEN, Defaults, Leavings, Reached, host_of
from fleetmem.inventory.ansible.evaluation import Evaluate, evaluated
from fleetmem.inventory.ansible.ini import add_ini
from fleetmem.inventory.ansible.places import Places
from fleetmem.inventory.ansible.templates import OnlyAnsibleError
from fleetmem.inventory.ansible.tree import Tree
from fleetmem.inventory.ansible.vars_files import VarsFiles
from fleetmem.inventory.ansible.yaml_groups import add_yaml, is_groups
from fleetmem.inventory.documents import parse_json, parse_yaml, path_of, read_text
from fleetmem.inventory.listing import AnsibleReader, Listing, Means
from fleetmem.inventory.programs import last_line
from fleetmem.inventory.spec import MAX_EXPANSION
from fleetmem.model import Host
from fleetmem.runtime.bounded_file import read_head
from fleetmem.safe_text import printable

_PROGRAM = "ansible-inventory"
# A part that cannot be read is a warning by default, and its hosts are missing without a word.
_STRICTLY = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True", "ANSIBLE_NOCOLOR": "True"}
_PARSING = "Failed to parse"
_VAULT_FIX = (
    "set ANSIBLE_VAULT_PASSWORD_FILE; or set inventory.ansible_reader to builtin, and what is encrypted is left out"
)
_CONFIG_OF_ITS_OWN = "its ssh arguments name an ssh configuration (-F) that not all hosts have"
_NUMBERS = re.compile(r"\[([0-9]{0,18}):([0-9]{6,18})(?::[0-9]+)?\]")
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
    settings = read_settings(os.environ)
    until = time.monotonic() + means.timeout_seconds
    program = _program(means.ansible_reader)
    try:
        loaded = _load_with_ansible(path, means, program) if program else _load_ourselves(path, means, until)
    except InventoryError as error:
        loaded = _load_what_is_good(path, means, until, error)
    defaults = Defaults(settings.values, _magic(path), os.environ, ignored=means.ignored)
    evaluate = partial(evaluated, program, path, means, until) if program else None
    place_of = Places(path, _files(path)).of
    listing = listing_of(loaded.tree, means.ansible_labels, str(path), loaded.files, defaults, place_of, evaluate)
    return listing._replace(remarks=(*loaded.remarks, *settings.remarks, *listing.remarks))


class _Loaded(NamedTuple):
    """An inventory as a loader has read it."""

    tree: Tree
    files: VarsFiles | None = None
    remarks: tuple[str, ...] = ()


def _program(reader: AnsibleReader) -> str | None:
    """Returns Ansible's loader where it is to read, None where ours is."""
    program = None if reader is AnsibleReader.BUILTIN else find_program()
    if reader is AnsibleReader.ANSIBLE and not program:
        raise InventoryError(f"inventory.ansible_reader is ansible, and {_PROGRAM} is not installed")
    return program


def _load_with_ansible(path: Path, means: Means, program: str) -> _Loaded:
    _refuse_huge_ranges(path)
    tree = Tree()
    shown = f"{_PROGRAM} {path}"
    arguments = [program, "-i", str(path.absolute()), "--list"]
    text = means.programs.run(arguments, shown, means.timeout_seconds, _STRICTLY, _reason)
    tree.add_list(parse_json(text, shown), shown)
    return _Loaded(tree)


def _load_ourselves(path: Path, means: Means, until: float) -> _Loaded:
    tree = Tree()
    _load(tree, path, means, until)
    return _Loaded(tree, VarsFiles(path if path.is_dir() else path.parent))


def _load_what_is_good(path: Path, means: Means, until: float, error: InventoryError) -> _Loaded:
    """Returns what our loader makes of an inventory that Ansible refuses as a whole for some of its entries.

    Raises:
        InventoryError: it is refused for something else.
    """
    reason = str(error).lower()
    is_about_entries = path.is_file() and _PARSING.lower() in reason and "vault" not in reason
    if means.ansible_reader is not AnsibleReader.AUTO or not is_about_entries:
        raise error
    try:
        loaded = _load_ourselves(path, means, until)
    except InventoryError:
        raise error from None
    odd = (*loaded.tree.left_out, *loaded.tree.refused, *loaded.tree.made_legal)
    if not odd:
        raise error
    return loaded._replace(remarks=("Ansible refuses all of it for its odd entries", *loaded.tree.made_legal))


def _refuse_huge_ranges(path: Path) -> None:
    """Raises InventoryError for a range that Ansible would fill memory with."""
    for file in _files(path):
        for number, line in enumerate(read_text(file).split("\n"), 1):
            for first, last in _NUMBERS.findall(line):
                if int(last) - int(first or 0) >= MAX_EXPANSION:
                    reason = f"[{first}:{last}] is more than {MAX_EXPANSION} hosts"
                    raise InventoryError(f"{file}, line {number}: {_PARSING}: {reason}")


def _magic(path: Path) -> dict[str, str]:
    """Returns the variables that Ansible has of its own, where they are the same for all hosts."""
    magic = {"playbook_dir": str(Path.cwd())}
    absolute = path.absolute()
    if not path.is_dir():
        return magic | {"inventory_file": str(absolute), "inventory_dir": str(absolute.parent)}
    if any(part.is_dir() and not _NO_INVENTORY.fullmatch(part.name) for part in path.iterdir()):
        return magic
    return magic | {"inventory_dir": str(absolute)}


def _files(path: Path) -> Iterator[Path]:
    """Yields the files of an inventory that are no programs."""
    if path.is_dir():
        for part in sorted(path.iterdir()):
            if not _NO_INVENTORY.fullmatch(part.name):
                yield from _files(part)
    elif not (os.access(path, os.X_OK) and is_program(path)):
        yield path


def find_program() -> str | None:
    """Returns Ansible's own loader: of this environment, or on the PATH; None where it is not installed."""
    beside = Path(sys.executable).parent / _PROGRAM
    return str(beside) if beside.is_file() else shutil.which(_PROGRAM)


def _reason(lines: list[str]) -> str:
    """Returns what Ansible says first of a file that it cannot read, and which one that is, which comes last."""
    first = next((line for line in lines if _PARSING in line), None)
    last = last_line(lines)
    reason = f"{first}; {last}" if first and first != last else last
    return f"{reason}; {_VAULT_FIX}" if any("no vault secrets" in line.lower() for line in lines) else reason


def read_list(data: Any, means: Means, where: str) -> Listing:
    """Returns the hosts of what a dynamic inventory has printed for `--list`. Raises InventoryError."""
    tree = Tree()
    tree.add_list(data, where)
    return listing_of(tree, means.ansible_labels, where, defaults=Defaults(ignored=means.ignored))


def listing_of(
    tree: Tree,
    labels: tuple[str, ...],
    where: str,
    files: VarsFiles | None = None,
    defaults: Defaults = Defaults(),  # noqa: B008 - nothing changes it
    place_of: Callable[[str], str] | None = None,
    evaluate: Evaluate | None = None,
) -> Listing:
    """Returns the hosts of a tree, with what its files of variables say.

    Args:
        tree: the inventory.
        labels: variables that become labels.
        where: what it is called in messages.
        files: of variables, where the tree has not their variables already.
        defaults: what holds beside variables.
        place_of: returns where a host stands, for messages.
        evaluate: has Ansible evaluate variables of hosts.

    Raises:
        InventoryError: a group is below itself, or a file of variables cannot be read.
    """
    try:
        tree.close()
    except InventoryError as error:
        raise InventoryError(f"{where}: {error}") from error
    groups_of = tree.memberships()
    variables_of = {name: _variables(tree, name, groups_of[name], files) for name in tree.hosts()}
    defaults = defaults._replace(has_ansible=evaluate is not None)
    makers = _Makers(groups_of, labels, where, place_of or (lambda _name: where), defaults)
    if broken := next((name for name in variables_of if name.startswith("[") and "]" not in name), None):
        raise InventoryError(f"{place_of(broken) if place_of else where}: {broken!r} is not a section")
    for name, variables in variables_of.items():
        if name in tree.refused:
            makers.left_out.append(tree.refused[name])
        else:
            makers.make(name, variables)
    if makers.waiting and evaluate:
        makers.defaults = defaults._replace(has_ansible=False)
        waiting, makers.waiting = makers.waiting, {}
        answers = evaluate(list(waiting), (*TAKEN, *labels))
        for name in waiting:
            makers.make(name, {**variables_of[name], **answers.get(name, {})})
    hosts, config = makers.finish(variables_of)
    encrypted = [f"left out, encrypted: {path}" for path in files.encrypted] if files else []
    left_out = (*tree.left_out, *makers.left_out)
    return Listing(hosts, (*makers.leavings.remarks(), *encrypted), left_out, config)


class _Makers:
    """Makes the hosts of a tree; one that is odd costs that one."""

    def __init__(
        self,
        groups_of: Mapping[str, list[str]],
        labels: tuple[str, ...],
        where: str,
        place_of: Callable[[str], str],
        defaults: Defaults,
    ) -> None:
        self.left_out: list[str] = []
        self.waiting: dict[str, OnlyAnsibleError] = {}
        self.leavings = Leavings()
        self.defaults = defaults
        self._groups_of, self._labels, self._where, self._place_of = groups_of, labels, where, place_of
        self._reached: dict[str, Reached] = {}

    def make(self, name: str, variables: Mapping[str, Any]) -> None:
        """Makes a host, or notes that it waits for Ansible, or why it is left out."""
        try:
            try:
                reached = self._host_of(name, variables, self._where)
            except OnlyAnsibleError:
                raise
            except InventoryError:  # once more, now that it is worth to find where it stands
                reached = self._host_of(name, variables, self._place_of(name))
        except OnlyAnsibleError as error:
            self.waiting[name] = error
        except InventoryError as error:
            self._leave_out(error)
        else:
            if reached:
                self._reached[name] = reached

    def finish(self, names: Iterable[str]) -> tuple[list[Host], str | None]:
        """Returns the hosts in the order of their names, and the ssh configuration that all of them have."""
        for name in self.waiting:
            self._leave_out(InventoryError(str(self.waiting[name]).replace(self._where, self._place_of(name), 1)))
        configs = {reached.config for reached in self._reached.values()}
        if len(configs) > 1:
            for name, reached in list(self._reached.items()):
                if reached.config:
                    self._leave_out(InventoryError(f"{self._place_of(name)} ({name!r}): {_CONFIG_OF_ITS_OWN}"))
                    del self._reached[name]
        hosts = [self._reached[name].host for name in names if name in self._reached]
        return hosts, configs.pop() if len(configs) == 1 else None

    def _host_of(self, name: str, variables: Mapping[str, Any], where: str) -> Reached | None:
        return host_of(name, variables, self._groups_of[name], self._labels, where, self.leavings, self.defaults)

    def _leave_out(self, error: InventoryError) -> None:
        self.left_out.append(printable(str(error)))


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
    return read_head(path, 4).startswith((b"#!", b"\x7fELF"))


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
