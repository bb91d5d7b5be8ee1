"""UDP datagrams to a StatsD server."""

import asyncio
import errno
import socket
import time

from fleetmem.errors import reason_of
from fleetmem.sinks.queue.pace import STEADY_DATAGRAMS_PER_SECOND, Pace
from fleetmem.sinks.transports.datagrams import DatagramTransport, Peer
from fleetmem.sinks.transports.endpoints import host_port

MAX_DATAGRAM_BYTES = 1432
"""Fits an Ethernet frame, and the 1500 bytes beyond which statsite may cut a datagram."""

_LATE_REFUSAL_SECONDS = 0.2


class UdpTransport(DatagramTransport):
    """Sends text as datagrams, no faster than `Pace` says; its steady rate is in datagrams per second.

    UDP tells of a dead receiver only when its host answers with ICMP "port unreachable", and then on a later send; a
    host that is away altogether stays unnoticed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        steady_rate: float = STEADY_DATAGRAMS_PER_SECOND,
        max_datagram_bytes: int = MAX_DATAGRAM_BYTES,
        senders: int = 1,
    ) -> None:
        super().__init__(host_port(host, port), max_datagram_bytes, Pace(time.monotonic(), steady_rate, senders))
        self._host = host
        self._port = port

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

    async def _look_up(self) -> Peer:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        except UnicodeError as error:  # no name is that long
            raise socket.gaierror(socket.EAI_NONAME, str(error)) from error
        family, _kind, protocol, _name, address = found[0]
        return Peer(family, protocol, address, address)

    def _explain(self, error: OSError) -> str:
        if isinstance(error, socket.gaierror):
            return "name does not resolve; check the spelling and DNS"
        if error.errno == errno.ECONNREFUSED:
            return "connection refused; nothing listens on that UDP port, start StatsD there or correct the address"
        return f"{reason_of(error)}; check address, route and firewall"
