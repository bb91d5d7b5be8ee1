import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from delay_proxy import DelayProxy, Passed

_ROUND_TRIP_MS = 40
_LATE_MS = 15
"""Two timers of 1 ms each, and a machine with other work."""


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], int]]:
    """Starts echo servers on 127.0.0.1 that greet with a byte string; each returns its port."""
    listeners = []

    def echo(connection: socket.socket, greeting: bytes) -> None:
        with connection:
            connection.sendall(greeting)
            while data := connection.recv(65_536):
                connection.sendall(data)

    def accept(listener: socket.socket, greeting: bytes) -> None:
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=echo, args=(connection, greeting), daemon=True).start()

    def start(greeting: bytes = b"") -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=accept, args=(listener, greeting), daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _connect(proxy: DelayProxy, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, proxy.port), timeout=10)


def _receive(connection: socket.socket, size_bytes: int) -> bytes:
    """Returns that many bytes, or fewer where the connection ends before."""
    data = bytearray()
    while len(data) < size_bytes and (more := connection.recv(size_bytes - len(data))):
        data += more
    return bytes(data)


def _exchange(connection: socket.socket, data: bytes) -> float:
    """Returns in ms how long it takes until all of the data is back."""
    begun = time.monotonic()
    connection.sendall(data)
    assert _receive(connection, len(data)) == data
    return (time.monotonic() - begun) * 1000


@pytest.mark.slow
def test_a_round_trip_takes_what_was_asked_for(serve: Callable[[bytes], int]) -> None:
    """Never less, and a few ms more at the most."""
    with DelayProxy([serve(b"")], _ROUND_TRIP_MS) as proxy, _connect(proxy) as connection:
        _exchange(connection, b"the connection itself")
        round_trips_ms = [_exchange(connection, b"echo") for _ in range(5)]
    assert _ROUND_TRIP_MS <= min(round_trips_ms) <= _ROUND_TRIP_MS + _LATE_MS


@pytest.mark.slow
def test_a_connection_costs_one_round_trip_too(serve: Callable[[bytes], int]) -> None:
    """The first answer on a new connection is there after two, as it is through a network."""
    firsts_ms = []
    with DelayProxy([serve(b"")], _ROUND_TRIP_MS) as proxy:
        for _ in range(3):
            with _connect(proxy) as connection:
                firsts_ms.append(_exchange(connection, b"first"))
    assert 2 * _ROUND_TRIP_MS <= min(firsts_ms) <= 2 * _ROUND_TRIP_MS + _LATE_MS


@pytest.mark.slow
def test_the_rate_is_not_limited(serve: Callable[[bytes], int]) -> None:
    """4 MB come back in a few round trips, not in one round trip for each piece."""
    data = b"x" * 4_000_000
    with DelayProxy([serve(b"")], _ROUND_TRIP_MS) as proxy, _connect(proxy) as connection:
        writing = threading.Thread(target=connection.sendall, args=(data,))
        begun = time.monotonic()
        writing.start()
        assert _receive(connection, len(data)) == data
        seconds = time.monotonic() - begun
        writing.join()
    assert seconds < 20 * _ROUND_TRIP_MS / 1000  # 61 pieces of 64 KiB


def test_ends_are_passed_on_and_bytes_counted(serve: Callable[[bytes], int]) -> None:
    """A client that has sent all of its data still gets what is under way."""
    with DelayProxy([serve(b"hello")], 5) as proxy:
        with _connect(proxy) as connection:
            connection.sendall(b"all I have")
            connection.shutdown(socket.SHUT_WR)
            assert _receive(connection, 100) == b"helloall I have"
        assert proxy.passed() == Passed(connections=1, bytes_to_targets=10, bytes_to_clients=15, round_trips=(1,))


@pytest.mark.slow
def test_round_trips_are_counted(serve: Callable[[bytes], int]) -> None:
    """TCP's, that of the greeting, and one for each answer that was waited for before the next was asked for."""
    with DelayProxy([serve(b"hello")], 10) as proxy:
        with _connect(proxy) as patient, _connect(proxy) as hasty:
            for data in (b"one", b"two", b"three"):
                hasty.sendall(data)
            assert _receive(hasty, 16) == b"helloonetwothree"
            assert _receive(patient, 5) == b"hello"
            for data in (b"one", b"two", b"three"):
                _exchange(patient, data)
        assert proxy.passed().round_trips == (5, 2)


def test_an_address_has_the_same_target_each_time(serve: Callable[[bytes], int]) -> None:
    """Addresses take turns."""
    with DelayProxy([serve(b"even"), serve(b"odd")], 0) as proxy:
        greetings = []
        for address in ("127.0.1.2", "127.0.1.3", "127.0.1.2", "127.0.2.1"):
            with _connect(proxy, address) as connection:
                greetings.append(connection.recv(100))
    assert greetings == [b"even", b"odd", b"even", b"odd"]


def test_no_target_is_a_closed_connection(serve: Callable[[bytes], int]) -> None:
    """Nothing hangs, and the next connection works."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    with DelayProxy([nobody, serve(b"there")], 5) as proxy:
        with _connect(proxy, "127.0.0.2") as connection:
            assert connection.recv(1) == b""
        with _connect(proxy, "127.0.0.1") as connection:
            assert connection.recv(100) == b"there"
