import asyncio
import fcntl
import random
import socket
import struct
import sys
import termios
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from fleetmem.errors import SinkError
from fleetmem.sinks.pickled import frames
from fleetmem.sinks.transports import tcp
from fleetmem.sinks.transports.tcp import CARBON_LINES, CARBON_PICKLE, STATSD, Receiver, TcpTransport
from unit.builders import Run

MEGABYTES = (b"x" * 199 + b"\n") * 100_000
"""More than all buffers on the way hold."""


class Connection:
    """The server's end of a connection: what came, and who ended it how.

    Attributes:
        ending: "ended" or "reset" by the client, "closed" by the server, empty until then.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.received = b""
        self.ending = ""
        self.task: asyncio.Task[None] | None = None
        self._socket = sock

    async def serve(self, server: "Server") -> None:
        """Reads until one side ends it."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await server.is_reading.wait()
                data = await loop.sock_recv(self._socket, server.read_bytes)
                if not data:
                    break
                self.received += data
                server.on_data(self)
                server.changed.set()
                await asyncio.sleep(0)
            self.ending = "ended"
        except ConnectionResetError:
            self.ending = "reset"
        except asyncio.CancelledError:
            self.ending = "closed"
        self._socket.close()
        server.changed.set()

    @property
    def waiting_bytes(self) -> int:
        """What the kernel has for the server to read."""
        return int.from_bytes(fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)), sys.byteorder)

    def say(self, data: bytes) -> None:
        """Sends to the client."""
        assert self._socket.send(data) == len(data)

    def end(self) -> None:
        """Ends it in order (with a FIN)."""
        assert self.task
        self.task.cancel()

    def reset(self) -> None:
        """Breaks it off (with a RST)."""
        if not self.ending:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.end()


class Server:
    """A server on a free port of this machine."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.read_bytes = 4096
        self.connections: list[Connection] = []
        self.is_reading = asyncio.Event()
        self.is_reading.set()
        self.on_data: Callable[[Connection], None] = lambda _connection: None
        self.changed = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listens, on the port of last time if there was one; small buffers, so that little is on the way."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.create_server((self.host, self.port), family=family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        self._listening = asyncio.create_task(self._listen(sock))

    async def _listen(self, listener: socket.socket) -> None:
        with listener:
            while True:
                sock, _peer = await asyncio.get_running_loop().sock_accept(listener)
                connection = Connection(sock)
                connection.task = asyncio.create_task(connection.serve(self))
                self.connections.append(connection)

    async def stop(self) -> None:
        """Stops listening and breaks connections off."""
        assert self._listening
        self._listening.cancel()
        for connection in self.connections:
            connection.reset()
        tasks = [connection.task for connection in self.connections if connection.task]
        await asyncio.gather(self._listening, *tasks, return_exceptions=True)

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Waits for something that comes with data or with the end of a connection."""
        while not is_true():
            self.changed.clear()
            await self.changed.wait()

    @property
    def received(self) -> list[bytes]:
        """What came over each connection."""
        return [connection.received for connection in self.connections]

    @property
    def endings(self) -> list[str]:
        """How each connection ended."""
        return [connection.ending for connection in self.connections]


Use = Callable[[Server, TcpTransport], Awaitable[None]]
WithServer = Callable[..., None]


@pytest.fixture
def with_server(run: Run) -> WithServer:
    """Runs a function with a server and a transport to it."""

    def with_server(use: Use, receiver: Receiver = CARBON_LINES, host: str = "127.0.0.1") -> None:
        async def main() -> None:
            server = Server(host)
            server.start()
            transport = TcpTransport(receiver, host, server.port)
            try:
                await use(server, transport)
            finally:
                await transport.close()
                await server.stop()

        run(main())

    return with_server


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is to run into the limit."""
    monkeypatch.setattr(tcp, "_LIMIT_SECONDS", 0.1)


@pytest.fixture
def refusing_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that lets nobody in, and says nothing."""
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())  # the only place in its queue
        yield full.getsockname()[1]


# --- a receiver that works -------------------------------------------------------------------------------------------


