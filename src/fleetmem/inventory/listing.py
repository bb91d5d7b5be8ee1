"""What every kind of inventory gives, and what it is read with."""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from fleetmem.inventory.programs import Programs
from fleetmem.model import Host

READ_TIMEOUT_SECONDS = 30.0
"""Default limit for one inventory to answer."""


class AnsibleReader(StrEnum):
    """Who reads inventories of Ansible."""

    AUTO = "auto"
    """Ansible where it is installed"""
    ANSIBLE = "ansible"
    BUILTIN = "builtin"


class LoginPart(StrEnum):
    """What an inventory may say of how to log in to a host, and may be ignored. Values are `entries.FIELDS`' names."""

    USER = "user"
    """login names, those of jump hosts included"""
    KEY = "key"
    """private keys, those for jump hosts included"""
    JUMP = "jump"
    """jump hosts"""


class Listing(NamedTuple):
    """The hosts of one inventory.

    Attributes:
        hosts: in its order; one that is there several times is folded later.
        remarks: what else people should know of it, an option that is not taken over say.
        left_out: entries that are no hosts: where each one stands, and why.
        ssh_config: the ssh configuration that says how its hosts are reached, None where it names none.
    """

    hosts: list[Host]
    remarks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    ssh_config: str | None = None

    def without(self, left_out: Iterable[str]) -> "Listing":
        """Returns the same, with entries that are left out."""
        return self._replace(left_out=(*self.left_out, *left_out))

    def ignoring(self, ignored: Set[LoginPart]) -> "Listing":
        """Returns the same hosts, as if the inventory did not say some things of how to log in to them."""
        return self._replace(hosts=[_ignoring(host, ignored) for host in self.hosts]) if ignored else self


def _ignoring(host: Host, ignored: Set[LoginPart]) -> Host:
    changes: dict[str, Any] = {}
    if LoginPart.USER in ignored:
        changes["user"] = None
        changes["jump"] = host.jump and ",".join(hop.rpartition("@")[2] for hop in host.jump.split(","))
    if LoginPart.KEY in ignored:
        changes["key_paths"] = changes["jump_key_paths"] = ()
    if LoginPart.JUMP in ignored:
        changes["jump"], changes["jump_key_paths"] = None, ()
    return replace(host, **changes)


@dataclass(frozen=True, slots=True)
class Means:
    """What inventories are read with.

    Attributes:
        timeout_seconds: for one inventory.
        ansible_labels: variables of Ansible that become labels. The others stay out: they may hold secrets.
        ansible_reader: who reads inventories of Ansible.
        ignored: what inventories say of logins, and is not taken over.
        programs: runs those that an inventory needs.
    """

    timeout_seconds: float = READ_TIMEOUT_SECONDS
    ansible_labels: tuple[str, ...] = ()
    ansible_reader: AnsibleReader = AnsibleReader.AUTO
    ignored: frozenset[LoginPart] = frozenset()
    programs: Programs = field(default_factory=Programs)
