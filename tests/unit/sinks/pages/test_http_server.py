import asyncio
import errno
import http.client
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus

import pytest

from fleetmem.errors import UsageError
from fleetmem.runtime.side_thread import start_thread
from fleetmem.sinks.pages import http_server
from fleetmem.sinks.pages.http_server import HttpAnswer, HttpServer, blocks
from fleetmem.sinks.transports.endpoints import host_port


def echo(path: str, encodings: str) -> HttpAnswer:
    """Answers with what was asked, in two pieces."""
    return HttpAnswer(HTTPStatus.OK, {"Content-Type": "text/plain"}, [path.encode(), encodings.encode()])


def get(port: int, path: str = "/", method: str = "GET", host: str = "127.0.0.1") -> tuple[int, dict[str, str], bytes]:
    """Asks a server; returns status, headers and body."""
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        connection.request(method, path, headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def serve(test: Callable[[HttpServer], Awaitable[None]], host: str = "127.0.0.1") -> None:
    """Runs a test against a server that answers with what it is asked."""

    async def main() -> None:
        server = HttpServer(host, 0, echo)
        server.start()
        try:
            await test(server)
        finally:
            server.close()

    asyncio.run(main())


def test_an_answer() -> None:
    """Path without its query, the client's encodings, and a length by which a torn answer can be told."""

    async def test(server: HttpServer) -> None:
        status, headers, body = await asyncio.to_thread(get, server.port, "/metrics?x=1")
        assert (status, body, headers["Content-Length"]) == (200, b"/metricsgzip", "12")
        assert headers["Server"].strip() == "fleetmem"

    serve(test)


def test_head_has_no_body() -> None:
    """But the headers of the answer."""

    async def test(server: HttpServer) -> None:
        client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        client.sendall(b"HEAD /x HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
        head, _, body = (await asyncio.to_thread(client.makefile("rb").read)).partition(b"\r\n\r\n")
        client.close()
        assert b"Content-Length: 6" in head
        assert body == b""

    serve(test)


def test_nothing_can_be_changed() -> None:
    """There is nothing to post."""

    async def test(server: HttpServer) -> None:
        status, _headers, _body = await asyncio.to_thread(get, server.port, "/x", "POST")
        assert status == 501

    serve(test)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6() -> None:
    """An IPv6 address is listened on as any other."""

    async def test(server: HttpServer) -> None:
        status, _headers, _body = await asyncio.to_thread(get, server.port, host="::1")
        assert status == 200

    serve(test, "::1")


def test_connections_before_the_start_wait() -> None:
    """The port is taken from the first moment on; nobody is refused."""

    async def main() -> None:
        server = HttpServer("127.0.0.1", 0, echo)
        early = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        early.sendall(b"GET /early HTTP/1.0\r\n\r\n")
        server.start()
        answer = await asyncio.to_thread(early.makefile("rb").read)
        assert answer.endswith(b"/early")
        early.close()
        server.close()

    asyncio.run(main())


def test_the_port_is_free_at_once() -> None:
    """Also while a client is still connected."""

    async def main() -> None:
        server = HttpServer("127.0.0.1", 0, echo)
        server.start()
        port = server.port
        client = socket.create_connection(("127.0.0.1", port), timeout=20)
        await asyncio.to_thread(get, port)
        server.close()
        again = HttpServer("127.0.0.1", port, echo)
        again.start()
        assert (await asyncio.to_thread(get, port))[0] == 200
        again.close()
        client.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("192.0.2.1", "192.0.2.1:0: not an address of this machine"),
        ("no.such.name.invalid", "the name does not resolve"),
        ("a" * 70 + ".invalid", "the name does not resolve"),
    ],
)
def test_an_address_that_cannot_be_listened_on(host: str, advice: str) -> None:
    """The message says which, why, and what to give instead."""
    with pytest.raises(UsageError, match=advice):
        HttpServer(host, 0, echo)


def test_a_port_in_use() -> None:
    """Two servers never share a port: scrapes would get the one's data, then the other's."""

    async def test(server: HttpServer) -> None:
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{server.port}: the port is in use"):
            HttpServer("127.0.0.1", server.port, echo)

    serve(test)


def test_a_port_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which ports are."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(http_server, "_listening_socket", refuse)
    with pytest.raises(UsageError, match="permission denied; ports below 1024"):
        HttpServer("127.0.0.1", 80, echo)


