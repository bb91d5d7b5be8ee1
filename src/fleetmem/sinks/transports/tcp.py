"""A TCP connection to StatsD or carbon.

Neither protocol has an acknowledgement. So three things are known:

- What was written is in a buffer of this machine.
- What the kernel calls acknowledged is in a buffer of the other machine.
- All was read if the other side ends the connection after we ended our side.

A connection ends with a whole line, however it ends: receivers store a number that is cut as a number. So the kernel
never holds a part of a line: where its buffer takes only a part, the buffer grows until it holds the rest.
"""

import asyncio
import fcntl
import select
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from fleetmem.errors import SinkError, reason_of
from fleetmem.sinks import pickled
from fleetmem.sinks.queue.backlog import BATCH_BYTES
from fleetmem.sinks.queue.unconfirmed import Unconfirmed
from fleetmem.sinks.transports.endpoints import host_port

_LIMIT_SECONDS = 5.0
"""For a connection to be made, for a receiver to take anything, and for it to read the rest at the end."""

_UNCONFIRMED_SECONDS = 10.0
_CHUNK_BYTES = 64 * 1024

# For minutes the kernel goes on to deliver the buffer of a closed connection. A receiver that is stuck leaves one at
# each attempt: so not the 4 MiB to which it grows by itself. Linux takes twice what it is asked for.
_SEND_BUFFER_BYTES = 128 * 1024
_BUFFER_FACTOR = 2 if sys.platform == "linux" else 1
_RESET = struct.pack("ii", 1, 0)
_LAST_RECORD_BUFFER_BYTES = 1024 * 1024
"""With the rest of a line or frame. The system may allow less (net.core.wmem_max, 208 KiB by default)."""


def end_of_line(data: bytes, at: int) -> int:
    """Returns where the line ends that holds the byte before a position; 0 for position 0."""
    return data.find(b"\n", at - 1) + 1 if at else 0


class Receiver(NamedTuple):
    """What listens at the other end.

    Attributes:
        what: the first word of messages.
        hint: what to check when it does not take text.
        encode: turns lines into what it reads; None when it reads lines.
        end_of_record: where the line, or frame, ends that holds the byte before a position.
        is_idempotent: a point that comes twice is stored once, so what may be lost is sent again.
    """

    what: str
    hint: str
    encode: Callable[[bytes], bytes] | None = None
    end_of_record: Callable[[bytes, int], int] = end_of_line
    is_idempotent: bool = False


STATSD = Receiver("statsd", "does StatsD listen on TCP there? it may on UDP only")
CARBON_LINES = Receiver("graphite", "is carbon's plaintext port open there?", is_idempotent=True)
CARBON_PICKLE = Receiver(
    "graphite", "is carbon's pickle port open there?", pickled.frames, pickled.end_of_frame, is_idempotent=True
)


