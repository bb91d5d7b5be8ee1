"""A small HTTP server on an event loop: requests are read there, and short answers sent; long ones in threads.

    accept ──> _Client: request, within 5 s and 16 KiB ──quick page──> answered on the loop
                 └─> TLS: in a thread ─^   └─> password └─slow page───> made and sent in a thread, 16 at a time

So the loop has nothing long to write or to compress, and no thread has to be waited for when the port is to be free.
"""

import asyncio
import errno
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from fleetmem.errors import SinkError, UsageError, reason_of
from fleetmem.runtime.side_thread import SideThread, start_thread
from fleetmem.sinks.pages.http_request import (
    MAX_HEAD_BYTES,
    BadRequestError,
    HttpRequest,
    Refusal,
    is_served,
    parse_request,
)
from fleetmem.sinks.transports.endpoints import host_port

if TYPE_CHECKING:
    from fleetmem.sinks.pages.passwords import Credentials
    from fleetmem.sinks.pages.web_guard import WebGuard, WebGuardFiles

log = logging.getLogger(__name__)

_WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_MAX_ANSWERS = 16  # in threads
_MAX_CLIENTS = 64  # that have not sent their request yet; the oldest goes first
_BACKLOG = 64
_HEAD_SECONDS = 5.0  # for a whole request
_CLIENT_TIMEOUT_SECONDS = 10.0
_SLOWEST_BYTES_PER_SECOND = 256 * 1024  # that a client may read a long answer at, beyond these ten seconds
_LINGER_SECONDS = 1.0
_LOG_SECONDS = 60.0
_RECEIVED_BYTES = 8 * 1024
_ACCEPT_AGAIN_SECONDS = 1.0
_LISTEN_AGAIN_SECONDS = 2.0
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BLOCK_BYTES = 256 * 1024

_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
_JSON = {"Content-Type": "application/json"}
_HTML = {"Content-Type": "text/html; charset=utf-8"}


class HttpAnswer(NamedTuple):
    """What a client gets.

    Attributes:
        status: whether it is what was asked for.
        headers: beside those that every answer has.
        body: in pieces.
        size_bytes: of the body, where its pieces are made as they are sent; None where they are all there.
    """

    status: HTTPStatus
    headers: dict[str, str]
    body: Iterable[bytes]
    size_bytes: int | None = None


AnswerTo = Callable[[str, str], HttpAnswer]
"""From the path that is asked for, and the `Accept-Encoding` of the client, to what it gets. Slow ones are called in
threads."""

Page = Callable[[str], HttpAnswer]
"""From the `Accept-Encoding` of the client to what it gets. Slow ones are called in threads."""


