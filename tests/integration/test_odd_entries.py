"""Inventories in which hosts are odd: all others are sampled, and each odd one is told with its place."""

import json
from pathlib import Path

import pytest

from .servers import PATIENT, Cli, Result, Sshd

_GOOD = [f"127.0.1.{number}" for number in range(1, 6)]


def _ini(odd: list[str]) -> str:
    return "[web]\n" + "".join(f"{line}\n" for line in (*_GOOD[:3], *odd, *_GOOD[3:]))


def _json(odd: list[object]) -> str:
    return json.dumps([{"name": name} for name in _GOOD[:3]] + odd + [{"name": name} for name in _GOOD[3:]], indent=1)


CASES = {
    "names": ("hosts", "hosts", _ini(["web 01 (prod)", "db/primary", "münchen-01"]).replace("[web]\n", "")),
    "ports": (
        "ansible",
        "hosts.ini",
        _ini(["web06 ansible_port=ssh", "web07 ansible_port=0", "web08 ansible_port=70000"]),
    ),
    "lines": ("ansible", "hosts.ini", _ini(["web 01 (prod)", "web07 ansible_user='x", "web[9:1]"])),
    "values": (
        "ansible",
        "hosts.ini",
        _ini(["web06 ansible_host=''", "web07 ansible_user='a b'", "web08 ansible_host='{{ nothing | first }}'"]),
    ),
    "types": ("json", "hosts.json", _json([7, {"name": ["x"]}, {"name": "web06", "port": {}}])),
    "twice": (
        "json",
        "hosts.json",
        _json([{"name": f"web0{n}", "address": f"127.0.1.{n + m}"} for n in (6, 7, 8) for m in (1, 2)]),
    ),
}


def _left_out(result: Result) -> list[str]:
    """Returns what stderr says of entries that are left out, without the time."""
    return [line.partition("left out: ")[2] for line in result.stderr.splitlines() if "left out: " in line]


@pytest.mark.parametrize("case", CASES)
def test_three_odd_hosts_cost_three_hosts(case: str, sshd: Sshd, cli: Cli, tmp_path: Path) -> None:
    """The five others are sampled with status 0, and the three are on stderr, each with its place or its name."""
    kind, name, text = CASES[case]
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    options = ("--inventory", f"{kind}:{path}", "-p", sshd.port, "-k", sshd.key, *PATIENT)
    result = cli("collect", *options, "--format", "jsonl")
    assert result.status == 0, result.stderr
    assert sorted(host for host, line in result.by_host().items() if line["ok"]) == _GOOD
    left_out = _left_out(result)
    assert len(left_out) == 3, result.stderr
    assert all(str(path) in line for line in left_out)
    shown = cli("hosts", *options[:-2])
    assert shown.status == 0
    assert _left_out(shown) == left_out


def test_what_is_typed_by_hand_is_an_error(cli: Cli, tmp_path: Path) -> None:
    """And so is an inventory of which nothing is left."""
    assert cli("hosts", "-i", "127.0.1.1", "-i", "db/primary").status == 2
    (tmp_path / "hosts").write_text("db/primary\nweb 01 (prod)\n")
    nothing = cli("hosts", "--inventory", f"hosts:{tmp_path}/hosts")
    assert nothing.status == 2
    assert "line 1: host 'db/primary'" in nothing.stderr
    assert "line 2: host '(prod)'" in nothing.stderr
