import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.union import shared_addresses, unite
from fleetmem.model import Host


def test_what_is_said_in_several_places_comes_together() -> None:
    """Groups add up, a later label counts, and what only one of them says holds."""
    one = Host("a", "10.0.0.1", groups=frozenset({"web"}), labels={"env": "test", "role": "web"})
    other = Host("a", "10.0.0.1", 22, "u", ("k",), "j", frozenset({"eu"}), {"env": "prod"})
    for first, second in ((one, other), (other, one)):
        (host,) = unite([("x", [first]), ("y", [second])])
        assert host == Host("a", "10.0.0.1", 22, "u", ("k",), "j")
        assert host.groups == {"web", "eu"}
        assert host.labels == {"role": "web", "env": second.labels["env"]}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Host("a", "2"), "two addresses: 1 (x) and 2 (y)"),
        (Host("a", "1", user="v"), "two users: u (x) and v (y)"),
        (Host("a", "1", port=23), "two ports: 22 (x) and 23 (y)"),
        (Host("a", "1", jump="k"), "two jump hosts: j (x) and k (y)"),
        (Host("a", "1", key_paths=("l",)), "two keys: k (x) and l (y)"),
    ],
)
def test_a_contradiction_names_both(other: Host, message: str) -> None:
    """Which one is meant cannot be guessed."""
    with pytest.raises(InventoryError) as caught:
        unite([("x", [Host("a", "1", 22, "u", ("k",), "j")]), ("y", [other])])
    assert message in str(caught.value)


@pytest.mark.parametrize("second", [Host("a", "a", user="bob"), Host("a", "a")])
def test_within_one_inventory_everything_must_be_the_same(second: Host) -> None:
    """`-i ann@a,a`: which line was meant cannot be guessed."""
    with pytest.raises(InventoryError, match=r"host a is listed with two users: ann \(-i\) and (bob|none) \(-i\)"):
        unite([("-i", [Host("a", "a", user="ann"), second])])


def test_a_contradiction_costs_that_host() -> None:
    """Between two inventories and within one; the others are there, and what was typed by hand is an error."""
    left_out: list[str] = []
    first = [Host("a", "1"), Host("b", "1", 22), Host("c", "1"), Host("c", "2"), Host("c", "3")]
    hosts = unite([("x", first), ("y", [Host("b", "1", 23), Host("d", "1")])], left_out, may_contradict=True)
    assert [host.name for host in hosts] == ["a", "d"]
    assert left_out == [
        "host c is listed with two addresses: 1 (x) and 2 (x)",
        "host b is listed with two ports: 22 (x) and 23 (y)",
    ]
    with pytest.raises(InventoryError):
        unite([("-i", [Host("a", "1")]), ("x", [Host("a", "2")])], [], may_contradict=True)
    with pytest.raises(InventoryError):
        unite([("x", [Host("a", "1")]), ("y", [Host("a", "2")])], [])


def test_a_machine_with_two_names_is_told() -> None:
    """Not one with two ports: several machines may be behind an address."""
    hosts = [Host("a", "1"), Host("b", "1"), Host("c", "1", 23), Host("d", "2"), Host("e", "1", jump="j")]
    assert list(shared_addresses(hosts)) == ["a, b have the same address 1: sampled under each name"]
