"""Folded host names: expanding them gives the same names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.inventory import folding
from fleetmem.inventory.folding import fold, folded_text, natural_order
from fleetmem.inventory.patterns import select
from fleetmem.inventory.spec import parse_spec, split_specs
from fleetmem.model import Host


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([f"web{number:03}" for number in (*range(12, 20), 24)], "web[012-019,024]"),
        ([f"127.0.9.{number}" for number in range(1, 201)], "127.0.9.[1-200]"),
        (["web10", "web9", "web8"], "web[8-10]"),
        (["web08", "web09", "web10"], "web[08-10]"),
        (["web1", "web01"], "web[01,1]"),
        (["web1", "db"], "db,web1"),
        (["web2", "web10", "web1", "web1"], "web[1-2,10]"),
        ([f"ip-10-0-3-{number}.eu-west-1.compute.internal" for number in (4, 5)],
         "ip-10-0-3-[4-5].eu-west-1.compute.internal"),
        ([f"10.0.0.{number}:2222" for number in (1, 2)], "10.0.0.[1-2]:2222"),
        (["h:1", "h:2"], "h:1,h:2"),
        (["::1", "[::2]:22", "fe80::1%eth0"], "::1,[::2]:22,fe80::1%eth0"),
        ([], ""),
    ],
)  # fmt: skip
def test_names_fold(names: list[str], text: str) -> None:
    """In the fewest words, in the order in which people count."""
    assert folded_text(names) == text


def test_too_many_to_show() -> None:
    """The first ones, and how many more hosts there are."""
    names = [f"{letter}x" for letter in "abcdefgh"] + ["w1", "w2", "w3"]
    assert folded_text(names, 9) == "ax,bx,cx and 8 more"
    assert folded_text(["x" * 50, "y"], 9) == "x" * 50 + " and 1 more"


def test_order_is_natural() -> None:
    """Numbers of any length count as numbers."""
    long = "9" * 5000
    names = ["web10", "web2", "a", f"web{long}", "web02", "10", "9", "é1"]
    assert natural_order(names) == ["9", "10", "a", "web02", "web2", "web10", f"web{long}", "é1"]


_HOSTS = st.one_of(
    st.from_regex(r"(web|db|w-)?[0-9]{1,4}(\.rack0?[0-3])?(\.eu-west-1)?(:22|:2222)?", fullmatch=True),
    st.from_regex(r"10\.0\.[0-3]\.[0-9]{1,2}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9_.-]{0,12}[a-z0-9]", fullmatch=True),
    st.from_regex(r"[a-z][0-9]{8,12}", fullmatch=True),
)


@given(st.sets(_HOSTS, max_size=40))
def test_expanding_gives_the_same_hosts(names: set[str]) -> None:
    """With `-i`, and with `--limit`; the counts add up."""
    hosts = [Host(name, name) for name in sorted(names)]
    text = folded_text(names, 10**9)
    expanded = [host.name for spec in split_specs(text) for host in parse_spec(spec)]
    assert sorted(expanded) == sorted(names)
    assert sum(word.hosts for word in fold(names)) == len(names)
    if names:
        assert {host.name for host in select(text, hosts)} == names


@given(st.sets(st.text(max_size=20), max_size=30))
def test_odd_names_stay_themselves(names: set[str]) -> None:
    """Whatever a host is called, none is lost and none is made up."""
    expanded: set[str] = set()
    for word in fold(names):
        if word.hosts == 1:
            assert word.text in names
            expanded.add(word.text)
        else:
            expanded |= {host.name for host in parse_spec(word.text)}
    assert expanded == names


def test_no_word_is_longer_than_ranges_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that is larger than `-i` takes in one range becomes several."""
    monkeypatch.setattr(folding, "_MOST_IN_ONE", 100)
    assert folded_text(f"h{number}" for number in range(250)) == "h[0-99],h[100-199],h[200-249]"
