"""What goes together in a login, against an SSH server in this process (round trips: integration)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_OPEN, MSG_IGNORE

from fleetmem.connect.asyncssh_private.pipelined import PipelinedConnector, send_no_decoys
from fleetmem.connect.host_keys import HostKeys
from fleetmem.connect.key_ring import KeyRing
from fleetmem.connect.login import Login
from fleetmem.connect.ssh_settings import SshSettings
from fleetmem.connect.way import open_way
from fleetmem.errors import HostError, Kind
from unit.connect.ssh_server import OpenServer, listening
from unit.connect.targets import resolve


class Server(OpenServer):
    """Lets in who has the right key, or anybody who asks for `none`."""

    right_key = b""
    has_open_door = False

    def begin_auth(self, username: str) -> bool:
        """Wants a key, of everybody but `anybody`."""
        return username != "anybody"

    def public_key_auth_supported(self) -> bool:
        """Takes keys."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Takes the right one."""
        return key.public_data == Server.right_key


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What clients ask for, in order: `none`, `query` or `signed` for a key, `ahead` or `channel` for a channel."""
    asked: list[str] = []
    send_request, send_packet = SSHConnection.send_userauth_request, SSHConnection.send_packet

    async def note_request(self: SSHConnection, method: bytes, *args: bytes, key: Any = None, **kwargs: Any) -> None:
        asked.append("signed" if key else {b"none": "none", b"publickey": "query"}[method])
        await send_request(self, method, *args, key=key, **kwargs)

    def note_packet(self: SSHConnection, pkttype: int, *args: bytes, **kwargs: Any) -> None:
        if pkttype == MSG_CHANNEL_OPEN and self._auth_complete:
            asked.append("ahead" if self._auth_in_progress else "channel")
        send_packet(self, pkttype, *args, **kwargs)

    monkeypatch.setattr(SSHConnection, "send_userauth_request", note_request)
    monkeypatch.setattr(SSHConnection, "send_packet", note_packet)
    return asked


class FleetParts:
    """Logs in with some keys, and asks for a channel."""

    def __init__(self, folder: Path, port: int, keys: list[Path]) -> None:
        self._ring = KeyRing(lambda _path: None)
        self._login = Login(HostKeys(), self._ring, PipelinedConnector())
        self._folder = folder
        self._port = port
        self._keys = tuple(keys)

    async def log_in(self, host: int = 1, *, user: str = "u", is_compressed: bool = False) -> None:
        """Logs in to a host, and leaves it."""
        config = self._folder / "config"
        config.write_text(f"Compression {'yes' if is_compressed else 'no'}\n")
        ssh = SshSettings(known_hosts_path=self._folder / "known", user=user, key_paths=self._keys)
        target = resolve(f"127.0.3.{host}", ssh, config=config, port=self._port)
        self._ring.prepare(target.access.identities)
        opening: list[asyncio.Task[Any]] = []

        def begin(connection: asyncssh.SSHClientConnection) -> None:
            opening.append(asyncio.create_task(connection.create_session(asyncssh.SSHClientSession, "true")))

        try:
            connection = await self._login.connect(target, await open_way(target), on_begun=begin)
            with suppress(asyncssh.ChannelOpenError):  # this server has none
                await opening[0]
            connection.close()
            await connection.wait_closed()
        finally:
            await asyncio.wait(opening)
            opening[0].exception()


def _key(path: Path) -> Path:
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(path))
    path.chmod(0o600)
    return path


@asynccontextmanager
async def _fleet(folder: Path, *, version: str = "OpenSSH_9.2p1", wrong_keys: int = 0) -> AsyncIterator[FleetParts]:
    """A server, and who has its key behind so many others."""
    keys = [_key(folder / f"key{number}") for number in range(wrong_keys + 1)]
    Server.right_key = asyncssh.read_private_key(str(keys[-1])).public_data
    async with listening(Server, server_version=version) as acceptor:
        yield FleetParts(folder, acceptor.get_port(), keys)


def test_a_key_signs_at_once(sent: list[str], tmp_path: Path) -> None:
    """Nobody asks for `none`, or whether the key would do; the first channel waits for the login."""

    async def run() -> None:
        async with _fleet(tmp_path) as fleet:
            await fleet.log_in()

    asyncio.run(run())
    assert sent == ["signed", "channel"]


def test_a_key_that_others_took_brings_the_channel_along(sent: list[str], tmp_path: Path) -> None:
    """It is sent behind the signed request, and not again."""

    async def run() -> None:
        async with _fleet(tmp_path) as fleet:
            await fleet.log_in(1)
            await fleet.log_in(2)

    asyncio.run(run())
    assert sent == ["signed", "channel", "signed", "ahead"]


@pytest.mark.parametrize(
    ("version", "is_compressed"), [("AsyncSSH_2.24", False), ("dropbear_2024.85", False), ("OpenSSH_9.2p1", True)]
)
def test_not_to_other_servers_and_not_compressed(
    version: str, is_compressed: bool, sent: list[str], tmp_path: Path
) -> None:
    """Others may hang up; and what is compressed from the login on must not be sent before."""

    async def run() -> None:
        async with _fleet(tmp_path, version=version) as fleet:
            await fleet.log_in(1, is_compressed=is_compressed)
            await fleet.log_in(2, is_compressed=is_compressed)

    asyncio.run(run())
    assert sent == ["signed", "channel"] * 2


def test_the_next_key_after_a_refusal(sent: list[str], tmp_path: Path) -> None:
    """Each is signed at once, up to the one that is taken."""

    async def run() -> None:
        async with _fleet(tmp_path, wrong_keys=2) as fleet:
            await fleet.log_in()

    asyncio.run(run())
    assert sent == ["signed", "signed", "signed", "channel"]


def test_none_comes_last(sent: list[str], tmp_path: Path) -> None:
    """A host that wants no key lets us in without one; one that refuses all keys is asked for `none`, once."""

    async def run() -> None:
        async with _fleet(tmp_path) as fleet:
            fleet._keys = ()
            await fleet.log_in(user="anybody")
            assert sent == ["none", "channel"]
            sent.clear()
            fleet._keys = (_key(tmp_path / "other"),)
            with pytest.raises(HostError) as refusal:
                await fleet.log_in()
            assert refusal.value.kind is Kind.AUTH_FAILED

    asyncio.run(run())
    assert sent == ["signed", "none"]


class Connection:
    """Sends as asyncssh does: an empty packet first."""

    def __init__(self, cipher: bytes) -> None:
        self._enc_alg_cs = self._enc_alg_sc = cipher
        self.sent: list[int] = []

    def send_packet(self, type_: int, *args: bytes, handler: Any = None) -> None:
        """Sends a packet."""
        if type_ != MSG_IGNORE:
            self.send_packet(MSG_IGNORE, b"")
        self.sent.append(type_)


@pytest.mark.parametrize(
    ("cipher", "sent_types"),
    [
        (b"aes128-gcm@openssh.com", [MSG_CHANNEL_DATA]),
        (b"chacha20-poly1305@openssh.com", [MSG_CHANNEL_DATA]),
        (b"aes256-ctr", [MSG_CHANNEL_DATA]),
        (b"aes128-cbc", [MSG_IGNORE, MSG_CHANNEL_DATA]),
    ],
)
def test_decoys(cipher: bytes, sent_types: list[int]) -> None:
    """Empty packets are sent where the cipher is one that they protect."""
    connection = Connection(cipher)
    send_no_decoys(cast("SSHConnection", connection))
    connection.send_packet(MSG_CHANNEL_DATA, b"x", handler=None)
    assert connection.sent == sent_types


async def _keep_talking(host: asyncssh.SSHServerConnection, times: int, less_than_seconds: float) -> bool:
    """Returns whether no pause was longer than it may be, as one is where the machine is busy."""
    longest_seconds = 0.0
    for _ in range(times):
        begun = time.monotonic()
        host.send_debug("still here")
        await asyncio.sleep(0.1)
        longest_seconds = max(longest_seconds, time.monotonic() - begun)
    return longest_seconds < 0.75 * less_than_seconds


@pytest.mark.slow
def test_a_silent_host_is_asked_whether_it_lives_and_then_given_up(tmp_path: Path) -> None:
    """Not while it is heard of, though no timer is set anew for that."""
    key = _key(tmp_path / "key")
    Server.right_key = asyncssh.read_private_key(str(key)).public_data

    async def run() -> None:
        async with listening(Server) as acceptor:
            ring = KeyRing(lambda _path: None)
            ssh = SshSettings(known_hosts_path=tmp_path / "known", user="u", key_paths=(key,), keepalive_seconds=0.2)
            target = resolve("127.0.0.1", ssh, port=acceptor.get_port())
            ring.prepare(target.access.identities)
            connection = await Login(HostKeys(), ring, PipelinedConnector()).connect(target, await open_way(target))
            (host,) = Server.connections
            asked, twice = list[object](), asyncio.Event()
            answer = host._process_keepalive_at_openssh_dot_com_global_request

            def note(packet: Any) -> None:
                asked.append(packet)
                answer(packet)
                if len(asked) == 2:
                    twice.set()

            host.__dict__["_process_keepalive_at_openssh_dot_com_global_request"] = note
            async with asyncio.timeout(30):
                while not await _keep_talking(host, 8, less_than_seconds=0.2):
                    asked.clear()
            assert not asked
            twice.clear()
            async with asyncio.timeout(10):
                await twice.wait()  # it is asked, and answers
                cast("Any", host._transport).pause_reading()
                await connection.wait_closed()

    asyncio.run(run())
