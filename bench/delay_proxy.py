"""A TCP proxy that makes the loopback device as far away as asked, and counts what passes.

    client ──> 127.x.y.z:port ──half a round trip──> 127.0.0.1:target
           <──────────────────half a round trip───

It listens on every address of 127.0.0.0/8, so that one machine is many hosts; with several targets, an address always
has the same one. What comes is held for half a round trip and sent on, however much it is: there is no limit on the
rate, and none on what is held. A connection costs a round trip, too: where a network is between, a server accepts when
the third packet of the handshake has come, 1.5 round trips after the first one. To the client the connection is there
at once, and so its first bytes have that long to go.

Its timers are late by up to 1 ms for each direction. It runs as a process of its own, so that its CPU is nobody
else's: as a script it prints its port, then answers each line on its standard input with its counts, and ends when
its standard input ends.
"""

import argparse
import asyncio
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, cast

from fleetmem.runtime.event_loop import raise_file_limit, run_async

_MOST_CONNECTIONS = 10_000
_BACKLOG = 4096
_STOP_SECONDS = 5.0


class Passed(NamedTuple):
    """What passed since the proxy was started: TCP's payload, without its headers and those of IP.

    Attributes:
        connections: so many.
        bytes_to_targets: payload.
        bytes_to_clients: payload.
        round_trips: of each connection, in the order in which they came: TCP's, and those up to the last piece that the
            client had when it closed its side, or has now. A piece belongs to the round trip after that of the last
            one that its sender had, as it may be an answer to it.
    """

    connections: int
    bytes_to_targets: int
    bytes_to_clients: int
    round_trips: tuple[int, ...]

    @property
    def total_bytes(self) -> int:
        """Both directions."""
        return self.bytes_to_targets + self.bytes_to_clients


