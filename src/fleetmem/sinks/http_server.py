"""A small HTTP server beside an event loop: connections are accepted on the loop, and answered in threads.

So the loop has nothing to write or to compress, and no thread has to be waited for when the port is to be free.
"""

import asyncio
import errno
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, NamedTuple

from fleetmem.errors import SinkError, UsageError, reason_of
from fleetmem.sinks.addresses import host_port

log = logging.getLogger("fleetmem.sinks")

_MAX_CONNECTIONS = 16
_CLIENT_TIMEOUT_SECONDS = 10.0
_ACCEPT_AGAIN_SECONDS = 1.0
_LISTEN_AGAIN_SECONDS = 2.0
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BLOCK_BYTES = 256 * 1024

_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
_JSON = {"Content-Type": "application/json"}
_HTML = {"Content-Type": "text/html; charset=utf-8"}


class Answer(NamedTuple):
    """What a client gets. The body may be in many pieces."""

    status: HTTPStatus
    headers: dict[str, str]
    body: list[bytes]


AnswerTo = Callable[[str, str], Answer]
"""From the path that is asked for, and the `Accept-Encoding` of the client, to what it gets. Called in threads."""

Page = Callable[[str], Answer]
"""From the `Accept-Encoding` of the client to what it gets. Called in threads."""


class Site:
    """Pages at one address, for as long as the daemon that they tell about.

    Call `listen` before the first cycle: a port that is in use is said in time then. Otherwise `run` does it, again and
    again where needed: in a reload the port may be the predecessor's for a moment.

    Args:
        name: what messages begin with.
        host: an address of this machine, or a name of it; `::` is all of them.
        port: 0 takes any that is free.
        pages: by path; `/` lists them.

    Attributes:
        problem: why nothing is served now.
    """

    def __init__(self, name: str, host: str, port: int, pages: Mapping[str, Page]) -> None:
        self.problem: SinkError | None = None
        self.name = name
        self._host = host
        self._port = port
        self._pages = pages
        self._server: HttpServer | None = None

    @property
    def address(self) -> str:
        """Where the pages are."""
        return f"http://{host_port(self._host, self._server.port if self._server else self._port)}"

    def listen(self) -> None:
        """Takes the port; clients that come before `run` wait.

        Raises:
            UsageError: the port is in use, or the address is none of this machine.
        """
        if self._server is None:
            try:
                self._server = HttpServer(self._host, self._port, self._answer_to)
            except UsageError as error:
                raise UsageError(f"{self.name}: {error}") from error

    async def run(self) -> None:
        """Serves until cancelled."""
        server = await self._listening()
        self.problem = None
        server.start()
        await asyncio.get_running_loop().create_future()

    async def drain(self) -> None:
        """Nothing waits: whoever wants a page comes for it, or does not."""

    async def close(self) -> None:
        """Frees the port."""
        self.stop_listening()

    def stop_listening(self) -> None:
        """Frees the port."""
        if self._server:
            self._server.close()
            self._server = None

    async def _listening(self) -> "HttpServer":
        while self._server is None:
            try:
                self.listen()
            except UsageError as error:
                if self.problem is None:
                    log.error("%s; trying again", error)
                self.problem = SinkError(str(error))
                await asyncio.sleep(_LISTEN_AGAIN_SECONDS)
        return self._server

    def _answer_to(self, path: str, accepted_encodings: str) -> Answer:
        if path in self._pages:
            return self._pages[path](accepted_encodings)
        if path == "/":
            links = "".join(f'<li><a href="{page}">{page}</a>\n' for page in self._pages)
            text = f"<!doctype html><title>fleetmem</title><h1>fleetmem</h1>\n<ul>\n{links}</ul>\n"
            return Answer(HTTPStatus.OK, _HTML, [text.encode()])
        return Answer(HTTPStatus.NOT_FOUND, _TEXT, [f"no such page; there is {', '.join(self._pages)}\n".encode()])