def _client(server: HttpServer, *sent: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    for data in sent:
        client.sendall(data)
    return client


async def _answer(client: socket.socket) -> bytes:
    """Returns all that a client gets until the connection ends."""
    with client, client.makefile("rb") as file:
        return await asyncio.to_thread(file.read)


async def _status(server: HttpServer, *sent: bytes) -> int:
    answer = await _answer(_client(server, *sent))
    return int(answer.split(b" ", 2)[1])


def test_too_many_slow_answers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One too many is told so at once, quick pages go on, and there is room again when another one goes."""
    monkeypatch.setattr(http_server, "_MAX_ANSWERS", 1)
    goes_on = threading.Event()

    def answer(path: str, encodings: str) -> HttpAnswer:
        if path == "/slow":
            goes_on.wait(20)
        return echo(path, encodings)

    async def main() -> None:
        server = HttpServer("127.0.0.1", 0, answer, "/slow".__eq__)
        server.start()
        first = _client(server, b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while server._places._value:  # noqa: ASYNC110 - a semaphore tells nobody
            await asyncio.sleep(0.001)
        for _ in range(3):
            assert await _status(server, b"GET /slow HTTP/1.1\r\n\r\n") == 503
        assert (await asyncio.to_thread(get, server.port))[0] == 200
        goes_on.set()
        assert (await _answer(first)).endswith(b"/slow")
        while await _status(server, b"GET /slow HTTP/1.1\r\n\r\n") == 503:  # noqa: ASYNC110 - a moment later
            await asyncio.sleep(0)
        server.close()

    asyncio.run(main())
    assert caplog.text.count("1 answers are under way") == 1


def test_clients_that_never_ask(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """However many there are, who asks is answered: the oldest of the silent ones goes, with one line for all."""
    monkeypatch.setattr(http_server, "_MAX_CLIENTS", 4)

    async def test(server: HttpServer) -> None:
        silent = [_client(server, b"GET / HTTP/1.1\r\nX: ") for _ in range(20)]
        for _ in range(5):
            assert (await asyncio.to_thread(get, server.port))[0] == 200
        assert await asyncio.to_thread(silent[0].recv, 1) == b""
        for client in silent:
            client.close()

    serve(test)
    assert caplog.text.count("more than 4 connections that take their time") == 1


@pytest.mark.slow
def test_a_request_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends a line now and then is ended in time, however often it does."""
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 0.3)

    async def test(server: HttpServer) -> None:
        client = _client(server, b"GET / HTTP/1.1\r\n")
        is_open, until = True, time.monotonic() + 20
        while is_open and time.monotonic() < until:
            try:
                client.sendall(b"X: y\r\n")
            except OSError:
                is_open = False
            await asyncio.sleep(0.02)
        client.close()
        assert not is_open

    serve(test)


def test_a_client_that_reads_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended once it is too slow, and its place is free."""
    monkeypatch.setattr(http_server, "_CLIENT_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(http_server, "_SLOWEST_BYTES_PER_SECOND", 50_000_000)  # the kernel takes megabytes at once
    monkeypatch.setattr(http_server, "_MAX_ANSWERS", 1)
    body = [b"x" * 1_000_000] * 40

    async def main() -> None:
        server = HttpServer("127.0.0.1", 0, lambda *_: HttpAnswer(HTTPStatus.OK, {}, body), lambda _path: True)
        server.start()
        slow = _client(server, b"GET / HTTP/1.1\r\n\r\n")
        while server._places._value:  # noqa: ASYNC110 - a semaphore tells nobody
            await asyncio.sleep(0.001)
        while not server._places._value:
            slow.setblocking(False)
            with suppress(BlockingIOError):
                slow.recv(100)
            await asyncio.sleep(0.01)
        slow.close()
        server.close()

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param([b"GET /\r\n"], 400, id="HTTP/0.9"),
        pytest.param([b"\x16\x03\x01\x02\x00\x01\x00\r\n"], 400, id="TLS"),
        pytest.param([b"GET / HTTP/1.1\r\nno header\r\n\r\n"], 400, id="no header"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n"], 400, id="two hosts"),
        pytest.param([b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 200_000], 431, id="a megabyte of headers"),
        pytest.param([b"GET /" + b"x" * 30_000 + b" HTTP/1.1\r\n\r\n"], 431, id="a long line"),
        pytest.param([b"GET /a HTTP/1.1\r\n\r\n" * 50], 200, id="pipelined"),
        pytest.param([b"G", b"ET / HTTP/1.1\r", b"\n\r", b"\n"], 200, id="in pieces"),
        pytest.param([b"GET / HTTP/1.0\n\n"], 200, id="bare newlines"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"], 421, id="a foreign host"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n"], 421, id="like an address"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: LOCALHOST.:80\r\n\r\n"], 200, id="localhost"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: 10.1.2.3:80\r\n\r\n"], 200, id="an address"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"], 200, id="an IPv6 address"),
    ],
)
def test_odd_requests(sent: list[bytes], status: int) -> None:
    """Each gets an answer that says what is wrong, and the server goes on."""

    async def test(server: HttpServer) -> None:
        client = _client(server)
        with suppress(ConnectionError):  # it is answered before all is sent
            for data in sent:
                client.sendall(data)
                await asyncio.sleep(0)
        answer = await asyncio.to_thread(client.recv, 1000)
        client.close()
        assert int(answer.split(b" ", 2)[1]) == status
        assert (await asyncio.to_thread(get, server.port))[0] == 200

    serve(test)


def test_names_that_are_served() -> None:
    """On addresses that others reach, any name will do, until names are given."""

    async def main() -> None:
        for names, status in (((), 200), (("metrics.example",), 421)):
            server = HttpServer("0.0.0.0", 0, echo, names=names)  # noqa: S104 - that is what it is about
            server.start()
            own = socket.gethostname().encode()
            assert await _status(server, b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n") == status
            assert await _status(server, b"GET / HTTP/1.1\r\nHost: " + own + b":9\r\n\r\n") == 200
            if names:
                assert await _status(server, b"GET / HTTP/1.1\r\nHost: METRICS.example\r\n\r\n") == 200
            server.close()

    asyncio.run(main())


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow pages say so, quick ones go on, and it heals by itself."""
    starts = [OSError("no more threads may be started")]

    def start(work: Callable[[], None], name: str) -> threading.Thread:
        if starts:
            raise starts.pop()
        return start_thread(work, name)

    monkeypatch.setattr(http_server, "start_thread", start)

    async def main() -> None:
        server = HttpServer("127.0.0.1", 0, echo, "/slow".__eq__)
        server.start()
        answer = await _answer(_client(server, b"GET /slow HTTP/1.1\r\n\r\n"))
        assert b" 503 " in answer
        assert b"no more threads" in answer
        assert await _status(server, b"GET /slow HTTP/1.1\r\n\r\n") == 200
        server.close()

    asyncio.run(main())


