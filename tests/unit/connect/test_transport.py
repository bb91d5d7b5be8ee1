import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleetmem.connect import transport
from fleetmem.connect.target import Target
from fleetmem.connect.transport import ProxyCommand, open_socket
from fleetmem.errors import HostError, Kind, Stage
from fleetmem.runtime import children
from unit.builders import is_running
from unit.connect.targets import resolve

_PATIENCE_SECONDS = 30
_LOST = HostError(Stage.LOGIN, Kind.DISCONNECTED, "connection lost")


def test_a_proxy_command_is_a_connection() -> None:
    """What is sent is its standard input, and what it prints comes back, through a shell as ssh has it."""

    async def talk() -> bytes:
        proxy, sock = await ProxyCommand.start("sed -u 's/ping/pong/' && true")
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(sock, b"ping\n")
            return await loop.sock_recv(sock, 100)
        finally:
            sock.close()
            proxy.close()
            await proxy.ended.wait()

    assert asyncio.run(talk()) == b"pong\n"


def test_what_a_proxy_command_says() -> None:
    """Its words on stderr, and its status, explain why there is no connection; other failures stay as they are."""

    async def fail() -> tuple[HostError, HostError]:
        proxy, sock = await ProxyCommand.start("sh -c 'echo no route to $0 >&2; exit 7' host")
        await asyncio.get_running_loop().sock_recv(sock, 100)
        sock.close()
        refused = HostError(Stage.LOGIN, Kind.AUTH_FAILED, "refused")
        return await proxy.explain(_LOST), await proxy.explain(refused)

    lost, other = asyncio.run(fail())
    assert (lost.stage, lost.kind) == (Stage.CONNECT, Kind.UNREACHABLE)
    assert lost.message == "ProxyCommand ended with status 7: no route to host"
    assert other.message == "refused"


@pytest.fixture
def hangup() -> Iterator[None]:
    """A hangup means what it usually does, also where the tests were started by `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
def test_a_proxy_command_ends_with_its_connection(tmp_path: Path) -> None:
    """One that does not care about its input is ended by a signal, as ssh ends it."""
    script = f"trap 'echo hangup > {tmp_path}/log; exit 1' HUP; echo ready; while :; do sleep 0.05; done"

    async def close() -> None:
        proxy, sock = await ProxyCommand.start(f'sh -c "{script}"')
        await asyncio.get_running_loop().sock_recv(sock, 100)
        sock.close()
        proxy.close()
        await asyncio.wait_for(proxy.ended.wait(), _PATIENCE_SECONDS)

    asyncio.run(close())
    assert (tmp_path / "log").read_text() == "hangup\n"


@pytest.mark.slow
def test_a_proxy_command_that_minds_no_hangup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below `nohup` no program minds one: it is killed, or each connection that ends would leave one behind."""
    monkeypatch.setattr(transport, "_HANGUP_SECONDS", 0.3)

    async def close() -> None:
        proxy, sock = await ProxyCommand.start("sh -c \"trap '' HUP; echo ready; while :; do sleep 0.05; done\"")
        await asyncio.get_running_loop().sock_recv(sock, 100)
        sock.close()
        proxy.close()
        await asyncio.sleep(0.1)
        assert not proxy.ended.is_set()
        await asyncio.wait_for(proxy.ended.wait(), _PATIENCE_SECONDS)

    asyncio.run(close())


def _at(port: int, **access: object) -> Target:
    target = resolve("127.0.0.1", port=port)
    return replace(target, access=replace(target.access, **access))  # type: ignore[arg-type]


def test_an_address_to_connect_from() -> None:
    """BindAddress is where the connection comes from."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with asyncio.run(open_socket(_at(port, bind_address="127.0.0.9"))):
            connection, peer = server.accept()
            connection.close()
    assert peer[0] == "127.0.0.9"


def test_an_address_that_is_not_ours() -> None:
    """It cannot be connected from; the message says so."""
    with pytest.raises(HostError) as caught:
        asyncio.run(open_socket(_at(9, bind_address="192.0.2.1")))
    assert (caught.value.kind, caught.value.message) == (Kind.UNREACHABLE, "cannot assign requested address")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may choose an interface on old kernels")
def test_an_interface_to_connect_through() -> None:
    """BindInterface: the loopback device leads to ourselves; one that is not there leads nowhere."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        asyncio.run(open_socket(_at(port, bind_interface="lo"))).close()
        with pytest.raises(HostError, match="no such device"):
            asyncio.run(open_socket(_at(port, bind_interface="nosuchdevice")))


def test_a_family_of_addresses() -> None:
    """AddressFamily inet6 finds no way to an IPv4 address."""
    with pytest.raises(HostError) as caught:
        asyncio.run(open_socket(_at(22, family=socket.AF_INET6)))
    assert caught.value.kind is Kind.UNRESOLVABLE


def test_a_proxy_command_knows_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting of fleetmem may be a password."""
    monkeypatch.setenv("FLEETMEM_SSH__USER", "secret")
    monkeypatch.setenv("ONE", "1")

    async def ask() -> bytes:
        proxy, sock = await ProxyCommand.start("sh -c 'echo $ONE $FLEETMEM_SSH__USER; cat'")
        try:
            return await asyncio.get_running_loop().sock_recv(sock, 100)
        finally:
            sock.close()
            proxy.close()
            await proxy.ended.wait()

    assert asyncio.run(ask()) == b"1\n"


@pytest.mark.parametrize("ends", ["close", "kill_all"])
def test_all_of_a_proxy_command_ends(tmp_path: Path, ends: str) -> None:
    """Programs in its pipeline end with it, also where fleetmem is ended in a hurry."""
    pid_file = tmp_path / "pid"

    async def run() -> None:
        proxy, sock = await ProxyCommand.start(f"sh -c 'sleep 61 & echo $! > {pid_file}; echo ready; wait' && true")
        await asyncio.get_running_loop().sock_recv(sock, 100)
        if ends == "close":
            proxy.close()
        else:
            children.kill_all()
        await asyncio.wait_for(proxy.ended.wait(), _PATIENCE_SECONDS)
        sock.close()

    asyncio.run(run())
    deadline = time.monotonic() + 10
    while is_running(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(int(pid_file.read_text()))
