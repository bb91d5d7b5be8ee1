"""What inventories say of logins, and is ignored: whichever kind of inventory says it."""

import json
from pathlib import Path

import pytest

from fleetmem.inventory.inventory import Inventory
from fleetmem.inventory.listing import AnsibleReader, LoginPart, Means
from fleetmem.inventory.sources import parse_sources
from fleetmem.model import Host

_ENTRY = {"name": "web01", "port": 23, "user": "ops", "key": "~/ops", "jump": "ops@b1:22,ops@b2", "groups": ["web"]}
_SSH_ARGS = "-o ProxyCommand='ssh -i ~/b -W %h:%p -J ops@b1:22 ops@b2'"
_FILES = {
    "json": json.dumps([_ENTRY]),
    "terraform": json.dumps({"inventory": {"value": [_ENTRY]}}),
    "ansible": "[web]\nweb01 ansible_port=23 ansible_user=ops ansible_private_key_file=~/ops "
    f'ansible_ssh_common_args="{_SSH_ARGS}"\n',
}


def _read(*ignored: LoginPart, specs: tuple[str, ...] = (), sources: tuple[str, ...] = ()) -> list[Host]:
    means = Means(ignored=frozenset(ignored), ansible_reader=AnsibleReader.BUILTIN)
    return Inventory(parse_sources(specs, sources), means=means).read()


@pytest.fixture(params=_FILES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An inventory that says all there is to say."""
    path = tmp_path / "inventory"
    path.write_text(_FILES[request.param], encoding="utf-8")
    return f"{request.param}:{path}"


def test_nothing_is_ignored(source: str) -> None:
    """By default."""
    (host,) = _read(sources=(source,))
    assert (host.user, host.key_paths, host.jump, host.port) == ("ops", ("~/ops",), "ops@b1:22,ops@b2", 23)


def test_the_user(source: str) -> None:
    """Also that of jump hosts."""
    (host,) = _read(LoginPart.USER, sources=(source,))
    assert (host.user, host.key_paths, host.jump, host.port) == (None, ("~/ops",), "b1:22,b2", 23)


def test_keys(source: str) -> None:
    """Also those of jump hosts."""
    (host,) = _read(LoginPart.KEY, sources=(source,))
    assert (host.user, host.key_paths, host.jump) == ("ops", (), "ops@b1:22,ops@b2")
    assert host.jump_key_paths == ()


def test_jump_hosts(source: str) -> None:
    """With their keys."""
    (host,) = _read(LoginPart.JUMP, sources=(source,))
    assert (host.user, host.key_paths, host.jump, host.jump_key_paths) == ("ops", ("~/ops",), None, ())


def test_everything(source: str) -> None:
    """Where it is, and what it is part of, stay."""
    (host,) = _read(*LoginPart, sources=(source,))
    assert (host, host.groups) == (Host("web01", "web01", port=23), frozenset({"web"}))


def test_hosts_files_and_names(tmp_path: Path) -> None:
    """A file of hosts is an inventory; whoever types a user means it."""
    path = tmp_path / "hosts.txt"
    path.write_text("ops@web01\n", encoding="utf-8")
    hosts = _read(LoginPart.USER, specs=(f"@{path}", "admin@web02"))
    assert [(host.name, host.user) for host in hosts] == [("web01", None), ("web02", "admin")]


def test_two_inventories_with_two_users(tmp_path: Path) -> None:
    """They do not contradict each other in what is ignored."""
    for user in ("a", "b"):
        (tmp_path / user).write_text(json.dumps([{"name": "web01", "user": user}]), encoding="utf-8")
    (host,) = _read(LoginPart.USER, sources=(f"json:{tmp_path}/a", f"json:{tmp_path}/b"))
    assert host.user is None


def test_an_odd_value_that_is_ignored(tmp_path: Path) -> None:
    """It leaves nothing out: the home of somebody else, an empty user."""
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps([{"name": "web01", "user": "", "key": "~nobody-here/key"}]), encoding="utf-8")
    assert _read(LoginPart.USER, LoginPart.KEY, sources=(f"json:{path}",)) == [Host("web01", "web01")]
