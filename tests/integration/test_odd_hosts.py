"""Three odd hosts in an inventory cost those three: all others are sampled, and each odd one is reported."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .servers import PATIENT, Cli, Sshd

GOOD = [f"127.0.1.{number}" for number in range(1, 18)]
ODD = ("odd01", "odd02", "odd03")

Write = Callable[[Path], tuple[str, dict[str, str]]]
"""Writes an inventory; returns what `--inventory` takes, and what is to stand in the message about each odd host."""


def hosts_file(path: Path) -> tuple[str, dict[str, str]]:
    """A name with a slash, among plain ones."""
    path.write_text("\n".join([*GOOD[:5], "odd01/a", *GOOD[5:9], "odd02/b", "odd03/c", *GOOD[9:]]) + "\n")
    return f"hosts:{path}", {"odd01": "line 6", "odd02": "line 11", "odd03": "line 12"}


def _ini(path: Path, odd: str) -> tuple[str, dict[str, str]]:
    lines = ["[web]", *GOOD, *(f"{name} {odd}" for name in ODD)]
    path.with_suffix(".ini").write_text("\n".join(lines) + "\n")
    return f"ansible:{path.with_suffix('.ini')}", dict.fromkeys(ODD, path.name)


def ansible_port(path: Path) -> tuple[str, dict[str, str]]:
    """A port that is a word."""
    return _ini(path, "ansible_host=127.0.1.30 ansible_port=ssh")


def ansible_address(path: Path) -> tuple[str, dict[str, str]]:
    """An address that no shell should see."""
    return _ini(path, "ansible_host='127.0.1.30;id'")


def _json(path: Path, field: str, value: object) -> tuple[str, dict[str, str]]:
    good = [{"name": name} for name in GOOD]
    odd = [{"name": name, "address": "127.0.1.30", field: value} for name in ODD]
    path.write_text(json.dumps([*good[:4], *odd, *good[4:]]))
    return f"json:{path}", {name: f"host {number}" for number, name in enumerate(ODD, 5)}


def json_port(path: Path) -> tuple[str, dict[str, str]]:
    """A port that is out of range."""
    return _json(path, "port", 70_000)


def json_groups(path: Path) -> tuple[str, dict[str, str]]:
    """Groups that are no list."""
    return _json(path, "groups", 7)


def json_key(path: Path) -> tuple[str, dict[str, str]]:
    """A key that has no end."""
    return _json(path, "key", "/dev/zero")


@pytest.mark.parametrize(
    "write",
    [hosts_file, ansible_port, ansible_address, json_port, json_groups, json_key],
    ids=lambda each: each.__name__,
)
def test_three_odd_hosts(write: Write, fleet: Sshd, cli: Cli, tmp_path: Path) -> None:
    """All others are sampled; each odd one is a line on stderr with its name and where it stands, or an outcome."""
    source, places = write(tmp_path / "inventory")
    options = ("-p", fleet.port, "-k", fleet.key, *PATIENT)
    result = cli("collect", "--inventory", source, *options, "--format", "jsonl")
    outcomes = result.by_host()
    assert [name for name in GOOD if not outcomes.get(name, {"ok": False})["ok"]] == [], result.stderr
    for name, place in places.items():
        said = [line for line in result.stderr.splitlines() if name in line]
        if name in outcomes:
            assert not outcomes[name]["ok"]
        else:
            assert any(place in line for line in said), result.stderr
