from collections import Counter
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fleetmem.rendezvous import owner, shard_of

_names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)
_servers = st.lists(_names, min_size=1, max_size=8, unique=True)
_keys = st.lists(st.text(max_size=20), min_size=1, max_size=30)


def test_it_is_the_same_for_ever() -> None:
    """Collectors of several versions share a fleet: the owner is part of the contract."""
    servers = ["a:2003", "b:2003", "c:2003"]
    assert [owner(f"web{number}", servers) for number in range(8)] == [f"{letter}:2003" for letter in "bbccbabc"]


def test_no_servers() -> None:
    """A key cannot belong to nobody."""
    with pytest.raises(ValueError, match="no servers to place 'web1' on"):
        owner("web1", [])


@given(st.text(), _servers, st.randoms())
def test_the_order_of_the_servers_does_not_matter(key: str, servers: list[str], random: Random) -> None:
    """Two lists of the same servers give the same owner, one of them."""
    shuffled = servers[:]
    random.shuffle(shuffled)
    assert owner(key, servers) == owner(key, shuffled)
    assert owner(key, servers) in servers


@given(_keys, _servers, _names)
def test_a_server_more_takes_keys_and_moves_no_others(keys: list[str], servers: list[str], new: str) -> None:
    """Adding a server moves only keys that go to it; removing it again, which is the reverse, only its own."""
    assume(new not in servers)
    for key in keys:
        after = owner(key, [*servers, new])
        assert after in (owner(key, servers), new)


@given(_keys, st.lists(_names, min_size=2, max_size=8, unique=True))
def test_a_server_less_moves_its_own_keys_only(keys: list[str], servers: list[str]) -> None:
    """Keys of the servers that stay, stay."""
    gone, *staying = servers
    for key in keys:
        before = owner(key, servers)
        if before != gone:
            assert owner(key, staying) == before


@pytest.mark.parametrize("servers", [["a", "b"], ["a", "b", "c"], [f"10.0.0.{number}:2003" for number in range(10)]])
def test_each_server_gets_its_share(servers: list[str]) -> None:
    """20,000 keys: each share is within five standard deviations of even (one run in a million would not be)."""
    keys = 20_000
    shares = Counter(owner(f"host{number:05d}.example.com", servers) for number in range(keys))
    even = keys / len(servers)
    deviation = (even * (1 - 1 / len(servers))) ** 0.5
    assert set(shares) == set(servers)
    assert all(abs(share - even) < 5 * deviation for share in shares.values()), shares


def test_the_names_of_server_and_key_do_not_run_together() -> None:
    """Server `s1` with key `23` weighs otherwise than `s` with `123`: or systematic names would be placed in lumps."""
    keys = [str(number) for number in range(200)]
    same = sum((owner(f"1{key}", ["s", "t"]) == "s") == (owner(key, ["s1", "t1"]) == "s1") for key in keys)
    assert 60 < same < 140


def test_another_shard_takes_its_share_and_moves_nothing_else() -> None:
    """Of four shards the last one has its hosts from all others; each host has one shard, of even size."""
    keys = [f"web{number:04d}" for number in range(4000)]
    three, four = {key: shard_of(key, 3) for key in keys}, {key: shard_of(key, 4) for key in keys}
    assert set(three.values()) == {0, 1, 2}
    assert all(four[key] in (three[key], 3) for key in keys)
    assert all(900 < count < 1100 for count in Counter(four.values()).values())