class _Socket:
    """A listening socket whose `accept` is another one: that of a real one cannot be replaced."""

    def __init__(self, real: socket.socket, accept: Callable[[], tuple[socket.socket, object]]) -> None:
        self._real = real
        self.accept = accept

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_out_of_files(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A process without free file descriptors pauses instead of trying for ever, and serves when there are some."""
    monkeypatch.setattr(http_server, "_ACCEPT_AGAIN_SECONDS", 0.05)
    refused: list[float] = []

    async def test(server: HttpServer) -> None:
        accept = server._socket.accept

        def refuse() -> tuple[socket.socket, object]:
            refused.append(time.monotonic())
            if refused[-1] < refused[0] + 0.12:
                raise OSError(errno.EMFILE, "Too many open files")
            return accept()

        monkeypatch.setattr(server, "_socket", _Socket(server._socket, refuse))
        assert (await asyncio.to_thread(get, server.port))[0] == 200

    serve(test)
    assert 2 <= len(refused) <= 4
    assert "too many open files; a client has to wait" in caplog.text


def test_a_client_that_is_gone_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is no error; the next one is served."""

    async def test(server: HttpServer) -> None:
        accept, gone = server._socket.accept, [1]

        def refuse() -> tuple[socket.socket, object]:
            if gone:
                gone.clear()
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            return accept()

        monkeypatch.setattr(server, "_socket", _Socket(server._socket, refuse))
        assert (await asyncio.to_thread(get, server.port))[0] == 200

    serve(test)


def test_a_bug_is_not_hidden(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets no answer, and the log the traceback."""

    def fail(_path: str, _encodings: str) -> HttpAnswer:
        raise ValueError("ours")

    async def main() -> None:
        server = HttpServer("127.0.0.1", 0, fail)
        server.start()
        with pytest.raises(http.client.RemoteDisconnected):
            await asyncio.to_thread(get, server.port)
        server.close()

    asyncio.run(main())
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_text
    assert "ours" in record.exc_text


def test_blocks() -> None:
    """Small pieces are joined, and nothing is lost."""
    pieces = [b"a" * 1000] * 1000 + [b"b" * 600_000, b"c"]
    joined = list(blocks(pieces))
    assert b"".join(joined) == b"".join(pieces)
    assert len(joined) < 10
    assert list(blocks([])) == []


@pytest.mark.parametrize(("host", "shown"), [("10.0.0.1", "10.0.0.1:9"), ("::", "[::]:9"), ("a.b", "a.b:9")])
def test_host_port(host: str, shown: str) -> None:
    """IPv6 addresses have brackets."""
    assert host_port(host, 9) == shown
