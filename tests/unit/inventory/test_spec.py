import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import InventoryError
from fleetmem.inventory import spec
from fleetmem.inventory.spec import MAX_EXPANSION, expand_ranges, parse_spec, split_specs
from fleetmem.model import Host


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (" a ,, b\tc\n", ["a", "b", "c"]),
        ("a,b[1,3]", ["a", "b[1,3]"]),
        ("[::1]:22,[::2]", ["[::1]:22", "[::2]"]),
        ("a[1,2]b[3,4],c", ["a[1,2]b[3,4]", "c"]),
    ],
)
def test_split_specs(text: str, parts: list[str]) -> None:
    """Commas and white space separate, but not within brackets."""
    assert split_specs(text) == parts


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("web1", ["web1"]),
        ("web[1-3]", ["web1", "web2", "web3"]),
        ("web[08-11]", ["web08", "web09", "web10", "web11"]),
        ("web[001-002]", ["web001", "web002"]),
        ("web[9-11]", ["web9", "web10", "web11"]),
        ("web[5-5]", ["web5"]),
        ("web[01-03,7]", ["web01", "web02", "web03", "web7"]),
        ("web[a,b_2]", ["weba", "webb_2"]),
        ("[1-2]", ["1", "2"]),
        ("r[1-2]h[1-2].x", ["r1h1.x", "r1h2.x", "r2h1.x", "r2h2.x"]),
    ],
)
def test_expand_ranges(pattern: str, names: list[str]) -> None:
    """Ranges keep zeros in front, lists keep their order, several brackets multiply."""
    assert expand_ranges(pattern) == names


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("web[1-3", "brackets do not match; a range looks like"),
        ("web1-3]", "brackets do not match"),
        ("web[1]]", "brackets do not match"),
        ("web[]", "'' is not a range"),
        ("web[1,,2]", "'' is not a range"),
        ("web[1-b]", "'1-b' is not a range"),
        ("web[1 - 3]", "is not a range; write"),
        ("web[3-1]", "'3-1' runs backwards"),
        (f"web[1-{MAX_EXPANSION + 1}]", "too large"),
        ("web[1-1000][1-1000]", f"more than {MAX_EXPANSION} hosts"),
        ("web[1-10][1-1000][1-1000]", f"more than {MAX_EXPANSION} hosts"),
    ],
)
def test_expand_ranges_refuses(pattern: str, message: str) -> None:
    """A malformed range is named together with what to write instead."""
    with pytest.raises(InventoryError, match=message):
        expand_ranges(pattern)


def test_the_largest_expansion_is_allowed() -> None:
    """The limit is the last number of hosts that works, for one range and for a product."""
    assert len(expand_ranges(f"web[1-{MAX_EXPANSION}]")) == MAX_EXPANSION
    assert len(expand_ranges("r[1-100]h[1-1000]")) == MAX_EXPANSION


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("web01", Host("web01", "web01")),
        ("web01.example.com.", Host("web01.example.com.", "web01.example.com.")),
        ("ubuntu@web01", Host("web01", "web01", user="ubuntu")),
        ("a@b@web01", Host("web01", "web01", user="a@b")),
        ("web01:2222", Host("web01:2222", "web01", 2222)),
        ("u@web01:2222", Host("web01:2222", "web01", 2222, "u")),
        ("10.0.0.1:22", Host("10.0.0.1:22", "10.0.0.1", 22)),
        ("::1", Host("::1", "::1")),
        ("[::1]", Host("::1", "::1")),
        ("[::1]:22", Host("[::1]:22", "::1", 22)),
        ("u@[2001:db8::1]:22", Host("[2001:db8::1]:22", "2001:db8::1", 22, "u")),
        ("u@2001:db8::1", Host("2001:db8::1", "2001:db8::1", None, "u")),
        ("fe80::1%eth0", Host("fe80::1%eth0", "fe80::1%eth0")),
        ("[fe80::1%eth0]:2200", Host("[fe80::1%eth0]:2200", "fe80::1%eth0", 2200)),
    ],
)
def test_parse_spec(text: str, host: Host) -> None:
    """User, address and port are told apart; a port that is given belongs to the name."""
    assert list(parse_spec(text)) == [host]


