import asyncio
import time
from typing import Any, cast

import pytest

from fleetmem.connect.guard import ALLOWANCE_SECONDS, Flood, Guard

MIB = 1024 * 1024


class Connection:
    """Stands in for asyncssh's: takes bytes, each at a cost of CPU, and may be at work in a task."""

    def __init__(self, seconds_per_portion: float = 0.0) -> None:
        self.taken: list[bytes] = []
        self.lost: list[Exception | None] = []
        self.is_at_eof = False
        self._seconds_per_portion = seconds_per_portion
        self.is_at_work = False
        self.session_keys: object = None

    def connection_made(self, transport: object) -> None:
        """Nothing."""

    def data_received(self, data: bytes) -> None:
        """Takes its time, as decryption does."""
        until = time.thread_time() + self._seconds_per_portion
        while time.thread_time() < until:
            continue
        self.taken.append(data)

    def eof_received(self) -> None:
        """Notes it."""
        self.is_at_eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Notes why."""
        self.lost.append(exc)

    def is_stuffed(self, size_bytes: int) -> bool:
        """Whether it has a portion to go on with."""
        assert size_bytes == 16 * 1024
        return self.is_at_work


class Transport:
    """Stands in for a socket's: says whether it is read."""

    def __init__(self) -> None:
        self.is_reading = True
        self.unread_bytes = 0

    def pause_reading(self) -> None:
        """Stops."""
        self.is_reading = False

    def resume_reading(self) -> None:
        """Goes on."""
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        """Returns what the host has not read."""
        return self.unread_bytes


def guarded(
    seconds_per_portion: float = 0.0, allowance_seconds: float | None = ALLOWANCE_SECONDS
) -> tuple[Guard, Connection, Transport]:
    """Returns a guard between stand-ins."""
    connection, transport = Connection(seconds_per_portion), Transport()
    guard = Guard(cast("Any", connection), allowance_seconds, connection)
    guard.connection_made(cast("Any", transport))
    return guard, connection, transport


def test_what_is_short_is_taken_at_once() -> None:
    """A usual frame costs no turn, and no copy."""
    guard, connection, transport = guarded()
    data = bytes(10_000)
    guard.data_received(data)
    assert connection.taken[0] is data
    assert transport.is_reading


async def _until_taken(connection: Connection, size: int) -> int:
    """Waits until all is taken; returns how often others had their turn meanwhile."""
    turns = 0
    while sum(map(len, connection.taken)) < size:
        turns += 1
        await asyncio.sleep(0)
    return turns


def test_what_takes_long_is_taken_in_turns() -> None:
    """Others come in between, reading stops meanwhile, and every byte arrives in order."""

    async def run() -> None:
        guard, connection, transport = guarded(seconds_per_portion=0.004)
        data = bytes(range(256)) * 1024
        guard.data_received(data)
        assert not transport.is_reading
        assert sum(map(len, connection.taken)) < len(data)
        guard.data_received(b"more")
        assert await _until_taken(connection, len(data) + 4) >= 3
        assert b"".join(connection.taken) == data + b"more"
        await asyncio.sleep(0.01)
        assert transport.is_reading
        assert not connection.lost

    asyncio.run(run())


@pytest.mark.slow
def test_a_host_over_its_allowance_is_cut_off() -> None:
    """Nothing more of it is taken."""
    # Far from the edge: what a busy machine makes of the time in between is forgiven, at 2 %.
    guard, connection, _ = guarded(seconds_per_portion=0.1, allowance_seconds=0.35)
    for _ in range(9):
        guard.data_received(b"x")
    assert len(connection.taken) == 4
    (error,) = connection.lost
    assert isinstance(error, Flood)
    assert error.reason.startswith("took 0.4 s of our time")


@pytest.mark.slow
def test_what_we_do_meanwhile_is_not_charged() -> None:
    """Python looks for garbage whenever it likes: with 10,000 hosts that takes a second, and some host is there."""
    guard, connection, _ = guarded(seconds_per_portion=0.6)
    guard.data_received(b"x")
    assert not connection.lost


def test_a_jump_host_has_no_allowance() -> None:
    """Its bytes are those of all hosts behind it."""
    guard, connection, _ = guarded(seconds_per_portion=0.01, allowance_seconds=None)
    for _ in range(9):
        guard.data_received(b"x")
    assert len(connection.taken) == 9


def test_time_gives_an_allowance_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may go on for ever at a small share of a core."""
    guard, connection, _ = guarded(seconds_per_portion=0.01, allowance_seconds=0.035)
    begun = time.monotonic()
    for number in range(9):
        monkeypatch.setattr(time, "monotonic", lambda now=begun + 10 * number: now)
        guard.data_received(b"x")
    assert len(connection.taken) == 9
    assert not connection.lost


def test_new_keys_cost() -> None:
    """A key exchange is done in tasks, whose time is not seen: each has a price."""
    guard, connection, _ = guarded(allowance_seconds=0.05)
    for _ in range(9):
        connection.session_keys = object()
        guard.data_received(b"x")
    assert len(connection.taken) == 3
    assert isinstance(connection.lost[0], Flood)


def test_a_host_that_reads_nothing_is_cut_off() -> None:
    """Answers that pile up here end the connection."""
    guard, connection, transport = guarded()
    transport.unread_bytes = MIB
    guard.data_received(b"x")
    assert not connection.lost
    transport.unread_bytes += 1
    guard.data_received(b"x")
    assert isinstance(connection.lost[0], Flood)


def test_nothing_is_put_on_top_of_work_that_is_not_done() -> None:
    """While asyncssh is at work on a packet in a task, it gets one portion to keep, and the rest when it is ready."""

    async def run() -> None:
        guard, connection, transport = guarded()
        connection.is_at_work = True
        guard.data_received(b"x")
        assert not connection.taken
        assert not transport.is_reading
        await asyncio.sleep(0.02)
        assert not connection.taken
        connection.is_at_work = False
        await _until_taken(connection, 1)
        assert transport.is_reading

    asyncio.run(run())


@pytest.mark.parametrize("end", ["eof", "loss"])
def test_what_waits_is_taken_before_the_end(end: str) -> None:
    """A host's last words come before the news that it has gone."""

    async def run() -> None:
        guard, connection, transport = guarded()
        connection.is_at_work = True
        guard.data_received(b"last words")
        connection.is_at_work = False
        if end == "eof":
            guard.eof_received()
            assert connection.is_at_eof
        else:
            guard.connection_lost(None)
            assert connection.lost == [None]
        assert connection.taken == [b"last words"]
        del transport

    asyncio.run(run())
