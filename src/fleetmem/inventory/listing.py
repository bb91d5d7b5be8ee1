"""What every kind of inventory gives, and what it is read with."""

from dataclasses import dataclass, field
from typing import NamedTuple

from fleetmem.inventory.programs import Programs
from fleetmem.model import Host

READ_TIMEOUT_SECONDS = 30.0
"""Default limit for one inventory to answer."""


class Listing(NamedTuple):
    """The hosts of one inventory.

    Attributes:
        hosts: in its order; one that is there several times is folded later.
        remarks: what it holds besides, and is left out, for people.
    """

    hosts: list[Host]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Means:
    """What inventories are read with.

    Attributes:
        timeout_seconds: for one inventory.
        ansible_labels: variables of Ansible that become labels. The others stay out: they may hold secrets.
        programs: runs those that an inventory needs.
    """

    timeout_seconds: float = READ_TIMEOUT_SECONDS
    ansible_labels: tuple[str, ...] = ()
    programs: Programs = field(default_factory=Programs)
