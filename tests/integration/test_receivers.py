"""The receivers, fed by hand: what a test reads back from one is what was sent to it."""

import pickle
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from .receivers import CarbonCache, Collectd, Prometheus, Sample, Target, TcpReceiver, UdpReceiver, UnixReceiver
from .servers import StatsD, free_port, started, wait_for

GAUGES = {"a.b_1": 1.5, "a.b_2": 123456789012345.0, "zero": 0.0}
LINES = "".join(f"{name}:{value:.15g}|g\n" for name, value in GAUGES.items()).encode()


def send_udp(address: str, *datagrams: bytes) -> None:
    """Sends datagrams to `HOST:PORT`."""
    host, _colon, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for datagram in datagrams:
            sock.sendto(datagram, (host, int(port)))


def send_tcp(address: str, data: bytes) -> None:
    """Sends data over one connection to `HOST:PORT`."""
    with connect(address) as sock:
        sock.sendall(data)


def connect(address: str) -> socket.socket:
    """Returns a connection to `HOST:PORT`."""
    host, _colon, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def send_until_blocked(sock: socket.socket) -> int:
    """Sends until neither side's kernel takes more; returns the bytes sent."""
    sock.settimeout(0.3)
    sent = 0
    try:
        while True:
            sent += sock.send(bytes(65536))
    except TimeoutError:
        return sent


# --- StatsD ----------------------------------------------------------------------------------------------------------


def test_statsd_holds_gauges_from_udp_and_tcp(statsd: StatsD) -> None:
    """Few gauges or many, values of any size; bad lines and packets are counted."""
    send_udp(statsd.address, LINES, b"bad|g\n")
    wait_for("StatsD has read both", lambda: statsd.packets_received == 2)
    assert statsd.gauges() == GAUGES
    assert (statsd.bad_lines_seen, statsd.metrics_received) == (1, 4)
    more = {f"by.tcp_{number}": float(number) for number in range(100)}
    send_tcp(statsd.tcp_address, "".join(f"{name}:{value:.0f}|g\n" for name, value in more.items()).encode())
    wait_for("StatsD has read it", lambda: statsd.metrics_received == 104)
    assert statsd.gauges() == GAUGES | more


def test_statsd_that_is_paused_loses_what_its_socket_cannot_hold(statsd: StatsD) -> None:
    """Each datagram is read after the pause, or counted as dropped by the kernel."""
    statsd.pause()
    send_udp(statsd.address, *[b"a:1|g\n" * 200] * 1000)
    assert statsd.drops > 500
    statsd.resume()
    wait_for("StatsD has read the rest", lambda: statsd.packets_received + statsd.drops == 1000)


def test_statsd_comes_back_on_its_ports_with_nothing(statsd: StatsD) -> None:
    """After stop, also in a pause, and start it answers at the same addresses and holds nothing."""
    send_udp(statsd.address, LINES)
    wait_for("StatsD has read it", lambda: statsd.gauges() == GAUGES)
    statsd.pause()
    statsd.stop()
    statsd.start()
    assert statsd.gauges() == {}
    send_udp(statsd.address, b"b:2|g\n")
    send_tcp(statsd.tcp_address, b"c:3|g\n")
    wait_for("StatsD has read both", lambda: statsd.gauges() == {"b": 2, "c": 3})


# --- collectd --------------------------------------------------------------------------------------------------------


def test_collectd_writes_every_gauge_each_second(collectd: Collectd) -> None:
    """A gauge that came once stays; a bad line is counted; nothing is held after a start."""
    send_udp(collectd.address, LINES, b"bad|g\n", b"once:1|g\n")
    wait_for("collectd has written it", lambda: collectd.gauges() == GAUGES | {"once": 1})
    send_udp(collectd.address, b"a.b_1:2.5|g\n")
    wait_for("collectd has written it", lambda: collectd.gauges() == GAUGES | {"once": 1, "a.b_1": 2.5})
    assert {value for _seconds, value in collectd.points()["a.b_1"]} == {1.5, 2.5}
    assert len(collectd.points()["once"]) >= 2
    assert collectd.bad_lines_seen == 1
    collectd.stop()
    collectd.start()
    assert collectd.gauges() == {}
    assert collectd.drops == 0


# --- carbon ----------------------------------------------------------------------------------------------------------


def test_carbon_writes_lines_and_pickles(carbon_cache: CarbonCache) -> None:
    """Every point of both protocols is in its whisper file, with its second."""
    now = int(time.time())
    send_tcp(carbon_cache.line_address, f"a.b 1.5 {now - 9}\na.b 2.5 {now - 8}\nbad line\nc 0 {now}\n".encode())
    points = [("d.e", (now - 60, 123456789012345.0)), ("d.e", (now - 59, 1))]
    frame = pickle.dumps(points, protocol=2)
    send_tcp(carbon_cache.pickle_address, struct.pack("!L", len(frame)) + frame)
    expected = {
        "a.b": [(now - 9, 1.5), (now - 8, 2.5)],
        "c": [(now, 0.0)],
        "d.e": [(now - 60, 123456789012345.0), (now - 59, 1.0)],
    }
    wait_for("carbon has written it", lambda: carbon_cache.points() == expected)
    assert carbon_cache.gauges() == {"a.b": 2.5, "c": 0, "d.e": 1}
    assert carbon_cache.names() == set(expected)
    assert carbon_cache.bad_lines_seen == 1


