import asyncio
import errno
import http.client
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import pytest

from fleetmem.errors import UsageError
from fleetmem.sinks import http_server
from fleetmem.sinks.addresses import host_port
from fleetmem.sinks.http_server import Answer, HttpServer, blocks


def echo(path: str, encodings: str) -> Answer:
    """Answers with what was asked, in two pieces."""
    return Answer(HTTPStatus.OK, {"Content-Type": "text/plain"}, [path.encode(), encodings.encode()])


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

    def refuse(_server: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(http_server._Server, "server_bind", refuse)
    with pytest.raises(UsageError, match="permission denied; ports below 1024"):
        HttpServer("127.0.0.1", 80, echo)


def test_too_many_connections(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One too many is closed, and there is room again when another one goes."""
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 1)

    async def test(server: HttpServer) -> None:
        first = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        first.sendall(b"GET / HTTP/1.0\r\n")  # and not a word more
        second = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        assert await asyncio.to_thread(second.recv, 1) == b""
        second.close()
        first.sendall(b"\r\n")
        assert await asyncio.to_thread(first.makefile("rb").read)
        first.close()
        while True:  # the place is free a moment after the answer
            try:
                assert (await asyncio.to_thread(get, server.port))[0] == 200
                break
            except (ConnectionError, http.client.HTTPException):
                await asyncio.sleep(0)

    serve(test)
    assert "more than 1 connections" in caplog.text


def test_out_of_files(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A process without free file descriptors pauses instead of trying for ever, and serves when there are some."""
    monkeypatch.setattr(http_server, "_ACCEPT_AGAIN_SECONDS", 0.05)
    refused: list[float] = []

    async def test(server: HttpServer) -> None:
        accept = server._server.get_request

        def refuse() -> tuple[socket.socket, object]:
            refused.append(time.monotonic())
            if refused[-1] < refused[0] + 0.12:
                raise OSError(errno.EMFILE, "Too many open files")
            return accept()

        monkeypatch.setattr(server._server, "get_request", refuse)
        assert (await asyncio.to_thread(get, server.port))[0] == 200

    serve(test)
    assert 2 <= len(refused) <= 4
    assert "too many open files; a client has to wait" in caplog.text


def test_a_client_that_is_gone_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is no error; the next one is served."""

    async def test(server: HttpServer) -> None:
        accept, gone = server._server.get_request, [1]

        def refuse() -> tuple[socket.socket, object]:
            if gone:
                gone.clear()
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            return accept()

        monkeypatch.setattr(server._server, "get_request", refuse)
        assert (await asyncio.to_thread(get, server.port))[0] == 200

    serve(test)


def test_a_bug_is_not_hidden(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets no answer, and the log the traceback."""

    def fail(_path: str, _encodings: str) -> Answer:
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
