"""Graphite's render API, played by a small web server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import pytest

from fleetmem.errors import LabError
from fleetmem.lab.addresses import free_ports
from fleetmem.lab.render import Datapoint, Graphite

KNOWN = {"a": [[None, 10], [1.5, 12]], "b": [[2, 12], [3, 14]], "empty": [[None, 12]]}


@contextmanager
def _server(status: int = 200) -> Iterator[tuple[Graphite, list[dict[str, list[str]]]]]:
    """Yields a Graphite and the queries that it got."""
    queries: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            queries.append(query)
            answer = [{"target": name, "datapoints": KNOWN[name]} for name in query["target"] if name in KNOWN]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Graphite(server.server_port), queries
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_fetch_leaves_out_gaps_and_what_is_not_there() -> None:
    """Series without a value are left out, and so are values that are not there."""
    with _server() as (graphite, queries):
        found = graphite.fetch(["a", "b", "empty", "unknown"], 5.5)
    assert found == {"a": [Datapoint(1.5, 12)], "b": [Datapoint(2, 12), Datapoint(3, 14)]}
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
        Graphite(free_ports(1)[0]).fetch(["a"], 0)
