"""All inventories together: from what the user gave to one list of hosts without duplicates."""

from collections.abc import Iterable
from pathlib import Path

from fleetmem.errors import InventoryError, reason_of
from fleetmem.inventory.spec import parse_spec, split_specs
from fleetmem.model import Host


def resolve(specs: Iterable[str]) -> list[Host]:
    """Returns the hosts of several specifications, in order, duplicates folded.

    Args:
        specs: comma-separated hosts, or `@file`, a hosts file: one or more specifications a line, `#` comments.

    Raises:
        InventoryError: a specification or file cannot be read, one host is asked for with two users, or there is none.
    """
    hosts: dict[str, Host] = {}
    for spec in specs:
        for host in _read(spec):
            known = hosts.setdefault(host.name, host)
            if known != host:
                raise InventoryError(f"host {host.name} is listed with two users: {known.user} and {host.user}")
    if not hosts:
        raise InventoryError("no hosts: give -i HOST,HOST or -i @FILE, or set inventory.hosts in the configuration")
    return list(hosts.values())


def _read(spec: str) -> Iterable[Host]:
    for part in split_specs(spec):
        if part.startswith("@"):
            yield from read_hosts_file(Path(part[1:]))
        else:
            yield from parse_spec(part)


def read_hosts_file(path: Path) -> Iterable[Host]:
    """Yields the hosts of a file: specifications separated by white space or commas, `#` starts a comment.

    Raises:
        InventoryError: the file cannot be read, or a line is wrong; the message names file and line.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, RuntimeError) as error:  # RuntimeError: ~somebody without a home
        raise InventoryError(f"hosts file {path}: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        raise InventoryError(f"hosts file {path}: not text ({error.reason} at byte {error.start})") from error
    for number, line in enumerate(text.splitlines(), 1):
        for part in split_specs(line.partition("#")[0]):
            try:
                yield from parse_spec(part)
            except InventoryError as error:
                raise InventoryError(f"hosts file {path}, line {number}: {error}") from error
