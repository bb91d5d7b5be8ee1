"""What a host says when it hangs up during a login, against an SSH server in this process."""

import asyncio
from pathlib import Path

import asyncssh
import pytest

from fleetmem.connect.choice import best_connector
from fleetmem.connect.host_keys import HostKeys
from fleetmem.connect.key_ring import KeyRing
from fleetmem.connect.login import Login
from fleetmem.connect.ssh_settings import SshSettings
from fleetmem.connect.way import open_way
from fleetmem.errors import HostError, Kind, Stage
from unit.connect.ssh_server import OpenServer, listening
from unit.connect.targets import resolve


class Server(OpenServer):
    """Says something to everybody who wants to log in, and hangs up."""

    banner = ""
    code = 0
    reason = ""

    def begin_auth(self, username: str) -> bool:
        """Hangs up, with a farewell or without."""
        (connection,) = self.connections
        if self.banner:
            connection.send_auth_banner(self.banner)
        if self.code:
            connection.disconnect(self.code, self.reason)
        else:
            asyncio.get_running_loop().call_later(0.1, connection.abort)
        return True

    def public_key_auth_supported(self) -> bool:
        """Takes keys."""
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Never comes to a verdict."""
        await asyncio.sleep(60)
        return False


@pytest.mark.parametrize(
    ("banner", "code", "reason", "kind", "said"),
    [
        ("System is going down.\r\nBack at 18:00", 0, "", Kind.DISCONNECTED, "System is going down. Back at 18:00"),
        ("", asyncssh.DISC_TOO_MANY_CONNECTIONS, "come back later", Kind.DISCONNECTED, "come back later"),
        ("", asyncssh.DISC_BY_APPLICATION, "account expired", Kind.DISCONNECTED, "account expired"),
        ("", asyncssh.DISC_HOST_KEY_NOT_VERIFIABLE, "no host", Kind.DISCONNECTED, "no host"),
        ("", asyncssh.DISC_ILLEGAL_USER_NAME, "no such user", Kind.AUTH_FAILED, "no such user"),
        ("for staff", asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "go", Kind.AUTH_FAILED, "for staff; go"),
    ],
)
def test_words_of_a_host_that_hangs_up(
    banner: str, code: int, reason: str, kind: Kind, said: str, tmp_path: Path
) -> None:
    """They are in the message, and the failure is one of the login; no code of the host's is taken for our verdict."""
    key = tmp_path / "key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(key))
    Server.banner, Server.code, Server.reason = banner, code, reason

    async def run() -> HostError:
        async with listening(Server) as acceptor:
            ring = KeyRing(lambda _path: None)
            ssh = SshSettings(known_hosts_path=tmp_path / "known", user="u", key_paths=(key,))
            target = resolve("127.0.0.1", ssh, port=acceptor.get_port())
            ring.prepare(target.access.identities)
            with pytest.raises(HostError) as caught:
                await Login(HostKeys(), ring, best_connector()).connect(target, await open_way(target))
            return caught.value

    error = asyncio.run(run())
    assert (error.stage, error.kind) == (Stage.LOGIN, kind)
    assert said in error.message
