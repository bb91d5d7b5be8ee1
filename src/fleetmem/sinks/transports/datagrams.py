"""Datagrams to a StatsD server: what UDP and Unix sockets have in common."""

import asyncio
import errno
import socket
import time
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from fleetmem.errors import SinkError
from fleetmem.sinks.formats import cut_lines
from fleetmem.sinks.queue.backlog import BATCH_BYTES
from fleetmem.sinks.queue.pace import Pace

_LOOK_UP_EVERY_SECONDS = 60.0
_LIMIT_SECONDS = 5.0
_NO_BUFFERS_SECONDS = 0.01
_TURN_SECONDS = 0.005
_TURN_SHARE = 0.5  # of what the others took: while thousands log in they take 0.1 s, and a backlog would only grow


class Peer(NamedTuple):
    """Where datagrams go.

    Attributes:
        address: as `socket.connect` takes it.
        identity: another one is another receiver, at the same address perhaps.
    """

    family: int
    protocol: int
    address: Any
    identity: object


class DatagramTransport(ABC):
    """Sends text as datagrams of whole lines.

    Args:
        address: for people.
        max_datagram_bytes: what the receiver reads at once.
        pace: when each may leave; None where the receiver holds up the sender.

    Attributes:
        datagrams_total: handed to the kernel without an error.
        bytes_total: the payload of these datagrams.
        refuses_late: an error tells of a datagram before; not where the receiver holds up the sender.
    """

    def __init__(self, address: str, max_datagram_bytes: int, pace: Pace | None) -> None:
        self.address = address
        self.datagrams_total = 0
        self.bytes_total = 0
        self.batch_bytes = BATCH_BYTES
        self.refuses_late = pace is not None
        self._max_datagram_bytes = max_datagram_bytes
        self._pace = pace
        self._socket: socket.socket | None = None
        self._peer_identity: object = None
        self._looked_up_at = self._gave_way_at = float("-inf")
        self._turn_seconds = _TURN_SECONDS

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Sends text.

        Args:
            text: whole lines.
            backlog_bytes: what waits behind it.

        Raises:
            SinkError: there is no receiver, it refuses, or it took nothing for 5 s. Some of the text may have arrived.
        """
        await self._give_way()
        sock = await self._connected()
        datagrams = cut_lines(text, self._max_datagram_bytes)
        waiting = len(datagrams) + backlog_bytes / self._max_datagram_bytes
        try:
            while datagrams:
                group = datagrams[: self._pace.at_once] if self._pace else datagrams
                wait_seconds = self._pace.wait_seconds(time.monotonic(), waiting, len(group)) if self._pace else 0
                if wait_seconds:
                    await asyncio.sleep(wait_seconds)
                    self._gave_way_at = time.monotonic()
                await self._send_all(sock, group)
                datagrams = datagrams[len(group) :]
                waiting -= len(group)
        except OSError as error:
            raise self._failed(error) from error

    async def _send_all(self, sock: socket.socket, group: list[bytes]) -> None:
        sent = 0
        try:
            for datagram in group:
                try:
                    sock.send(datagram)
                except OSError as error:
                    if not _is_full(error):
                        raise
                    await _put_later(sock, datagram)
                sent += 1
        finally:
            self.datagrams_total += sent
            self.bytes_total += sum(map(len, group[:sent]))

    async def _give_way(self) -> None:
        """Lets others have their turn now and then: a backlog that is taken as fast as it is sent must not keep it.

        Not with each text: a busy event loop comes round 50 times a second, and has thousands of datagrams to send.
        """
        begun = time.monotonic()
        if begun - self._gave_way_at > self._turn_seconds:
            await asyncio.sleep(0)
            self._gave_way_at = time.monotonic()
            self._turn_seconds = max(_TURN_SECONDS, (self._gave_way_at - begun) * _TURN_SHARE)

    @abstractmethod
    async def flush(self) -> None:
        """Makes sure that what was sent is on its way. Raises SinkError."""

    def unconfirmed(self) -> list[bytes]:
        """Nothing is kept: a gauge that comes late is false."""
        return []

    async def close(self) -> None:
        """Closes the socket."""
        self._disconnect()

    @abstractmethod
    async def _look_up(self) -> Peer:
        """Returns where the receiver is now. Raises OSError."""

    @abstractmethod
    def _explain(self, error: OSError) -> str:
        """Returns what an error means, and what to try."""

    async def _connected(self) -> socket.socket:
        if self._socket and time.monotonic() - self._looked_up_at < _LOOK_UP_EVERY_SECONDS:
            return self._socket
        try:
            # A name server that is away holds up a look-up for 20 s and more, and what waits for it gets too old.
            async with asyncio.timeout(_LIMIT_SECONDS if self._socket else None):
                peer = await self._look_up()
        except OSError as error:
            if self._socket:  # the name server is away, say: the receiver need not be
                self._looked_up_at = time.monotonic()
                return self._socket
            raise self._failed(error) from error
        self._looked_up_at = time.monotonic()
        if self._socket and peer.identity == self._peer_identity:
            return self._socket
        self._disconnect()
        try:
            sock = socket.socket(peer.family, socket.SOCK_DGRAM, peer.protocol)
        except OSError as error:  # no more files may be open
            raise self._failed(error) from error
        sock.setblocking(False)
        try:
            sock.connect(peer.address)
        except OSError as error:
            sock.close()
            raise self._failed(error) from error
        self._socket, self._peer_identity = sock, peer.identity
        return sock

    def _disconnect(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    def _failed(self, error: OSError) -> SinkError:
        self._looked_up_at = float("-inf")  # it may have moved
        is_limit = isinstance(error, TimeoutError) and error.errno is None
        reason = f"took nothing for {_LIMIT_SECONDS:g} s; does it still read?" if is_limit else self._explain(error)
        return SinkError(f"statsd {self.address}: {reason}")


async def _put_later(sock: socket.socket, datagram: bytes) -> None:
    """Sends a datagram when there is room for it, within 5 s."""
    async with asyncio.timeout(_LIMIT_SECONDS):
        while True:
            try:
                await asyncio.get_running_loop().sock_sendall(sock, datagram)
            except OSError as error:
                if not _is_full(error):
                    raise
                await asyncio.sleep(_NO_BUFFERS_SECONDS)  # no event tells when there is room again
            else:
                return


def _is_full(error: OSError) -> bool:
    return isinstance(error, BlockingIOError) or error.errno == errno.ENOBUFS  # the latter on BSD and macOS
