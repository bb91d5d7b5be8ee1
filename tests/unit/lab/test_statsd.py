"""The lab's StatsD: what it takes, what it refuses, what it sends on."""

import asyncio
import os
import signal
import socket

import pytest

from fleetmem.lab import statsd
from fleetmem.lab.statsd import Gauges, clean_name, serve


def _taken(*datagrams: bytes) -> Gauges:
    gauges = Gauges()
    for datagram in datagrams:
        gauges.take(datagram)
    return gauges


def test_last_value_of_a_gauge_stays() -> None:
    """A gauge holds what came last, over all datagrams."""
    gauges = _taken(b"a.b:1|g\nc:2.5|g\n", b"a.b:3|g")
    assert gauges.values == {"a.b": 3, "c": 2.5}
    assert (gauges.packets_total, gauges.metrics_total, gauges.bad_lines_total) == (2, 3, 0)


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (b"g:10|g\ng:+5|g", 15),
        (b"g:10|g\ng:-4|g", 6),
        (b"g:-4|g", -4),  # a gauge that is not there yet is set
        (b"g:0|g\ng:-4|g", -4),  # and one that is 0, as in Node's StatsD
        (b"g:1:2:3|g", None),
        (b"g:1|g:2|g", 2),
        (b"g:1e3|g", 1000),
        (b"g:.5|g\r", 0.5),
    ],
)
def test_signs_and_several_values(lines: bytes, value: float | None) -> None:
    """A sign makes a delta; several values in one line are taken in turn, each with its type."""
    assert _taken(lines).values.get("g") == (value if value is not None else 3)


@pytest.mark.parametrize("line", [b"a", b"a:1", b"a:1|c", b"a:1|ms", b"a:|g", b"a:nan|g", b"a:1_0|g", b"a:1|g|@0.1"])
def test_bad_lines_are_counted(line: bytes) -> None:
    """What is no gauge changes nothing and is counted."""
    gauges = _taken(line)
    assert gauges.values == {}
    assert (gauges.metrics_total, gauges.bad_lines_total) == (0, 1)


@pytest.mark.parametrize(
    ("name", "kept"), [("a b\tc", "a_b_c"), ("sl/x", "sl-x"), ("at@x(y)", "atxy"), ("café", "caf"), ("a;b=c", "a;b=c")]
)
def test_names_are_cleaned_as_node_does(name: str, kept: str) -> None:
    """Blanks, slashes and other characters become what FACTS measured on Node's StatsD."""
    assert clean_name(name) == kept


def test_lines_have_the_legacy_names_and_every_gauge() -> None:
    """Each flush repeats every gauge, whole numbers without a fraction, and the server's own counters."""
    gauges = _taken(b"a:9007199254740992|g\nb:0.1|g\nbad")
    lines = gauges.lines(100).decode().splitlines()
    assert lines == [
        "stats.gauges.a 9007199254740992 100",
        "stats.gauges.b 0.1 100",
        "stats.statsd.packets_received_total 1 100",
        "stats.statsd.metrics_received_total 2 100",
        "stats.statsd.bad_lines_seen_total 1 100",
        "stats.statsd.gauges 2 100",
    ]
    assert gauges.lines(102).decode().startswith("stats.gauges.a 9007199254740992 102\n")


async def _serve_until(wanted: bytes, has_failed: asyncio.Event | None) -> bytes:
    """Returns what carbon received until a text was in it; it begins after an event."""
    received = bytearray()
    is_there = asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read())
        writer.close()
        if wanted in received:
            is_there.set()

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as carbon_socket:
        carbon_socket.bind(("127.0.0.1", 0))
        carbon_port = carbon_socket.getsockname()[1]
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x:1|g\n", sock.getsockname())
        serving = asyncio.create_task(serve(sock, carbon_port, 0.05))
        if has_failed:
            await asyncio.wait_for(has_failed.wait(), 10)
        async with await asyncio.start_server(receive, sock=carbon_socket):
            await asyncio.wait_for(is_there.wait(), 10)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(serving, 10)
    return bytes(received)


@pytest.mark.parametrize("is_carbon_away_at_first", [False, True])
def test_server_flushes_to_carbon_until_sigterm(
    monkeypatch: pytest.MonkeyPatch, *, is_carbon_away_at_first: bool
) -> None:
    """What comes by UDP goes to carbon at each flush, also when carbon was away; SIGTERM ends it."""
    has_failed = asyncio.Event()
    monkeypatch.setattr(statsd, "_log", lambda text: has_failed.set() if "carbon at port" in text else None)
    received = asyncio.run(_serve_until(b"stats.gauges.x 1 ", has_failed if is_carbon_away_at_first else None))
    assert b"stats.statsd.packets_received_total 1 " in received
