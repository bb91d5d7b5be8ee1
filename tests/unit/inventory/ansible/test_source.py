import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible import source
from fleetmem.inventory.ansible.source import read, read_list
from fleetmem.inventory.listing import Listing, Means
from fleetmem.inventory.patterns import select
from fleetmem.model import Host


@pytest.fixture(autouse=True)
def _without_ansible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own loader is what is tested here; tests/integration compares it with Ansible's."""
    monkeypatch.setattr(source, "find_program", lambda: None)


def _read(path: Path, text: str = "", labels: tuple[str, ...] = ()) -> Listing:
    if text:
        path.write_text(text)
    return read(str(path), Means(timeout_seconds=10, ansible_labels=labels))


def _write_script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_groups_above_and_below(tmp_path: Path) -> None:
    """A host is in its groups and in those above them; `all` and `ungrouped` are no groups of ours."""
    listing = _read(
        tmp_path / "hosts",
        "lone\n[web]\nweb01\n[db]\ndb01\n[eu:children]\nweb\ndb\n[world:children]\neu\n",
    )
    assert {host.name: set(host.groups) for host in listing.hosts} == {
        "lone": set(),
        "web01": {"web", "eu", "world"},
        "db01": {"db", "eu", "world"},
    }


def test_what_is_nearer_counts(tmp_path: Path) -> None:
    """Variables of all, of a group, of the group below it, of the host, in this order."""
    hosts = _read(
        tmp_path / "hosts",
        "[all:vars]\nansible_user=all\n[web]\nweb01\nweb02 ansible_user=host\n[db]\ndb01\n[lb]\nlb01\n"
        "[eu:children]\nweb\ndb\n[eu:vars]\nansible_user=eu\n[web:vars]\nansible_user=web\n",
    ).hosts
    assert {host.name: host.user for host in hosts} == {
        "web01": "web",
        "web02": "host",
        "db01": "eu",
        "lb01": "all",
    }


