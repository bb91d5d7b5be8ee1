from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import InventoryError
from fleetmem.inventory.entries import parse_hosts
from fleetmem.model import Host

_FULL = {
    "name": "web01",
    "address": "10.0.0.1",
    "port": 2222,
    "user": "ubuntu",
    "key": "~/.ssh/id",
    "jump": "j@bastion:22,[::1]:23",
    "groups": ["web", "eu"],
    "labels": {"env": "prod", "rack": 7, "spot": True, "none": None, "empty": ""},
}


def test_an_entry_may_say_everything() -> None:
    """Numbers and truth values become texts; labels without a value are left out."""
    (host,) = parse_hosts([_FULL], "x")
    assert host == Host("web01", "10.0.0.1", 2222, "ubuntu", ("~/.ssh/id",), "j@bastion:22,[::1]:23")
    assert host.groups == {"web", "eu"}
    assert host.labels == {"env": "prod", "rack": "7", "spot": "true"}


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ({"name": "a"}, Host("a", "a")),
        ({"address": "a"}, Host("a", "a")),
        ({"name": "a:2222", "address": "b"}, Host("a:2222", "b")),
        ({"address": "::1"}, Host("::1", "::1")),
        ({"name": "a", "port": "22", "user": None, "groups": None, "labels": None}, Host("a", "a", 22)),
        ({"name": "a", "jump": "none"}, Host("a", "a", jump="none")),
        ({"name": "a", "key": ["k", "l"]}, Host("a", "a", key_paths=("k", "l"))),
        ({"name": "a", "user": "CORP\\ann"}, Host("a", "a", user="CORP\\ann")),
    ],
)
def test_an_entry_needs_a_name_or_an_address(entry: dict[str, Any], host: Host) -> None:
    """The rest is the configuration's to say."""
    assert parse_hosts([entry], "x") == [host]


def test_hosts_by_name() -> None:
    """An object has them by name."""
    assert parse_hosts({"a": {"address": "1.2.3.4"}, "b": {}}, "x") == [Host("a", "1.2.3.4"), Host("b", "b")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "x: expected a list of hosts, or an object"),
        ([7], "x: host 1: expected an object with name or address"),
        ([{"name": "a"}, {}], "x: host 2: neither name nor address"),
        ({"a": 7}, "x: host 'a': no such field: ''"),
        ([{"name": "a", "adress": "b"}], "no such field: 'adress'; there are name, address"),
        ([{"name": 7}], "name: expected a text"),
        ([{"name": "a b"}], "('a b'): 'a b' is neither a host name nor an IP address"),
        ([{"name": "a b", "address": "c"}], "('a b'): not a name"),
        ([{"name": "\x1b[31m", "address": "c"}], "not a name"),
        ([{"name": "a", "address": "-oProxyCommand=x"}], "is neither a host name"),
        ([{"name": "a", "user": "$(reboot)"}], "'$(reboot)' is not a login name"),
        ([{"name": "a", "user": "-l"}], "is not a login name"),
        ([{"name": "a", "port": 0}], "0 is not a port"),
        ([{"name": "a", "port": 65536}], "65536 is not a port"),
        ([{"name": "a", "port": True}], "True is not a port"),
        ([{"name": "a", "port": "²"}], "is not a port"),
        ([{"name": "a", "jump": "x;y"}], "jump host 'x;y'"),
        ([{"name": "a", "jump": "`x`@y"}], "is not a login name"),
        ([{"name": "a", "key": 7}], "key: expected a path"),
        ([{"name": "a", "groups": "web"}], "groups: expected a list of names"),
        ([{"name": "a", "groups": [7]}], "groups: expected a text"),
        ([{"name": "a", "labels": ["x"]}], "labels: expected an object"),
        ([{"name": "a", "labels": {"x": {"y": 1}}}], "label 'x': expected a text"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(data: Any, message: str) -> None:
    """Nobody knows who wrote an inventory: what a shell, a terminal or ssh could mind is refused."""
    with pytest.raises(InventoryError) as caught:
        parse_hosts(data, "x")
    assert message in str(caught.value)


def test_groups_and_labels_steer_nothing() -> None:
    """Anyone who may tag a machine can write escape codes there: they are shown as what cannot be shown."""
    (host,) = parse_hosts([{"name": "a", "groups": ["a\x1b[31m"], "labels": {"k\n": "v\x07" + "x" * 999}}], "x")
    assert host.groups == {"a\ufffd[31m"}
    assert host.labels == {"k\ufffd": "v\ufffd" + "x" * 254}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(_FULL, _JSON)))
def test_any_entry_is_a_host_or_an_error(entry: dict[str, Any]) -> None:
    """Nothing that JSON can hold is a bug of ours."""
    try:
        (host,) = parse_hosts([entry], "x")
    except InventoryError:
        return
    assert host.name
    assert host.address
    assert all(text.isprintable() for text in (*host.groups, *host.labels, *host.labels.values()))