class HttpServer:
    """Listens from the start; connections that come before `start` wait.

    Args:
        host: an address of this machine, or a name of it; `::` is all of them.
        port: 0 takes any that is free.
        answer_to: makes the answers.

    Raises:
        UsageError: the port is in use, or the address is none of this machine.
    """

    def __init__(self, host: str, port: int, answer_to: AnswerTo) -> None:
        self._server = _bind(host, port, answer_to)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accept_again: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begins to accept, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._server.fileno(), self._accept, self._loop)

    def stop(self) -> None:
        """Accepts no more. Answers under way are finished."""
        if self._accept_again:
            self._accept_again.cancel()
            self._accept_again = None
        if self._loop:
            self._loop.remove_reader(self._server.fileno())
            self._loop = None

    def close(self) -> None:
        """Frees the port."""
        self.stop()
        self._server.server_close()

    def _accept(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            connection, peer = self._server.get_request()
        except OSError as error:
            if error.errno in _NO_ROOM:  # it stays ready: without a pause the loop would try for ever
                log.error("port %d: %s; a client has to wait", self.port, reason_of(error))
                self.stop()
                self._accept_again = loop.call_later(_ACCEPT_AGAIN_SECONDS, self.start)
            return
        self._server.process_request(connection, peer)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: "_Server"
    server_version = "fleetmem"
    sys_version = ""
    timeout = _CLIENT_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        self._respond(is_body_wanted=True)

    def do_HEAD(self) -> None:
        self._respond(is_body_wanted=False)

    def _respond(self, *, is_body_wanted: bool) -> None:
        path = self.path.partition("?")[0]
        answer = self.server.answer_to(path, self.headers.get("Accept-Encoding", ""))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(sum(map(len, answer.body))))  # one that breaks off is seen as such
        self.end_headers()
        if is_body_wanted:
            for block in blocks(answer.body):
                self.wfile.write(block)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server has for it
        log.debug("%s: %s", self.client_address[0], format % args)


class _Server(ThreadingMixIn, HTTPServer):
    """A listening socket, and a thread for each connection."""

    daemon_threads = True  # a client that takes its time must not hold up the end of the process

    def __init__(self, family: socket.AddressFamily, address: Any, answer_to: AnswerTo) -> None:
        self.address_family = family
        self.answer_to = answer_to
        self._places = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(address, _Handler)
        self.socket.setblocking(False)  # a client that is gone again must not stop the event loop

    def server_bind(self) -> None:
        """Binds, without the look-up of this machine's name that HTTPServer does: it may take long."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread; refuses when there are too many."""
        if not self._places.acquire(blocking=False):
            log.warning("more than %d connections: the one of %s is closed", _MAX_CONNECTIONS, client_address[0])
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says what went wrong; a client that went away is nobody's bug."""
        is_bug = not isinstance(sys.exception(), OSError)
        log.log(logging.ERROR if is_bug else logging.DEBUG, "answer to %s", client_address[0], exc_info=True)


def json_answer(report: dict[str, object], *, is_good: bool) -> Answer:
    """Returns an answer that machines know by its status, 200 or 503, and people can read."""
    status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, _JSON, [json.dumps(report).encode() + b"\n"])


def blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the pieces, small ones joined."""
    waiting: list[bytes] = []
    size_bytes = 0
    for piece in pieces:
        waiting.append(piece)
        size_bytes += len(piece)
        if size_bytes >= _BLOCK_BYTES:
            yield b"".join(waiting)
            waiting, size_bytes = [], 0
    if waiting:
        yield b"".join(waiting)


def _bind(host: str, port: int, answer_to: AnswerTo) -> _Server:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _type, _protocol, _name, address = found[0]
        return _Server(family, address, answer_to)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot listen on {host_port(host, port)}: {_advice(error)}") from error


def _advice(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return "the name does not resolve; give an address of this machine"
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is in use, by another fleetmem perhaps; stop that, or give another port"
        case errno.EADDRNOTAVAIL:
            return "not an address of this machine; 0.0.0.0 and :: are all that it has"
        case errno.EACCES:
            return "permission denied; ports below 1024 are for root, give a higher one"
    return reason_of(error)
