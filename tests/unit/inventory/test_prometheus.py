import json
from pathlib import Path
from typing import Any

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.listing import Means
from fleetmem.inventory.prometheus import parse_targets, read_files
from fleetmem.inventory.union import unite
from fleetmem.model import Host


def test_targets_are_hosts_without_the_exporters_port() -> None:
    """9100 is the node exporter's, not sshd's; labels come along but for internal ones."""
    data = [
        {"targets": ["10.0.0.1:9100", "[2001:db8::1]:9100", "web03"], "labels": {"env": "prod", "__meta_x": "y"}},
        {"targets": ["10.0.0.1:9104"], "labels": {"job": "mysql"}},
        {"targets": []},
    ]
    hosts = unite([("x", parse_targets(data, "x").hosts)])
    assert hosts == [Host(name, name) for name in ("10.0.0.1", "2001:db8::1", "web03")]
    assert [host.labels for host in hosts] == [{"env": "prod", "job": "mysql"}, {"env": "prod"}, {"env": "prod"}]


def test_the_label_instance_is_the_name() -> None:
    """As Prometheus shows it, without a port."""
    data = [{"targets": ["10.0.0.1:9100"], "labels": {"instance": "web01:9100"}}]
    assert parse_targets(data, "x").hosts == [Host("web01", "10.0.0.1")]


def test_pages_that_are_probed_are_no_hosts() -> None:
    """They are left out, and that is said."""
    listing = parse_targets([{"targets": ["https://example.com/", "a:1"]}], "x")
    assert listing.hosts == [Host("a", "a")]
    assert listing.remarks == ("left out, no hosts: https://example.com/",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "x: expected a list of objects with targets"),
        ([7], "x: group 1: expected an object with targets"),
        ([{"targets": "a"}], "x: group 1: expected an object with targets"),
        ([{"targets": [7]}], "x: group 1: a target is a text"),
        ([{"targets": ["a b"]}], "x: group 1: host 'a b'"),
        ([{"targets": ["a:99999"]}], "is not a port"),
        ([{"targets": ["a"], "labels": []}], None),
        ([{"targets": ["a"], "labels": [1]}], "x: group 1: labels: expected an object"),
        ([{"targets": ["a"], "labels": {"instance": "b c"}}], "x: group 1: label instance: host 'b c'"),
    ],
)
def test_what_is_no_document(data: Any, message: str | None) -> None:
    """The message says where."""
    if message is None:
        assert parse_targets(data, "x").hosts
        return
    with pytest.raises(InventoryError) as caught:
        parse_targets(data, "x")
    assert message in str(caught.value)


def test_files_by_a_glob(tmp_path: Path) -> None:
    """JSON and YAML, in the order of their names."""
    (tmp_path / "b.json").write_text(json.dumps([{"targets": ["b"]}]))
    (tmp_path / "a.yml").write_text("- targets: ['a']\n  labels: {env: prod}\n")
    (tmp_path / "c.txt").write_text("none")
    hosts = read_files(f"{tmp_path}/*.[jy]*", Means()).hosts
    assert hosts == [Host("a", "a"), Host("b", "b")]
    assert hosts[0].labels == {"env": "prod"}
    with pytest.raises(InventoryError, match="no such file"):
        read_files(f"{tmp_path}/*.yaml", Means())
    (tmp_path / "b.json").write_text("[")
    with pytest.raises(InventoryError, match=r"b\.json: not JSON"):
        read_files(f"{tmp_path}/*.json", Means())
