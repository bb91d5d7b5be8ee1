import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from fleetmem.errors import SinkError
from fleetmem.sinks.transports import datagrams, udp
from fleetmem.sinks.transports.udp import MAX_DATAGRAM_BYTES, UdpTransport


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """A UDP socket on a free port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        yield sock


def _port(sock: socket.socket) -> int:
    port = sock.getsockname()[1]
    assert isinstance(port, int)
    return port


@pytest.fixture
def dead_port() -> int:
    """A port that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return _port(sock)


def test_lines_arrive_whole(receiver: socket.socket) -> None:
    """Text is packed into datagrams of whole lines, none too long, in order; the counters say what was sent."""
    text = b"".join(b"p.host.web%04d.up:1|g\n" % number for number in range(200))

    async def main() -> UdpTransport:
        transport = UdpTransport("127.0.0.1", _port(receiver))
        await transport.send(text, 0)
        await transport.flush()
        await transport.close()
        return transport

    transport = asyncio.run(main())
    datagrams = [receiver.recv(65536) for _ in range(transport.datagrams_total)]
    assert b"".join(datagrams) == text
    assert all(len(datagram) <= MAX_DATAGRAM_BYTES and datagram.endswith(b"\n") for datagram in datagrams)
    assert (len(datagrams), transport.bytes_total) == (4, len(text))
    assert transport.address == f"127.0.0.1:{_port(receiver)}"


def test_smaller_datagrams(receiver: socket.socket) -> None:
    """Over the internet 512 bytes are what surely passes."""

    async def main() -> UdpTransport:
        transport = UdpTransport("127.0.0.1", _port(receiver), max_datagram_bytes=512)
        await transport.send(b"a:1|g\n" * 100, 0)
        await transport.close()
        return transport

    assert asyncio.run(main()).datagrams_total == 2
    assert len(receiver.recv(65536)) == 510


def test_ipv6_address_text() -> None:
    """An IPv6 address is shown in brackets."""
    assert UdpTransport("::1", 8125).address == "[::1]:8125"


def test_a_dead_port_is_told_by_flush(dead_port: int) -> None:
    """The refusal of the only datagram comes late: flush waits for it."""

    async def main() -> None:
        transport = UdpTransport("127.0.0.1", dead_port)
        try:
            await transport.send(b"a:1|g\n", 0)
            with pytest.raises(SinkError, match=f"statsd 127.0.0.1:{dead_port}: connection refused; nothing listens"):
                await transport.flush()
        finally:
            await transport.close()

    asyncio.run(main())


async def _send_for_ever(transport: UdpTransport) -> None:
    while True:
        await transport.send(b"a:1|g\n", 0)


def test_a_dead_port_is_told_by_a_later_send(dead_port: int) -> None:
    """The next datagram reports the refusal of the one before."""

    async def main() -> UdpTransport:
        transport = UdpTransport("127.0.0.1", dead_port)
        with pytest.raises(SinkError, match="connection refused"):
            await _send_for_ever(transport)
        await transport.close()
        return transport

    assert asyncio.run(main()).datagrams_total < 100


def test_a_receiver_that_comes_back(receiver: socket.socket, dead_port: int) -> None:
    """After a refusal sending goes on with the same transport."""

    async def main() -> None:
        transport = UdpTransport("127.0.0.1", dead_port)
        await transport.send(b"a:1|g\n", 0)
        with pytest.raises(SinkError):
            await transport.flush()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", dead_port))
            again.settimeout(10)
            await transport.send(b"b:1|g\n", 0)
            assert again.recv(100) == b"b:1|g\n"
        await transport.close()

    asyncio.run(main())


def test_a_name_that_does_not_resolve() -> None:
    """A wrong name is told as such (RFC 6761: `.invalid` never resolves); so is one that no DNS can hold."""

    async def main(host: str) -> None:
        with pytest.raises(SinkError, match="name does not resolve; check the spelling and DNS"):
            await UdpTransport(host, 8125).send(b"a:1|g\n", 0)

    asyncio.run(main("statsd.invalid"))
    asyncio.run(main("x" * 70 + ".example.com"))


