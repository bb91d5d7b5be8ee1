"""Hosts as other programs describe them, checked as what people type is: nobody knows who wrote an inventory. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetmem.errors import InventoryError
from fleetmem.inventory.spec import is_address, is_user, split_address, without_brackets, without_password
from fleetmem.model import Host
from fleetmem.safe_text import printable

FIELDS = ("name", "address", "port", "user", "key", "jump", "groups", "labels")
"""What an entry may hold; a name or an address it must."""

_PORT_LIMIT = 65536
_SHOWN = 60
_LONGEST = 256  # AWS's longest tag value
_NO_GROUPS = frozenset({"all", "ungrouped"})  # Ansible's words for every host, and for those in no group


@contextmanager
def one_entry(left_out: list[str] | None) -> Iterator[None]:
    """Reads one entry: an InventoryError in it costs this one, and goes to those that are left out.

    Args:
        left_out: where each of them stands, and why; None where one is an error.
    """
    try:
        yield
    except InventoryError as error:
        if left_out is None:
            raise
        left_out.append(printable(str(error)))


def parse_hosts(
    data: Any, where: str, left_out: list[str] | None = None, ignored: Set[str] = frozenset()
) -> list[Host]:
    """Returns the hosts of a list of entries, or of an object that has them by name.

    Args:
        data: the list or the object.
        where: what messages begin with.
        left_out: takes entries that are no hosts; None where one is an error.
        ignored: fields that are not taken over, whatever they hold.

    Raises:
        InventoryError: it is neither, or an entry is wrong; the message says which.
    """
    if isinstance(data, Mapping):
        named = [({"name": name, **_object(entry)}, f"host {_shown(name)}") for name, entry in data.items()]
    elif isinstance(data, list):
        named = [(entry, f"host {number}") for number, entry in enumerate(data, 1)]
    else:
        raise InventoryError(f"{where}: expected a list of hosts, or an object with one by name")
    hosts: list[Host] = []
    for entry, place in named:
        with one_entry(left_out):
            hosts.append(parse_entry(entry, f"{where}: {place}", ignored))
    return hosts


def _object(entry: Any) -> Mapping[str, Any]:
    return entry if isinstance(entry, Mapping) else {"": entry}


def parse_entry(entry: Any, where: str, ignored: Set[str] = frozenset()) -> Host:
    """Returns the host that an entry describes (see `FIELDS`), without the fields that are ignored.

    Raises:
        InventoryError: it describes none.
    """
    if not isinstance(entry, Mapping):
        raise InventoryError(f"{where}: expected an object with name or address, and perhaps {', '.join(FIELDS[2:])}")
    unknown = sorted(set(entry) - set(FIELDS), key=str)
    if unknown:
        raise InventoryError(f"{where}: no such field: {_shown(unknown[0])}; there are {', '.join(FIELDS)}")
    given = {name: value for name, value in entry.items() if value is not None and name not in ignored}
    if not given.get("name") and not given.get("address"):
        raise InventoryError(f"{where}: neither name nor address")
    if "address" in entry and not given.get("address"):
        raise InventoryError(f"{where} ({_shown(given['name'])}): no address: address is empty")
    return make_host(where, **given)


def make_host(
    where: str,
    *,
    name: Any = None,
    address: Any = None,
    port: Any = None,
    user: Any = None,
    key: Any = (),
    jump: Any = None,
    jump_key: Any = (),
    groups: Any = (),
    labels: Any = None,
) -> Host:
    """Returns a host.

    Args:
        where: what messages begin with.
        name: what it is called; its address where there is none.
        address: its name where there is none.
        port: a number, or digits.
        user: login name.
        key: private key, or several.
        jump: `[user@]host[:port],...`.
        jump_key: private key for the last jump host, or several.
        groups: names.
        labels: texts, numbers and truth values by name.

    Raises:
        InventoryError: one of them is not what it should be.
    """
    name = _text(where, "name", name or address)
    where = f"{where} ({_shown(name)})"
    address = without_brackets(_text(where, "address", address or name))
    name = without_brackets(name)
    if not is_address(address):
        raise InventoryError(f"{where}: {_shown(address)} is neither a host name nor an IP address")
    try:
        split_address(name)  # with a port perhaps, as ours are: `web01:2222`
    except InventoryError as error:
        raise InventoryError(f"{where}: not a name: {error}") from error
    if user is not None and not is_user(_text(where, "user", user)):
        raise InventoryError(f"{where}: {_shown(without_password(user))} is not a login name")
    return Host(
        name=name,
        address=address,
        port=None if port is None else _port(where, port),
        user=user,
        key_paths=_keys(where, key),
        jump=None if jump is None else check_jump(where, _text(where, "jump", jump)),
        jump_key_paths=_keys(where, jump_key),
        groups=check_groups(where, groups),
        labels=check_labels(where, labels or {}),
    )


def check_jump(where: str, jump: str) -> str:
    """Returns jump hosts as they are.

    Raises:
        InventoryError: they are not `[user@]host[:port],...` or `none`.
    """
    for hop in jump.split(",") if jump != "none" else ():
        user, at, address = hop.rpartition("@")
        try:
            split_address(address)
        except InventoryError as error:
            raise InventoryError(f"{where}: jump host {_shown(jump)}: {error}") from error
        if at and not is_user(user):
            raise InventoryError(
                f"{where}: jump host {_shown(jump)}: {_shown(without_password(user))} is not a login name"
            )
    return jump


def check_groups(where: str, groups: Any) -> frozenset[str]:
    """Returns the names of groups.

    Raises:
        InventoryError: they are no texts.
    """
    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise InventoryError(f"{where}: groups: expected a list of names")
    return frozenset(_visible(_text(where, "groups", group)) for group in groups) - _NO_GROUPS


def check_labels(where: str, labels: Any) -> dict[str, str]:
    """Returns labels as texts; those without a value are left out.

    Raises:
        InventoryError: they are no object, or one is nested.
    """
    if not isinstance(labels, Mapping):
        raise InventoryError(f"{where}: labels: expected an object of texts")
    checked = {}
    for name, value in labels.items():
        if isinstance(value, list | tuple | Mapping):
            raise InventoryError(f"{where}: label {_shown(name)}: expected a text")
        if value is not None and value != "":
            text = str(value).lower() if isinstance(value, bool) else str(value)
            checked[_visible(str(name))] = _visible(text)
    return checked


def _text(where: str, field: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InventoryError(f"{where}: {field}: expected a text (given: {_shown(value)})")
    return value


def _port(where: str, value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < _PORT_LIMIT):
        raise InventoryError(f"{where}: {_shown(value)} is not a port (1 to 65535)")
    return int(text)


def _keys(where: str, value: Any) -> tuple[str, ...]:
    keys = (value,) if isinstance(value, str) else value
    if not isinstance(keys, list | tuple):
        raise InventoryError(f"{where}: key: expected a path, or a list of them")
    paths = tuple(_text(where, "key", key) for key in keys)
    for path in paths:
        try:
            Path(path).expanduser()
        except RuntimeError as error:  # ~somebody without a home
            raise InventoryError(f"{where}: key: {path}: {error}") from error
    return paths


def _visible(text: str) -> str:
    """Returns text that steers nothing, and is no longer than any name should be."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:_LONGEST])


def _shown(value: Any) -> str:
    return repr(value)[:_SHOWN]
