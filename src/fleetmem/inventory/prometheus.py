"""Prometheus' service discovery: `file_sd` and `http_sd`.

A target's port is an exporter's, not sshd's, and is left out; several exporters of one machine are one host. A host is
called by its label `instance`, as in Prometheus, else by its target.
"""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleetmem.errors import InventoryError
from fleetmem.inventory.documents import parse_file, parse_json, path_of
from fleetmem.inventory.entries import make_host, one_entry
from fleetmem.inventory.http import fetch
from fleetmem.inventory.listing import Listing, Means
from fleetmem.inventory.spec import split_address
from fleetmem.model import Host
from fleetmem.safe_text import printable

_HTTP_SECONDS = 5.0
_SHOWN = 60


def read_files(argument: str, _means: Means) -> Listing:
    """Returns the targets of files; the path may be a glob. Raises InventoryError."""
    names = sorted(glob.glob(str(path_of(argument))))  # noqa: PTH207 - Path.glob knows relative ones only
    if not names:
        raise InventoryError(f"{argument}: no such file")
    left_out: list[str] = []
    every = [parse_targets(parse_file(Path(name)), name, left_out) for name in names]
    hosts = [host for one in every for host in one.hosts]
    return Listing(hosts, tuple(line for one in every for line in one.remarks)).without(left_out)


def read_url(argument: str, means: Means) -> Listing:
    """Returns the targets that a server names. Raises InventoryError."""
    left_out: list[str] = []
    data = parse_json(fetch(argument, min(_HTTP_SECONDS, means.timeout_seconds)), argument)
    return parse_targets(data, argument, left_out).without(left_out)


def is_targets(data: Any) -> bool:
    """Whether a document is of service discovery."""
    return isinstance(data, list) and any(isinstance(group, Mapping) and "targets" in group for group in data)


def parse_targets(data: Any, where: str, left_out: list[str] | None = None) -> Listing:
    """Returns the hosts of a document: `[{"targets": ["10.0.0.1:9100"], "labels": {"env": "prod"}}]`.

    Args:
        data: the document.
        where: what messages begin with.
        left_out: takes entries that are no hosts; None where one is an error.

    Raises:
        InventoryError: it is none, or an entry is wrong.
    """
    if not isinstance(data, list):
        raise InventoryError(f"{where}: expected a list of objects with targets")
    hosts: list[Host] = []
    pages: list[str] = []
    for number, group in enumerate(data, 1):
        place = f"{where}: group {number}"
        with one_entry(left_out):
            targets, labels = _group(place, group)
            for target in targets:
                if isinstance(target, str) and "://" in target:  # a page that is probed, a blackbox target
                    pages.append(target)
                    continue
                with one_entry(left_out):
                    hosts.append(_host(place, target, labels))
    remarks = (printable(f"left out, no hosts: {', '.join(pages[:3])}"),) if pages else ()
    return Listing(hosts, remarks)


def _group(where: str, group: Any) -> tuple[list[Any], Mapping[str, Any]]:
    """Returns targets and labels."""
    if not isinstance(group, Mapping) or not isinstance(group.get("targets"), list):
        raise InventoryError(f"{where}: expected an object with targets, and perhaps labels")
    labels = group.get("labels") or {}
    if not isinstance(labels, Mapping):
        raise InventoryError(f"{where}: labels: expected an object of texts")
    return group["targets"], labels


def _host(where: str, target: Any, labels: Mapping[str, Any]) -> Host:
    if not isinstance(target, str):
        raise InventoryError(f"{where}: a target is a text, HOST:PORT (given: {repr(target)[:_SHOWN]})")
    try:
        address, _port = split_address(target)
    except InventoryError as error:
        raise InventoryError(f"{where}: {error}") from error
    name = labels.get("instance")
    if name is not None:
        name = _without_port(where, name)
    own = {key: value for key, value in labels.items() if not str(key).startswith("__")}  # those are internal
    return make_host(where, name=name or address, address=address, labels=own)


def _without_port(where: str, instance: Any) -> str:
    try:
        return split_address(str(instance))[0]
    except InventoryError as error:
        raise InventoryError(f"{where}: label instance: {error}") from error
