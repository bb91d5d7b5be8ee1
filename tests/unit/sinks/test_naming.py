import itertools
import re
import string
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetmem.sinks import naming
from fleetmem.sinks.formats import statsd_plain
from fleetmem.sinks.naming import (
    MAX_NAME_BYTES,
    FleetNames,
    HostNames,
    NameTable,
    Place,
    check_prefix,
    check_tags,
    make_tags,
)
from unit.builders import command_names

_COMPONENT = re.compile(r"[A-Za-z0-9_]+")
_MEASURES = ("rss_bytes", "vsz_bytes", "mem_percent", "procs")


def _hashed(original: str) -> str:
    """Returns the name that an original gets beside another one."""
    return naming._with_hash(naming._fold(original, 32), original, 32)


def _all_names(originals: list[str]) -> dict[str, str]:
    """Returns the names of originals once all of them are known."""
    table = NameTable(32, reserved=["other"])
    for original in originals:
        table.name(original)
    return {original: table.name(original) for original in originals}


def _adversarial_names() -> st.SearchStrategy[str]:
    """Names as processes that mean harm choose them: like those of others, and like those that others are given."""
    plain = command_names()
    return plain | plain.map(_hashed) | plain.map(_hashed).map(_hashed) | st.sampled_from(["unnamed", "other", "a_b"])


@pytest.mark.parametrize("prefix", ["fleetmem", "a", "A.b_1.2", "f" * 40])
def test_check_prefix(prefix: str) -> None:
    """Letters, digits and underscores in parts joined by dots."""
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["", "1a", "_a", "a.", ".a", "a..b", "a-b", "a b", "é", "f" * 41, "a\n"])
def test_check_prefix_refuses(prefix: str) -> None:
    """What a receiver would change, or what leaves no room, is refused with the rule."""
    with pytest.raises(ValueError, match="a letter first, at most 40 characters"):
        check_prefix(prefix)


@pytest.mark.parametrize(
    ("original", "name"),
    [
        ("nginx", "nginx"),
        ("redis-server", "redis_server"),
        ("npm start", "npm_start"),
        ("(sd-pam)", "_sd_pam_"),
        ("kworker/0:1", "kworker_0_1"),
        ("café", "caf__"),
        ("caf\udce9", "caf_"),
        ("", "unnamed"),
        ("x" * 32, "x" * 32),
        ("x" * 33, "x" * 23 + "_11ba55a3"),
        ("other", "other_d9298a10"),
        ("a_deadbeef", "a_deadbeef_a2402ed8"),
    ],
)
def test_names(original: str, name: str) -> None:
    """Names stay as they are where they are legal; these texts are a contract: a change renames people's series."""
    assert NameTable(32, ["other"]).name(original) == name


@pytest.mark.parametrize("originals", list(itertools.permutations(["a.b", "a-b", "a_b", "a b"])))
def test_collisions_in_any_order(originals: tuple[str, ...]) -> None:
    """The legal one keeps its name, the others have a hash, whichever was seen first."""
    names = _all_names(list(originals))
    assert names == {"a_b": "a_b", **{name: _hashed(name) for name in ("a.b", "a-b", "a b")}}


def test_a_late_collision_is_told() -> None:
    """When a name that was given out changes, the generation grows; a repeated one changes nothing."""
    table = NameTable(32)
    assert table.name("a.b") == "a_b"
    assert (table.name("c"), table.generation) == ("c", 0)
    second = table.name("a-b")
    assert table.generation == 1
    assert table.name("a.b") == _hashed("a.b") != second == _hashed("a-b")
    assert (table.name("a b"), table.generation) == (_hashed("a b"), 1)


def test_a_legal_name_next_to_a_folded_one() -> None:
    """A legal name moves the one that sat in its place, and never the other way round."""
    table = NameTable(32)
    table.name("a_b")
    assert (table.name("a.b"), table.name("a_b"), table.generation) == (_hashed("a.b"), "a_b", 0)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_nobody_takes_the_hashed_name_of_another(first: int) -> None:
    """A process that calls itself by the hashed name of another one does not get that name."""
    originals = ["a.b", "a-b", _hashed("a.b")]
    names = _all_names(originals[first:] + originals[:first])
    assert len(set(names.values())) == 3
    assert names["a.b"] == _hashed("a.b")


def _plain(prefix: str, place: Place) -> str:
    return statsd_plain(prefix, place).head


def _with_another_order(names: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[list[str], list[str]]]:
    lists = st.lists(names, min_size=1, max_size=12, unique=True)
    return lists.flatmap(lambda originals: st.tuples(st.just(originals), st.permutations(originals)))


