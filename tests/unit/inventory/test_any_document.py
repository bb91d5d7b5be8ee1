"""Whatever an inventory holds, it becomes hosts or an error of ours; never a bug."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.ini import add_ini
from fleetmem.inventory.ansible.source import listing_of
from fleetmem.inventory.ansible.tree import Tree
from fleetmem.inventory.ansible.yaml_groups import add_yaml
from fleetmem.inventory.documents import parse_json, parse_yaml
from fleetmem.inventory.json_hosts import parse_any
from fleetmem.inventory.listing import Listing, Means
from fleetmem.inventory.sources import parse_source

_WORDS = st.sampled_from(
    [
        *("all", "hosts", "children", "vars", "_meta", "hostvars", "targets", "labels", "inventory", "value", "name"),
        *("web01", "web[1:3]", "10.0.0.1:22", "::1", "a b", "", "ansible_host", "ansible_port", "groups", "instance"),
        *(
            "ansible_ssh_common_args",
            "-o ProxyCommand='ssh -W'",
            "-J x",
            "{{ web01 }}",
            "{{ x",
            "ansible_group_priority",
        ),
    ]
)
_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | _WORDS | st.text(max_size=5)
_DOCUMENTS = st.recursive(
    _VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS | st.integers(), inner, max_size=4),
    max_leaves=20,
)


def _is_listing(listing: Listing) -> None:
    assert all(host.name.isprintable() and host.address.isprintable() for host in listing.hosts)


@pytest.mark.slow
@given(_DOCUMENTS)
def test_any_values(data: Any) -> None:
    """As JSON, and as Ansible's YAML."""
    with suppress(InventoryError):
        _is_listing(parse_any(data, Means(ansible_labels=("name",)), "x"))
    tree = Tree()
    with suppress(InventoryError):
        add_yaml(tree, data, "x")
        _is_listing(listing_of(tree, ("name",), "x"))


_INI_WORDS = st.sampled_from(["[web]", "[a:vars]", "[a:children]", "\n", " ", "=", "#", ";", "'", '"', ":", "web[1:3]"])


@pytest.mark.slow
@given(st.lists(_INI_WORDS | _WORDS | st.text(max_size=3), max_size=30).map("".join))
def test_any_text(text: str) -> None:
    """As INI, YAML and JSON."""
    for read in (_read_ini, parse_yaml, parse_json):
        with suppress(InventoryError):
            read(text, "x")


def _read_ini(text: str, where: str) -> None:
    tree = Tree()
    add_ini(tree, text, where)
    _is_listing(listing_of(tree, ("name",), where))


@given(st.text(alphabet="abz:/\\.~*[]?-\0\n =,", max_size=20))
def test_any_name_of_an_inventory(text: str) -> None:
    """Is an inventory, or none."""
    try:
        source = parse_source(text)
    except InventoryError:
        return
    assert str(source)
