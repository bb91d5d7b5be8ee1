"""Ansible itself, and what we make of the same inventories and patterns."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible import source
from fleetmem.inventory.listing import AnsibleReader, Means
from fleetmem.inventory.patterns import select

from .servers import missing

INVENTORY = """
one.mail.com
host1
host2
192.0.2.7
[webservers]
cobweb
webbing
weber
web1.example.com
web[02:04].example.com ansible_port=2222
[dbservers]
dbase
db1.example.com
db-[a:c].example.com:2200
[staging]
cobweb
dbase
[phoenix]
webbing
db1.example.com
[atlanta]
weber
[east:children]
webservers
staging
[east:vars]
ansible_user=east
"""

DOCUMENTED = [  # "Patterns: targeting hosts and groups", in its order
    "all",
    "*",
    "host1",
    "host1:host2",
    "host1,host2",
    "webservers",
    "webservers:dbservers",
    "webservers:!atlanta",
    "webservers:&staging",
    "192.0.2.*",
    "*.example.com",
    "*.com",
    "one*.com:dbservers",
    "webservers:dbservers:&staging:!phoenix",
    "*.example.com:dbservers",
    r"~(web|db).*\.example\.com",
    "webservers[0]",
    "webservers[-1]",
    "webservers[0:2]",
    "webservers[1:]",
]
OTHERS = [
    "!phoenix",
    "&staging",
    "webservers:!webservers[0]",
    "web*",
    "web*[0:2]",
    "webservers[1:3]:&east:!atlanta",
    "east:!webservers",
    "ungrouped",
    "~^web[0-9]",
    "~web,!~.*example",
    "web?",
    "web0[23].example.com",
    "host[1]*",
    "all[2]",
    "nothing*",
    "webservers:!nothing*",
    "webservers[2:99]",
]


IN_ORDER = [pattern for pattern in DOCUMENTED if not set("*~") & set(pattern) and pattern != "all"]


@pytest.fixture(scope="module")
def ansible() -> Callable[..., str]:
    """Runs a program of Ansible; returns what it prints."""
    folder = Path(sys.executable).parent
    if not (folder / "ansible").is_file():
        missing("ansible-core")

    def run(program: str, *arguments: object) -> str:
        done = subprocess.run(
            [folder / program, *map(str, arguments)],
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_DEPRECATION_WARNINGS": "0"},
            capture_output=True,
            timeout=60,
            check=True,
        )
        return done.stdout.decode()

    return run


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inventory that patterns are tried on."""
    path = tmp_path_factory.mktemp("patterns") / "hosts"
    path.write_text(INVENTORY)
    return path


_EACH = r"""
import sys
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
manager = InventoryManager(DataLoader(), sys.argv[1])
for pattern in sys.argv[2:]:
    print(pattern, *(host.name for host in manager.get_hosts(pattern)))
"""


def test_patterns_mean_what_they_mean_to_ansible(ansible: Callable[..., str], path: Path) -> None:
    """Those of its documentation, and others: the same hosts."""
    hosts = source.read(str(path), Means()).hosts
    patterns = [*DOCUMENTED, *OTHERS]
    ours = {pattern: [host.name for host in select(pattern, hosts)] for pattern in patterns}
    told = ansible("python", "-c", _EACH, path, *patterns)
    theirs = {line.split(" ")[0]: line.split(" ")[1:] for line in told.splitlines()}
    # By globs and regular expressions it gives hosts of groups first, to us they come in the order of the inventory.
    assert {pattern: sorted(names) for pattern, names in ours.items()} == {
        pattern: sorted(names) for pattern, names in theirs.items()
    }
    assert [ours[pattern] for pattern in IN_ORDER] == [theirs[pattern] for pattern in IN_ORDER]
    for pattern in ("webservers:dbservers:&staging:!phoenix", "webservers[0:2]"):  # as people call it
        listed = ansible("ansible", "-i", path, "--list-hosts", pattern).split()
        assert listed[:2] == ["hosts", f"({len(ours[pattern])}):"]
        assert listed[2:] == ours[pattern]


# --- inventories -----------------------------------------------------------------------------------------------------


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if text.startswith("#!"):
            path.chmod(0o755)


