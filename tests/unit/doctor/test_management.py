"""Node StatsD's management port, as it answers, and others that are none."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fleetmem.doctor.management import Management, StatsdConfig, parse_config
from fleetmem.errors import SinkError

ANSWER = """
graphitePort: 2003
graphiteHost: graphite.example.com
port: 8125
backends > 0: ./backends/graphite
flushInterval: 10000
deleteGauges: true
gaugesMaxTTL: 3
servers > 0: [object Object]
"""


def config(*lines: str) -> StatsdConfig:
    """Returns what lines mean."""
    return parse_config("\n".join(lines))


def test_config() -> None:
    """Lines of keys and values, as writeConfig in its lib/helpers.js prints them."""
    assert parse_config(ANSWER) == StatsdConfig(10.0, True, 3, "stats.gauges.", "", "graphite.example.com:2003")


def test_defaults() -> None:
    """What is not set is what stats.js has it be."""
    assert config("flushInterval: 10000") == StatsdConfig(10.0, False, 1, "stats.gauges.", "", "")
    assert config("flushInterval: 500.5").flush_seconds == 0.5005


@pytest.mark.parametrize(
    ("lines", "deletes"),
    [
        (("deleteIdleStats: true",), True),
        (("deleteIdleStats: true", "deleteGauges: false"), False),
        (("deleteGauges: true",), True),
        (("deleteGauges: false",), False),
    ],
)
def test_what_deletes_gauges(lines: tuple[str, ...], deletes: bool) -> None:
    """DeleteIdleStats is for all, deleteGauges has the last word."""
    assert config("flushInterval: 1000", *lines).deletes_gauges is deletes


@pytest.mark.parametrize(
    ("lines", "prefix", "suffix"),
    [
        ((), "stats.gauges.", ""),
        (("graphite > globalPrefix: x",), "stats.gauges.", ""),
        (("graphite > legacyNamespace: false",), "stats.gauges.", ""),
        (("graphite > legacyNamespace: false", "graphite > globalPrefix: x"), "x.gauges.", ""),
        (("graphite > legacyNamespace: false", "graphite > globalPrefix: ", "graphite > prefixGauge: g"), "g.", ""),
        (("graphite > globalSuffix: eu",), "stats.gauges.", ".eu"),
    ],
)
def test_names_in_graphite(lines: tuple[str, ...], prefix: str, suffix: str) -> None:
    """As backends/graphite.js puts them together."""
    found = config("flushInterval: 1000", *lines)
    assert (found.prefix, found.suffix) == (prefix, suffix)


@pytest.mark.parametrize(
    ("lines", "carbon"),
    [
        (("graphiteHost: a",), "a:2003"),
        (("graphiteHost: a", "graphitePort: 5", "backends > 0: ./backends/graphite"), "a:5"),
        (("graphiteHost: a", "backends > 0: ./backends/console"), ""),
        (("backends > 0: ./backends/graphite",), ""),
    ],
)
def test_where_it_flushes_to(lines: tuple[str, ...], carbon: str) -> None:
    """The backend and a host, or nowhere."""
    assert config("flushInterval: 1000", *lines).carbon == carbon


@pytest.mark.parametrize("text", ["", "HTTP/1.1 400 Bad Request\nContent-Type: text/plain", "flushInterval: never"])
def test_no_config(text: str) -> None:
    """Something else answers there: the Datadog agent's traces have the same port."""
    with pytest.raises(ValueError, match="no flushInterval"):
        parse_config(text)


def ask(answer: bytes, work: Callable[[Management], Awaitable[object]]) -> object:
    """Returns what work comes to, with a port that answers each connection so, and ends it when told to `quit`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        while await reader.readline() not in (b"quit\n", b""):
            pass
        writer.close()

    async def main() -> object:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            return await work(Management(*server.sockets[0].getsockname()))

    return asyncio.run(main())


def test_another_program_at_the_port() -> None:
    """Its answer is told to be none of StatsD."""
    with pytest.raises(SinkError, match="no management port of a Node StatsD"):
        ask(b"HTTP/1.1 400 Bad Request\r\n\r\n", lambda management: management.config())


def test_nobody_at_the_port() -> None:
    """With the reason."""

    async def nobody() -> None:
        async with await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
        with pytest.raises(SinkError, match=f"{host}:{port}: connection refused"):
            await Management(host, port).config()

    asyncio.run(nobody())


def test_a_port_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for long."""
    monkeypatch.setattr("fleetmem.doctor.management._LIMIT_SECONDS", 0.2)
    with pytest.raises(SinkError, match=r"no answer within 0\.2 s"):
        ask(b"", lambda management: management.config())


def test_deleted_gauges() -> None:
    """Those that it had."""
    answer = b"deleted: a.b\nmetric c not found\nEND\n\n"
    assert ask(answer, lambda management: management.delete_gauges(["a.b", "c"])) == {"a.b"}
