import json
from pathlib import Path
from typing import Any

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.json_hosts import parse_any, read_program
from fleetmem.inventory.listing import Means
from fleetmem.model import Host

DOCUMENTS: list[Any] = [
    [{"name": "a", "address": "10.0.0.1"}],
    [{"targets": ["10.0.0.1:9100"], "labels": {"instance": "a"}}],
    {"inventory": {"value": [{"name": "a", "address": "10.0.0.1"}]}},
    {"web": {"hosts": ["a"]}, "_meta": {"hostvars": {"a": {"ansible_host": "10.0.0.1"}}}},
    {"web": {"hosts": ["a"], "vars": {"ansible_host": "10.0.0.1"}}},
]


@pytest.mark.parametrize("data", DOCUMENTS)
def test_a_document_is_known_by_what_it_holds(data: Any) -> None:
    """A list of hosts, Prometheus' targets, Terraform's outputs, Ansible's --list with and without _meta."""
    assert parse_any(data, Means(), "x").hosts == [Host("a", "10.0.0.1")]


@pytest.mark.parametrize("data", [7, "x", None, {}, {"a": 1}, {"inventory": 1}])
def test_what_is_none_of_them(data: Any) -> None:
    """The message says what there may be."""
    with pytest.raises(InventoryError, match="neither a list of hosts, nor Ansible's --list"):
        parse_any(data, Means(), "x")


def test_a_program(tmp_path: Path) -> None:
    """Arguments are split as a shell does, and no shell reads them."""
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps(DOCUMENTS[0]))
    assert read_program(f"cat '{path}'", Means()).hosts == [Host("a", "10.0.0.1")]
    with pytest.raises(InventoryError, match="command cat: exit status 1"):
        read_program(f"cat {path} ; echo", Means())


@pytest.mark.parametrize(("argument", "message"), [("", "expected a program"), ("'", "No closing quotation")])
def test_no_program(argument: str, message: str) -> None:
    """What cannot be split, and nothing."""
    with pytest.raises(InventoryError, match=message):
        read_program(argument, Means())


def test_what_a_program_is_given_is_in_no_message(tmp_path: Path) -> None:
    """Arguments may be secret, whatever the program says of them."""
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "no good: $2" >&2\nexit 1\n')
    program.chmod(0o755)
    with pytest.raises(InventoryError, match=r"exit status 1: no good: \*\*\*") as caught:
        read_program(f"{program} --token 'hunter2 hunter2'", Means())
    assert "hunter2" not in str(caught.value)


def test_what_a_program_prints_is_in_no_message() -> None:
    """It may hold secrets; the place where it breaks does."""
    with pytest.raises(InventoryError, match="command echo: not JSON") as caught:
        read_program("echo hunter2hunter2", Means())
    assert "hunter2" not in str(caught.value)
