import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory import http as module
from fleetmem.inventory.http import fetch

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def _serving(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def test_an_answer() -> None:
    """The body, whole."""
    with _serving(lambda handler: _send(handler, b"x" * 300_000)) as address:
        assert fetch(f"http://{address}/targets?a=b", 5) == b"x" * 300_000


def test_user_and_password_go_along_but_not_to_where_a_redirect_leads() -> None:
    """They are in no message either."""
    seen: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        if handler.path == "/":
            _send(handler, b"", 302, Location="/moved")
        else:
            _send(handler, b"ok")

    with _serving(answer) as address:
        assert fetch(f"http://ann:p%40ss@{address}/", 5) == b"ok"
    assert seen == ["Basic YW5uOnBAc3M=", None]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_leads_to_no_file(target: str) -> None:
    """A server that is asked for hosts shall not have our files read."""
    serving = _serving(lambda handler: _send(handler, b"", 302, Location=target))
    with serving as address, pytest.raises(InventoryError, match=r"302|unknown url type"):
        fetch(f"http://{address}/", 5)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda handler: _send(handler, b"no", 503), "answers 503 Service Unavailable"),
        (lambda handler: _send(handler, b"", 302, Location="/"), "answers 302"),
        (lambda handler: handler.wfile.write(b"no http\r\n\r\n"), "http://"),
    ],
)
def test_what_is_no_good_answer(answer: Answer, message: str) -> None:
    """Status, endless redirects, and what is no HTTP at all."""
    with _serving(answer) as address, pytest.raises(InventoryError, match=message):
        fetch(f"http://ann:secret@{address}/", 5)


def test_nobody_listens_and_the_password_stays_secret() -> None:
    """The system's reason, and the URL without its secrets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InventoryError, match="connection refused") as caught:
        fetch(f"http://ann:secret@127.0.0.1:{port}/?token=secret", 5)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://x/", "http:///x", "file:///etc/passwd", "http://[::1", "http://x:y/"])
def test_what_is_no_url(url: str) -> None:
    """Refused before anything is connected."""
    with pytest.raises(InventoryError):
        fetch(url, 1)


@pytest.mark.slow
def test_a_server_that_does_not_answer() -> None:
    """The limit holds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        with pytest.raises(InventoryError, match=r"no answer within 0.3 s"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/", 0.3)
        assert time.monotonic() - begun < 5


@pytest.mark.slow
def test_a_server_that_drips() -> None:
    """A byte now and then does not stretch the limit."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        _send(handler, b"")
        while True:
            try:
                handler.wfile.write(b" ")
            except OSError:
                return
            time.sleep(0.02)

    with _serving(drip) as address:
        begun = time.monotonic()
        with pytest.raises(InventoryError, match=r"no answer within 0.5 s"):
            fetch(f"http://{address}/", 0.5)
        assert time.monotonic() - begun < 5


def test_a_server_that_floods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded."""
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 2**20)
    serving = _serving(lambda handler: _send(handler, b"x" * 2**21))
    with serving as address, pytest.raises(InventoryError, match="answers more than 1 MiB"):
        fetch(f"http://{address}/", 5)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["status line", "headers", "answer"])
def test_a_server_that_drips_anywhere(part: str) -> None:
    """A byte now and then does not prolong the limit, wherever the server is in its answer."""
    begin = {"status line": b"", "headers": b"HTTP/1.1 200 OK\r\n", "answer": b"HTTP/1.1 200 OK\r\n\r\n"}[part]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            handler.wfile.write(begin)
            for _ in range(200):
                handler.wfile.write(b"x")
                time.sleep(0.05)

    begun = time.monotonic()
    with _serving(answer) as address, pytest.raises(InventoryError, match=r"no answer within 0\.5 s"):
        fetch(f"http://{address}/", 0.5)
    assert time.monotonic() - begun < 8


@pytest.mark.slow
def test_redirects_share_the_limit() -> None:
    """Each of them in time is too slow together."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.4)
        with suppress(OSError):
            _send(handler, b"", 302, Location=f"{handler.path}x")

    with _serving(answer) as address, pytest.raises(InventoryError, match=r"no answer within 1 s"):
        fetch(f"http://{address}/", 1)
