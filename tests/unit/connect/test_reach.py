"""Many logins at once, against an SSH server in this process: how many there are at the same time, and how fast."""

import asyncio
import time
from pathlib import Path

import pytest

from fleetmem.connect.reach import Reach
from fleetmem.connect.ssh_settings import JumpSpec, LoginLimits, ReachSettings, SshSettings
from fleetmem.model import Host
from unit.connect.ssh_server import OpenServer, listening

_LOGIN_SECONDS = 0.05


class Server(OpenServer):
    """Lets hosts in after a while, and counts those that are being logged in to."""

    at_work = most_at_work = logins = 0

    async def begin_auth(self, username: str) -> bool:
        """Takes its time for hosts, none for the jump host."""
        if username == "host":
            Server.at_work += 1
            Server.most_at_work = max(Server.most_at_work, Server.at_work)
            await asyncio.sleep(_LOGIN_SECONDS)
            Server.at_work -= 1
            Server.logins += 1
        return False


async def _log_in(folder: Path, hosts: int, limits: LoginLimits, *, has_jump: bool) -> float:
    """Logs in to many hosts at once; returns how long that took."""
    Server.at_work = Server.most_at_work = Server.logins = 0
    async with listening(Server) as acceptor:
        port = acceptor.get_port()
        jumps = (JumpSpec("jump", "127.0.0.1", port),) if has_jump else None
        ssh = SshSettings(
            user="host", port=port, jumps=jumps, known_hosts_path=folder / "known", login_timeout_seconds=30
        )
        reach = Reach(ReachSettings(ssh, limits), lambda _path: None)
        targets = reach.resolve(
            [Host(f"127.0.1.{number}", f"127.0.1.{number}") for number in range(hosts)], lambda _: ssh
        )
        reach.take(targets)
        begun = time.monotonic()

        async def visit(host: Host) -> None:
            async with reach.login(reach.target(host)) as connection:
                connection.close()

        async with asyncio.TaskGroup() as group:
            for host in targets:
                group.create_task(visit(host))
        seconds = time.monotonic() - begun
        await reach.close()
    assert Server.logins == hosts
    return seconds


@pytest.mark.slow
@pytest.mark.parametrize("has_jump", [False, True])
def test_so_many_logins_at_the_same_time(tmp_path: Path, has_jump: bool) -> None:
    """Over all hosts; through a jump host there is a limit of its own."""
    limits = LoginLimits(max_handshakes=6, jump_handshakes=3, handshakes_per_second=0, jump_handshakes_per_second=0)
    asyncio.run(_log_in(tmp_path, 15, limits, has_jump=has_jump))
    assert Server.most_at_work == (3 if has_jump else 6)


@pytest.mark.slow
def test_so_many_logins_in_a_second(tmp_path: Path) -> None:
    """Six at once, the other ten at twenty a second."""
    limits = LoginLimits(max_handshakes=6, handshakes_per_second=20)
    assert asyncio.run(_log_in(tmp_path, 16, limits, has_jump=False)) >= 10 / 20


@pytest.mark.slow
def test_so_many_in_a_second_through_a_jump_host(tmp_path: Path) -> None:
    """Likewise, whatever may go on beside it."""
    limits = LoginLimits(jump_handshakes=4, handshakes_per_second=0, jump_handshakes_per_second=20)
    assert asyncio.run(_log_in(tmp_path, 14, limits, has_jump=True)) >= 10 / 20


def test_two_names_of_one_address_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Once, also over a reload; not where a jump host leads to another machine of that address."""
    hosts = [Host("a", "10.0.0.1"), Host("b", "10.0.0.1"), Host("c", "10.0.0.2"), Host("d", "10.0.0.1", jump="j")]

    def reach(previous: Reach | None) -> Reach:
        made = Reach(ReachSettings(), lambda _path: None, previous)
        made.take(made.resolve(hosts, lambda _host: SshSettings(user="u")), previous)
        return made

    first = reach(None)
    assert [record.getMessage() for record in caplog.records if "one address" in record.getMessage()] == [
        "a and b are one address, which is sampled for each of them"
    ]
    caplog.clear()
    reach(first)
    assert not [record for record in caplog.records if "one address" in record.getMessage()]