class Site:
    """Pages at one address, for as long as the daemon that they tell about.

    Call `listen` before the first cycle: a port that is in use is said in time then. Otherwise `run` does it, again and
    again where needed: in a reload the port may be the predecessor's for a moment.

    Args:
        name: what messages begin with.
        host: an address of this machine, or a name of it; `::` is all of them.
        port: 0 takes any that is free.
        pages: by path; `/` lists them.
        slow_paths: those that take long to make or to send; the others answer whatever the clients of these do.
        names: that clients may reach it by, see `HttpServer`.
        guard: see `HttpServer`.

    Attributes:
        problem: why nothing is served now.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        pages: Mapping[str, Page],
        slow_paths: Collection[str] = (),
        names: Collection[str] = (),
        guard: "WebGuardFiles | None" = None,
    ) -> None:
        self.problem: SinkError | None = None
        self.name = name
        self._host = host
        self._port = port
        self._pages = pages
        self._slow_paths = frozenset(slow_paths)
        self._names = names
        self._guard = guard
        self._server: HttpServer | None = None

    @property
    def address(self) -> str:
        """Where the pages are."""
        scheme = "https" if self._guard and self._guard.has_tls else "http"
        return f"{scheme}://{host_port(self._host, self._server.port if self._server else self._port)}"

    def listen(self) -> None:
        """Takes the port; clients that come before `run` wait.

        Raises:
            UsageError: the port is in use, or the address is none of this machine.
        """
        if self._server is None:
            try:
                is_slow = self._slow_paths.__contains__
                self._server = HttpServer(self._host, self._port, self._answer_to, is_slow, self._names, self._guard)
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

    def _answer_to(self, path: str, accepted_encodings: str) -> HttpAnswer:
        if path in self._pages:
            return self._pages[path](accepted_encodings)
        if path == "/":
            links = "".join(f'<li><a href="{page}">{page}</a>\n' for page in self._pages)
            text = f"<!doctype html><title>fleetmem</title><h1>fleetmem</h1>\n<ul>\n{links}</ul>\n"
            return HttpAnswer(HTTPStatus.OK, _HTML, [text.encode()])
        return text_answer(HTTPStatus.NOT_FOUND, f"no such page; there is {', '.join(self._pages)}")


class HttpServer:
    """Listens from the start; connections that come before `start` wait.

    A request is read on the event loop, within limits of bytes and time, so a slow client holds no thread. Quick pages
    are answered there, too: whatever other clients do, the health pages answer. Other pages are made and sent in
    threads, a limited number at a time.

    Args:
        host: an address of this machine, or a name of it; `::` is all of them.
        port: 0 takes any that is free.
        answer_to: makes the answers.
        is_slow: whether a page takes long to make or to send.
        names: that clients may reach it by, beside addresses, localhost, `host` and the names of this machine. Where
            there are none, all names will do, unless only this machine can reach the address.
        guard: who is let in; None for everybody, without TLS.

    Raises:
        UsageError: the port is in use, or the address is none of this machine.
    """

    def __init__(
        self,
        host: str,
        port: int,
        answer_to: AnswerTo,
        is_slow: Callable[[str], bool] = lambda _path: False,
        names: Collection[str] = (),
        guard: "WebGuardFiles | None" = None,
    ) -> None:
        self._entrance = _Entrance(guard) if guard else None
        self._socket = _bind(host, port)
        self._answer_to = answer_to
        self._is_slow = is_slow
        self._names = self._served_names(host, names)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accept_again: asyncio.TimerHandle | None = None
        self._asking: dict[_Client, None] = {}  # whose requests are not known yet; oldest first
        self._answered: dict[_Client, None] = {}  # that get a short answer, or have it and may close
        self._places = threading.BoundedSemaphore(_MAX_ANSWERS)
        self._refused = _Seldom()
        self._unknown = _Seldom()  # of its own: clients that are many must not hide one that guesses
        self._entering: set[asyncio.Task[None]] = set()

    def _served_names(self, host: str, names: Collection[str]) -> frozenset[str] | None:
        address = str(self._socket.getsockname()[0]).partition("%")[0]
        if not names and not ip_address(address).is_loopback:
            return None
        own = socket.gethostname()
        return frozenset(name.rstrip(".").lower() for name in (*names, host, own, own.partition(".")[0]))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Begins to accept, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._accept, self._loop)

    def stop(self) -> None:
        """Accepts no more. Answers under way are finished."""
        if self._accept_again:
            self._accept_again.cancel()
            self._accept_again = None
        if self._loop:
            self._loop.remove_reader(self._socket.fileno())
            self._loop = None

    def close(self) -> None:
        """Frees the port."""
        self.stop()
        for task in self._entering:
            task.cancel()
        for client in [*self._asking, *self._answered]:
            client.close()
        if self._entrance:
            self._entrance.close()
        self._socket.close()

    def _accept(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            connection, peer = self._socket.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:  # it stays ready: without a pause the loop would try for ever
                log.error("port %d: %s; a client has to wait", self.port, reason_of(error))
                self.stop()
                self._accept_again = loop.call_later(_ACCEPT_AGAIN_SECONDS, self.start)
            return
        client = _Client(loop, connection, str(peer[0]))
        self._add(client, self._asking)
        client.set_limit()
        if self._entrance:
            self._follow(loop, self._let_in(client, self._entrance))
        else:
            client.begin(partial(self._take, client))

    def _follow(self, loop: asyncio.AbstractEventLoop, entering: Coroutine[Any, Any, None]) -> None:
        task = loop.create_task(entering)
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _let_in(self, client: "_Client", entrance: "_Entrance") -> None:
        """Reads the request of a client behind its TLS handshake, if there is one."""
        try:
            guard = await entrance.guard()
            if guard.context and not guard.admits(await client.shake_hands(guard.context, entrance)):
                entrance.refused[Refusal.CERTIFICATE] += 1
                self._unknown.log("the certificate of %s has no name that client_allowed_sans names", client)
                client.close()
                return
        except (OSError, ValueError) as error:  # ValueError: closed meanwhile
            entrance.refused[Refusal.HANDSHAKE] += 1
            log.debug("TLS with %s: %s", client, reason_of(error))
            client.close()
        else:
            client.begin(partial(self._ask_password, client, entrance, guard))

    def _ask_password(
        self, client: "_Client", entrance: "_Entrance", guard: "WebGuard", request: HttpRequest | BadRequestError
    ) -> None:
        """Answers a request of who may ask; one whose password has to be checked waits for that."""
        client.headers = guard.config.headers
        if isinstance(request, BadRequestError) or not guard.config.users:
            self._take(client, request)
            return
        given = entrance.credentials(request)
        is_right = entrance.passwords.recall(guard.config.users, given)
        if given is None or is_right is not None:
            self._take_known(client, entrance, request, is_right=bool(is_right))
        else:
            client.set_limit(_CLIENT_TIMEOUT_SECONDS)
            self._follow(asyncio.get_running_loop(), self._check_password(client, entrance, guard, request, given))

    async def _check_password(
        self, client: "_Client", entrance: "_Entrance", guard: "WebGuard", request: HttpRequest, given: "Credentials"
    ) -> None:
        try:
            is_right = await entrance.check(guard.config.users, given, client.name)
        except OSError as error:
            entrance.refused[Refusal.BUSY] += 1
            self._refused.log("port %d: %s: refused the request of %s", self.port, error, client)
            if not client.is_closed:
                self._take(client, BadRequestError(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}; try again"))
        else:
            if not client.is_closed:
                self._take_known(client, entrance, request, is_right=is_right)

    def _take_known(self, client: "_Client", entrance: "_Entrance", request: HttpRequest, *, is_right: bool) -> None:
        if not is_right:
            entrance.refused[Refusal.PASSWORD] += 1
            if request.authorization:
                self._unknown.log("port %d: a wrong user or password, from %s", self.port, client)
            client.headers = {**client.headers, "WWW-Authenticate": "Basic"}
            self._take(client, BadRequestError(HTTPStatus.UNAUTHORIZED, "a user and a password are needed"))
        else:
            self._take(client, request)

    def _add(self, client: "_Client", clients: "dict[_Client, None]") -> None:
        """Notes a client until it is closed; one too many and the oldest goes."""
        if len(clients) >= _MAX_CLIENTS:
            oldest = next(iter(clients))
            self._refused.log("more than %d connections that take their time: closed that of %s", _MAX_CLIENTS, oldest)
            oldest.close()
        clients[client] = None
        client.forget = partial(clients.pop, client, None)

    def _take(self, client: "_Client", request: HttpRequest | BadRequestError) -> None:
        """Answers a request, here or in a thread."""
        self._asking.pop(client, None)
        self._add(client, self._answered)
        if isinstance(request, HttpRequest) and not is_served(request.host, self._names):
            text = f"{request.host!r} is no name of this server; run.http_names allows names"
            request = BadRequestError(HTTPStatus.MISDIRECTED_REQUEST, text)
        if isinstance(request, BadRequestError):
            client.send(text_answer(request.status, request.reason))
        elif not self._is_slow(request.path):
            try:
                answer = self._answer_to(request.path, request.encodings)
            except Exception:
                log.exception("answer to %s", client.name)
                client.close()
            else:
                client.send(answer, is_body_wanted=request.is_body_wanted)
        else:
            self._start_thread(client, request)

    def _start_thread(self, client: "_Client", request: HttpRequest) -> None:
        problem = f"{_MAX_ANSWERS} answers are under way" if not self._places.acquire(blocking=False) else None
        if problem is None:
            connection = client.detach()
            try:
                start_thread(partial(self._serve, connection, client, request), "http")
            except OSError as error:
                self._places.release()
                self._add(client, self._answered)
                problem = str(error)
        if problem is not None:
            self._refused.log("port %d: %s: refused the request of %s", self.port, problem, client.name)
            client.send(text_answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{problem}; try again"))

    def _serve(self, connection: socket.socket, client: "_Client", request: HttpRequest) -> None:
        """Makes and sends a page, in a thread."""
        try:
            with connection:
                answer = client.with_headers(self._answer_to(request.path, request.encodings))
                _send_all(connection, answer, is_body_wanted=request.is_body_wanted)
        except OSError as error:  # a client that went away, or took too long
            log.debug("answer to %s: %s", client, reason_of(error))
        except Exception:
            log.exception("answer to %s", client)
        finally:
            self._places.release()


class _Entrance:
    """Who is let in, as far as that takes files, TLS and bcrypt: in two threads, so that it holds up nobody else.

    Attributes:
        passwords: checks them, and knows those that it has checked.
        refused: how often somebody was refused.
    """

    def __init__(self, files: "WebGuardFiles") -> None:
        # Imported here: bcrypt is for pages with passwords.
        from fleetmem.sinks.pages.passwords import Passwords, TooManyChecksError, parse_authorization

        self.passwords = Passwords()
        self._parse = parse_authorization
        self._busy_error = TooManyChecksError
        self._files = files
        self.refused = files.refused
        self._thread = SideThread("tls")

    async def guard(self) -> "WebGuard":
        """Returns the guard in force; files that have changed are read."""
        return await self._thread.call(self._files.current)

    async def do(self, step: Callable[[], None]) -> None:
        """Does a step of a handshake: it does not wait for the client, and takes some ms of CPU at most."""
        await self._thread.call(step)

    def credentials(self, request: HttpRequest) -> "Credentials | None":
        """Returns who a client says that it is."""
        return self._parse(request.authorization)

    async def check(self, users: Mapping[str, str], given: "Credentials", address: str) -> bool:
        """Returns whether a password is right.

        Raises:
            OSError: that cannot be checked now.
        """
        try:
            return await self.passwords.check(users, given, address)
        except self._busy_error as error:
            raise OSError("too many passwords are being checked") from error

    def close(self) -> None:
        """Lets the threads end."""
        self._thread.end()
        self.passwords.close()


class _Seldom:
    """Logs what clients do at most once a minute, and how often it happened meanwhile."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._count = 0

    def log(self, message: str, *values: object) -> None:
        """Logs a warning where the last one is long enough ago."""
        self._count += 1
        now = time.monotonic()
        if now >= self._next_at:
            log.warning("%s (%d since the last such line)", message % values, self._count)
            self._next_at, self._count = now + _LOG_SECONDS, 0


