import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.host_ranges import expand


@pytest.mark.parametrize(
    ("pattern", "names", "port"),
    [
        ("web01", ["web01"], None),
        ("web01:2222", ["web01"], 2222),
        ("web[01:03].example.com", ["web01.example.com", "web02.example.com", "web03.example.com"], None),
        ("web[1:5:2]", ["web1", "web3", "web5"], None),
        ("db-[a:c]", ["db-a", "db-b", "db-c"], None),
        ("db-[x:A]", ["db-x", "db-y", "db-z", "db-A"], None),
        ("r[1:2]h[1:2]:22", ["r1h1", "r1h2", "r2h1", "r2h2"], 22),
        ("h[:2]", ["h0", "h1", "h2"], None),
        ("10.0.0.[8:9]", ["10.0.0.8", "10.0.0.9"], None),
        ("::1", ["::1"], None),
        ("[2001:db8::1]:22", ["2001:db8::1"], 22),
    ],
)
def test_expand(pattern: str, names: list[str], port: int | None) -> None:
    """Ranges have a first and a last one, and perhaps a step; letters go from a to z to A to Z."""
    assert expand(pattern) == (names, port)


@pytest.mark.parametrize("pattern", ["h[3:1]", "h[1:x]", "h[1:9:0]", "h[c:a]", "h[1:9999999]", "h[1:1000][1:1000]"])
def test_what_is_no_range(pattern: str) -> None:
    """The pattern is quoted."""
    with pytest.raises(InventoryError, match="host"):
        expand(pattern)