def test_carbon_keeps_its_files_while_it_is_stopped(carbon_cache: CarbonCache) -> None:
    """It writes what it has before it ends, and adds to it after a start on the same ports."""
    now = int(time.time())
    with connect(carbon_cache.line_address) as connection:
        connection.sendall(f"a 1 {now - 5}\n".encode())
        wait_for("carbon has read it", carbon_cache.names)
        carbon_cache.stop()
    assert carbon_cache.points() == {"a": [(now - 5, 1)]}
    carbon_cache.start()
    send_tcp(carbon_cache.line_address, f"a 2 {now - 4}\n".encode())
    wait_for("carbon has written it", lambda: carbon_cache.points() == {"a": [(now - 5, 1), (now - 4, 2)]})


# --- Prometheus ------------------------------------------------------------------------------------------------------

PAGE = rb"""# TYPE memory_bytes gauge
memory_bytes{host="a",name="x \"y\""} 123456789012
memory_bytes{host="b"} 0.5
up_is 1
"""


@contextmanager
def page(address: str, text: bytes) -> Iterator[None]:
    """Serves a page at `HOST:PORT/metrics`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            pass

    host, _colon, port = address.rpartition(":")
    with ThreadingHTTPServer((host, int(port)), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_prometheus_scrapes_pages(prometheus: Callable[..., Prometheus]) -> None:
    """Every sample comes back with its labels; a page that breaks the format, or is away, is down for a reason."""
    good, bad = (f"127.0.0.1:{free_port()}" for _target in range(2))
    with page(bad, b"two words 1\n"):
        with page(good, PAGE):
            server = prometheus(good, bad)
            samples = wait_for("Prometheus has scraped it", lambda: server.samples(good))
            assert sorted(samples, key=lambda sample: sample.value) == [
                Sample("memory_bytes", {"host": "b"}, 0.5),
                Sample("up_is", {}, 1),
                Sample("memory_bytes", {"host": "a", "name": 'x "y"'}, 123456789012),
            ]
            assert server.targets()[good] == Target("up", "", f"http://{good}/metrics")
            assert server.query("sum(memory_bytes)") == [Sample("", {}, 123456789012.5)]
        wait_for("the target is down", lambda: server.targets()[good].health == "down")
        assert "connection refused" in server.targets()[good].last_error
        wait_for("so is the other one", lambda: server.targets()[bad].health == "down")
        assert server.targets()[bad].last_error
        assert server.samples(bad) == []
    ((sample, points),) = server.points('memory_bytes{host="b"}')
    assert sample == Sample("memory_bytes", {"host": "b"}, 0.5)
    assert {value for _seconds, value in points} == {0.5}


# --- sockets ---------------------------------------------------------------------------------------------------------


def test_tcp_receiver_keeps_lines_and_comes_back() -> None:
    """It reads all connections, and after stop and start at the same address."""
    with started(TcpReceiver()) as server:
        send_tcp(server.address, b"a 1 2\nb 2 3\ncut")
        send_tcp(server.address, b"c 3 4\n")
        wait_for("it has read both", lambda: server.connections_total == 2 and not server.open_connections)
        assert server.lines() == ["a 1 2", "b 2 3", "c 3 4"]
        assert server.texts == [b"a 1 2\nb 2 3\ncut", b"c 3 4\n"]
        server.stop()
        server.start()
        send_tcp(server.address, b"d 4 5\n")
        wait_for("it has read it", lambda: server.lines()[-1] == "d 4 5")


def test_tcp_receiver_that_never_reads_blocks_its_sender() -> None:
    """The sender can send no more at some point; once told to, the receiver reads all that it was sent."""
    with started(TcpReceiver(0, buffer_bytes=4096)) as server, connect(server.address) as connection:
        sent = send_until_blocked(connection)
        assert server.connections_total == 1
        assert server.texts == [b""]
        server.bytes_per_second = float("inf")
        wait_for("it has read everything", lambda: len(server.texts[0]) == sent)


def test_tcp_receiver_reads_at_its_pace() -> None:
    """20 kB at 40 kB/s take half a second."""
    with started(TcpReceiver(40_000)) as server:
        began = time.monotonic()
        send_tcp(server.address, bytes(20_000))
        wait_for("it has read everything", lambda: server.texts == [bytes(20_000)])
        assert 0.35 < time.monotonic() - began < 2


def test_tcp_receiver_drops_its_connections() -> None:
    """The sender sees the end, and can connect again."""
    with started(TcpReceiver(0)) as server, connect(server.address) as connection:
        wait_for("it has accepted", lambda: server.connections_total == 1)
        server.drop_connections()
        assert connection.recv(1) == b""
        connect(server.address).close()
        wait_for("it has accepted again", lambda: server.connections_total == 2)


def test_udp_receiver_keeps_datagrams() -> None:
    """Each datagram as it came; the gauges of all of them."""
    with started(UdpReceiver()) as server:
        send_udp(server.address, LINES, b"zero:7|g")
        wait_for("it has read both", lambda: len(server.datagrams) == 2)
        assert server.datagrams == [LINES, b"zero:7|g"]
        assert server.lines()[-1] == "zero:7|g"
        assert server.gauges() == GAUGES | {"zero": 7}
        assert server.drops == 0


def test_unix_receiver_keeps_datagrams_and_takes_its_path_along() -> None:
    """While it is stopped nothing is at its path."""
    with started(UnixReceiver()) as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(LINES, str(server.path))
        wait_for("it has read it", lambda: server.gauges() == GAUGES)
        server.stop()
        assert not server.path.exists()
        server.start()
        sock.sendto(b"zero:7|g\n", str(server.path))
        wait_for("it has read it", lambda: server.gauges() == GAUGES | {"zero": 7})
