import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetmem.errors import SinkError
from fleetmem.sinks.transports import datagrams
from fleetmem.sinks.transports.unix import MAX_DATAGRAM_BYTES, UnixTransport
from unit.builders import Run


def _receiver(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(10)
    return sock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the receiver's socket is."""
    return tmp_path / "s.sock"


@pytest.fixture
def receiver(path: Path) -> Iterator[socket.socket]:
    """A Unix datagram socket."""
    with _receiver(path) as sock:
        yield sock


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _read_all(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    text = b""
    while True:
        try:
            text += sock.recv(65536)
        except BlockingIOError:
            return text


async def _fill(transport: UnixTransport) -> tuple["asyncio.Task[None]", list[bytes]]:
    """Sends until the receiver's queue is full; returns what waits, and everything that was given to send."""
    texts: list[bytes] = []
    while True:
        texts.append(b"n:%d|g\n" % len(texts))
        sending = asyncio.create_task(transport.send(texts[-1], 0))
        done, _pending = await asyncio.wait([sending], timeout=0.2)
        if not done:
            return sending, texts
        sending.result()


def test_lines_arrive_whole(run: Run, path: Path, receiver: socket.socket) -> None:
    """Text is packed into datagrams of whole lines, in order; the counters say what was sent."""
    text = b"".join(b"p.host.web%04d.up:1|g\n" % number for number in range(1000))

    async def main() -> None:
        transport = UnixTransport(path)
        assert transport.address == f"unix://{path}"
        await transport.send(text, 0)
        await transport.flush()
        assert (transport.datagrams_total, transport.bytes_total) == (3, len(text))
        await transport.close()

    run(main())
    found = [receiver.recv(65536) for _ in range(3)]
    assert b"".join(found) == text
    assert all(len(datagram) <= MAX_DATAGRAM_BYTES and datagram.endswith(b"\n") for datagram in found)


def test_a_full_receiver_is_waited_for(run: Run, path: Path, receiver: socket.socket) -> None:
    """Nothing is lost, nothing overtakes; others run in the meantime."""

    async def main() -> None:
        transport = UnixTransport(path)
        sending, texts = await _fill(transport)
        text = _read_all(receiver)
        await sending
        assert text + _read_all(receiver) == b"".join(texts)
        await transport.close()

    run(main())


@pytest.mark.slow
def test_a_receiver_that_never_reads(
    run: Run, path: Path, receiver: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs one time limit; when it reads again the same transport goes on."""
    monkeypatch.setattr(datagrams, "_LIMIT_SECONDS", 0.5)

    async def main() -> None:
        transport = UnixTransport(path)
        sending, texts = await _fill(transport)
        with pytest.raises(SinkError, match=r"statsd unix://.*/s\.sock: took nothing for 0\.5 s; does it still read"):
            await sending
        assert _read_all(receiver) == b"".join(texts[:-1])
        await transport.send(b"again:1|g\n", 0)
        assert _read_all(receiver) == b"again:1|g\n"
        await transport.close()

    run(main())


def test_a_receiver_that_ends_while_it_is_full(run: Run, path: Path) -> None:
    """What waits for it is told at once."""
    receiver = _receiver(path)

    async def main() -> None:
        transport = UnixTransport(path)
        sending, _texts = await _fill(transport)
        receiver.close()
        with pytest.raises(SinkError, match="connection refused; the agent that made it has ended, start it again"):
            await sending
        await transport.close()

    run(main())


@pytest.mark.parametrize("is_file_left", [False, True])
def test_a_receiver_that_is_started_again(run: Run, path: Path, is_file_left: bool) -> None:
    """While it is away sends say what to do; then they go to the new one."""

    async def main() -> None:
        transport = UnixTransport(path)
        with _receiver(path) as old:
            await transport.send(b"a:1|g\n", 0)
            assert old.recv(100) == b"a:1|g\n"
        if not is_file_left:
            _remove(path)
        with pytest.raises(SinkError, match="connection refused; the agent"):
            await transport.send(b"b:1|g\n", 0)
        with pytest.raises(SinkError, match="connection refused" if is_file_left else "no such file; start the agent"):
            await transport.send(b"b:1|g\n", 0)
        _remove(path)
        with _receiver(path) as new:
            await transport.send(b"b:1|g\n", 0)
            assert new.recv(100) == b"b:1|g\n"
        await transport.close()

    run(main())


def test_a_receiver_that_was_replaced(run: Run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new socket by the same name is found by and by, also when the old one still takes datagrams."""
    monkeypatch.setattr(datagrams, "_LOOK_UP_EVERY_SECONDS", 0)

    async def main() -> None:
        transport = UnixTransport(path)
        with _receiver(path) as old:
            await transport.send(b"a:1|g\n", 0)
            _remove(path)
            await transport.send(b"b:1|g\n", 0)  # no file by that name: the old socket still takes it
            with _receiver(path) as new:
                await transport.send(b"c:1|g\n", 0)
                assert new.recv(100) == b"c:1|g\n"
            assert _read_all(old) == b"a:1|g\nb:1|g\n"
        await transport.close()

    run(main())


def test_a_file_that_is_no_datagram_socket(run: Run, tmp_path: Path) -> None:
    """A stream socket and a plain file: each is told as what it is."""
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(tmp_path / "stream"))
        stream.listen()
        with pytest.raises(SinkError, match="it is not a datagram socket; configure the agent for datagrams"):
            run(UnixTransport(tmp_path / "stream").send(b"a:1|g\n", 0))
    with pytest.raises(SinkError, match="connection refused"):
        run(UnixTransport(tmp_path / "file").send(b"a:1|g\n", 0))


def test_a_path_that_is_too_long(run: Run, tmp_path: Path) -> None:
    """The kernel takes 107 bytes: an error with a reason, no crash."""
    path = tmp_path / ("x" * 120)
    path.touch()
    with pytest.raises(SinkError, match="path too long; check the path"):
        run(UnixTransport(path).send(b"a:1|g\n", 0))


@pytest.mark.usefixtures("receiver")
def test_no_permission(run: Run, path: Path) -> None:
    """A socket of another group: the message says what to change."""
    if os.getuid() == 0:
        pytest.skip("root may write to every socket")
    path.chmod(0o400)
    with pytest.raises(SinkError, match="permission denied; put fleetmem's user into the group"):
        run(UnixTransport(path).send(b"a:1|g\n", 0))


def test_no_buffers(run: Run, path: Path, receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """BSD and macOS say ENOBUFS of a full receiver, and no event tells of room: the datagram is tried again."""
    refusals = [OSError(errno.ENOBUFS, "no buffers"), OSError(errno.ENOBUFS, "no buffers")]

    class Full(socket.socket):
        def send(self, *arguments: Any) -> int:
            if refusals:
                raise refusals.pop()
            return super().send(*arguments)

    async def main() -> None:
        monkeypatch.setattr(socket, "socket", Full)  # here, or the event loop would get one too
        transport = UnixTransport(path)
        await transport.send(b"a:1|g\n", 0)
        await transport.close()

    run(main())
    assert receiver.recv(100) == b"a:1|g\n"
    assert not refusals


def test_others_run_while_much_is_sent(run: Run, path: Path, receiver: socket.socket) -> None:
    """A backlog that the receiver takes at once does not hold the event loop."""

    async def main() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(count())
        transport = UnixTransport(path)
        sent = 0
        while turns < 5 and sent < 1_000_000:
            await transport.send(b"a:1|g\n", 0)
            _read_all(receiver)
            sent += 1
        other.cancel()
        await transport.close()
        assert turns == 5
        assert sent > 5, "a turn after each text leaves most of them unsent on a busy event loop"

    run(main())