def test_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other errors of the network say their reason and what to check."""

    class Unroutable(socket.socket):
        def connect(self, _address: Any) -> None:
            raise OSError(101, "Network is unreachable")

    async def main() -> None:
        monkeypatch.setattr(socket, "socket", Unroutable)
        transport = UdpTransport("127.0.0.1", 8125)
        with pytest.raises(SinkError, match="network is unreachable; check address, route and firewall"):
            await transport.send(b"a:1|g\n", 0)

    asyncio.run(main())


def _answer(monkeypatch: pytest.MonkeyPatch, *answers: int | OSError) -> list[int]:
    """Makes name look-ups give 127.0.0.1 with these ports, or fail; returns a list that grows with each."""
    script, asked = list(answers), list[int]()

    async def look_up(_self: Any, _host: str, _port: int, **_options: Any) -> list[Any]:
        answer = script.pop(0)
        asked.append(len(asked))
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", answer))]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", look_up)
    return asked


def test_the_name_is_looked_up_again(receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the address changes, sending follows; a look-up that fails, or gives the same, keeps the old one."""
    monkeypatch.setattr(datagrams, "_LOOK_UP_EVERY_SECONDS", 0)
    port = _port(receiver)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(10)
        asked = _answer(monkeypatch, port, port, socket.gaierror(-3, "away"), _port(other))

        async def main() -> None:
            transport = UdpTransport("statsd", 8125)
            for number in range(4):
                await transport.send(b"n:%d|g\n" % number, 0)
            await transport.close()

        asyncio.run(main())
        assert [receiver.recv(100) for _ in range(3)] == [b"n:0|g\n", b"n:1|g\n", b"n:2|g\n"]
        assert other.recv(100) == b"n:3|g\n"
    assert len(asked) == 4


def test_a_look_up_that_hangs_holds_up_little(receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old address is good enough."""

    async def main() -> None:
        transport = UdpTransport("127.0.0.1", _port(receiver))
        await transport.send(b"a:1|g\n", 0)
        monkeypatch.setattr(datagrams, "_LOOK_UP_EVERY_SECONDS", 0)
        monkeypatch.setattr(datagrams, "_LIMIT_SECONDS", 0.01)
        monkeypatch.setattr(UdpTransport, "_look_up", lambda _self: asyncio.sleep(60))
        async with asyncio.timeout(5):
            await transport.send(b"b:1|g\n", 0)
        await transport.close()

    asyncio.run(main())
    assert [receiver.recv(100) for _ in range(2)] == [b"a:1|g\n", b"b:1|g\n"]


def test_no_more_files_may_be_open(receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the world's doing, not a bug that ends the collector."""
    _answer(monkeypatch, _port(receiver))

    def refuse(*_arguments: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "")

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", refuse)
            with pytest.raises(SinkError, match="too many open files"):
                await UdpTransport("statsd", 8125).send(b"a:1|g\n", 0)

    asyncio.run(main())


def test_the_name_is_not_looked_up_each_time(receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address holds for a minute."""
    asked = _answer(monkeypatch, _port(receiver))

    async def main() -> None:
        transport = UdpTransport("statsd", 8125)
        for _ in range(3):
            await transport.send(b"a:1|g\n", 0)
        await transport.close()

    asyncio.run(main())
    assert len(asked) == 1


def test_it_keeps_the_pace(receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Datagrams wait as `Pace` says, told of all that waits behind."""
    backlogs: list[float] = []
    slept: list[float] = []

    class Slow:
        at_once = 1

        def __init__(self, _now_seconds: float, steady_rate: float, senders: int) -> None:
            assert (steady_rate, senders) == (700, 1)

        def wait_seconds(self, _now_seconds: float, backlog_datagrams: float, _count: int) -> float:
            backlogs.append(backlog_datagrams)
            return 0.125

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(udp, "Pace", Slow)
    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def main() -> None:
        transport = UdpTransport("127.0.0.1", _port(receiver), 700)
        await transport.send(b"x" * 1000 + b"\n" + b"y" * 1000 + b"\n", backlog_bytes=MAX_DATAGRAM_BYTES * 3)
        await transport.close()

    asyncio.run(main())
    assert (backlogs, slept) == ([5, 4], [0, 0.125, 0.125])


def test_a_full_socket_is_waited_for(receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel takes no more for a moment, the datagram is sent after that."""

    class Full(socket.socket):
        refusals = 1

        def send(self, *arguments: Any) -> int:
            if self.refusals:
                self.refusals -= 1
                raise BlockingIOError(errno.EAGAIN, "full")
            return super().send(*arguments)

    async def main() -> UdpTransport:
        monkeypatch.setattr(socket, "socket", Full)  # here, or the event loop would get one too
        transport = UdpTransport("127.0.0.1", _port(receiver))
        await transport.send(b"a:1|g\n", 0)
        await transport.close()
        return transport

    assert asyncio.run(main()).datagrams_total == 1
    assert receiver.recv(100) == b"a:1|g\n"


def test_flush_and_close_without_a_socket() -> None:
    """A transport that was never used has nothing to wait for and nothing to close."""

    async def main() -> None:
        transport = UdpTransport("127.0.0.1", 8125)
        await transport.flush()
        await transport.close()

    asyncio.run(main())