LAYOUTS: dict[str, dict[str, str]] = {
    "ini": {
        "hosts": INVENTORY
        + """
[west]
10.0.0.[8:9] note='a # b' n=3 flag=True # a comment
[2001:db8::1]:2222
2001:db8::2
jump01 ansible_host=10.1.0.1 ansible_ssh_common_args='-o ProxyCommand="ssh -W %h:%p -q j@bastion"'
jump02 ansible_host="{{ inventory_hostname_short }}.internal" ansible_ssh_common_args="-J j@bastion:2200"
here ansible_connection=local
windows ansible_connection=winrm
[west:vars]
ansible_ssh_private_key_file=~/.ssh/west key
note = of # the group
[deep:children]
deeper
[deeper:children]
west
[deep:vars]
ansible_user=deep
[deeper:vars]
ansible_user=deeper
[all:vars]
ansible_port=2022
note=of all
""",
    },
    "yaml": {
        "hosts.yml": """
all:
  vars: {ansible_user: all, note: all}
  hosts:
    lone: {ansible_host: 10.0.0.1, n: 7}
  children:
    web:
      hosts:
        web[01:03].example.com: {ansible_port: 2222}
        web09: null
      vars: {ansible_group_priority: 10, note: web}
    zone:
      hosts: {web09: {}, "db[a:b]": {flag: true}}
      vars: {note: zone}
      children:
        inner: {hosts: {web09: , in01: }, vars: {ansible_user: inner}}
""",
    },
    "variables": {
        "hosts": "[web]\nweb01\nweb02 ansible_user=line\n[db]\ndb01\n[all:vars]\nansible_user=all\n",
        "group_vars/all.yml": "note: all\nansible_port: 2200\n",
        "group_vars/web/1.yml": "note: web\n",
        "group_vars/web/2.json": '{"ansible_user": "web"}',
        "group_vars/web/.3.yml": "note: hidden\n",
        "group_vars/web.yml": "note: never read beside a folder\n",
        "group_vars/db": "ansible_user: db\n",
        "host_vars/web02.yaml": "note: web02\n",
        "host_vars/db01.txt": "note: no ending for variables\n",
    },
    "folder": {
        "01.ini": "[web]\nweb01 n=1\n[db]\n",
        "02.yml": "web: {hosts: {web02: , web01: {n: 2}}}\n",
        "03": """#!/bin/sh
[ "$1" = --list ] && echo '{
  "db": {"hosts": ["db01"], "vars": {"ansible_user": "d"}},
  "eu": {"children": ["db", "web"]},
  "_meta": {"hostvars": {"db01": {"ansible_host": "10.0.0.3"}}}
}'
""",
        "04.bak": "[no inventory\n",
        "notes.md": "[no inventory\n",
        "group_vars/eu.yml": "note: eu\n",
        "more/hosts": "web09\n[web]\nweb03\n",
    },
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.usefixtures("ansible")
def test_without_ansible_an_inventory_says_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own reading against Ansible's: hosts, how they are reached, groups, variables, and what is left out."""
    _write(tmp_path, LAYOUTS[name])
    files = list(LAYOUTS[name])
    path = tmp_path if name == "folder" else tmp_path / files[0]
    means = Means(ansible_labels=("note", "n", "flag"))
    theirs = source.read(str(path), means)
    monkeypatch.setattr(source, "find_program", lambda: None)
    ours = source.read(str(path), means)
    assert {host.name: (host, host.groups, host.labels) for host in ours.hosts} == {
        host.name: (host, host.groups, host.labels) for host in theirs.hosts
    }
    assert sorted(ours.remarks) == sorted(theirs.remarks)
    assert len(ours.hosts) >= 3


@pytest.mark.usefixtures("ansible")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("web01\nweb 01 (prod)\n", "line 2: expected name=value after the host, not '01'"),
        ("web01\nweb02 ansible_user='x\n", "line 2: No closing quotation"),
        ("web01\nweb[0:1000000000]\n", "line 2: host 'web[0:1000000000]'"),
        ("web01\ndb/primary\n", "line 2 ('db/primary'): 'db/primary' is neither a host name nor an IP address"),
        ("web01\nweb02 ansible_port=ssh\n", "line 2 ('web02'): 'ssh' is not a port"),
    ],
)
def test_one_odd_line_costs_that_line(tmp_path: Path, text: str, reason: str) -> None:
    """Ansible refuses the file for some of these, or fails on each run; the good host is there, and the line told."""
    (tmp_path / "hosts").write_text(text)
    listing = source.read(str(tmp_path / "hosts"), Means())
    assert [host.name for host in listing.hosts] == ["web01"]
    assert f"{tmp_path}/hosts, {reason}" in listing.left_out[0]


@pytest.mark.usefixtures("ansible")
def test_ansible_evaluates_what_only_it_can(tmp_path: Path) -> None:
    """Filters and conditions, in variables and in labels; what nobody can evaluate is left out, and the others stay."""
    (tmp_path / "hosts").write_text(
        'web01 ansible_host="{{ [\'10.0.0.1\'] | first }}" role="{{ inventory_hostname | upper }}"\n'
        "web02 ansible_host='{{ nothing | first }}'\nweb03 role=\"{{ group_names | join('-') }}\"\n[web]\nweb03\n"
    )
    listing = source.read(str(tmp_path / "hosts"), Means(ansible_labels=("role",)))
    assert [(host.name, host.address, host.labels) for host in listing.hosts] == [
        ("web01", "10.0.0.1", {"role": "WEB01"}),
        ("web03", "web03", {"role": "web"}),
    ]
    (left_out,) = listing.left_out
    assert "line 2 ('web02'): ansible_host is a template that only Ansible can evaluate" in left_out


@pytest.mark.usefixtures("ansible")
def test_a_vault_without_its_password(tmp_path: Path) -> None:
    """The message says what to set; with our own reader what is encrypted is left out."""
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "hosts").write_text("[web]\nweb01\n")
    (tmp_path / "group_vars" / "web.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    with pytest.raises(InventoryError, match=r"set ANSIBLE_VAULT_PASSWORD_FILE; or set inventory\.ansible_reader"):
        source.read(str(tmp_path / "hosts"), Means())
    listing = source.read(str(tmp_path / "hosts"), Means(ansible_reader=AnsibleReader.BUILTIN))
    assert [host.name for host in listing.hosts] == ["web01"]
    assert listing.remarks == (f"left out, encrypted: {tmp_path}/group_vars/web.yml",)


@pytest.mark.usefixtures("ansible")
def test_what_ansible_cannot_read_is_an_error(tmp_path: Path) -> None:
    """Not a fleet with some of its hosts, as it would be with a warning alone."""
    (tmp_path / "1.ini").write_text("[web]\nweb01\n")
    (tmp_path / "2.ini").write_text("[web]\nweb02 x\n")
    with pytest.raises(InventoryError, match=r"ansible-inventory .*: exit status 1: .*2\.ini"):
        source.read(str(tmp_path), Means())
