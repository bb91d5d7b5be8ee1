"""Sockets of a lab: loopback only, free ports, bound before the servers start so that nobody else gets them."""

import errno
import socket

from fleetmem.errors import LabError

MAX_HOSTS = 250
_PORT_TRIES = 20
_BACKLOG = 128
_LOOPBACK = "127.0.0.1"


def listen_on_own_addresses(hosts: int) -> list[socket.socket]:
    """Returns listening sockets at 127.0.1.1, 127.0.1.2, ..., all at the same port.

    Where only 127.0.0.1 is a loopback address (macOS), they are there, each at a port of its own.

    Raises:
        LabError: no port is free.
    """
    for _try in range(_PORT_TRIES):
        sockets: list[socket.socket] = []
        try:
            for number in range(1, hosts + 1):
                port = sockets[0].getsockname()[1] if sockets else 0
                sockets.append(_listen(f"127.0.1.{number}", port))
        except OSError as error:
            for sock in sockets:
                sock.close()
            if error.errno == errno.EADDRNOTAVAIL:
                return [_listen(_LOOPBACK, 0) for _ in range(hosts)]
        else:
            return sockets
    raise LabError("found no TCP port that is free at every address of the lab's hosts")


def _listen(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind((address, port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def bind_datagrams() -> socket.socket:
    """Returns a UDP socket at a free port of 127.0.0.1."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((_LOOPBACK, 0))
    return sock


def free_ports(count: int) -> list[int]:
    """Returns TCP ports of 127.0.0.1 that are free now, for servers that cannot be handed a socket."""
    sockets = [_listen(_LOOPBACK, 0) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def is_answering(port: int) -> bool:
    """Whether something accepts TCP connections at a port of 127.0.0.1."""
    try:
        socket.create_connection((_LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