@given(_with_another_order(_adversarial_names()))
@example((["a.b", "a-b", _hashed("a.b")], [_hashed("a.b"), "a.b", "a-b"]))
def test_names_are_legal_injective_and_independent_of_order(orders: tuple[list[str], list[str]]) -> None:
    """Any set of names: each legal and short, none shared, and the same in another order."""
    originals, shuffled = orders
    names = _all_names(originals)
    assert all(_COMPONENT.fullmatch(name) and len(name) <= 32 for name in names.values())
    assert len(set(names.values())) == len(originals)
    assert "other" not in names.values()
    assert _all_names(shuffled) == names


@given(st.lists(_adversarial_names(), max_size=12))
def test_names_are_stable(originals: list[str]) -> None:
    """Once all are known, asking again changes nothing."""
    table = NameTable(32)
    for original in originals:
        table.name(original)
    names, generation = [table.name(original) for original in originals], table.generation
    assert [table.name(original) for original in originals] == names
    assert table.generation == generation


_PREFIXES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}(\.[A-Za-z0-9_]{1,18})?", fullmatch=True)
_HOST = st.text(string.ascii_lowercase + string.digits + ".:-[]%", min_size=1, max_size=120)


@pytest.mark.slow
@given(_PREFIXES, st.lists(_HOST, min_size=1, unique=True), command_names(), st.integers(0, 10**10 - 1))
def test_a_whole_name_fits(prefix: str, hosts: list[str], command: str, pid: int) -> None:
    """No prefix, host, command and pid make a name longer than 127 bytes or one with an empty part."""
    fleet = FleetNames(prefix, hosts)
    for host in hosts:
        names = fleet.host(host)
        places = [names.process(command, pid), names.command(command), names.other_commands, names.other_processes]
        whole = [_plain(prefix, place) + measure for place in places for measure in _MEASURES]
        whole.append(_plain(prefix, names.host) + "mem_available_bytes")
        for name in whole:
            assert len(name) <= MAX_NAME_BYTES
            assert all(_COMPONENT.fullmatch(part) for part in name.split("."))
            assert name.startswith(prefix + ".")


def test_the_longest_name_uses_the_room() -> None:
    """The bound is met, not missed by a wide margin: names are not cut for nothing."""
    names = FleetNames("p" * 40, ["h" * 200]).host("h" * 200)
    assert len(_plain("p" * 40, names.process("c" * 99, 10**10 - 1)) + "mem_percent") == MAX_NAME_BYTES


@given(_with_another_order(_HOST | st.sampled_from(["a.b", "a-b", "a_b"])))
def test_hosts_keep_apart_in_any_order(orders: tuple[list[str], list[str]]) -> None:
    """Two hosts never share a stem, and the order of the inventory does not matter."""
    hosts, shuffled = orders
    first, second = FleetNames("p", hosts), FleetNames("p", shuffled)
    places = {host: first.host(host).host for host in hosts}
    assert len(set(places.values())) == len(hosts)
    assert {host: second.host(host).host for host in hosts} == places


def test_plain_names() -> None:
    """The shape of every name, as docs/reference/metrics.md promises it."""
    names = HostNames("web01")
    assert _plain("p", names.host) == "p.host.web01."
    assert _plain("p", names.process("redis-server", 7)) == "p.process.web01.redis_server.7."
    assert _plain("p", names.command("redis-server")) == "p.command.web01.redis_server."
    assert _plain("p", names.other_commands) == "p.command.web01.other."
    assert _plain("p", names.other_processes) == "p.process.web01.other.0."
    assert names.command("other") != names.other_commands


def test_generation_is_that_of_the_commands() -> None:
    """A host's names say when one of them moved."""
    names = HostNames("web01")
    names.command("a.b")
    assert (names.commands.generation, names.kept_apart) == (0, 0)
    names.process("a-b", 1)
    assert (names.commands.generation, names.kept_apart) == (1, 2)


def test_names_kept_apart_are_counted() -> None:
    """Hosts and commands that would share a name with another; not those that are only long."""
    fleet = FleetNames("p", ["a.b", "a-b", "c"])
    assert fleet.kept_apart == 2
    fleet.host("c").command("d/0")
    fleet.host("c").command("d:0")
    fleet.host("c").command("e f")
    assert fleet.kept_apart == 4


def test_a_changed_fleet_goes_on_with_the_names_before() -> None:
    """A command that had to be told from another one keeps its name, in old and new sinks; not for another host."""
    old = FleetNames("p", ["a", "b.c", "x"])
    names = [(old.host(host).command("d/0"), old.host(host).command("d:0"))[1] for host in ("a", "b.c")]
    new = FleetNames("q", ["a", "b.c", "b-c"], old)
    assert new.host("a") is old.host("a")
    assert new.host("a").command("d:0") == names[0]
    assert new.host("b.c") is not old.host("b.c")
    assert new.kept_apart == 2 + 2  # b.c and b-c, d/0 and d:0