class TcpTransport:
    """Sends lines over one connection, made on first use and again after it broke.

    Connections are ended in order and what comes back is read: Node's StatsD exits when a client resets one.

    Attributes:
        bytes_total: handed to the kernel without an error, as encoded; what was sent again counts again.
    """

    def __init__(self, receiver: Receiver, host: str, port: int) -> None:
        self.address = host_port(host, port)
        self.datagrams_total = 0
        self.bytes_total = 0
        self.batch_bytes = BATCH_BYTES
        self.refuses_late = False
        self._receiver = receiver
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._unread = _Unread(0, 0.0)
        self._unconfirmed = Unconfirmed()

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Sends lines; before them those that may be lost with an earlier connection, where twice does no harm.

        Raises:
            SinkError: no connection, or the receiver took nothing for 5 s. Some of the text may have arrived.
        """
        await asyncio.sleep(0)  # a backlog that is taken as fast as it is sent must not hold the event loop
        whole = text if text.endswith(b"\n") else text + b"\n"
        sock = await self._connected()
        await self._send_lost(sock)
        await self._write(sock, whole)
        if self._receiver.is_idempotent:
            self._unconfirmed.add(time.monotonic(), whole)

    async def flush(self) -> None:
        """Ends the connection in order, and waits until the receiver has read all; the next send makes another.

        Raises:
            SinkError: it did not within 5 s, or broke it off.
        """
        if self._unconfirmed:
            await self._send_lost(await self._connected())
        if self._socket is None:
            return
        try:
            if _is_open(self._socket):  # otherwise it has read all: with unread input the kernel resets, not ends
                self._socket.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(_LIMIT_SECONDS):
                    while await asyncio.get_running_loop().sock_recv(self._socket, _CHUNK_BYTES):
                        pass
        except OSError as error:
            reason = _reason(error, "did not read to the end within")
            message = f"connection broke: {reason}; what was sent last may be lost, look at the receiver's log"
            raise self._failed(message) from error
        else:
            self._unconfirmed.forget_all()
        finally:
            self._drop()

    def unconfirmed(self) -> list[bytes]:
        """Returns the texts that were sent and may be lost, oldest first, at most 4 MiB.

        That is what was sent in the 10 s before the connection was last seen alive, and since then; nothing for a
        receiver that is not idempotent.
        """
        return self._unconfirmed.texts()

    async def close(self) -> None:
        """Drops the connection at once. What the kernel has of it is still delivered."""
        self._drop()

    async def _connected(self) -> socket.socket:
        if self._socket and self._is_alive(self._socket):
            return self._socket
        self._drop()
        self._socket = await self._connect()
        return self._socket

    def _is_alive(self, sock: socket.socket) -> bool:
        """Whether the receiver has neither ended nor broken off the connection. Raises SinkError when it is stuck."""
        try:
            if not _is_open(sock):
                return False
        except OSError:
            return False
        now = time.monotonic()
        unread_bytes = _unread_bytes(sock)
        if not unread_bytes or unread_bytes < self._unread.size_bytes:
            self._unread = _Unread(unread_bytes, now)
        elif now - self._unread.since_seconds >= _LIMIT_SECONDS:
            self._drop()
            raise self._failed(f"took nothing for {_LIMIT_SECONDS:g} s; {self._receiver.hint}")
        self._unconfirmed.forget(now - _UNCONFIRMED_SECONDS)
        return True

    async def _connect(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                # Each time: a receiver that moved is found again.
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                return await _connect_to_one_of(found)
        except (socket.gaierror, UnicodeError) as error:
            raise self._failed("name does not resolve; check the spelling and DNS") from error
        except OSError as error:
            raise self._failed(f"{_reason(error, 'no answer for')}; {self._receiver.hint}") from error

    async def _send_lost(self, sock: socket.socket) -> None:
        while (text := self._unconfirmed.first_lost()) is not None:
            await self._write(sock, text)
            self._unconfirmed.note_sent_again(time.monotonic())

    async def _write(self, sock: socket.socket, text: bytes) -> None:
        data = self._receiver.encode(text) if self._receiver.encode else text
        sent = 0
        try:
            while sent < len(data):
                async with asyncio.timeout(_LIMIT_SECONDS):
                    await _until_writable(sock)
                sent += _send_some(sock, memoryview(data)[sent:])
                end = self._receiver.end_of_record(data, sent)
                if sent < end:
                    sent += _send_with_more_room(sock, memoryview(data)[sent:end])
        except OSError as error:
            self._drop(is_torn=sent < self._receiver.end_of_record(data, sent))
            raise self._failed(f"{_reason(error, 'took nothing for')}; {self._receiver.hint}") from error
        except BaseException:  # cancelled
            self._drop(is_torn=sent < self._receiver.end_of_record(data, sent))
            raise
        self.bytes_total += len(data)
        self._unread = _Unread(_unread_bytes(sock), time.monotonic())

    def _drop(self, *, is_torn: bool = False) -> None:
        if self._socket:
            with suppress(OSError):
                if is_torn:  # a reset is no end: the receiver knows that something is missing
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                _is_open(self._socket)  # reads: the kernel resets a connection that is closed with unread input
            asyncio.get_running_loop().remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        self._unconfirmed.lose()

    def _failed(self, reason: str) -> SinkError:
        return SinkError(f"{self._receiver.what} {self.address}: {reason}")


class _Unread(NamedTuple):
    """How much the other side had not acknowledged, and since when it is not less."""

    size_bytes: int
    since_seconds: float


async def _connect_to_one_of(found: Sequence[tuple[int, int, int, str, Any]]) -> socket.socket:
    """Returns a socket that is connected to the first address that answers; each gets its share of the limit."""
    loop = asyncio.get_running_loop()
    problem = OSError()
    for family, kind, protocol, _name, peer in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _set_buffer(sock)
            async with asyncio.timeout(_LIMIT_SECONDS / len(found)):
                await loop.sock_connect(sock, peer)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise problem


def _set_buffer(sock: socket.socket) -> None:
    """Limits the buffer, to half of what may be had: the rest of a line always finds room."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LAST_RECORD_BUFFER_BYTES)
    most_bytes = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)  # on Linux twice what it would be set to
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(_SEND_BUFFER_BYTES, most_bytes // 4))
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # where that is limited (net.ipv4.tcp_notsent_lowat), room is no room
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2**31 - 1)


async def _until_writable(sock: socket.socket) -> None:
    """Waits until a third of the buffer is free.

    One that is full takes a few bytes all the same: it would grow with each line that they are a part of.
    """
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if poll.poll(0):
        return
    loop = asyncio.get_running_loop()
    has_room = asyncio.Event()
    loop.add_writer(sock, has_room.set)
    try:
        await has_room.wait()
    finally:
        if sock.fileno() >= 0:  # else `_drop` has done it
            loop.remove_writer(sock)


def _send_some(sock: socket.socket, data: memoryview) -> int:
    """Sends as much as there is room for; returns how much."""
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


def _send_with_more_room(sock: socket.socket, data: memoryview) -> int:
    """Sends the rest of a line into a buffer that is made larger for it; returns how much there was room for."""
    before_bytes = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // _BUFFER_FACTOR
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LAST_RECORD_BUFFER_BYTES)
    sent = 0
    try:
        while sent < len(data):
            sent += sock.send(data[sent:])
    except BlockingIOError:
        pass
    finally:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, before_bytes)
    return sent


def _is_open(sock: socket.socket) -> bool:
    """Returns whether the other side has not ended the connection; reads, and throws away, what it said.

    Raises:
        OSError: it broke.
    """
    try:
        while sock.recv(_CHUNK_BYTES):
            pass
    except BlockingIOError:
        return True
    return False


def _unread_bytes(sock: socket.socket) -> int:
    """Returns how much of what was written the other machine has not acknowledged, 0 where the system does not tell."""
    try:
        answer = fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return 0
    return int(struct.unpack("@i", answer)[0])


def _reason(error: OSError, when_slow: str) -> str:
    is_limit = isinstance(error, TimeoutError) and error.errno is None  # ours; ETIMEDOUT is the same class
    return f"{when_slow} {_LIMIT_SECONDS:g} s" if is_limit else reason_of(error)