class _Client:
    """A connection on the event loop: its request is read, and a short answer sent.

    Attributes:
        name: its address.
        headers: that answers to it have beside their own.
        forget: is called when it is closed, or goes to a thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: socket.socket, name: str) -> None:
        self.name = name
        self._loop = loop
        self._socket = connection
        self._received = bytearray()
        self._waiting = b""
        self._limit: asyncio.TimerHandle | None = None
        self._ready: asyncio.Future[None] | None = None
        self._in_step = threading.Lock()
        self.headers: Mapping[str, str] = {}
        self.forget: Callable[[], object] = lambda: None
        connection.setblocking(False)

    def __str__(self) -> str:
        return self.name

    def begin(self, take: Callable[[HttpRequest | BadRequestError], None]) -> None:
        """Reads the request, and hands it to `take`."""
        self._loop.add_reader(self._socket.fileno(), self._read, take)
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():  # of which no file tells
            self._read(take)

    async def shake_hands(self, context: ssl.SSLContext, entrance: _Entrance) -> Mapping[str, Any] | None:
        """Goes on with TLS; returns the client's certificate, where it has one that was asked for.

        Raises:
            OSError, ValueError: the client does not come to terms, or is gone.
        """
        connection = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket = connection

        def step() -> None:
            with self._in_step:  # else the descriptor could be closed, and be another client's, under OpenSSL
                connection.do_handshake()

        while True:
            try:
                await entrance.do(step)
            except ssl.SSLWantReadError:
                await self._until_ready(self._loop.add_reader, self._loop.remove_reader)
            except ssl.SSLWantWriteError:
                await self._until_ready(self._loop.add_writer, self._loop.remove_writer)
            else:
                return connection.getpeercert()

    async def _until_ready(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        if self.is_closed:
            raise ConnectionAbortedError(errno.ECONNABORTED, "closed")
        ready = self._ready = self._loop.create_future()
        descriptor = self._socket.fileno()
        add(descriptor, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            if not self.is_closed:
                remove(descriptor)

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        return self._socket.fileno() < 0

    def with_headers(self, answer: HttpAnswer) -> HttpAnswer:
        """Returns an answer with the headers of this client's."""
        return answer._replace(headers={**self.headers, **answer.headers}) if self.headers else answer

    def set_limit(self, seconds: float = _HEAD_SECONDS) -> None:
        """Closes the connection after so long, unless another limit is set before."""
        if self._limit:
            self._limit.cancel()
        self._limit = self._loop.call_later(seconds, self.close)

    def _read(self, take: Callable[[HttpRequest | BadRequestError], None]) -> None:
        data = self._receive()
        if data is None:
            return
        self._received += data
        request: HttpRequest | BadRequestError | None
        try:
            request = parse_request(self._received)
        except BadRequestError as error:
            request = error
        if request is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._received.clear()
            take(request)

    def _receive(self) -> bytes | None:
        """Returns what has come, None where there is nothing; then the connection may have been closed."""
        try:
            data = self._socket.recv(_RECEIVED_BYTES)
            while data and len(data) <= MAX_HEAD_BYTES and isinstance(self._socket, ssl.SSLSocket):
                if not self._socket.pending():  # else no file tells that there is more
                    break
                data += self._socket.recv(_RECEIVED_BYTES)
        except _WAITS:
            return None
        except (OSError, ValueError):
            data = b""
        if not data:
            self.close()
        return data or None

    def send(self, answer: HttpAnswer, *, is_body_wanted: bool = True) -> None:
        """Sends a short answer, then closes."""
        answer = self.with_headers(answer)
        self._waiting = _head_of(answer) + (b"".join(answer.body) if is_body_wanted else b"")
        self.set_limit(_CLIENT_TIMEOUT_SECONDS)
        self._loop.add_writer(self._socket.fileno(), self._write)
        self._write()

    def _write(self) -> None:
        try:
            self._waiting = self._waiting[self._socket.send(self._waiting) :]
            if not self._waiting:
                self._loop.remove_writer(self._socket.fileno())
                # Closing while something of the client's is unread would take the answer from it.
                _end_sending(self._socket)
                self.set_limit(_LINGER_SECONDS)
                self._loop.add_reader(self._socket.fileno(), self._receive)
        except _WAITS:
            return
        except OSError:
            self.close()

    def detach(self) -> socket.socket:
        """Returns the connection, for a thread: from now on it is not read here."""
        if self._limit:
            self._limit.cancel()
        self.forget()
        return self._socket

    def close(self) -> None:
        """Ends the connection."""
        if self._limit:
            self._limit.cancel()
        if not self.is_closed:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            with self._in_step:
                self._socket.close()
        if self._ready and not self._ready.done():
            self._ready.set_exception(ConnectionAbortedError(errno.ECONNABORTED, "closed"))
        self.forget()