def test_a_host_that_makes_up_names_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded; beyond it names are still legal, apart and the same each time."""
    monkeypatch.setattr(naming, "_MAX_REMEMBERED", 3)
    table = NameTable(32, reserved=["other"])
    remembered = [table.name(original) for original in ("a", "b.c", "d")]
    originals = ["e", "f.g", "f-g", "b-c", "b_c", "other", "", "x" * 40, _hashed("f.g")]
    late = [table.name(original) for original in originals]
    assert len(table.known) == 3
    assert [table.name(original) for original in originals] == late
    assert len({*remembered, *late}) == len(remembered) + len(late)
    assert [table.name(original) for original in ("a", "b.c", "d")] == remembered
    assert late[0] == "e"


def test_two_originals_whose_hashes_begin_alike_stay_apart() -> None:
    """A hash of 8 digits can be hit on purpose; the second one then gets more digits."""
    table = NameTable(32)
    first, second = "!?$?", "#:,="  # SHA-256 of both begins with b28b795f, and both fold to _____
    names = {table.name(original) for original in (first, second)}
    names |= {table.name(original) for original in (first, second)}
    assert len({table.name(first), table.name(second)}) == 2


def test_labels_become_tags() -> None:
    """Legal for every receiver, in the order in which they are wanted; a label that a host lacks is left out."""
    labels = {"env": "prod", "Cost Center": "a;b=c~d|e", "1st": "é" * 40, "empty": "", "other": "x"}
    tags = make_tags(labels, ["Cost Center", "env", "none", "empty", "1st"])
    assert tags[:2] == (("Cost_Center", "a_b_c_d_e"), ("env", "prod"))
    assert tags[2][0] == "_1st"
    assert re.fullmatch(r"[A-Za-z0-9_]{64}", tags[2][1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("env", "host"), "'host': host is a tag of every series already"),
        (("sink",), "sink is a tag"),
        (("a.b", "a-b"), "two labels would become the tag a_b"),
        (("env", "env"), "two labels would become the tag env"),
        (tuple("abcdefghi"), "more than 8 tags"),
    ],
)
def test_labels_that_cannot_be_tags(labels: tuple[str, ...], message: str) -> None:
    """What would be two tags of one name."""
    with pytest.raises(ValueError, match=message):
        check_tags(labels)
    assert check_tags(("env", "role")) == ("env", "role")


def test_other_tags_leave_the_names_as_they_are() -> None:
    """A host whose labels changed goes on with the commands seen there; one whose labels did not is the same."""
    old = FleetNames("p", ["a", "b"], tags={"a": (("env", "test"),)})
    names = [(old.host("a").command("d/0"), old.host("a").command("d:0"))[1]]
    new = FleetNames("p", ["a", "b"], old, {"a": (("env", "prod"),)})
    assert new.host("b") is old.host("b")
    assert new.host("a").command("d:0").labels == names[0].labels
    assert new.host("a").command("d:0").tags == new.host("a").host.tags == (("env", "prod"),)


def test_places_have_the_labels_of_their_family() -> None:
    """What is asked for by `place` is what the places of a host are, label by label."""
    names = FleetNames("p", ["web01"]).host("web01")
    assert names.host == naming.place("host", "web01")
    assert names.command("sh") == naming.place("command", "web01", "sh")
    assert names.process("sh", 7) == naming.place("process", "web01", "sh", "7")
    assert names.other_commands == naming.place("command", "web01", "other")
    assert names.other_processes == naming.place("process", "web01", "other", "0")


@pytest.mark.slow
def test_names_are_remembered_within_bytes() -> None:
    """Long names fill a host's table as many short ones do; then each new one has a hash, the same each time."""
    table = NameTable(32, reserved=["other"], pool=naming.NamePool())
    first = table.name("a.b")
    originals = [f"{number}.{'x' * 250}" for number in range(20_000)]
    tracemalloc.start()
    try:
        names = [table.name(original) for original in originals]
        assert table.remembered_bytes < naming.MAX_REMEMBERED_BYTES + 1000
        del names
        assert tracemalloc.get_traced_memory()[0] < 2 * naming.MAX_REMEMBERED_BYTES
    finally:
        tracemalloc.stop()
    assert len({table.name(original) for original in originals}) == len(originals)
    assert table.name("a.b") == first
    assert table.name("a-b") == _hashed("a-b")


def test_all_hosts_share_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that make up names take no more than the fleet's bound; a new fleet counts what it takes over."""
    monkeypatch.setattr(naming, "MAX_FLEET_BYTES", 10_000)
    hosts = [f"h{number}" for number in range(20)]
    fleet = FleetNames("p", hosts)
    for _ in range(2):
        for host in hosts:
            for number in range(100):
                assert fleet.host(host).commands.name(f"{host}.{number}") != "unnamed"
        assert sum(fleet.host(host).remembered_bytes for host in hosts) < 11_000
        fleet = FleetNames("p", hosts, fleet)
    smaller = FleetNames("p", ["h19", "new"], fleet)
    assert smaller.host("h19").commands.name("a.b") == _hashed("a.b")  # a full table stays so: no name changes later
    assert smaller.host("new").commands.name("a.b") == "a_b"
