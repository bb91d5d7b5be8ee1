"""Addresses, as people write them."""

import re
from typing import Annotated, NamedTuple

from pydantic import (
    BeforeValidator,
)

from fleetmem.connect.ssh_settings import is_ipv6

_STATSD_PORT = 8125


PROMETHEUS_PORT = 9877


HEALTH_PORT = 9878


class Server(NamedTuple):
    """Where a server listens.

    Attributes:
        scheme: udp, tcp or unix.
        host: name or address; the path of the socket for unix.
        port: 0 for unix.
    """

    scheme: str
    host: str
    port: int


def _check_listen(value: object) -> object:
    if value is None:
        return None
    text = str(value)
    try:
        listen_address(text, PROMETHEUS_PORT)
    except ValueError as error:
        raise ValueError(f"{text!r} is not PORT or HOST:PORT; 0.0.0.0:PORT is all addresses") from error
    return text


def listen_address(text: str, default_port: int) -> tuple[str, int]:
    """Returns host and port of `PORT`, which is one of 127.0.0.1, or `HOST:PORT`.

    Raises:
        ValueError: it is neither.
    """
    return split_address(f"127.0.0.1:{text}" if text.isdigit() else text, default_port)


Listen = Annotated[str | None, BeforeValidator(_check_listen)]
"""Where pages are served: PORT, of 127.0.0.1, or HOST:PORT."""


def split_server(text: str) -> Server:
    """Returns what `HOST[:PORT]`, `udp://HOST[:PORT]`, `tcp://HOST[:PORT]` or `unix:///PATH` says.

    Raises:
        ValueError: it is none of these.
    """
    scheme, sign, rest = text.partition("://")
    if not sign:
        return Server("udp", *split_address(text, _STATSD_PORT))
    if scheme == "unix":
        if not rest.startswith("/"):
            raise ValueError(f"{text!r}: the path of the socket begins with /, as in unix:///run/statsd.sock")
        return Server("unix", rest, 0)
    if scheme not in ("udp", "tcp"):
        raise ValueError(f"{text!r} is not HOST[:PORT], udp://HOST[:PORT], tcp://HOST[:PORT] or unix:///PATH")
    return Server(scheme, *split_address(rest, _STATSD_PORT))


def split_address(text: str, default_port: int) -> tuple[str, int]:
    """Returns host and port of `HOST`, `HOST:PORT`, `[IPV6]:PORT` or `IPV6`.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"\[([^\[\]]+)\](?::(\d+))?|([^\[\]:\s]+)(?::(\d+))?|([0-9A-Fa-f:.]+(?:%\w+)?)", text)
    if not match or (match[5] and not is_ipv6(match[5])):
        raise ValueError(f"{text!r} is not HOST or HOST:PORT")
    host = match[1] or match[3] or match[5]
    port = int(match[2] or match[4] or default_port)
    if not 0 < port < 65536:
        raise ValueError(f"{text!r}: port {port} is not between 1 and 65535")
    return host, port