def test_lines_arrive_over_one_connection(with_server: WithServer) -> None:
    """All sends share a connection; a final newline is always there; the counter counts bytes."""

    async def use(server: Server, transport: TcpTransport) -> None:
        await transport.send(b"a 1 2\n", 0)
        await transport.send(b"b 1 2", 0)
        await transport.flush()
        assert (server.received, server.endings) == ([b"a 1 2\nb 1 2\n"], ["ended"])
        assert (transport.bytes_total, transport.datagrams_total) == (12, 0)

    with_server(use)


def test_flush_waits_until_all_is_read(with_server: WithServer) -> None:
    """What is still on the way at a flush has arrived when it returns."""

    async def use(server: Server, transport: TcpTransport) -> None:
        server.is_reading.clear()
        text = b"a 1 2\n" * 10_000
        await transport.send(text, 0)
        flushing = asyncio.create_task(transport.flush())
        done, _pending = await asyncio.wait([flushing], timeout=0.05)
        assert not done
        server.is_reading.set()
        await flushing
        assert server.received == [text]

    with_server(use)


def test_after_a_flush_it_connects_again(with_server: WithServer) -> None:
    """A transport goes on after a flush, and a second flush has nothing to do."""

    async def use(server: Server, transport: TcpTransport) -> None:
        await transport.flush()
        for text in (b"a 1 2\n", b"b 1 2\n"):
            await transport.send(text, 0)
            await transport.flush()
            await transport.flush()
        assert server.received == [b"a 1 2\n", b"b 1 2\n"]

    with_server(use)


def test_the_pickle_protocol(with_server: WithServer) -> None:
    """Lines go out as frames; what may be lost is kept as lines."""

    async def use(server: Server, transport: TcpTransport) -> None:
        await transport.send(b"a 1 2\n", 0)
        assert transport.unconfirmed() == [b"a 1 2\n"]
        await transport.flush()
        assert server.received == [frames(b"a 1 2\n")]
        assert transport.bytes_total == len(frames(b"a 1 2\n"))

    with_server(use, CARBON_PICKLE)


def test_ipv6(with_server: WithServer) -> None:
    """An IPv6 address is shown in brackets, and reached."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")

    async def use(server: Server, transport: TcpTransport) -> None:
        assert transport.address == f"[::1]:{server.port}"
        await transport.send(b"a 1 2\n", 0)
        await transport.flush()
        assert server.received == [b"a 1 2\n"]

    with_server(use, host="::1")


def test_others_run_while_much_is_sent(with_server: WithServer) -> None:
    """A backlog that the receiver takes at once does not hold the event loop."""

    async def use(_server: Server, transport: TcpTransport) -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(count())
        for _ in range(100):
            await transport.send(b"a 1 2\n", 0)
        other.cancel()
        assert turns >= 100

    with_server(use)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refusing_port", "silent_port"])
def test_a_name_with_several_addresses(
    with_server: WithServer, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked up for each connection; an address that does not answer in good time gives way to the next."""
    monkeypatch.setattr(tcp, "_LIMIT_SECONDS", 1.0)
    dead_port = request.getfixturevalue(kind)

    async def use(server: Server, _transport: TcpTransport) -> None:
        loop = asyncio.get_running_loop()
        real, looked_up = loop.getaddrinfo, []

        async def look_up(host: str, port: int, **options: Any) -> Any:
            if host != "carbon.test":  # uvloop asks for addresses, too
                return await real(host, port, **options)
            looked_up.append(port)
            both = [("127.0.0.1", dead_port), ("127.0.0.1", server.port)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", peer) for peer in both]

        monkeypatch.setattr(loop, "getaddrinfo", look_up)
        transport = TcpTransport(CARBON_LINES, "carbon.test", 2003)
        for _ in range(2):
            await transport.send(b"a 1 2\n", 0)
            await transport.flush()
        assert server.received == [b"a 1 2\n"] * 2
        assert looked_up == [2003, 2003]

    with_server(use)


# --- a receiver that is not there ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("receiver", "message"),
    [
        (STATSD, "statsd 127.0.0.1:{}: connection refused; does StatsD listen on TCP there[?] it may on UDP only"),
        (CARBON_LINES, "graphite 127.0.0.1:{}: connection refused; is carbon's plaintext port open there"),
        (CARBON_PICKLE, "graphite 127.0.0.1:{}: connection refused; is carbon's pickle port open there"),
    ],
)
def test_refused(run: Run, refusing_port: int, receiver: Receiver, message: str) -> None:
    """Nobody listens: the message has the address, the reason and what to check."""
    with pytest.raises(SinkError, match=message.format(refusing_port)):
        run(TcpTransport(receiver, "127.0.0.1", refusing_port).send(b"a 1 2\n", 0))


