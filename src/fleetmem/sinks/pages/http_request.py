"""What a client of a page asks for: the head of an HTTP request, checked. Pure."""

import re
from collections.abc import Collection
from enum import StrEnum
from http import HTTPStatus
from ipaddress import ip_address
from typing import NamedTuple

MAX_HEAD_BYTES = 16 * 1024
"""A scraper's has 300 bytes, a browser's a few thousand."""

_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) (/[!-~]*|\*) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}):[ \t]*([^\0\r\n]*?)[ \t]*")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::[0-9]{0,5})?")
_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


class Refusal(StrEnum):
    """Why a client did not get what it asked for."""

    HANDSHAKE = "handshake"
    CERTIFICATE = "certificate"
    PASSWORD = "password"  # noqa: S105 - the word
    BUSY = "busy"


class BadRequestError(Exception):
    """A request that gets no page.

    Attributes:
        status: what it gets.
        reason: why, for a person.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class HttpRequest(NamedTuple):
    """The request of a client.

    Attributes:
        path: without what follows a `?`.
        is_body_wanted: False for HEAD.
        encodings: its `Accept-Encoding`.
        host: its `Host` in lower case and without the port; None where it sends none.
        authorization: its `Authorization`, a secret.
    """

    path: str
    is_body_wanted: bool
    encodings: str
    host: str | None
    authorization: str | None = None


def parse_request(received: bytes | bytearray) -> HttpRequest | None:
    """Returns the request that the received bytes begin with, None while its head is not complete.

    Raises:
        BadRequestError: there is none, or it asks for something else than a page.
    """
    head = bytes(received[: MAX_HEAD_BYTES + 1])
    end = _END.search(head)
    line_end = _LINE_END.search(head)
    if line_end:
        method, path = _parse_request_line(head[: line_end.start()])
    if not end or not line_end:
        if len(head) > MAX_HEAD_BYTES:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise BadRequestError(status, f"a request has at most {MAX_HEAD_BYTES} bytes")
        return None
    headers = _parse_headers(head[line_end.end() : max(line_end.end(), end.start())])
    host = headers.get("host")
    return HttpRequest(
        path,
        method != "HEAD",
        headers.get("accept-encoding", ""),
        None if host is None else _name(host),
        headers.get("authorization"),
    )


def _parse_request_line(line: bytes) -> tuple[str, str]:
    match = _REQUEST_LINE.fullmatch(line)
    if not match:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "not a request of HTTP/1.0 or HTTP/1.1")
    method = match[1].decode("ascii")
    if method not in ("GET", "HEAD"):
        raise BadRequestError(HTTPStatus.NOT_IMPLEMENTED, "pages can be read, with GET or HEAD")
    return method, match[2].decode("ascii").partition("?")[0]


def _parse_headers(head: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in _LINE_END.split(head) if head else ():
        match = _HEADER.fullmatch(line)
        if not match:
            raise BadRequestError(HTTPStatus.BAD_REQUEST, "a line of the request is no header")
        name, value = match[1].decode("ascii").lower(), match[2].decode("latin-1")
        if name == "host" and name in headers:
            raise BadRequestError(HTTPStatus.BAD_REQUEST, "the request has two Host headers")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _name(host: str) -> str:
    match = _HOST.fullmatch(host)
    if not match:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "the Host header is no address")
    return match[1].strip("[]").rstrip(".").lower()


def is_served(host: str | None, names: Collection[str] | None) -> bool:
    """Returns whether a client that asks for this host gets an answer.

    A web page in somebody's browser can let its own name point at our address, and read what we answer (DNS
    rebinding). Its `Host` is that name then, never an address.

    Args:
        host: of the request.
        names: those that are served, in lower case, beside addresses and localhost; None serves all.
    """
    if not host or names is None or host == "localhost" or host.endswith(".localhost") or host in names:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def accepts_gzip(encodings: str) -> bool:
    """Returns whether an `Accept-Encoding` allows gzip (RFC 9110, 12.5.3): `gzip;q=0` and `*;q=0` do not."""
    weights: dict[str, float] = {}
    for element in encodings.split(","):
        coding, *parameters = [part.strip() for part in element.split(";")]
        match = _WEIGHT.fullmatch(parameters[0].replace(" ", "")) if parameters else None
        if parameters and not match:
            continue
        weights[coding.lower().removeprefix("x-")] = float(match[1]) if match else 1.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0
