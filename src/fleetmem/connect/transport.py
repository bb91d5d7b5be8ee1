"""TCP connections to hosts: name look-up and connect, under one time limit."""

import asyncio
import ipaddress
import socket
import time
from typing import Any

from fleetmem.connect.translate import within
from fleetmem.errors import Stage


async def open_socket(address: str, port: int, limit_seconds: float) -> socket.socket:
    """Returns a connected socket.

    Raises:
        HostError: the name does not resolve, or nothing answers, within the limit of both together.
    """
    started = time.monotonic()
    addresses = await within(limit_seconds, Stage.RESOLVE, _look_up(address, port))
    used_seconds = time.monotonic() - started
    connecting = _connect(addresses, limit_seconds - used_seconds)
    return await within(limit_seconds, Stage.CONNECT, connecting, used_seconds=used_seconds)


async def _look_up(address: str, port: int) -> list[tuple[Any, ...]]:
    """Returns the addresses of a name as `getaddrinfo` does, without a thread where it is an IP address already."""
    try:
        ipaddress.ip_address(address.partition("%")[0])  # a zone follows the percent sign
    except ValueError:
        return list(
            await asyncio.get_running_loop().getaddrinfo(
                address, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
        )
    return list(socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))


async def _connect(addresses: list[tuple[Any, ...]], seconds: float) -> socket.socket:
    """Returns a connected socket. Addresses are tried in turn, each with its share of the time left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    for tried, (family, kind, protocol, _name, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        left = len(addresses) - tried
        try:
            async with asyncio.timeout((deadline - loop.time()) / left if left > 1 else None):
                await loop.sock_connect(sock, address)
        except BaseException as error:
            sock.close()
            if left == 1 or not isinstance(error, OSError):  # TimeoutError is an OSError
                raise
        else:
            return sock
    raise OSError("the name resolves to no address")
