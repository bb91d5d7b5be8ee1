"""Datagrams to a StatsD server."""

import asyncio
import errno
import socket
import time

from fleetmem.errors import SinkError, reason_of
from fleetmem.sinks.formats import cut_lines
from fleetmem.sinks.pace import STEADY_DATAGRAMS_PER_SECOND, Pace

MAX_DATAGRAM_BYTES = 1432
"""Fits an Ethernet frame, and the 1500 bytes beyond which statsite may cut a datagram."""

_LOOK_UP_EVERY_SECONDS = 60.0
_LATE_REFUSAL_SECONDS = 0.2


class UdpTransport:
    """Sends text as datagrams of whole lines, no faster than `Pace` says; its steady rate is in datagrams per second.

    UDP tells of a dead receiver only when its host answers with ICMP "port unreachable", and then on a later send; a
    host that is away altogether stays unnoticed.

    Attributes:
        datagrams_total: handed to the kernel without an error.
        bytes_total: likewise, payload only.
    """

    def __init__(self, host: str, port: int, steady_rate: float = STEADY_DATAGRAMS_PER_SECOND) -> None:
        self.address = f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
        self.datagrams_total = 0
        self.bytes_total = 0
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._peer: object = None
        self._looked_up_at = 0.0
        self._pace = Pace(time.monotonic(), steady_rate)

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Sends text.

        Args:
            text: whole lines.
            backlog_bytes: what waits behind it.

        Raises:
            SinkError: the name does not resolve, or the receiver refuses. Some of the text may have arrived.
        """
        sock = await self._connected()
        datagrams = cut_lines(text, MAX_DATAGRAM_BYTES)
        waiting = len(datagrams) + backlog_bytes / MAX_DATAGRAM_BYTES
        try:
            for datagram in datagrams:
                wait_seconds = self._pace.wait_seconds(time.monotonic(), waiting)
                if wait_seconds:
                    await asyncio.sleep(wait_seconds)
                try:
                    sock.send(datagram)
                except BlockingIOError:
                    await asyncio.get_running_loop().sock_sendall(sock, datagram)
                self.datagrams_total += 1
                self.bytes_total += len(datagram)
        except OSError as error:
            raise self._failed(error) from error

    async def flush(self) -> None:
        """Waits a moment for a refusal of what was sent last.

        Raises:
            SinkError: there was one.
        """
        if not self._socket or not self.datagrams_total:
            return
        await asyncio.sleep(_LATE_REFUSAL_SECONDS)
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise self._failed(OSError(code, errno.errorcode.get(code, "")))

    def unconfirmed(self) -> list[bytes]:
        """Nothing is kept."""
        return []

    async def close(self) -> None:
        """Closes the socket."""
        if self._socket:
            self._socket.close()
            self._socket = None

    async def _connected(self) -> socket.socket:
        if self._socket and time.monotonic() - self._looked_up_at < _LOOK_UP_EVERY_SECONDS:
            return self._socket
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        except (socket.gaierror, UnicodeError) as error:
            if self._socket:  # the name server is away, the receiver need not be
                self._looked_up_at = time.monotonic()
                return self._socket
            raise SinkError(f"statsd {self.address}: name does not resolve; check the spelling and DNS") from error
        self._looked_up_at = time.monotonic()
        family, kind, protocol, _name, peer = found[0]
        if self._socket and peer == self._peer:
            return self._socket
        await self.close()
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            sock.connect(peer)
        except OSError as error:
            sock.close()
            raise self._failed(error) from error
        self._socket, self._peer = sock, peer
        return sock

    def _failed(self, error: OSError) -> SinkError:
        self._looked_up_at = float("-inf")  # it may have moved
        if error.errno == errno.ECONNREFUSED:
            reason = "connection refused; nothing listens on that UDP port, start StatsD there or correct the address"
        else:
            reason = f"{reason_of(error)}; check address, route and firewall"
        return SinkError(f"statsd {self.address}: {reason}")
