import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from fleetmem.errors import SinkError
from fleetmem.sinks import tcp
from fleetmem.sinks.tcp import CarbonTransport


class Carbon:
    """A server on a free port of this machine that keeps what it is sent."""

    def __init__(self, *, is_reading: bool = True) -> None:
        self.received: list[bytes] = []
        self.connections = 0
        self.ended = asyncio.Event()
        self.release = asyncio.Event()
        self._is_reading = is_reading
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> "Carbon":
        """Listens."""
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.port = sock.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=sock, limit=4096)
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Closes."""
        assert self._server
        self.release.set()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._is_reading:
            self.received.append(await reader.read(-1))
        else:
            await self.release.wait()
        writer.close()
        self.ended.set()


def _with_carbon(use: Callable[[Carbon, CarbonTransport], Awaitable[None]], *, is_reading: bool = True) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), Carbon(is_reading=is_reading) as carbon:
            transport = CarbonTransport("127.0.0.1", carbon.port)
            await use(carbon, transport)
            await transport.close()

    asyncio.run(main())


def test_lines_arrive_over_one_connection() -> None:
    """All sends share a connection; flush ends it in order, so that carbon has read all."""

    async def use(carbon: Carbon, transport: CarbonTransport) -> None:
        await transport.send(b"a 1 2\n", 0)
        await transport.send(b"b 1 2\n", 0)
        await transport.flush()
        await carbon.ended.wait()
        assert (carbon.received, carbon.connections) == ([b"a 1 2\nb 1 2\n"], 1)
        assert (transport.bytes_total, transport.datagrams_total) == (12, 0)

    _with_carbon(use)


def test_after_a_flush_it_connects_again() -> None:
    """A transport goes on after a flush, and a second flush has nothing to do."""

    async def use(carbon: Carbon, transport: CarbonTransport) -> None:
        for text in (b"a 1 2\n", b"b 1 2\n"):
            carbon.ended.clear()
            await transport.send(text, 0)
            await transport.flush()
            await transport.flush()
            await carbon.ended.wait()
        assert carbon.received == [b"a 1 2\n", b"b 1 2\n"]

    _with_carbon(use)


def test_refused() -> None:
    """Nobody listens: the message has the address, the reason and what to check."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    expected = f"graphite 127.0.0.1:{port}: .*refused.*; is carbon's plaintext port open there"
    with pytest.raises(SinkError, match=expected):
        asyncio.run(CarbonTransport("127.0.0.1", port).send(b"a 1 2\n", 0))


@pytest.mark.parametrize("host", ["graphite.invalid", "x" * 70 + ".example.com"])
def test_a_name_that_does_not_resolve(host: str) -> None:
    """A name that is none is a problem of this sink, not a crash."""
    with pytest.raises(SinkError, match=f"graphite {host}:2003: "):
        asyncio.run(CarbonTransport(host, 2003).send(b"a 1 2\n", 0))


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.StreamWriter]:
    """Every connection that is opened, in a list."""
    opened: list[asyncio.StreamWriter] = []
    real = asyncio.open_connection

    async def open_connection(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await real(host, port)
        opened.append(writer)
        return reader, writer

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    return opened


def test_a_server_that_never_reads(monkeypatch: pytest.MonkeyPatch, writers: list[asyncio.StreamWriter]) -> None:
    """Carbon that takes nothing costs one time limit; the next attempt has its own connection, the old text goes."""
    monkeypatch.setattr(tcp, "_SEND_TIMEOUT_SECONDS", 0.1)

    async def use(carbon: Carbon, transport: CarbonTransport) -> None:
        for _ in range(2):
            with pytest.raises(SinkError, match=r"took nothing for 0\.1 s; is carbon"):
                await transport.send(b"x" * 20_000_000, 0)
        assert carbon.connections == 2
        assert transport.bytes_total == 0
        assert [writer.transport.get_write_buffer_size() for writer in writers] == [0, 0]

    _with_carbon(use, is_reading=False)


def test_a_flush_that_takes_too_long(monkeypatch: pytest.MonkeyPatch, writers: list[asyncio.StreamWriter]) -> None:
    """What carbon does not take at the end is an error with a reason, and let go of."""
    monkeypatch.setattr(tcp, "_SEND_TIMEOUT_SECONDS", 0.1)

    async def use(_carbon: Carbon, transport: CarbonTransport) -> None:
        await transport.send(b"a 1 2\n", 0)
        (writer,) = writers
        writer.transport.set_write_buffer_limits(10**9)
        await transport.send(b"x" * 20_000_000, 0)
        with pytest.raises(SinkError, match=r"connection broke: took nothing for 0\.1 s"):
            await transport.flush()
        assert writer.transport.get_write_buffer_size() == 0

    _with_carbon(use, is_reading=False)


async def _send_for_ever(transport: CarbonTransport) -> None:
    while True:
        await transport.send(b"b 1 2\n" * 1000, 0)


def test_a_connection_that_breaks() -> None:
    """A carbon that went away is noticed, and the text is sent over a new connection after that."""

    async def use(carbon: Carbon, transport: CarbonTransport) -> None:
        await transport.send(b"a 1 2\n", 0)
        carbon.release.set()
        await carbon.ended.wait()
        with pytest.raises(SinkError):
            await _send_for_ever(transport)
        await transport.send(b"c 1 2\n", 0)
        assert carbon.connections == 2

    _with_carbon(use, is_reading=False)


def test_ipv6_address_text() -> None:
    """An IPv6 address is shown in brackets."""
    assert CarbonTransport("::1", 2003).address == "[::1]:2003"
