import asyncio
import resource
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

import pytest

from fleetmem.errors import UsageError
from fleetmem.runtime import event_loop
from fleetmem.runtime.event_loop import raise_file_limit, run_async


async def _answer() -> tuple[int, set[str]]:
    """Returns 7, and the packages that the running loop is made of."""
    return 7, {base.__module__.partition(".")[0] for base in type(asyncio.get_running_loop()).__mro__}


def test_run_async() -> None:
    """A coroutine runs to its end, on uvloop where it is installed."""
    pytest.importorskip("uvloop")
    answer, packages = run_async(_answer())
    assert answer == 7
    assert "uvloop" in packages


def test_run_async_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvloop the standard loop does."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    answer, packages = run_async(_answer())
    assert answer == 7
    assert "asyncio" in packages
    assert "uvloop" not in packages


async def _look_up(host: str) -> list[Any]:
    return list(await asyncio.get_running_loop().getaddrinfo(host, 80, type=socket.SOCK_STREAM))


def test_names_are_looked_up() -> None:
    """The loop's look-up gives what the system's does, and its errors."""
    assert run_async(_look_up("127.0.0.1"))[0][4] == ("127.0.0.1", 80)
    with pytest.raises(socket.gaierror):
        run_async(_look_up("host.invalid"))


def test_an_address_takes_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when it is looked up nor when it is connected to: with 10,000 hosts that would be as many threads."""

    async def connect(port: int) -> None:
        loop = asyncio.get_running_loop()
        for host in ("127.0.0.1", "::1", "fe80::1%1"):
            await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))

    def start(thread: threading.Thread) -> None:
        raise AssertionError(f"started {thread}")

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(threading.Thread, "start", start)
        run_async(connect(server.getsockname()[1]))


@pytest.mark.usefixtures("no_threads")
def test_a_look_up_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there may be no more threads it is the host that fails; the place of the look-up is given back."""
    monkeypatch.setattr(event_loop, "_LOOKUPS_AT_ONCE", 2)

    async def look_up() -> None:
        for _ in range(5):
            async with asyncio.timeout(5):
                with pytest.raises(OSError, match="no more threads"):
                    await _look_up("host.invalid")

    run_async(look_up())


@pytest.mark.slow
def test_look_ups_that_hang_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their callers' limits give the slots back; there are so many that may hang, and those that end make room."""
    monkeypatch.setattr(event_loop, "_LOOKUPS_AT_ONCE", 2)
    monkeypatch.setattr(event_loop, "_MOST_ABANDONED", 3)
    monkeypatch.setattr(event_loop, "_SLOT_SECONDS", 0.1)
    gate, look_up = threading.Event(), socket.getaddrinfo

    def hang(host: str, *arguments: Any) -> list[Any]:
        if host == "hangs":
            gate.wait(20)
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return look_up(host, *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await _look_up("hangs")

    async def main() -> None:
        for _ in range(4):
            await give_up()
        assert await _look_up("localhost")
        await give_up()
        with pytest.raises(socket.gaierror, match="2 name look-ups hang"):
            await _look_up("localhost")
        gate.set()
        async with asyncio.timeout(10):
            while True:
                with suppress(socket.gaierror):
                    if await _look_up("localhost"):
                        break
        assert all(await asyncio.gather(*(_look_up("localhost") for _ in range(10))))

    run_async(main())


def test_a_bug_in_a_look_up_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised comes back, and the slot is free again."""
    monkeypatch.setattr(event_loop, "_LOOKUPS_AT_ONCE", 1)

    def fail(*_arguments: Any) -> list[Any]:
        raise ValueError("odd")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    async def main() -> None:
        for _ in range(3):
            async with asyncio.timeout(5):
                with pytest.raises(ValueError, match="odd"):
                    await _look_up("x")

    run_async(main())


def test_an_error_in_a_group_is_told_as_itself() -> None:
    """What failed inside task groups decides message and exit status."""

    async def fail() -> None:
        raise UsageError("wrong")

    async def inner() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    async def nested() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(inner())

    with pytest.raises(UsageError, match="wrong"):
        run_async(nested())


@pytest.mark.parametrize(
    ("soft", "hard", "files", "new_soft", "fits"),
    [
        (1024, 4096, 10, None, 10),
        (1024, 4096, 2000, 2064, 2000),
        (1024, 4096, 10_000, 4096, 4032),
        (1024, resource.RLIM_INFINITY, 10_000, 10_064, 10_000),
        (10, 10, 5, 10, 1),
    ],
)
def test_raise_file_limit(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, files: int, new_soft: int | None, fits: int
) -> None:
    """The limit is raised as far as needed and allowed; one host fits at least."""
    changes: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: changes.append(limits))
    assert raise_file_limit(files, files) == fits
    assert changes == ([] if new_soft is None else [(new_soft, hard)])


@pytest.mark.parametrize(("hosts", "files", "fits"), [(9000, 2, 9000), (100, 200, 68), (100, 101, 100)])
def test_hosts_that_share_files_or_take_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hosts: int, files: int, fits: int
) -> None:
    """Hosts behind a jump host take none of their own, a ProxyCommand two; where they do not fit, one line says so."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (200, 200))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, _limits: None)
    assert raise_file_limit(hosts, files, "{fits} at a time") == fits
    assert caplog.messages == (
        []
        if fits == hosts
        else [
            f"{hosts} hosts need {files + 64} open files, 200 are allowed: {fits} at a time. "
            f"`ulimit -n {files + 64}` as root, or LimitNOFILE={files + 64} in the systemd unit, raises that"
        ]
    )