@pytest.mark.parametrize("host", ["graphite.invalid", "x" * 70 + ".example.com"])
def test_a_name_that_does_not_resolve(run: Run, host: str) -> None:
    """A name that is none is a problem of this sink, not a crash."""
    with pytest.raises(SinkError, match=f"graphite {host}:2003: name does not resolve; check the spelling and DNS"):
        run(TcpTransport(CARBON_LINES, host, 2003).send(b"a 1 2\n", 0))


@pytest.mark.usefixtures("short_limit")
def test_no_answer(run: Run, silent_port: int) -> None:
    """A host that does not answer costs one time limit."""
    with pytest.raises(SinkError, match=r"no answer for 0\.1 s; is carbon's"):
        run(TcpTransport(CARBON_LINES, "127.0.0.1", silent_port).send(b"a 1 2\n", 0))


# --- a receiver that is stuck ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_limit")
def test_a_server_that_never_reads(with_server: WithServer) -> None:
    """It costs one time limit; the next attempt has its own connection; it never sees a reset (Node's would exit)."""

    async def use(server: Server, transport: TcpTransport) -> None:
        server.is_reading.clear()
        for _ in range(2):
            with pytest.raises(SinkError, match=r"took nothing for 0\.1 s; does StatsD"):
                await transport.send(MEGABYTES, 0)
        assert transport.bytes_total == 0
        server.is_reading.set()
        await server.until(lambda: len(server.connections) == 2 and all(server.endings))
        assert server.endings == ["ended", "ended"]

    with_server(use, STATSD)


