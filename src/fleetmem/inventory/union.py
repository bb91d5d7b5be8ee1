"""All inventories together: one list of hosts, each once. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from fleetmem.errors import InventoryError
from fleetmem.model import Host

_EITHER = ("port", "user", "key_paths", "jump")
"""What one inventory may say of a host, and another one leave open."""


def unite(listings: Iterable[tuple[str, Iterable[Host]]]) -> list[Host]:
    """Returns the hosts of several inventories, in order. What is said of one host anywhere comes together.

    Args:
        listings: hosts, each with what their inventory is called.

    Raises:
        InventoryError: two inventories say different things of how to reach one host; the message names both.
    """
    known: dict[str, tuple[str, Host]] = {}
    for source, hosts in listings:
        for host in hosts:
            if host.name in known:
                before, earlier = known[host.name]
                known[host.name] = before, _merge(before, earlier, source, host)
            else:
                known[host.name] = source, host
    return [host for _source, host in known.values()]


def _merge(source: str, host: Host, other_source: str, other: Host) -> Host:
    """Returns what both say: groups of both, and of a label that both have the later value.

    What only one inventory says holds. Within one inventory nobody could know which line was meant.
    """
    if host.address != other.address:
        raise _conflict(host, "addresses", (host.address, source), (other.address, other_source))
    for field in _EITHER:
        value, other_value = getattr(host, field), getattr(other, field)
        if value != other_value and (source == other_source or (value and other_value)):
            raise _conflict(host, _PLURALS[field], (value, source), (other_value, other_source))
    return replace(
        host,
        port=host.port or other.port,
        user=host.user or other.user,
        key_paths=host.key_paths or other.key_paths,
        jump=host.jump or other.jump,
        groups=host.groups | other.groups,
        labels={**host.labels, **other.labels},
    )


_PLURALS = {"port": "ports", "user": "users", "key_paths": "keys", "jump": "jump hosts"}


def _conflict(host: Host, what: str, one: tuple[object, str], other: tuple[object, str]) -> InventoryError:
    values = (f"{_shown(value)} ({source})" for value, source in (one, other))
    return InventoryError(f"host {host.name} is listed with two {what}: {' and '.join(values)}")


def _shown(value: object) -> str:
    return ",".join(value) or "none" if isinstance(value, tuple) else str(value or "none")
