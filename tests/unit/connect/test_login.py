"""From an open way to a connection that is logged in, or to a reason and a closed way; against SSH in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from fleetmem.connect.choice import best_connector
from fleetmem.connect.host_keys import HostKeys
from fleetmem.connect.key_ring import KeyRing
from fleetmem.connect.login import Login
from fleetmem.connect.openssh.targets import Targets
from fleetmem.connect.ssh_settings import HostKeyPolicy, LoginLimits, ReachSettings, SshSettings
from fleetmem.connect.target import Target
from fleetmem.connect.way import Way, open_way
from fleetmem.errors import HostError, Kind, Stage
from fleetmem.model import Host
from unit.connect.ssh_server import OpenServer, listening


class Server(OpenServer):
    """Lets in who has the key.

    Attributes:
        key: the one that it takes, in OpenSSH's words.
        has_verdict: whether it ever says what it thinks of a key.
        asked: set when a key was offered.
    """

    key = b""
    has_verdict = True
    asked: asyncio.Event

    def begin_auth(self, _username: str) -> bool:
        """Wants a key."""
        return True

    def public_key_auth_supported(self) -> bool:
        """Takes keys."""
        return True

    async def validate_public_key(self, _username: str, key: asyncssh.SSHKey) -> bool:
        """Looks whether it is the one."""
        self.asked.set()
        if not self.has_verdict:
            await asyncio.sleep(60)
        return key.export_public_key() == self.key


class Site:
    """What logs in to the server.

    Args:
        port: of the server.
        folder: for keys and known hosts.
        limit_seconds: of the login.
    """

    def __init__(self, port: int, folder: Path, limit_seconds: float) -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(folder / "key"))
        self.public_key = key.export_public_key()
        self.known = folder / "known"
        self.keys = KeyRing(lambda _path: None)
        self.login = Login(HostKeys(), self.keys, best_connector())
        self.closed = 0
        self._port = port
        self._folder = folder
        self._limit_seconds = limit_seconds

    def target(self, policy: HostKeyPolicy = HostKeyPolicy.ACCEPT_NEW) -> Target:
        """Returns the server as a host."""
        ssh = SshSettings(
            known_hosts_path=self.known,
            host_key_policy=policy,
            user="u",
            key_paths=(self._folder / "key",),
            login_timeout_seconds=self._limit_seconds,
        )
        host = Host("127.0.0.1", "127.0.0.1", port=self._port)
        target = Targets(ReachSettings(ssh, LoginLimits())).resolve(host, ssh)
        self.keys.prepare(target.access.identities)
        return target

    async def way(self, target: Target) -> Way:
        """Returns the way there, which counts how often it is closed."""
        way = await open_way(target)
        way.on_close = self._note_closed
        return way

    def _note_closed(self) -> None:
        self.closed += 1


@asynccontextmanager
async def _site(folder: Path, *, has_verdict: bool = True, limit_seconds: float = 5.0) -> AsyncIterator[Site]:
    Server.has_verdict, Server.asked = has_verdict, asyncio.Event()
    async with listening(Server) as acceptor:
        site = Site(acceptor.get_port(), folder, limit_seconds)
        Server.key = site.public_key
        yield site


def test_a_login(tmp_path: Path) -> None:
    """It opens a connection that works, notes the host's key, and closes the way with the connection, not before."""

    async def main() -> None:
        async with _site(tmp_path) as site:
            target = site.target()
            connection = await site.login.connect(target, await site.way(target))
            assert site.closed == 0
            assert connection.get_extra_info("username") == "u"
            connection.abort()
            await connection.wait_closed()
            assert site.closed == 1
            assert "ssh-ed25519" in site.known.read_text()

    asyncio.run(main())


def test_the_keys_that_it_would_offer(tmp_path: Path) -> None:
    """They are told apart from others by their public part, which is what a person may have changed."""

    async def main() -> None:
        async with _site(tmp_path) as site:
            offered = await site.login.public_keys(site.target())
            assert offered == {asyncssh.import_public_key(site.public_key).public_data}

    asyncio.run(main())


def test_a_key_that_the_host_does_not_take(tmp_path: Path) -> None:
    """The refusal names the key and the user, and the way is closed at once."""

    async def main() -> None:
        async with _site(tmp_path) as site:
            Server.key = b"another one"
            target = site.target()
            with pytest.raises(HostError) as caught:
                await site.login.connect(target, await site.way(target))
            assert (caught.value.stage, caught.value.kind) == (Stage.LOGIN, Kind.AUTH_FAILED)
            assert str(tmp_path / "key") in caught.value.message
            assert site.closed == 1

    asyncio.run(main())


def test_a_host_that_nobody_knows(tmp_path: Path) -> None:
    """No key is offered to it, and it is not noted."""

    async def main() -> None:
        async with _site(tmp_path) as site:
            target = site.target(HostKeyPolicy.STRICT)
            with pytest.raises(HostError) as caught:
                await site.login.connect(target, await site.way(target))
            assert caught.value.kind is Kind.HOST_KEY_UNKNOWN
            assert not site.known.exists()
            assert site.closed == 1

    asyncio.run(main())


@pytest.mark.slow
def test_a_host_that_never_decides(tmp_path: Path) -> None:
    """The login ends when its time is over, and the way with it."""

    async def main() -> None:
        async with _site(tmp_path, has_verdict=False, limit_seconds=0.5) as site:
            target = site.target()
            with pytest.raises(HostError) as caught:
                await site.login.connect(target, await site.way(target))
            assert (caught.value.stage, caught.value.kind) == (Stage.LOGIN, Kind.LOGIN_TIMEOUT)
            assert site.closed == 1

    asyncio.run(main())


def test_a_login_that_is_cancelled(tmp_path: Path) -> None:
    """A stop or a reload leaves no way open."""

    async def main() -> None:
        async with _site(tmp_path, has_verdict=False) as site:
            target = site.target()
            way = await site.way(target)
            login = asyncio.create_task(site.login.connect(target, way))
            await asyncio.wait_for(Server.asked.wait(), 10)
            login.cancel()
            with pytest.raises(asyncio.CancelledError):
                await login
            assert site.closed == 1

    asyncio.run(main())
