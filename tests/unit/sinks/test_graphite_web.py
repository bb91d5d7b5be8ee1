"""Graphite's web API, played by a small web server; `tests/integration` has the real one."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fleetmem.errors import SinkError
from fleetmem.sinks.graphite_web import Datapoint, GraphiteWeb


@contextmanager
def web_server(answer: bytes, status: int = 200, user: str = "") -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Yields the address of a server below /g, and the paths and authorizations of what it was asked."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 - named by http.server

        def log_message(self, *_arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://{user}127.0.0.1:{server.server_port}/g/", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_gaps_are_kept() -> None:
    """A step without a value is there, as None: how long a step is shows in them."""
    answer = json.dumps([{"target": "a", "datapoints": [[None, 10], [1.5, 20]]}]).encode()
    with web_server(answer) as (url, asked):
        assert GraphiteWeb(url).render(["a", "b"], 5.5) == {"a": [Datapoint(None, 10), Datapoint(1.5, 20)]}
    assert asked == [("/g/render", None)]


def test_expand() -> None:
    """Names that a pattern fits."""
    with web_server(b'{"results": ["a.b", "a.c"]}') as (url, asked):
        assert GraphiteWeb(url).expand("a.*") == ["a.b", "a.c"]
    assert asked == [("/g/metrics/expand?query=a.%2A&leavesOnly=1", None)]


def test_a_password_is_sent_and_not_told() -> None:
    """As HTTP's basic authorization; the address that is shown has none."""
    with web_server(b"[]", user="ops:p%40ss@") as (url, asked):
        web = GraphiteWeb(url)
        web.render(["a"], 0)
    assert asked[0][1] == f"Basic {base64.b64encode(b'ops:p@ss').decode()}"
    assert "ops" not in web.url
    assert web.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [(b"no", 401, "answers 401"), (b"no", 500, "answers 500"), (b"<html>", 200, "something else than JSON")],
)
def test_errors_are_told(answer: bytes, status: int, message: str) -> None:
    """With the address, and what it said."""
    with web_server(answer, status) as (url, _asked), pytest.raises(SinkError, match=message):
        GraphiteWeb(url).render(["a"], 0)


def test_nobody_there() -> None:
    """Likewise."""
    with web_server(b"") as (url, _asked):
        pass
    with pytest.raises(SinkError, match="does not answer"):
        GraphiteWeb(url).render(["a"], 0)


@pytest.mark.parametrize("url", ["graphite", "ftp://graphite", "http://", "http://x:port", ""])
def test_addresses_that_are_none(url: str) -> None:
    """Refused when they are given, not when they are used."""
    with pytest.raises(ValueError, match=r"http|port|Port"):
        GraphiteWeb(url)