def test_group_vars_and_host_vars(tmp_path: Path) -> None:
    """Files and folders beside the inventory; of the host beats of the group beats of all; vaults are told."""
    group_vars, host_vars = tmp_path / "group_vars", tmp_path / "host_vars"
    (group_vars / "web").mkdir(parents=True)
    host_vars.mkdir()
    (group_vars / "all.yml").write_text("ansible_user: all\nansible_port: 2200\nenv: prod\n")
    (group_vars / "web" / "a.yml").write_text("ansible_user: web\n")
    (group_vars / "web" / "b.json").write_text('{"ansible_port": 2201}')
    (group_vars / "web" / ".hidden.yml").write_text("ansible_port: 1\n")
    (group_vars / "web" / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    (host_vars / "web02").write_text("ansible_user: host\nsecret: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n")
    listing = _read(tmp_path / "hosts", "db01\n[web]\nweb01\nweb02\n", labels=("env",))
    assert [(host.name, host.user, host.port) for host in listing.hosts] == [
        ("db01", "all", 2200),
        ("web01", "web", 2201),
        ("web02", "host", 2201),
    ]
    assert {host.labels["env"] for host in listing.hosts} == {"prod"}
    assert listing.remarks == (f"left out, encrypted: {group_vars}/web/vault.yml",)


def test_values_in_ini(tmp_path: Path) -> None:
    """Quotes, comments and Python's literals, as Ansible reads them."""
    text = (
        "; comment\n# comment\n[web] # comment\n"
        "web01 note='a b # c' n=3 yes=True list=\"['x', 'y']\" # comment\n"
        "[web:vars]\nplain = a b # c\nquoted='x'\n"
    )
    (host,) = _read(tmp_path / "hosts", text, labels=("note", "n", "yes", "plain", "quoted")).hosts
    assert host.labels == {"note": "a b # c", "n": "3", "yes": "true", "plain": "a b # c", "quoted": "x"}


def test_yaml(tmp_path: Path) -> None:
    """Nested groups, ranges, hosts without variables; also without an ending."""
    text = """
all:
  vars: {ansible_user: all}
  hosts:
    lone:
  children:
    web:
      hosts:
        web[01:02].example.com: {ansible_port: 2222}
        web03.example.com:2223:
      children:
        canary:
          hosts: web09
          vars: {ansible_user: canary}
db:
  hosts: {db01: {ansible_host: 10.0.0.1}}
"""
    for name in ("hosts.yml", "hosts"):
        hosts = _read(tmp_path / name, text).hosts
        assert [(host.name, host.address, host.port, host.user, set(host.groups)) for host in hosts] == [
            ("lone", "lone", None, "all", set()),
            ("web01.example.com", "web01.example.com", 2222, "all", {"web"}),
            ("web02.example.com", "web02.example.com", 2222, "all", {"web"}),
            ("web03.example.com", "web03.example.com", 2223, "all", {"web"}),
            ("db01", "10.0.0.1", None, "all", {"db"}),
            ("web09", "web09", None, "canary", {"web", "canary"}),
        ]


def test_a_folder_holds_several(tmp_path: Path) -> None:
    """In the order of their names; what is none is left alone, and groups of the same name are one."""
    (tmp_path / "1.ini").write_text("[web]\nweb01\n")
    (tmp_path / "2.yml").write_text("web: {hosts: {web02: }}\n")
    _write_script(tmp_path / "3.sh", """echo '{"web": ["web03"], "_meta": {"hostvars": {}}}'""")
    (tmp_path / "4.txt").write_text("[no inventory\n")
    (tmp_path / ".5").write_text("[no inventory\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "hosts").write_text("[web]\nweb04\n[db]\nweb01\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "web.yml").write_text("ansible_user: web\n")
    hosts = _read(tmp_path).hosts
    assert [(host.name, host.user) for host in hosts] == [(f"web0{number}", "web") for number in range(1, 5)]
    assert hosts[0].groups == {"web", "db"}


def test_a_program_of_old_is_asked_for_each_host(tmp_path: Path) -> None:
    """Without `_meta`, `--host NAME` tells the variables."""
    script = _write_script(
        tmp_path / "inventory",
        'case $1 in --list) echo \'{"web": {"hosts": ["a", "b"], "vars": {"ansible_user": "u"}}}\';; '
        '--host) [ $2 = a ] && echo \'{"ansible_host": "10.0.0.1"}\' || echo "{}";; esac',
    )
    assert _read(script).hosts == [Host("a", "10.0.0.1", user="u"), Host("b", "b", user="u")]


@pytest.mark.slow
def test_a_program_has_its_time(tmp_path: Path) -> None:
    """All of its calls together."""
    script = _write_script(tmp_path / "inventory", "exec sleep 60")
    with pytest.raises(InventoryError, match="not done after"):
        read(str(script), Means(timeout_seconds=0.3))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("hosts", "[web\nx", "line 1: '[web' is not a section"),
        ("hosts", "[web server]\n", "line 1: '[web server]' is not a section"),
        ("hosts", "[web:hots]\n", "line 1: [web:hots]: a section is of hosts, vars or children"),
        ("hosts", "[web:vars]\nx\n", "line 2: expected name=value in [web:vars]"),
        ("hosts", "[web:vars]\nx=1\n", "[web:vars] names group 'web', which has no section of its own"),
        ("hosts", "[a:children]\nb\n", "[a:children] names group 'b'"),
        ("hosts", "[a:children]\nb:c\n", "line 2: 'b:c' is not the name of a group"),
        ("hosts", "[a:children]\nb\n[b:children]\na\n", "is below itself"),
        ("hosts.yml", "all: [", "not YAML"),
        ("hosts.yml", "", "no such file"),
        ("hosts.yml", "x", "expected groups"),
        ("hosts.yml", "plugin: amazon.aws.aws_ec2\n", "for a plugin of Ansible (amazon.aws.aws_ec2)"),
        ("hosts.yml", "web: [a]\n", "group 'web': expected hosts, children or vars"),
        ("hosts.yml", "web: {hosts: [a]}\n", "group 'web': hosts: expected an object"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    """File, and line or group."""
    with pytest.raises(InventoryError) as caught:
        _read(tmp_path / name, text)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("hosts", "good01\nweb01 x\n", "line 2: expected name=value after the host, not 'x'"),
        ("hosts", "good01\nweb01 x='\n", "line 2: No closing quotation"),
        ("hosts", "good01\nweb[3:1]\n", "line 2: host 'web[3:1]': [3:1] is not a range"),
        ("hosts", "good01\nweb[0:1000000000]\n", "line 2: host 'web[0:1000000000]': [0:1000000000] is not a range"),
        ("hosts", "good01\nweb 01 (prod)\n", "line 2: expected name=value after the host, not '01' (all of 'web 01"),
        ("hosts", "good01\ndb/primary\n", "line 2 ('db/primary'): 'db/primary' is neither a host name"),
        ("hosts", "good01\nmünchen-01\n", "line 2 ('münchen-01'): 'münchen-01' is neither a host name"),
        ("hosts", "good01\nweb01 ansible_port=ssh\n", "line 2 ('web01'): 'ssh' is not a port"),
        (
            "hosts",
            "good01\nweb01 ansible_host='{{ x | y }}'\n",
            "line 2 ('web01'): ansible_host is a template that only",
        ),
        ("hosts", "good01\n[web]\nweb[01:02] ansible_port=0\n", "line 3 ('web01'): '0' is not a port"),
        ("hosts", "good01\nweb01\n[x]\nweb01 x\n", "line 4: expected name=value after the host"),
        ("hosts", f"good01\n{'x' * 300}\n", "is neither a host name"),
        ("hosts.yml", "all:\n  hosts:\n    good01:\n    7:\n", "host 7: put it in quotes"),
        ("hosts.yml", "all:\n  hosts:\n    good01:\n    a: [x]\n", "host 'a': expected an object of variables"),
        (
            "hosts.yml",
            "all:\n  hosts:\n    good01:\n    a: {ansible_port: [1]}\n",
            "line 4 ('a'): ansible_port: expected a",
        ),
        ("hosts.yml", "all:\n  hosts:\n    good01:\n    a: {ansible_host: }\n", "line 4 ('a'): no address"),
        (
            "hosts.yml",
            "all:\n  hosts:\n    good01:\n    a:\n"
            "      ansible_host: !vault |\n        $ANSIBLE_VAULT;1.1\n        33\n",
            "line 4 ('a'): ansible_host is encrypted",
        ),
    ],
)
def test_one_odd_host_costs_that_host(tmp_path: Path, name: str, text: str, reason: str) -> None:
    """The others are there; it is left out with file, line or group, and why."""
    listing = _read(tmp_path / name, text)
    assert [host.name for host in listing.hosts if host.name != "web02"] == ["good01"]
    assert reason in listing.left_out[0]
    assert str(tmp_path / name) in listing.left_out[0]


