"""Groups, hosts and their variables as an inventory of Ansible has them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any

from fleetmem.errors import InventoryError

Variables = Mapping[str, Any]


@dataclass(slots=True)
class Group:
    """A group.

    Attributes:
        hosts: its own, in their order (the values mean nothing).
        children: groups below it, in their order (the values mean nothing).
        variables: of all hosts in it.
        depth: groups above it, on the longest way.
    """

    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    depth: int = 0


class Tree:
    """An inventory. Group `all` holds every other one, as in Ansible.

    Attributes:
        groups: by name.
        host_variables: those of hosts alone, by host.
        refused: hosts of which something cannot be understood, with why; nothing else makes them good again.
        left_out: entries that name no host: where each one stands, and why.
        made_legal: entries that Ansible refuses and that can mean one thing only.
    """

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {"all": Group(), "ungrouped": Group()}
        self.host_variables: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, str] = {}
        self.left_out: list[str] = []
        self.made_legal: list[str] = []

    def add_group(self, name: str) -> Group:
        """Returns a group, a new one where there is none."""
        return self.groups.setdefault(name, Group())

    def add_host(self, name: str, group: str, variables: Variables | None = None) -> None:
        """Puts a host into a group; what is said of it later takes the place of what was said before."""
        self.add_group(group).hosts[name] = None
        self.host_variables.setdefault(name, {}).update(variables or {})

    def add_list(self, data: Any, where: str) -> list[str]:
        """Adds what a dynamic inventory prints for `--list`; returns the hosts in it.

        Raises:
            InventoryError: it is none.
        """
        if not isinstance(data, Mapping):
            raise InventoryError(f"{where}: expected an object of groups, as --list prints it")
        hosts: dict[str, None] = {}
        for name, group in data.items():
            if name != "_meta":
                hosts |= dict.fromkeys(self._add_listed(str(name), group, f"{where}: group {name!r}"))
        variables = _mapping(_mapping(data.get("_meta"), where).get("hostvars"), where)
        for host in hosts:
            try:
                self.add_variables(host, variables.get(host), f"{where}: host {host!r}")
            except InventoryError as error:
                self.refused.setdefault(host, str(error))
        return list(hosts)

    def add_variables(self, host: str, variables: Any, where: str) -> None:
        """Adds what is said of a host; what was said before counts less.

        Raises:
            InventoryError: they are no variables.
        """
        self.host_variables[host].update(_mapping(variables, where))

    def _add_listed(self, name: str, group: Any, where: str) -> list[str]:
        self.add_group(name)
        group = _mapping({"hosts": group} if isinstance(group, list) else group, where)  # the list is a short form
        for key in ("hosts", "children"):
            if not isinstance(group.get(key, []), list):
                raise InventoryError(f"{where}: {key}: expected a list of names")
        if not all(isinstance(child, str) for child in group.get("children", [])):
            raise InventoryError(f"{where}: children: expected a list of names")
        hosts = [host for host in group.get("hosts", []) if isinstance(host, str)]
        self.left_out += (
            f"{where}: host {host!r}: expected a name" for host in group.get("hosts", []) if not isinstance(host, str)
        )
        for host in hosts:
            self.add_host(host, name)
        for child in group.get("children", []):
            self.add_group(child)
            self.groups[name].children[child] = None
        self.groups[name].variables.update(_mapping(group.get("vars"), where))
        return hosts

    def close(self) -> None:
        """Puts groups without a parent into `all`, and hosts without a group into `ungrouped`; call it once, last.

        Raises:
            InventoryError: a group is below itself.
        """
        below = {child for group in self.groups.values() for child in group.children}
        for name in self.groups:
            if name != "all" and name not in below:
                self.groups["all"].children[name] = None
        grouped = {host for name, group in self.groups.items() if name not in _BARE for host in group.hosts}
        ungrouped = self.groups["ungrouped"].hosts
        for host in self.host_variables:
            if host in grouped:
                ungrouped.pop(host, None)
            else:
                ungrouped[host] = None
        self._sort()

    def _sort(self) -> None:
        """Finds out how deep each group is."""
        above: dict[str, set[str]] = {name: set() for name in self.groups}
        for name, group in self.groups.items():
            for child in group.children:
                above[child].add(name)
        free = [name for name, parents in above.items() if not parents]
        for name in free:  # grows meanwhile: whose parents are all done is next
            for child in self.groups[name].children:
                above[child].discard(name)
                self.groups[child].depth = max(self.groups[child].depth, self.groups[name].depth + 1)
                if not above[child]:
                    free.append(child)
        if len(free) < len(self.groups):
            raise InventoryError(f"group {next(name for name in above if above[name])!r} is below itself")

    def hosts(self) -> list[str]:
        """Returns every host once, so that each group has its hosts in its own order: `web[0]` is its first one.

        Where groups contradict each other, the one that is nearer to `all` counts.
        """
        first = list(dict.fromkeys(host for name in self._below("all") for host in self.groups[name].hosts))
        return _in_order(first, [list(group.hosts) for group in self.groups.values()])

    def _below(self, name: str) -> list[str]:
        """Returns a group and those below it, level by level."""
        found = {name: None}
        for group in (names := [name]):  # grows meanwhile
            new = [child for child in self.groups[group].children if child not in found]
            found |= dict.fromkeys(new)
            names += new
        return names

    def memberships(self) -> dict[str, list[str]]:
        """Returns the groups of each host, those above included, in the order in which their variables count."""
        found: dict[str, set[str]] = {host: set() for host in self.host_variables}
        for name in self.groups:
            for group in self._below(name):
                for host in self.groups[group].hosts:
                    found[host].add(name)
        ordered = sorted(self.groups, key=lambda name: (self.groups[name].depth, self._priority(name), name))
        rank = {name: place for place, name in enumerate(ordered)}
        return {host: sorted(groups, key=rank.__getitem__) for host, groups in found.items()}

    def _priority(self, name: str) -> int:
        try:
            return int(self.groups[name].variables.get("ansible_group_priority", 1))
        except (TypeError, ValueError):
            return 1


def _in_order(names: list[str], lists: list[list[str]]) -> list[str]:
    """Returns the names in an order that is that of each list, and else their own, as far as the lists agree."""
    rank = {name: place for place, name in enumerate(names)}
    followers: dict[str, list[str]] = {name: [] for name in names}
    waits_for = dict.fromkeys(names, 0)
    for before, after in (pair for one in lists for pair in pairwise(one)):
        followers[before].append(after)
        waits_for[after] += 1
    ready = [rank[name] for name in names if not waits_for[name]]
    ordered: dict[str, None] = {}
    for stuck in range(len(names) + 1):  # all that nothing keeps from it; then what only a contradiction does
        while ready:
            name = names[heappop(ready)]
            ordered[name] = None
            for after in followers[name]:
                waits_for[after] -= 1
                if not waits_for[after] and after not in ordered:
                    heappush(ready, rank[after])
        if stuck < len(names) and names[stuck] not in ordered:
            ready.append(stuck)
    return list(ordered)


_BARE = ("all", "ungrouped")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InventoryError(f"{where}: expected an object")
    return value
