import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetmem.runtime.systemd import ServiceManager


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that systemd reads."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def _manager(sock: socket.socket, **environment: str) -> ServiceManager:
    name = sock.getsockname()
    address = f"@{name[1:].decode()}" if isinstance(name, bytes) else name
    return ServiceManager({"NOTIFY_SOCKET": address, **environment})


def _fed(manager: ServiceManager, *, seconds: float = 0.0, is_alive: bool = True) -> None:
    """Feeds the watchdog for a while, or until that ends by itself."""

    async def main() -> None:
        async with asyncio.timeout(5):
            feeding = asyncio.create_task(manager.feed_watchdog(lambda: is_alive))
            if seconds:
                await asyncio.sleep(seconds)
                feeding.cancel()
            else:
                await feeding

    asyncio.run(main())


def test_what_is_told(systemd: socket.socket) -> None:
    """Each message is one datagram, with the lines of sd_notify(3)."""
    manager = _manager(systemd)
    manager.started("5 hosts")
    assert systemd.recv(100) == b"READY=1\nSTATUS=5 hosts"
    manager.show("café")
    assert systemd.recv(100) == "STATUS=café".encode()
    manager.stopping()
    assert systemd.recv(100) == b"STOPPING=1"


def test_a_reload_has_its_time(systemd: socket.socket) -> None:
    """Type=notify-reload tells by it that the message is younger than its signal."""
    before = time.monotonic_ns() // 1000
    _manager(systemd).reloading()
    match = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", systemd.recv(100))
    assert match
    assert before <= int(match[1]) <= time.monotonic_ns() // 1000


def test_an_abstract_socket() -> None:
    """As the containers of systemd have it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0fleetmem-test-{os.getpid()}")
        sock.settimeout(5)
        _manager(sock).stopping()
        assert sock.recv(100) == b"STOPPING=1"


def test_without_systemd(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is told, nothing is said, and no watchdog is fed."""
    manager = ServiceManager({})
    manager.started("x")
    _fed(manager)
    assert not caplog.records


def test_children_are_not_told(systemd: socket.socket) -> None:
    """A child that acted on these would speak for the collector."""
    environment = {
        "NOTIFY_SOCKET": systemd.getsockname(),
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    ServiceManager(environment)
    assert environment == {"HOME": "/"}


@pytest.mark.slow
def test_the_watchdog(systemd: socket.socket) -> None:
    """It hears twice in its time, from the start on."""
    manager = _manager(systemd, WATCHDOG_USEC="200000", WATCHDOG_PID=str(os.getpid()))

    async def main() -> None:
        begun = time.monotonic()
        feeding = asyncio.create_task(manager.feed_watchdog(lambda: True))
        heard = [await asyncio.to_thread(systemd.recv, 100) for _ in range(4)]
        feeding.cancel()
        assert heard == [b"WATCHDOG=1"] * 4
        assert time.monotonic() - begun >= 0.3

    asyncio.run(main())


@pytest.mark.parametrize("environment", [{"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}, {}])
def test_a_watchdog_that_is_not_ours(systemd: socket.socket, environment: dict[str, str]) -> None:
    """Of another process, or of none."""
    _fed(_manager(systemd, **environment))
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(100)


def test_a_stalled_collector_lets_the_watchdog_bite(systemd: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """It hears nothing, and the log says why."""
    _fed(_manager(systemd, WATCHDOG_USEC="100000"), seconds=0.02, is_alive=False)
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(100)
    assert caplog.messages == ["stalled: no host had an outcome for too long; systemd's watchdog is not answered"]


def test_a_socket_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and once more when it was there in between."""
    path = tmp_path / "notify"
    manager = ServiceManager({"NOTIFY_SOCKET": str(path)})
    manager.show("a")
    manager.show("b")
    assert caplog.messages == [f"systemd could not be notified: {path}: no such file or directory"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        manager.show("c")
    path.unlink()
    manager.show("d")
    assert len(caplog.messages) == 2


def test_a_socket_that_is_full_holds_up_nothing(systemd: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """A systemd that does not read is no reason for hosts to wait."""
    caplog.set_level(logging.WARNING)
    manager = _manager(systemd)
    begun = time.monotonic()
    while not caplog.messages and time.monotonic() - begun < 5:
        manager.show("x")
    assert "resource temporarily unavailable" in caplog.text
