from typing import Any, cast

import pytest
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_IGNORE

from fleetmem.connect.login import send_no_decoys


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
    ("cipher", "sent"),
    [
        (b"aes128-gcm@openssh.com", [MSG_CHANNEL_DATA]),
        (b"chacha20-poly1305@openssh.com", [MSG_CHANNEL_DATA]),
        (b"aes256-ctr", [MSG_CHANNEL_DATA]),
        (b"aes128-cbc", [MSG_IGNORE, MSG_CHANNEL_DATA]),
    ],
)
def test_decoys(cipher: bytes, sent: list[int]) -> None:
    """Empty packets are sent where the cipher is one that they protect."""
    connection = Connection(cipher)
    send_no_decoys(cast("SSHConnection", connection))
    connection.send_packet(MSG_CHANNEL_DATA, b"x", handler=None)
    assert connection.sent == sent