def _head_of(answer: HttpAnswer) -> bytes:
    size_bytes = answer.size_bytes
    if size_bytes is None:
        size_bytes = sum(map(len, answer.body))
    headers = {
        "Server": "fleetmem",
        "Date": formatdate(usegmt=True),
        **answer.headers,
        "Content-Length": str(size_bytes),  # one that breaks off is seen as such
        "Connection": "close",
    }
    lines = [f"HTTP/1.0 {answer.status} {answer.status.phrase}", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _send_all(connection: socket.socket, answer: HttpAnswer, *, is_body_wanted: bool) -> None:
    """Sends an answer to a client that reads it at some speed at least.

    Raises:
        OSError: it went away, or was too slow.
    """
    begun, sent_bytes = time.monotonic(), 0
    for block in chain([_head_of(answer)], blocks(answer.body) if is_body_wanted else ()):
        allowed_seconds = _CLIENT_TIMEOUT_SECONDS + sent_bytes / _SLOWEST_BYTES_PER_SECOND
        rest = memoryview(block)
        while rest:  # sendall with TLS has its limit for each record
            connection.settimeout(max(0.001, begun + allowed_seconds - time.monotonic()))
            rest = rest[connection.send(rest) :]
        sent_bytes += len(block)
    connection.settimeout(0)
    _end_sending(connection)
    linger_until = time.monotonic() + _LINGER_SECONDS
    while (seconds := linger_until - time.monotonic()) > 0:
        connection.settimeout(seconds)
        if not connection.recv(_RECEIVED_BYTES):
            return


def _end_sending(connection: socket.socket) -> None:
    """Tells the client that there is no more, in TLS first: without a wait.

    Raises:
        OSError: it is gone.
    """
    if isinstance(connection, ssl.SSLSocket):
        with suppress(OSError, ValueError):  # mostly that the client has not said so yet
            connection.unwrap()
    connection.shutdown(socket.SHUT_WR)


def text_answer(status: HTTPStatus, text: str) -> HttpAnswer:
    """Returns an answer that people can read."""
    return HttpAnswer(status, _TEXT, [f"{text}\n".encode("utf-8", "replace")])


def json_answer(report: dict[str, object], *, is_good: bool) -> HttpAnswer:
    """Returns an answer that machines know by its status, 200 or 503, and people can read."""
    status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
    return HttpAnswer(status, _JSON, [json.dumps(report).encode() + b"\n"])


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


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _type, _protocol, _name, address = found[0]
        return _listening_socket(family, address)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot listen on {host_port(host, port)}: {_advice(error)}") from error


def _listening_socket(family: socket.AddressFamily, address: Any) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.setblocking(False)  # a client that is gone again must not stop the event loop
    except OSError:
        listening.close()
        raise
    return listening


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