@pytest.mark.slow
def test_a_server_that_reads_slowly(with_server: WithServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it takes something within the limit, it gets all, however long that takes."""
    monkeypatch.setattr(tcp, "_LIMIT_SECONDS", 1.0)
    monkeypatch.setattr(tcp, "_SEND_BUFFER_BYTES", 4096)

    async def use(server: Server, transport: TcpTransport) -> None:
        loop = asyncio.get_running_loop()
        reading = 0.0

        def pause(_connection: Connection) -> None:
            server.is_reading.clear()
            loop.call_later(0.01, server.is_reading.set)

        server.on_data = pause
        started = loop.time()
        text = b"a 1 2\n" * 100_000
        await transport.send(text, 0)
        reading = loop.time() - started
        server.on_data = lambda _connection: None
        await transport.flush()
        assert reading > 1.0
        assert server.received == [text]

    with_server(use)


def test_a_stuck_server_is_noticed_by_the_next_send(with_server: WithServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits the buffers is sent; when nothing of it was taken since, the next is not added to it."""

    async def use(server: Server, transport: TcpTransport) -> None:
        server.is_reading.clear()
        await transport.send(b"a 1 2\n" * 20_000, 0)
        await transport.send(b"b 1 2\n", 0)
        monkeypatch.setattr(tcp, "_LIMIT_SECONDS", 0)
        with pytest.raises(SinkError, match="took nothing for 0 s; is carbon"):
            await transport.send(b"c 1 2\n", 0)
        assert transport.unconfirmed() == [b"a 1 2\n" * 20_000, b"b 1 2\n"]

    with_server(use)


def test_a_slow_server_is_not_stuck(with_server: WithServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that took some of it since is sent more."""

    async def use(server: Server, transport: TcpTransport) -> None:
        server.is_reading.clear()
        await transport.send(b"a 1 2\n" * 20_000, 0)

        def pause(connection: Connection) -> None:
            if 60_000 < len(connection.received) < 65_000:
                server.is_reading.clear()

        server.on_data = pause
        server.is_reading.set()
        await server.until(lambda: len(server.received[0]) > 60_000)
        monkeypatch.setattr(tcp, "_LIMIT_SECONDS", 0)
        await transport._connected()

    with_server(use)


@pytest.mark.usefixtures("short_limit")
def test_a_flush_that_takes_too_long(with_server: WithServer) -> None:
    """What is not read at the end is an error with a reason; the connection ends in order."""

    async def use(server: Server, transport: TcpTransport) -> None:
        server.is_reading.clear()
        await transport.send(b"a 1 2\n", 0)
        with pytest.raises(SinkError, match=r"connection broke: did not read to the end within 0\.1 s; what was sent"):
            await transport.flush()
        server.is_reading.set()
        await server.until(lambda: server.endings == ["ended"])
        assert transport.unconfirmed() == [b"a 1 2\n"]

    with_server(use)


# --- a connection that breaks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("receiver", [STATSD, CARBON_LINES])
@pytest.mark.parametrize("parting_words", [b"", b"ERROR\n"])
def test_a_server_that_ends_the_connection_between_sends(
    with_server: WithServer, receiver: Receiver, parting_words: bytes
) -> None:
    """The next send has a connection of its own, with no error, and nothing is lost."""

    async def use(server: Server, transport: TcpTransport) -> None:
        await transport.send(b"a 1 2\n", 0)
        await server.until(lambda: server.received == [b"a 1 2\n"])
        server.connections[0].say(parting_words)
        server.connections[0].end()
        await server.until(lambda: server.endings == ["closed"])
        await transport.send(b"b 1 2\n", 0)
        await transport.flush()
        again = b"a 1 2\n" if receiver.is_idempotent else b""
        assert server.received == [b"a 1 2\n", again + b"b 1 2\n"]

    with_server(use, receiver)


def test_a_server_that_says_something(with_server: WithServer) -> None:
    """It is read and thrown away: a connection that is closed with unread input is a reset."""

    async def use(server: Server, transport: TcpTransport) -> None:
        for end in (transport.flush, transport.close):
            await transport.send(b"a 1 2\n", 0)
            await server.until(lambda: server.received[-1:] == [b"a 1 2\n"])
            server.connections[-1].say(b"x" * 100_000)
            await end()
            await server.until(lambda: bool(server.endings[-1]))
        assert server.endings == ["ended", "ended"]

    with_server(use, STATSD)


def test_a_server_that_stops_and_starts_again(with_server: WithServer) -> None:
    """While it is away sends are refused; then they go to the new one, first what the old one may have lost."""

    async def use(server: Server, transport: TcpTransport) -> None:
        await transport.send(b"a 1 2\n", 0)
        await server.until(lambda: server.received == [b"a 1 2\n"])
        await server.stop()
        for _ in range(2):
            with pytest.raises(SinkError, match="connection refused"):
                await transport.send(b"b 1 2\n", 0)
        with pytest.raises(SinkError, match="connection refused"):
            await transport.flush()
        assert transport.unconfirmed() == [b"a 1 2\n"]
        server.start()
        await transport.send(b"b 1 2\n", 0)
        await transport.flush()
        assert server.received == [b"a 1 2\n", b"a 1 2\nb 1 2\n"]
        assert transport.unconfirmed() == []

    with_server(use)


@pytest.mark.parametrize("receiver", [STATSD, CARBON_LINES])
def test_a_reset_in_the_middle_of_a_text(with_server: WithServer, receiver: Receiver) -> None:
    """It is an error, and the text goes over a new connection after that."""

    async def use(server: Server, transport: TcpTransport) -> None:
        server.on_data = Connection.reset
        with pytest.raises(SinkError, match=r"(connection reset by peer|broken pipe); (is carbon|does StatsD)"):
            await transport.send(MEGABYTES, 0)
        server.on_data = lambda _connection: None
        await transport.send(b"c 1 2\n", 0)
        await transport.flush()
        assert server.received[1] == b"c 1 2\n"

    with_server(use, receiver)


def test_a_send_that_is_cancelled(with_server: WithServer) -> None:
    """Half a line may have gone: what follows has a connection of its own."""

    async def use(server: Server, transport: TcpTransport) -> None:
        server.is_reading.clear()
        sending = asyncio.create_task(transport.send(MEGABYTES, 0))
        await asyncio.wait([sending], timeout=0.1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        server.is_reading.set()
        await transport.send(b"b 1 2\n", 0)
        await transport.flush()
        assert server.received[1] == b"b 1 2\n"
        assert 0 < len(server.received[0]) < len(MEGABYTES)

    with_server(use)


# --- whole lines only ------------------------------------------------------------------------------------------------


def uneven_lines(chance: random.Random) -> bytes:
    """Returns more than all buffers on the way hold, of lines that nothing divides evenly."""
    lengths = [chance.randrange(1, 150) for _ in range(12_000)]
    return b"".join(b"n%s %d 1700000000\n" % (b"x" * length, 4_194_304) for length in lengths)


FIRST_LINE = b"first 1 1700000000\n"


async def _until_it_comes(server: Server) -> None:
    """Waits until more than the first line is on the way."""
    while server.connections[-1].waiting_bytes < 2000:  # noqa: ASYNC110 - the kernel tells nobody
        await asyncio.sleep(0.005)


async def _limit(sending: asyncio.Task[None], _transport: TcpTransport, _server: Server) -> None:
    """Ends it by its own limit."""
    await asyncio.wait([sending])


async def _cancel(sending: asyncio.Task[None], _transport: TcpTransport, server: Server) -> None:
    """Ends it as a stop, a reload and a server that is removed do."""
    await _until_it_comes(server)
    sending.cancel()
    await asyncio.wait([sending])


async def _close(sending: asyncio.Task[None], transport: TcpTransport, server: Server) -> None:
    """Closes under it, and only then cancels."""
    await _until_it_comes(server)
    await transport.close()
    sending.cancel()
    await asyncio.wait([sending])


@pytest.mark.parametrize("give_up", [_limit, _cancel, _close])
@pytest.mark.parametrize("receiver", [STATSD, CARBON_LINES, CARBON_PICKLE])
@pytest.mark.slow
@pytest.mark.usefixtures("short_limit")
def test_a_connection_ends_with_a_whole_line(
    with_server: WithServer, receiver: Receiver, give_up: Callable[..., Awaitable[None]]
) -> None:
    """A receiver that stops, and reads on later, reads whole lines or frames to the end of each connection."""
    chance = random.Random(7)  # noqa: S311 - no secret

    async def use(server: Server, transport: TcpTransport) -> None:
        server.read_bytes = 65_536
        for run in range(1, 3):
            server.is_reading.clear()
            await transport.send(FIRST_LINE, 0)  # so that there is a connection, however busy the machine is
            text = uneven_lines(chance)
            sending = asyncio.create_task(transport.send(text, 0))
            await give_up(sending, transport, server)
            assert sending.cancelled() or isinstance(sending.exception(), SinkError)
            server.is_reading.set()
            await server.until(lambda run=run: len(server.connections) == run and all(server.endings))  # type: ignore[misc]
            data = server.received[-1]
            assert server.endings[-1] == "ended"
            assert len(FIRST_LINE) < len(data) < len(receiver.encode(text) if receiver.encode else text)
            assert receiver.end_of_record(data, len(data)) == len(data)
            transport = TcpTransport(receiver, server.host, server.port)  # with nothing to send again

    with_server(use, receiver)


@pytest.mark.usefixtures("short_limit")
def test_a_line_that_no_buffer_holds_is_broken_off(with_server: WithServer) -> None:
    """Where the rest of a line cannot be sent, the connection is reset: no receiver takes that for its end."""

    async def use(server: Server, transport: TcpTransport) -> None:
        server.is_reading.clear()
        with pytest.raises(SinkError, match="took nothing for"):
            await transport.send(b"x" * 20_000_000 + b"\n", 0)
        server.is_reading.set()
        await server.until(lambda: all(server.endings))
        assert server.endings == ["reset"]

    with_server(use, STATSD)


def test_a_line_longer_than_the_buffer_arrives(with_server: WithServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room for the rest of a line is no limit to it where the receiver reads."""
    monkeypatch.setattr(tcp, "_SEND_BUFFER_BYTES", 4096)

    async def use(server: Server, transport: TcpTransport) -> None:
        text = b"x" * 3_000_000 + b"\n" + b"a 1 2\n" * 1000
        await transport.send(text, 0)
        await transport.flush()
        assert server.received == [text]

    with_server(use)


# --- what may be lost ------------------------------------------------------------------------------------------------


def test_what_was_sent_long_ago_is_forgotten(with_server: WithServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is seen alive has delivered what is older than the limit."""
    monkeypatch.setattr(tcp, "_UNCONFIRMED_SECONDS", 0)

    async def use(server: Server, transport: TcpTransport) -> None:
        await transport.send(b"a 1 2\n", 0)
        await transport.send(b"b 1 2\n", 0)
        assert transport.unconfirmed() == [b"b 1 2\n"]
        await server.until(lambda: server.received == [b"a 1 2\nb 1 2\n"])
        server.connections[0].reset()
        await server.until(lambda: server.endings == ["closed"])
        # When it broke nobody knows: what went over it since it was last seen alive may be lost, however long ago.
        await transport.send(b"c 1 2\n", 0)
        await transport.flush()
        assert server.received[1] == b"b 1 2\nc 1 2\n"

    with_server(use)


def test_a_flush_sends_again_what_may_be_lost(with_server: WithServer) -> None:
    """A flush over a connection that broke makes another for it."""

    async def use(server: Server, transport: TcpTransport) -> None:
        await transport.send(b"a 1 2\n", 0)
        await server.until(lambda: server.received == [b"a 1 2\n"])
        server.connections[0].reset()
        await server.until(lambda: server.endings == ["closed"])
        await transport.flush()
        assert server.received == [b"a 1 2\n", b"a 1 2\n"]

    with_server(use)


def test_statsd_gets_nothing_twice(with_server: WithServer) -> None:
    """A gauge has no time of its own: a flush of a broken connection says that something may be lost."""

    async def use(server: Server, transport: TcpTransport) -> None:
        await transport.send(b"a:1|g\n", 0)
        await server.until(lambda: server.received == [b"a:1|g\n"])
        server.connections[0].reset()
        await server.until(lambda: server.endings == ["closed"])
        assert transport.unconfirmed() == []
        with pytest.raises(SinkError, match="connection broke: connection reset by peer; what was sent last may be"):
            await transport.flush()
        await transport.send(b"b:1|g\n", 0)
        await transport.flush()
        assert server.received == [b"a:1|g\n", b"b:1|g\n"]

    with_server(use, STATSD)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_carbon_loses_nothing_whatever_breaks(with_server: WithServer, seed: int) -> None:
    """300 texts to a server that breaks off a connection now and then: each arrives at least once, as whole lines."""
    chance = random.Random(seed)  # noqa: S311 - no secret

    async def use(server: Server, transport: TcpTransport) -> None:
        breaks = 0

        def break_off(connection: Connection) -> None:
            nonlocal breaks
            if breaks:
                breaks -= 1
                connection.reset()

        async def until_it_works(do: Callable[[], Awaitable[None]]) -> None:
            while True:
                try:
                    return await do()
                except SinkError:
                    continue

        server.on_data = break_off
        texts = [b"n%d %s 2\n" % (number, b"1" * chance.randrange(1, 20_000)) for number in range(300)]
        for text in texts:
            breaks += chance.random() < 0.1
            await until_it_works(partial(transport.send, text, 0))
        await until_it_works(transport.flush)
        arrived = {line for data in server.received for line in data.splitlines(keepends=True)}
        assert not set(texts) - arrived
        assert len(server.connections) > 15

    with_server(use)
