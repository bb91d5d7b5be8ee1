import json
from pathlib import Path
from typing import Any

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.listing import Means
from fleetmem.inventory.terraform import parse_outputs, read
from fleetmem.model import Host


def _outputs(value: Any) -> dict[str, Any]:
    return {"vpc_id": {"value": "vpc-1"}, "inventory": {"sensitive": False, "type": "dynamic", "value": value}}


@pytest.mark.parametrize(
    "value", [[{"name": "a", "address": "10.0.0.1"}, {"name": "b"}], {"a": {"address": "10.0.0.1"}, "b": {}}]
)
def test_the_output_is_a_list_or_has_hosts_by_name(value: Any) -> None:
    """Both are natural in HCL."""
    assert parse_outputs(_outputs(value), "x") == [Host("a", "10.0.0.1"), Host("b", "b")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected an object of outputs"),
        ({}, "no output 'inventory'; there is none: has it been applied?"),
        ({"a": {"value": 1}, "b": {"value": 2}}, "no output 'inventory'; there are a, b"),
        ({"inventory": "x"}, "output 'inventory' has no value"),
        (_outputs("x"), "output 'inventory': expected a list of hosts"),
        (_outputs([{"name": "a", "port": "x"}]), "output 'inventory': host 1 ('a'): 'x' is not a port"),
    ],
)
def test_what_is_no_inventory(data: Any, message: str) -> None:
    """The message says what there is instead."""
    with pytest.raises(InventoryError) as caught:
        parse_outputs(data, "x")
    assert message in str(caught.value)


def test_a_file(tmp_path: Path) -> None:
    """What `terraform output -json` has printed earlier."""
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps(_outputs([{"name": "a"}])))
    assert read(str(path), Means()).hosts == [Host("a", "a")]


def test_a_folder_needs_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what does without."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InventoryError, match=r"terraform or tofu is not installed; terraform:FILE.json needs neither"):
        read(str(tmp_path), Means())
