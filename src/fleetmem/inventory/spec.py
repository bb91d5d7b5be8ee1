"""Host specifications as people type them: `web[01-50].example.com`, `user@host:port`, `[2001:db8::1]:22`. Pure."""

import ipaddress
import re
from collections.abc import Iterator

from fleetmem.errors import InventoryError
from fleetmem.model import Host

MAX_EXPANSION = 100_000
"""More hosts than this from one pattern is a typing error."""

_RANGE = re.compile(r"\[([^\[\]]*)\]")
_RANGE_PART = re.compile(r"(\d{1,9})-(\d{1,9})|([A-Za-z0-9_]+)", re.ASCII)
# What a host name, an IP address or an ssh alias is made of. Nothing that a shell, a terminal or a metric could mind.
_ADDRESS = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")
# No blank, no quote, no sign that a shell knows: a user may end up in a ProxyCommand, as `%r`.
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+\\-]*\$?")
_PORT_LIMIT = 65536


def split_specs(text: str) -> list[str]:
    """Splits at commas and white space, but not within brackets: `a,b[1,3]` is `a` and `b[1,3]`."""
    return [part for part in re.split(r"[,\s]+(?![^\[\]]*\])", text.strip()) if part]


def parse_spec(spec: str) -> Iterator[Host]:
    """Yields the hosts of one specification: `[user@]host[:port]`, where the host may hold ranges.

    A port that is given becomes part of the host's name: several hosts may live behind one address.

    Raises:
        InventoryError: it is none; the message shows what is.
    """
    user, at, rest = spec.rpartition("@")
    if at and not user:
        raise InventoryError(f"host {spec!r}: nothing before the @; expected [user@]host[:port]")
    if at and not is_user(user):
        raise InventoryError(f"host {spec!r}: {without_password(user)!r} is not a login name")
    ipv6 = _parse_ipv6(rest)
    if ipv6:
        address, port = ipv6
        yield _host(address, port, user or None)
        return
    pattern, colon, port_text = rest.rpartition(":")
    if not colon:
        pattern, port = rest, None
    else:
        port = _parse_port(spec, port_text)
    for address in expand_ranges(pattern):
        if not _ADDRESS.fullmatch(address):
            raise InventoryError(
                f"host {spec!r}: {address!r} is not a host name; expected [user@]host[:port], web[01-50] or [::1]:22"
            )
        yield _host(address, port, user or None)


def split_address(text: str) -> tuple[str, int | None]:
    """Returns address and port of `host`, `host:port`, `::1` or `[::1]:port`.

    Raises:
        InventoryError: it is none of these.
    """
    ipv6 = _parse_ipv6(text)
    if ipv6:
        return ipv6
    address, colon, port_text = text.rpartition(":") if ":" in text else (text, "", "")
    if not _ADDRESS.fullmatch(address):
        raise InventoryError(f"host {text!r}: {address!r} is not a host name")
    return address, _parse_port(text, port_text) if colon else None


def without_password(user: str) -> str:
    """Returns what may be shown of what should be a login name."""
    return user.partition(":")[0]


def is_address(text: str) -> bool:
    """Whether something is a host name, an alias of the ssh configuration, or an IP address."""
    return bool(_ADDRESS.fullmatch(text)) or ("[" not in text and _parse_ipv6(text) is not None)


def without_brackets(text: str) -> str:
    """Returns the IPv6 address of `[2001:db8::2]`, any other text as it is."""
    ipv6 = _parse_ipv6(text)
    return ipv6[0] if ipv6 and text.endswith("]") else text


def is_user(text: str) -> bool:
    """Whether something is a login name."""
    return bool(_USER.fullmatch(text))


def expand_ranges(pattern: str) -> list[str]:
    """Returns the names of a pattern: `web[01-03,7]` gives web01, web02, web03, web7; zeros in front are kept.

    Raises:
        InventoryError: a range is malformed, runs backwards or is too large.
    """
    match = _RANGE.search(pattern)
    if not match:
        if "[" in pattern or "]" in pattern:
            raise InventoryError(f"host {pattern!r}: brackets do not match; a range looks like web[01-50]")
        return [pattern]
    heads = [pattern[: match.start()] + middle for middle in _expand_one(pattern, match[1])]
    tails = expand_ranges(pattern[match.end() :])
    if len(heads) * len(tails) > MAX_EXPANSION:
        raise InventoryError(f"host {pattern!r}: more than {MAX_EXPANSION} hosts")
    return [head + tail for head in heads for tail in tails]


def _expand_one(pattern: str, body: str) -> list[str]:
    names: list[str] = []
    for part in body.split(","):
        match = _RANGE_PART.fullmatch(part)
        if not match:
            raise InventoryError(f"host {pattern!r}: {part!r} is not a range; write [1-9], [01-50] or [a,b,c]")
        first, last, single = match.groups()
        if single is not None:
            names.append(single)
            continue
        if int(first) > int(last) or int(last) - int(first) >= MAX_EXPANSION:
            raise InventoryError(f"host {pattern!r}: range {part!r} runs backwards or is too large")
        width = len(first) if first.startswith("0") else 0
        names += [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
    return names


def _parse_ipv6(text: str) -> tuple[str, int | None] | None:
    """Returns address and port of `::1`, `[::1]`, `[::1]:22`, `fe80::1%eth0`; None for what is no IPv6 address."""
    match = re.fullmatch(r"\[([^\[\]]+)\](?::(\d+))?", text)
    address, port_text = (match[1], match[2]) if match else (text, None)
    try:
        zone = ipaddress.IPv6Address(address).scope_id
    except ValueError:
        return None
    if zone and not _ADDRESS.fullmatch(zone):  # an interface; Python takes anything there
        return None
    return address, _parse_port(text, port_text) if port_text else None


def _parse_port(spec: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < _PORT_LIMIT:
        raise InventoryError(f"host {spec!r}: {text!r} is not a port (1 to 65535); IPv6 is written [::1]:22")
    return int(text)


def _host(address: str, port: int | None, user: str | None) -> Host:
    bracketed = f"[{address}]" if ":" in address else address
    name = address if port is None else f"{bracketed}:{port}"
    return Host(name=name, address=address, port=port, user=user)
