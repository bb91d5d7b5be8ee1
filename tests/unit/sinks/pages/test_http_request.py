from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.sinks.pages.http_request import BadRequestError, HttpRequest, accepts_gzip, is_served, parse_request


@pytest.mark.parametrize(
    ("encodings", "is_accepted"),
    [
        ("", False),
        ("identity", False),
        ("gzip", True),
        ("GZip , deflate", True),
        ("x-gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip ; q = 0.001", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("identity;q=1, *;q=0.1", True),
        ("gzip;q=2", False),
        ("gzip;q=x", False),
        ("gzipped", False),
    ],
)
def test_accept_encoding(encodings: str, is_accepted: bool) -> None:
    """A weight of 0 forbids; what is named counts before `*`; what is no weight is no consent."""
    assert accepts_gzip(encodings) is is_accepted


@pytest.mark.parametrize(
    ("host", "names", "is_answered"),
    [
        (None, frozenset(), True),
        ("", frozenset(), True),
        ("localhost", frozenset(), True),
        ("a.localhost", frozenset(), True),
        ("10.0.0.1", frozenset(), True),
        ("fe80::1", frozenset(), True),
        ("ops1", frozenset({"ops1"}), True),
        ("ops1.evil.example", frozenset({"ops1"}), False),
        ("localhost.evil.example", frozenset(), False),
        ("127.0.0.1.nip.example", frozenset(), False),
        ("evil.example", None, True),
    ],
)
def test_hosts(host: str | None, names: frozenset[str] | None, is_answered: bool) -> None:
    """Addresses always, names where they are known."""
    assert is_served(host, names) is is_answered


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda rest: b"GET / HTTP/1.1\r\n" + rest))
def test_arbitrary_bytes(received: bytes) -> None:
    """Whatever a client sends: a request, a refusal, or a wait for more."""
    with suppress(BadRequestError):
        request = parse_request(received)
        assert request is None or request.path.startswith(("/", "*"))


def test_a_request_in_pieces() -> None:
    """Nothing is decided before the head is complete."""
    whole = b"HEAD /metrics?a=b HTTP/1.1\r\nHost: Web01:9150\r\nAccept-Encoding: gzip\r\nAccept-Encoding: br\r\n\r\n"
    assert all(parse_request(whole[:size]) is None for size in range(len(whole)))
    assert parse_request(whole) == HttpRequest("/metrics", False, "gzip, br", "web01")
