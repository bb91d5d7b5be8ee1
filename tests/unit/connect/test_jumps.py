"""Jump hosts against SSH servers in this process: what is shared, kept, closed and made again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from fleetmem.connect import jumps
from fleetmem.connect.backoff import NotTriedError
from fleetmem.connect.choice import best_connector
from fleetmem.connect.host_keys import HostKeys
from fleetmem.connect.jumps import Jump, Jumps
from fleetmem.connect.key_ring import KeyRing
from fleetmem.connect.login import Login
from fleetmem.connect.ssh_settings import JumpSpec, LoginLimits, SshSettings
from fleetmem.connect.target import Target
from fleetmem.connect.way import Way
from fleetmem.errors import HostError, Kind
from unit.connect.ssh_server import OpenServer, listening
from unit.connect.targets import resolve


class Server(OpenServer):
    """Counts logins.

    Attributes:
        logins: so far.
        users: whose connections are open; hosts are user `u`.
    """

    logins = 0
    users: list[str]

    def begin_auth(self, username: str) -> bool:
        """Counts; no authentication is needed."""
        self._user = username
        Server.logins += 1
        Server.users.append(username)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Counts."""
        Server.users.remove(self._user)


class Site:
    """A server that is jump host and host at once, and what logs in to it."""

    def __init__(self, acceptor: asyncssh.SSHAcceptor, port: int, folder: Path) -> None:
        self.acceptor = acceptor
        self.port = port
        self._ssh = SshSettings(known_hosts_path=folder / "known", user="u")
        self._keys = KeyRing(lambda _path: None)
        self.login = Login(HostKeys(), self._keys, best_connector())
        self.jumps = Jumps(self.login, LoginLimits())

    def host(self, *through: str) -> Target:
        """Returns a host behind jump hosts, all of them this server, as different users."""
        specs = tuple(JumpSpec(user, "127.0.0.1", self.port) for user in through)
        ssh = SshSettings(known_hosts_path=self._ssh.known_hosts_path, user="u", jumps=specs)
        return resolve("127.0.0.2", ssh, port=self.port)

    def jump(self, target: Target, of: Jumps | None = None) -> Jump:
        """Returns the last jump host before a host."""
        jump = (of or self.jumps).of(target.jumps)
        assert jump
        return jump

    async def connect(self, target: Target) -> asyncssh.SSHClientConnection:
        """Logs in to a host."""
        way: Way = await self.jump(target).way_to(target)
        return await self.login.connect(target, way)


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """Starts a server."""
    Server.logins, Server.users = 0, []
    async with listening(Server) as acceptor:
        here = Site(acceptor, acceptor.get_port(), folder)
        yield here
        here.jumps.close()


async def until(is_so: Callable[[], bool]) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


def test_one_connection_for_all(tmp_path: Path) -> None:
    """Ten hosts at the same time: one login at the jump host, and one at each host."""

    async def main() -> int:
        async with site(tmp_path) as here, asyncio.TaskGroup() as group:
            tasks = [group.create_task(here.connect(here.host("a"))) for _ in range(10)]
            for task in tasks:
                (await task).close()
            return Server.logins

    assert asyncio.run(main()) == 1 + 10


def test_ways_that_are_written_differently(tmp_path: Path) -> None:
    """What is the same user at the same place is the same jump host; another way to it is another one."""

    async def main() -> None:
        async with site(tmp_path) as here:
            one = here.jump(here.host("a"))
            assert here.jump(here.host("a")) is one
            assert here.jump(here.host("b")) is not one
            assert here.jump(here.host("b", "a")) is not one
            await here.connect(here.host("b", "a"))
            await here.connect(here.host("b"))  # is on that way already
            assert sorted(Server.users) == ["a", "b", "u", "u"]

    asyncio.run(main())


@pytest.mark.slow
def test_what_nobody_uses_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some time after the last host has left, the jump hosts on its way are closed; the next one makes them anew."""
    monkeypatch.setattr(jumps, "_UNUSED_SECONDS", 0.1)

    async def main() -> int:
        async with site(tmp_path) as here:
            target = here.host("a", "b")
            one, other = await here.connect(target), await here.connect(target)
            one.close()
            await asyncio.sleep(0.2)
            assert sorted(Server.users) == ["a", "b", "u"]
            other.close()
            await until(lambda: not Server.users)
            (await here.connect(target)).close()
            return Server.logins

    assert asyncio.run(main()) == 2 + 2 + 2 + 1


def test_the_next_host_keeps_it_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One host after the other, as `collect --single` takes them: the connection stays in between."""
    monkeypatch.setattr(jumps, "_UNUSED_SECONDS", 5.0)

    async def main() -> int:
        async with site(tmp_path) as here:
            for _ in range(5):
                connection = await here.connect(here.host("a"))
                connection.close()
                await connection.wait_closed()
            return Server.logins

    assert asyncio.run(main()) == 1 + 5


def test_a_connection_that_was_lost_is_made_again(tmp_path: Path) -> None:
    """By the next host that needs it."""

    async def main() -> int:
        async with site(tmp_path) as here:
            target = here.host("a")
            host = await here.connect(target)
            (theirs,) = (each for each in Server.connections if each.get_extra_info("username") == "a")
            theirs.abort()
            await host.wait_closed()  # its bytes went through that connection
            await here.connect(target)
            return Server.logins

    assert asyncio.run(main()) == 2 * 2


def test_failures_are_the_jump_hosts(tmp_path: Path) -> None:
    """It is tried once, and all that need it hear so for a while; what only the host refuses is the host's."""

    async def main() -> None:
        async with site(tmp_path) as here:
            target = here.host("a")
            here.acceptor.close()
            await here.acceptor.wait_closed()
            for wait in ("", "; next attempt in 2 s"):
                with pytest.raises(NotTriedError) as caught:
                    await here.connect(target)
                assert caught.value.kind is Kind.UNREACHABLE
                assert caught.value.with_wait() == f"jump host a@127.0.0.1:{here.port}: connection refused{wait}"
            with pytest.raises(NotTriedError):
                here.jump(target).check()

    async def other() -> None:
        async with site(tmp_path) as here:
            nobody = resolve("127.0.0.2", port=1)
            with pytest.raises(HostError) as caught:
                await here.login.connect(nobody, await here.jump(here.host("a")).way_to(nobody))
            assert not isinstance(caught.value, NotTriedError)
            assert caught.value.kind is Kind.UNREACHABLE
            assert f"through a@127.0.0.1:{here.port}: the jump host cannot reach it" in str(caught.value)

    asyncio.run(main())
    asyncio.run(other())


def test_a_reload_keeps_what_is_reached_alike(tmp_path: Path) -> None:
    """Connections go over to the jump hosts of the next configuration; those that it does not have are left behind."""

    async def main() -> int:
        async with site(tmp_path) as here:
            kept, left = here.host("a", "b"), here.host("c")
            await here.connect(kept)
            await here.connect(left)
            new = Jumps(here.login, LoginLimits())
            new.adopt(here.jumps, [kept.jumps, kept.jumps])
            here.jumps.close()
            await until(lambda: sorted(Server.users) == ["a", "b", "u"])
            await here.login.connect(kept, await here.jump(kept, new).way_to(kept))
            new.close()
            return Server.logins

    assert asyncio.run(main()) == 2 + 1 + 1 + 1 + 1