def test_an_ipv6_address_in_brackets_is_a_host(tmp_path: Path) -> None:
    """Nobody can mean a section by it."""
    listing = _read(tmp_path / "hosts", "good01\n[2001:db8::2]\n[2001:db8::3]:2222\n")
    assert listing.hosts == [
        Host("good01", "good01"),
        Host("2001:db8::2", "2001:db8::2"),
        Host("2001:db8::3", "2001:db8::3", 2222),
    ]
    assert not listing.left_out


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"web": {"hosts": ["good01", 7]}}, "x: group 'web': host 7: expected a name"),
        ({"web": ["good01", "a"], "_meta": {"hostvars": {"a": 7}}}, "x: host 'a': expected an object"),
        ({"web": ["good01", "a b"]}, "x ('a b'): 'a b' is neither a host name"),
    ],
)
def test_one_odd_host_of_a_list_costs_that_host(data: Any, reason: str) -> None:
    """The others are there."""
    listing = read_list(data, Means(), "x")
    assert [host.name for host in listing.hosts] == ["good01"]
    assert reason in listing.left_out[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected an object of groups"),
        ({"web": 7}, "group 'web': expected an object"),
        ({"web": {"hosts": "a"}}, "group 'web': hosts: expected a list of names"),
        ({"web": {"children": {}}}, "group 'web': children: expected a list of names"),
        ({"web": {"vars": []}}, "group 'web': expected an object"),
        ({"_meta": {"hostvars": []}}, "expected an object"),
        ({"a": {"children": ["b"]}, "b": {"children": ["a"]}}, "is below itself"),
    ],
)
def test_what_is_no_list(data: Any, message: str) -> None:
    """The message says where."""
    with pytest.raises(InventoryError) as caught:
        read_list(data, Means(), "x")
    assert message in str(caught.value)


@pytest.mark.slow
def test_a_deep_or_wide_list_is_read_in_time() -> None:
    """Groups in a chain of 500, and 10,000 hosts in 300 groups."""
    chain = {f"g{number}": {"children": [f"g{number + 1}"]} for number in range(500)} | {"g500": {"hosts": ["a"]}}
    assert len(read_list(chain, Means(), "x").hosts[0].groups) == 501
    wide = {f"g{number}": {"hosts": [f"h{host}" for host in range(number, 10_000, 300)]} for number in range(300)}
    assert len(read_list(json.loads(json.dumps(wide)), Means(), "x").hosts) == 10_000


def test_each_group_has_its_hosts_in_its_order(tmp_path: Path) -> None:
    """`web[0]` is the first one of its group, also where another group has named others first."""
    text = "[old]\nweb02\n[web]\nweb01\nweb02\nweb03\n[db]\ndb01\nweb03\n"
    hosts = _read(tmp_path / "hosts", text).hosts
    assert [host.name for host in select("web", hosts)] == ["web01", "web02", "web03"]
    assert [host.name for host in select("db", hosts)] == ["db01", "web03"]


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=5), st.permutations("abcdef"))
def test_groups_in_any_order_are_read(groups: list[list[str]], order: list[str]) -> None:
    """Every host once, whatever contradicts; where nothing does, every group keeps its order."""
    for lists in (groups, [sorted(group, key=order.index) for group in groups]):
        data = {f"g{number}": group for number, group in enumerate(lists)}
        names = [host.name for host in read_list(data, Means(), "x").hosts]
        assert sorted(names) == sorted({name for group in groups for name in group})
    assert all(group == sorted(group, key=names.index) for group in lists)
