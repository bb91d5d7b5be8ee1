"""All inventories together: one list of hosts, each once. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from fleetmem.errors import InventoryError
from fleetmem.model import Host

BY_HAND = "-i"
"""What hosts that people type are listed by."""

_EITHER = ("port", "user", "key_paths", "jump", "jump_key_paths")
"""What one inventory may say of a host, and another one leave open."""

_SHOWN_NAMES = 3


def unite(
    listings: Iterable[tuple[str, Iterable[Host]]],
    left_out: list[str] | None = None,
    *,
    may_contradict: bool = False,
) -> list[Host]:
    """Returns the hosts of several inventories, in order. What is said of one host anywhere comes together.

    A host of which different things are said is left out: nobody could know which one was meant.

    Args:
        listings: hosts, each with what their inventory is called.
        left_out: takes why hosts are left out; None where that is an error.
        may_contradict: whether a host is left out, too, of which two inventories say different things.

    Raises:
        InventoryError: different things are said of a host that is not to be left out, or that was typed by hand; the
            message names both.
    """
    known: dict[str, tuple[str, Host]] = {}
    contradicted: dict[str, str] = {}
    for source, hosts in listings:
        for host in hosts:
            before, earlier = known.setdefault(host.name, (source, host))
            if earlier is host:
                continue
            try:
                known[host.name] = before, _merge(before, earlier, source, host)
            except InventoryError as error:
                is_between = before != source and not may_contradict
                if left_out is None or is_between or BY_HAND in (before, source):
                    raise
                contradicted.setdefault(host.name, str(error))
    if left_out is not None:
        left_out += contradicted.values()
    return [host for name, (_source, host) in known.items() if name not in contradicted]


def shared_addresses(hosts: Iterable[Host]) -> Iterator[str]:
    """Yields a line for each machine that has several names: it is sampled under each of them."""
    names: dict[tuple[object, ...], list[str]] = {}
    for host in hosts:
        names.setdefault((host.address, host.port, host.jump), []).append(host.name)
    for (address, *_), same in names.items():
        if len(same) > 1:
            more = f" and {len(same) - _SHOWN_NAMES} more" if len(same) > _SHOWN_NAMES else ""
            yield f"{', '.join(same[:_SHOWN_NAMES])}{more} have the same address {address}: sampled under each name"


def _merge(source: str, host: Host, other_source: str, other: Host) -> Host:
    """Returns what both say: groups of both, and of a label that both have the later value.

    What only one inventory says holds.

    Raises:
        InventoryError: they contradict each other.
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
        jump_key_paths=host.jump_key_paths or other.jump_key_paths,
        groups=host.groups | other.groups,
        labels={**host.labels, **other.labels},
    )


_PLURALS = {
    "port": "ports",
    "user": "users",
    "key_paths": "keys",
    "jump": "jump hosts",
    "jump_key_paths": "keys of a jump host",
}


def _conflict(host: Host, what: str, one: tuple[object, str], other: tuple[object, str]) -> InventoryError:
    values = (f"{_shown(value)} ({source})" for value, source in (one, other))
    return InventoryError(f"host {host.name} is listed with two {what}: {' and '.join(values)}")


def _shown(value: object) -> str:
    return ",".join(value) or "none" if isinstance(value, tuple) else str(value or "none")
