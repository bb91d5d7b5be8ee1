import json
from importlib import import_module
from pathlib import Path

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.sources import KINDS, Source, parse_source, parse_sources


@pytest.mark.parametrize("place", KINDS.values())
def test_every_kind_can_be_read(place: str) -> None:
    """The names in the table exist."""
    module, _, name = place.partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hosts:a", Source("hosts", "a")),
        (" ansible:hosts.ini ", Source("ansible", "hosts.ini")),
        ("ec2:region=eu-west-1,tag:Role=web", Source("ec2", "region=eu-west-1,tag:Role=web")),
        ("ec2:", Source("ec2", "")),
        ("ec2", Source("ec2", "")),
        ("ssh", Source("ssh", "")),
        ("http_sd:https://x/y", Source("http_sd", "https://x/y")),
        ("https://x/y", Source("http_sd", "https://x/y")),
        ("command:program a 'b c'", Source("command", "program a 'b c'")),
        ("targets/*.json", Source("file_sd", "targets/*.json")),
    ],
)
def test_a_kind_that_is_given_or_plain(text: str, source: Source) -> None:
    """No file is looked at."""
    assert parse_source(text) == source


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("hosts", "web[01-50]\n# comment\nu@db1:2222 x,y\n[::1]:22\n", "hosts"),
        ("hosts.txt", "a\nb\n", "hosts"),
        ("hosts", "[web]\nweb01\n", "ansible"),
        ("inventory", "web01 ansible_host=10.0.0.1\n", "ansible"),
        ("hosts.ini", "web01\n", "ansible"),
        ("hosts.yml", "all:\n  hosts:\n    a:\n", "ansible"),
        ("hosts.yaml", "web:\n  hosts:\n    a: {targets: 1}\n", "ansible"),
        ("targets.yml", "- targets:\n    - a:9100\n", "file_sd"),
        ("targets.yaml", "- labels: {env: x}\n  targets: [a]\n", "file_sd"),
        ("config", "Host web01\n  User ubuntu\n", "ssh"),
        ("cluster", "# mine\nInclude x\n", "ssh"),
        ("hosts.json", json.dumps([{"name": "a"}]), "json"),
        ("outputs.json", json.dumps({"inventory": {"value": []}}), "json"),
        ("list.json", json.dumps({"all": {"children": ["web"]}, "web": {"hosts": ["a"]}}), "json"),
        ("groups.json", json.dumps({"all": {"hosts": {"a": None}}}), "ansible"),
        ("groups.json", json.dumps({"all": {"children": {"web": {"hosts": {"a": None}}}}}), "ansible"),
    ],
)
def test_a_file_is_known_by_name_and_content(tmp_path: Path, name: str, content: str, kind: str) -> None:
    """Each as its own tools call it."""
    path = tmp_path / name
    path.write_text(content)
    assert parse_source(str(path)) == Source(kind, str(path))


def test_programs_and_folders(tmp_path: Path) -> None:
    """A script is a dynamic inventory; a folder is Terraform's where it has *.tf, or else Ansible's."""
    script = tmp_path / "inventory.py"
    script.write_text("#!/usr/bin/env python3\n")
    script.chmod(0o755)
    assert parse_source(str(script)).kind == "ansible"
    assert parse_source(str(tmp_path)).kind == "ansible"
    (tmp_path / "main.tf").write_text("")
    assert parse_source(str(tmp_path)).kind == "terraform"


def test_a_file_that_may_be_executed_is_no_program_for_that(tmp_path: Path) -> None:
    """On some file systems everything may."""
    path = tmp_path / "hosts"
    path.write_text("a\nb\n")
    path.chmod(0o755)
    assert parse_source(str(path)).kind == "hosts"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", "is neither file nor URL; write KIND:ARGUMENT, KIND one of hosts, ssh, ansible"),
        ("/nowhere/hosts.ini", "inventory '/nowhere/hosts.ini' is not there; write KIND:ARGUMENT"),
        ("foo:bar", "is neither file nor URL"),
        ("~nobody-of-that-name/hosts", "home"),
        ("ansible:", "nothing after ansible:"),
        ("a\0", "no path holds that"),
        ("", "is neither file nor URL"),
    ],
)
def test_what_is_no_inventory(text: str, message: str) -> None:
    """The message lists the kinds."""
    with pytest.raises(InventoryError, match=message):
        parse_source(text)


def test_a_binary_file_is_of_no_kind(tmp_path: Path) -> None:
    """Nothing guesses at what is in there."""
    path = tmp_path / "x"
    path.write_bytes(b"\0\1\2")
    with pytest.raises(InventoryError, match="is of no kind that fleetmem recognises"):
        parse_source(str(path))


def test_hosts_and_files_of_one_option_stay_in_order() -> None:
    """Names are one inventory up to the next file."""
    sources = parse_sources(["a,b,@f,c[1,2]", "d"], ["ec2"])
    assert [(source.kind, source.argument) for source in sources] == [
        ("names", "a,b"),
        ("hosts", "f"),
        ("names", "c[1,2]"),
        ("names", "d"),
        ("ec2", ""),
    ]


def test_arguments_of_a_command_are_in_no_message() -> None:
    """They may hold a token."""
    assert str(Source("command", "program --token x")) == "command:program"
    assert str(Source("http_sd", "http://x/")) == "http_sd:http://x/"
