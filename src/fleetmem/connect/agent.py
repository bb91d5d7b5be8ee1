"""ssh-agent (draft-ietf-sshm-ssh-agent): one connection to it for the whole fleet."""

import asyncio
import socket
import time
from collections.abc import Sequence

import asyncssh

_KEPT_SECONDS = 10.0
_ANSWER_SECONDS = 2.0
_REQUEST_IDENTITIES = b"\0\0\0\1\x0b"
_IDENTITIES_ANSWER = 12
_LONGEST_ANSWER_BYTES = 1 << 20


class Agent:
    """An agent, and the keys that it has."""

    def __init__(self, path: str) -> None:
        self._client = asyncssh.SSHAgentClient(path)
        self._keys: Sequence[asyncssh.SSHKeyPair] = ()
        self._keys_until = 0.0
        self._asking = asyncio.Lock()

    async def keys(self) -> Sequence[asyncssh.SSHKeyPair]:
        """Returns its keys as of the last seconds, certificates and FIDO keys among them; none where it is away."""
        async with self._asking:
            if time.monotonic() >= self._keys_until:
                try:
                    self._keys = await self._client.get_keys()
                except ValueError:  # asyncssh's word for an agent that is away
                    self._keys = ()
                self._keys_until = time.monotonic() + _KEPT_SECONDS
            return self._keys

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


def public_keys(path: str) -> frozenset[bytes]:
    """Returns the public keys that an agent can sign for, before there is an event loop; none where it is away."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_ANSWER_SECONDS)
            sock.connect(path)
            sock.sendall(_REQUEST_IDENTITIES)
            stream = sock.makefile("rb")
            answer = stream.read(min(_number(stream.read(4)), _LONGEST_ANSWER_BYTES))
    except OSError:
        return frozenset()
    if answer[:1] != bytes([_IDENTITIES_ANSWER]):
        return frozenset()
    words: list[bytes] = []
    at = 5
    while at < len(answer):
        size = _number(answer[at : at + 4])
        words.append(answer[at + 4 : at + 4 + size])
        at += 4 + size
    return frozenset(words[::2])  # each key is followed by its comment


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
