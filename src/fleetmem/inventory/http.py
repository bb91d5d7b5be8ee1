"""One GET with limits: on time, on size, and on where a redirect may lead."""

import base64
import http.client
import io
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from fleetmem.errors import InventoryError, reason_of

MAX_ANSWER_BYTES = 64 * 1024**2

_CHUNK_BYTES = 65_536
_LEAST_SECONDS = 0.01


def fetch(url: str, timeout_seconds: float) -> bytes:
    """Returns what a server answers. User and password in the URL go along as basic authentication.

    Args:
        url: http or https.
        timeout_seconds: for all of it: redirects, headers and answer, however slowly they come.

    Raises:
        InventoryError: there is no good answer.
    """
    until = time.monotonic() + timeout_seconds
    try:
        with _opener(until).open(_request(url), timeout=timeout_seconds) as response:
            answer = bytearray()
            while chunk := response.read1(_CHUNK_BYTES):
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise InventoryError(f"{url}: answers more than {MAX_ANSWER_BYTES // 1024**2} MiB")
            return bytes(answer)
    except urllib.error.HTTPError as error:
        error.close()
        raise InventoryError(f"{url}: answers {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise InventoryError(f"{url}: no answer within {timeout_seconds:g} s") from error
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, TimeoutError):
            raise InventoryError(f"{url}: no answer within {timeout_seconds:g} s") from error
        raise InventoryError(f"{url}: {reason_of(reason) if isinstance(reason, Exception) else reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InventoryError(f"{url}: {reason_of(error) or type(error).__name__}") from error


class _Raw(io.RawIOBase):
    """What a socket receives until a moment; each read waits for what is left until then."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        _limit(self._sock, self._until)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Socket:
    """As much of a socket as a connection of http.client uses, with a moment until which all of it is done."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self._sock, self._until))

    def sendall(self, data: bytes) -> None:
        _limit(self._sock, self._until)
        self._sock.sendall(data)

    def close(self) -> None:
        self._sock.close()


def _limit(sock: socket.socket, until: float) -> None:
    left_seconds = until - time.monotonic()
    if left_seconds <= 0:
        raise TimeoutError
    sock.settimeout(left_seconds)


class _Connection(http.client.HTTPConnection):
    """A connection that is done at a moment, however slowly the other side sends."""

    until = 0.0

    def connect(self) -> None:
        self.timeout = max(_LEAST_SECONDS, self.until - time.monotonic())
        super().connect()
        self.sock: Any = _Socket(self.sock, self.until)


class _TlsConnection(_Connection, http.client.HTTPSConnection):
    """As a `_Connection`, with TLS."""


def _maker(kind: type[_Connection], until: float) -> Any:
    """Returns what makes connections of a kind that are done at a moment."""
    return type(kind.__name__, (kind,), {"until": until})


class _HttpHandler(urllib.request.HTTPHandler):
    def __init__(self, until: float) -> None:
        super().__init__()
        self._until = until

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_maker(_Connection, self._until), req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, until: float) -> None:
        super().__init__()
        self._until = until

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_maker(_TlsConnection, self._until), req)


def _opener(until: float) -> urllib.request.OpenerDirector:
    """Returns what follows redirects to http and https only: neither to files nor to FTP, as urllib's own does."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _HttpHandler(until),
        _HttpsHandler(until),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _request(url: str) -> urllib.request.Request:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InventoryError(f"{url}: expected http://HOST/PATH or https://HOST/PATH")
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    request = urllib.request.Request(bare, headers={"Accept": "application/json", "User-Agent": "fleetmem"})  # noqa: S310
    if parts.username is not None:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        encoded = base64.b64encode(login.encode()).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {encoded}")  # a redirect may lead to somebody else
    return request