def test_parse_spec_with_range_user_and_port() -> None:
    """User and port hold for each host of a range."""
    assert list(parse_spec("u@web[1-2].x:22")) == [
        Host("web1.x:22", "web1.x", 22, "u"),
        Host("web2.x:22", "web2.x", 22, "u"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@web01", "nothing before the @"),
        ("web01:", "'' is not a port"),
        ("web01:ssh", "'ssh' is not a port .* IPv6 is written"),
        ("web01:0", "'0' is not a port"),
        ("web01:65536", "'65536' is not a port"),
        ("web01:-1", "is not a port"),
        ("[::1]:0", "'0' is not a port"),
        ("web01:²", "is not a port"),
        ("u@", "'' is not a host name"),
        ("-web", "'-web' is not a host name"),
        ("web;reboot", "is not a host name"),
        ("we$(b)", "is not a host name"),
        ("wéb", "is not a host name; expected"),
        ("web[a,b]-", "'weba-' is not a host name"),
        ("a:b:c", "is not a port"),
    ],
)
def test_parse_spec_refuses(text: str, message: str) -> None:
    """What is no host is quoted, with what one looks like."""
    with pytest.raises(InventoryError, match=message) as caught:
        list(parse_spec(text))
    assert repr(text) in str(caught.value) or repr(text.rpartition("@")[2]) in str(caught.value)


_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_NAMES = st.lists(_LABEL, min_size=1, max_size=3).map(".".join) | st.ip_addresses(v=4).map(str)
_USERS = st.none() | st.from_regex(r"[a-z_][a-z0-9_-]{0,8}", fullmatch=True)
_PORTS = st.none() | st.integers(1, 65535)


@given(_USERS, _NAMES, _PORTS)
def test_a_host_comes_back_from_its_text(user: str | None, address: str, port: int | None) -> None:
    """Whatever is put together as [user@]host[:port] is taken apart as the same."""
    text = (f"{user}@" if user else "") + address + (f":{port}" if port else "")
    (host,) = parse_spec(text)
    assert (host.user, host.address, host.port) == (user, address, port)
    assert host.name == address + (f":{port}" if port else "")


@given(_USERS, st.ip_addresses(v=6).map(str), _PORTS)
def test_an_ipv6_host_comes_back_from_its_text(user: str | None, address: str, port: int | None) -> None:
    """Brackets are needed with a port only, and always allowed."""
    prefix = f"{user}@" if user else ""
    forms = [f"{prefix}[{address}]:{port}"] if port else [f"{prefix}[{address}]", f"{prefix}{address}"]
    for form in forms:
        (host,) = parse_spec(form)
        assert (host.user, host.address, host.port) == (user, address, port)


@given(st.integers(0, 3000), st.integers(0, 50), st.integers(1, 6))
def test_a_range_has_every_number_once(first: int, count: int, width: int) -> None:
    """A range gives its numbers in order, each as wide as the first one when that has zeros in front."""
    names = expand_ranges(f"h[{first:0{width}}-{first + count}]")
    assert [int(name[1:]) for name in names] == list(range(first, first + count + 1))
    if f"{first:0{width}}".startswith("0"):
        assert all(len(name) >= width + 1 for name in names)


@given(st.text(alphabet="ab019[]-,.:@%_ é\x1b", max_size=20))
def test_any_text_gives_hosts_or_one_kind_of_error(text: str) -> None:
    """Whatever is typed: hosts with addresses that are safe to print, or an InventoryError."""
    for part in split_specs(text):
        try:
            hosts = list(parse_spec(part))
        except InventoryError:
            continue
        for host in hosts:
            assert spec._ADDRESS.fullmatch(host.address) or ":" in host.address
