"""Graphite's render API, played by a small web server."""

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from fleetmem.errors import LabError, UsageError
from fleetmem.lab.addresses import free_ports
from fleetmem.lab.render import GraphiteRender, RenderedPoint

KNOWN = {"a": [[None, 10], [1.5, 12]], "b": [[2, 12], [3, 14]], "empty": [[None, 12]]}


@contextmanager
def _server(
    status: int = 200, *, date: str | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[GraphiteRender, list[dict[str, list[str]]]]]:
    """Yields a Graphite and the queries that it got."""
    queries: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer([])

        def do_POST(self) -> None:
            query = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            queries.append(query)
            answer = [{"target": name, "datapoints": KNOWN[name]} for name in query["target"] if name in KNOWN]
            self._answer(answer)

        def _answer(self, answer: list[dict[str, object]]) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def date_time_string(self, timestamp: float | None = None) -> str:
            return date or super().date_time_string(timestamp)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield GraphiteRender(f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"), queries
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_fetch_leaves_out_gaps_and_what_is_not_there() -> None:
    """Series without a value are left out, and so are values that are not there."""
    with _server() as (graphite, queries):
        found = graphite.fetch(["a", "b", "empty", "unknown"], 5.5)
    assert found == {"a": [RenderedPoint(1.5, 12)], "b": [RenderedPoint(2, 12), RenderedPoint(3, 14)]}
    assert queries[0]["from"] == ["5"]
    assert queries[0]["noCache"] == ["1"]


def test_many_series_are_asked_for_in_batches() -> None:
    """No query is longer than Django takes."""
    with _server() as (graphite, queries):
        assert set(graphite.fetch([*(f"x{number}" for number in range(250)), "a"], 0)) == {"a"}
    assert [len(query["target"]) for query in queries] == [100, 100, 51]


def test_errors_are_told() -> None:
    """A Graphite that is broken or away is a LabError that names it."""
    with _server(status=500) as (graphite, _queries):
        with pytest.raises(LabError, match="answers 500"):
            graphite.fetch(["a"], 0)
        assert not graphite.is_ready()
    with pytest.raises(LabError, match="does not answer"):
        GraphiteRender(f"http://127.0.0.1:{free_ports(1)[0]}").fetch(["a"], 0)


def test_a_clock_that_is_ahead_is_told_from_one_that_is_right() -> None:
    """The second that HTTP rounds to is no difference."""
    with _server() as (graphite, _queries):
        assert graphite.clock_ahead_seconds() == 0
    with _server(date="Thu, 01 Jan 2037 00:00:00 GMT") as (graphite, _queries):
        assert abs(graphite.clock_ahead_seconds() - (2_114_380_800 - time.time())) < 2
    with _server(date="today") as (graphite, _queries):
        assert graphite.clock_ahead_seconds() == 0


def test_a_certificate_of_the_servers_own_is_trusted_when_it_is_the_one_given(tmp_path: Path) -> None:
    """No other one is, nor is the given one without being given."""
    for name in ("own", "other"):
        _make_certificate(tmp_path / name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem", tmp_path / "own.key")
    with _server(tls=context) as (graphite, _queries):
        assert GraphiteRender(graphite.url, tmp_path / "own.pem").fetch(["a"], 0)
        for certificate in (None, tmp_path / "other.pem"):
            with pytest.raises(LabError, match="not to be trusted"):
                GraphiteRender(graphite.url, certificate).fetch(["a"], 0)


def _make_certificate(path: Path) -> None:
    """Makes a certificate and its key as the Graphite host does at its first boot."""
    subject = ["-subj", "/CN=graphite", "-days", "2"]
    keys = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", f"{path}.key", "-out", f"{path}.pem"]
    subprocess.run(["openssl", "req", "-x509", *keys, *subject, *files], check=True, capture_output=True)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://a", "http://", "http://a:port"])
def test_what_is_no_url_is_refused(url: str) -> None:
    """With what to write instead."""
    with pytest.raises(UsageError, match=r"is not http://HOST|[Pp]ort could"):
        GraphiteRender(url)


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    """By its path."""
    with pytest.raises(UsageError, match=r"missing\.pem: no such file"):
        GraphiteRender("https://127.0.0.1", tmp_path / "missing.pem")
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(UsageError, match=r"key\.pub holds no certificate"):
        GraphiteRender("https://127.0.0.1", tmp_path / "key.pub")
