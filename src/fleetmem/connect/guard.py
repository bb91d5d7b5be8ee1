"""What one host may cost: its bytes are taken in portions, between which the others have their turn.

    socket or jump host ──> Guard ──a portion──> asyncssh ──> ProbeChannel
                              │ └─ over its share: Flood, the connection ends
                              └─ turn over: reading is paused, the rest waits for the next turn

asyncssh does at once whatever it is sent. Measured without this: one host that sends packets to be ignored held up all
others, and the stop of the collector, for seconds at a time. A host that asks and reads no answer fills our memory.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from fleetmem.connect.ssh import asyncssh

ALLOWANCE_SECONDS = 0.5
"""Of our CPU, that a host's bytes may take at once: a login takes 0.005 s, a megabyte of frames 0.004 s."""

SHARE = 0.02
"""Of a core, in the long run: frames of 5 MB a second."""

MAX_UNREAD_BYTES = 1024 * 1024
"""Of ours, that the host leaves in our memory."""

_TURN_SECONDS = 0.01
_PORTION_BYTES = 16 * 1024  # at most 500 packets, 0.03 s
_PORTION_SECONDS = 0.1  # at most: what takes longer is no host's doing, but a garbage collection in the middle, say
_KEY_EXCHANGE_SECONDS = 0.02  # of CPU, in tasks of asyncssh's: not seen here otherwise
_POLL_SECONDS = 0.005


class Flood(asyncssh.ProtocolError):
    """A host costs more than its share, in time or in memory."""


class Tunnel(Protocol):
    """Leads to a host through another one; asyncssh calls it as it calls a connection of its own."""

    async def create_connection(self, session_factory: Any, remote_host: str, remote_port: int) -> Any:
        """Opens a channel that leads to the host; returns it, and what the factory made for it."""


Via = socket.socket | Tunnel
"""What leads to a host: a socket that is connected with it, or a jump host."""


class Inside(Protocol):
    """What a connection says of its work."""

    def is_stuffed(self, size_bytes: int) -> bool:
        """Whether it is at work on a packet in a task, and has so many bytes to go on with."""

    @property
    def session_keys(self) -> object:
        """What packets are decrypted with: another object after each key exchange."""


class Guard(asyncio.Protocol):
    """Stands between a transport and asyncssh's connection, for one host.

    Args:
        connection: takes the bytes.
        inside: the same connection, where it says something of its work.
        allowance_seconds: see ALLOWANCE_SECONDS; None for a jump host, whose bytes are those of all hosts behind it.
    """

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        allowance_seconds: float | None,
        inside: Inside | None = None,
    ) -> None:
        self.connection = connection
        self._inside = inside
        # What comes meanwhile asyncssh puts together in one buffer, which is copied for each packet that is cut off.
        self._is_stuffed: Callable[[], bool] = partial(inside.is_stuffed, _PORTION_BYTES) if inside else _is_at_ease
        self._allowance_seconds = allowance_seconds
        self._transport: Any = None
        self._waiting = bytearray()
        self._spent_seconds = 0.0
        self._spent_since = time.monotonic()
        self._keys: object = None
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is open."""
        self._transport = transport
        self.connection.connection_made(transport)

    def session_started(self) -> None:
        """The jump host has opened its channel."""
        self.connection.session_started()

    def data_received(self, data: bytes, _datatype: object = None) -> None:
        """Takes what the host sent: what fits in a turn now, the rest later."""
        if self._waiting:  # it came before reading was paused
            self._waiting += data
        elif len(data) <= _PORTION_BYTES and not self._is_stuffed():
            self._take(data)
        else:
            self._waiting += data
            self._take_turn()
            if self._waiting:
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._go_on)

    def eof_received(self) -> None:
        """The host sends no more."""
        self._take_turn()
        self.connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._take_turn()
        self._waiting.clear()
        self.connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The host reads more slowly than we send."""
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        """The host has caught up."""
        self.connection.resume_writing()

    def _go_on(self) -> None:
        self._take_turn()
        if self._waiting:
            asyncio.get_running_loop().call_later(_POLL_SECONDS if self._is_stuffed() else 0, self._go_on)
        elif not self._is_over:
            self._transport.resume_reading()

    def _take_turn(self) -> None:
        """Takes portions of what waits until the turn is over."""
        until = time.monotonic() + _TURN_SECONDS
        while self._waiting and not self._is_stuffed():
            portion = bytes(memoryview(self._waiting)[:_PORTION_BYTES])
            del self._waiting[:_PORTION_BYTES]
            self._take(portion)
            if time.monotonic() > until:
                return

    def _take(self, portion: bytes) -> None:
        if self._is_over:
            return
        begun = time.thread_time()
        self.connection.data_received(portion)
        self._charge(min(time.thread_time() - begun, _PORTION_SECONDS))
        if self._transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self._end(f"does not read what it asked for, more than {MAX_UNREAD_BYTES} bytes")

    def _charge(self, seconds: float) -> None:
        if self._inside and self._inside.session_keys is not self._keys:
            self._keys = self._inside.session_keys
            seconds += _KEY_EXCHANGE_SECONDS
        self._spent_seconds += seconds
        if self._allowance_seconds is None or self._spent_seconds <= self._allowance_seconds:
            return
        now = time.monotonic()
        self._spent_seconds = max(0.0, self._spent_seconds - SHARE * (now - self._spent_since))
        self._spent_since = now
        if self._spent_seconds > self._allowance_seconds:
            self._end(f"took {self._spent_seconds:.1f} s of our time with packets that are no answer")

    def _end(self, reason: str) -> None:
        self._is_over = True
        self._waiting.clear()
        self.connection.connection_lost(Flood(reason))


def _is_at_ease() -> bool:
    """What is taken of a connection that says nothing of its work: it is not stuffed."""
    return False


async def run_guarded(guard: Guard, via: Via, address: tuple[str, int]) -> Any:
    """Runs a guarded connection over a connected socket, or through a jump host; returns the transport.

    Args:
        guard: of the connection.
        via: a connected socket, or the connection to a jump host.
        address: of the host, for the jump host.
    """
    if isinstance(via, socket.socket):
        transport, _guard = await asyncio.get_running_loop().create_connection(lambda: guard, sock=via)
    else:
        transport, _guard = await via.create_connection(lambda: guard, *address)
    return transport
