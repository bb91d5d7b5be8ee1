"""Ansible's YAML inventories, as its `yaml` plugin reads them. Pure."""

from collections.abc import Mapping
from typing import Any

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.host_ranges import expand
from fleetmem.inventory.ansible.tree import Tree
from fleetmem.inventory.spec import without_brackets


def is_groups(data: Any) -> bool:
    """Whether a document is an inventory: an object of groups, which are objects themselves."""
    return isinstance(data, Mapping) and all(group is None or isinstance(group, Mapping) for group in data.values())


def add_yaml(tree: Tree, data: Any, where: str) -> None:
    """Adds the groups and hosts of a document to a tree.

    Raises:
        InventoryError: it is no inventory, or configures one of Ansible's plugins.
    """
    if isinstance(data, Mapping) and "plugin" in data:
        raise InventoryError(f"{where}: this is for a plugin of Ansible ({data['plugin']}): install ansible-core")
    if not isinstance(data, Mapping) or not data:
        raise InventoryError(f"{where}: expected groups, as in `all: {{hosts: {{web01: {{}}}}}}`")
    for name, group in data.items():
        _add_group(tree, str(name), group, where)


def _add_group(tree: Tree, name: str, group: Any, where: str) -> None:
    where = f"{where}: group {name!r}"
    tree.add_group(name)
    if group is None:
        return
    if not isinstance(group, Mapping):
        raise InventoryError(f"{where}: expected hosts, children or vars")
    tree.groups[name].variables.update(_section(group, "vars", where))
    for child, content in _section(group, "children", where).items():
        _add_group(tree, str(child), content, where)
        tree.groups[name].children[str(child)] = None
    for pattern, variables in _section(group, "hosts", where).items():
        _add_hosts(tree, name, pattern, variables, f"{where}: host {pattern!r}")


def _add_hosts(tree: Tree, group: str, pattern: Any, variables: Any, where: str) -> None:
    """Adds the hosts of a pattern; one that cannot be understood costs these hosts."""
    if not isinstance(pattern, str):
        tree.left_out.append(f"{where}: put it in quotes")
        return
    try:
        names, port = expand(without_brackets(pattern))
    except InventoryError as error:
        tree.left_out.append(f"{where}: {error}")
        return
    given: dict[str, Any] = {}
    if variables is None or isinstance(variables, Mapping):
        given = dict(variables or {})
    else:
        tree.refused |= dict.fromkeys(names, f"{where}: expected an object of variables")
    if port is not None:
        given.setdefault("ansible_port", port)
    for host in names:
        tree.add_host(host, group, given)


def _section(group: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    section = group.get(name)
    if isinstance(section, str):
        return {section: None}
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise InventoryError(f"{where}: {name}: expected an object")
    return section
