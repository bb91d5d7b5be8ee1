import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.union import unite
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