class DelayProxy:
    """The other side: starts the process, asks it, ends it. A context manager.

    Args:
        targets: ports on 127.0.0.1; the last two bytes of the address that a client connects to choose one.
        round_trip_ms: between client and target.

    Attributes:
        port: to connect to, on every address of 127.0.0.0/8.
    """

    def __init__(self, targets: list[int], round_trip_ms: float) -> None:
        command = [sys.executable, __file__, "--round-trip-ms", str(round_trip_ms), *map(str, targets)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._answer())

    def __enter__(self) -> "DelayProxy":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=_STOP_SECONDS)
            return
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def passed(self) -> Passed:
        """Returns what passed so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        connections, to_targets, to_clients, *round_trips = map(int, self._answer().split())
        return Passed(connections, to_targets, to_clients, tuple(round_trips))


class _Direction:
    """What is under way in one direction of a connection; None is its end.

    Args:
        delay_seconds: how long each piece is held.
        on_end: is told when the end has been passed on.

    Attributes:
        passed_bytes: so far.
        round_trip: of the last piece that has arrived, from 0.
    """

    def __init__(self, delay_seconds: float, on_end: Callable[[], None]) -> None:
        self._delay_seconds = delay_seconds
        self._on_end = on_end
        self._held: deque[tuple[float, int, bytes | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._receiver: asyncio.WriteTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.passed_bytes = 0
        self.round_trip = 0

    def attach(self, receiver: asyncio.WriteTransport) -> None:
        """Tells where to send; until then everything is held."""
        self._receiver = receiver
        self._deliver()

    def put(self, data: bytes | None, round_trip: int) -> None:
        """Takes a piece, or the end."""
        self.passed_bytes += len(data or b"")
        self._held.append((self._loop.time() + self._delay_seconds, round_trip, data))
        if not self._timer:
            self._deliver()

    def _deliver(self) -> None:
        self._timer = None
        if not self._receiver:
            return
        while self._held:
            due, round_trip, data = self._held[0]
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self._deliver)
                return
            self._held.popleft()
            if data is None:
                self._on_end()
            elif not self._receiver.is_closing():
                self.round_trip = max(self.round_trip, round_trip)
                self._receiver.write(data)


class _Side(asyncio.Protocol):
    """One of the two sockets of a connection: what it receives, it puts somewhere."""

    def __init__(self, put: Callable[[bytes | None], None], on_made: Callable[[asyncio.Transport], None]) -> None:
        self._put = put
        self._on_made = on_made
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hands the transport on."""
        self._on_made(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Holds it."""
        self._put(data)

    def eof_received(self) -> bool:
        """Keeps the other direction open."""
        self._end()
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        """Is an end, too, when none has come before."""
        self._end()

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._put(None)


class _Connection:
    """A client's connection and the one to its target."""

    def __init__(self, targets: list[int], round_trip_seconds: float) -> None:
        self._targets = targets
        self._round_trip_seconds = round_trip_seconds
        self._transports: list[asyncio.Transport] = []
        self._open_directions = 2
        half = round_trip_seconds / 2
        self.to_target = _Direction(half, lambda: self._end(1))
        self.to_client = _Direction(half, lambda: self._end(0))
        self._connecting: asyncio.Task[None] | None = None
        self._final_round_trip: int | None = None

    @property
    def round_trips(self) -> int:
        """See `Passed`."""
        return 1 + (self.to_client.round_trip if self._final_round_trip is None else self._final_round_trip)

    def client_side(self) -> _Side:
        """Returns the protocol of the client's socket."""
        return _Side(self._put_from_client, self._accept)

    def _put_from_client(self, data: bytes | None) -> None:
        if data is None:
            self._final_round_trip = self.to_client.round_trip
        self.to_target.put(data, self.to_client.round_trip)

    def _put_from_target(self, data: bytes | None) -> None:
        self.to_client.put(data, self.to_target.round_trip + 1)

    def _accept(self, client: asyncio.Transport) -> None:
        self._transports.append(client)
        if not client.get_extra_info("peername")[0].startswith("127."):  # targets take it for a local client
            client.abort()
            return
        self.to_client.attach(client)
        address = bytes(map(int, client.get_extra_info("sockname")[0].split(".")))
        target = self._targets[int.from_bytes(address[-2:]) % len(self._targets)]
        self._connecting = asyncio.create_task(self._connect(target))

    async def _connect(self, target: int) -> None:
        await asyncio.sleep(1.5 * self._round_trip_seconds)
        loop = asyncio.get_running_loop()
        try:
            transport, _protocol = await loop.create_connection(
                lambda: _Side(self._put_from_target, self._transports.append), "127.0.0.1", target
            )
        except OSError:
            self._transports[0].abort()
        else:
            self.to_target.attach(transport)

    def _end(self, side: int) -> None:
        """Passes an end on to a side; with the second one everything is closed."""
        self._open_directions -= 1
        if self._open_directions == 0:
            for transport in self._transports:
                transport.close()
        elif not self._transports[side].is_closing():
            self._transports[side].write_eof()


class _Proxy:
    """Accepts, counts, answers on standard output."""

    def __init__(self, targets: list[int], round_trip_seconds: float) -> None:
        self._targets = targets
        self._round_trip_seconds = round_trip_seconds
        self._connections: list[_Connection] = []
        self._done = asyncio.Event()

    def _accept(self) -> _Side:
        self._connections.append(_Connection(self._targets, self._round_trip_seconds))
        return self._connections[-1].client_side()

    async def run(self) -> None:
        """Runs until standard input ends."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._accept, "0.0.0.0", 0, backlog=_BACKLOG)  # noqa: S104 - see above
        print(server.sockets[0].getsockname()[1], flush=True)
        loop.add_reader(sys.stdin, self._answer)
        await self._done.wait()
        loop.remove_reader(sys.stdin)

    def _answer(self) -> None:
        if not sys.stdin.readline():
            self._done.set()
            return
        to_targets = sum(connection.to_target.passed_bytes for connection in self._connections)
        to_clients = sum(connection.to_client.passed_bytes for connection in self._connections)
        round_trips = [connection.round_trips for connection in self._connections]
        print(len(self._connections), to_targets, to_clients, *round_trips, flush=True)


def main() -> None:
    """Delays until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--round-trip-ms", type=float, required=True)
    parser.add_argument("targets", type=int, nargs="+", help="ports on 127.0.0.1")
    given = parser.parse_args()
    raise_file_limit(_MOST_CONNECTIONS, 2 * _MOST_CONNECTIONS)

    async def run() -> None:
        await _Proxy(given.targets, given.round_trip_ms / 1000).run()

    run_async(run())


if __name__ == "__main__":
    main()
