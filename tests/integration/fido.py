"""An agent with a FIDO key: there is no token here, so the agent's side of one is done in software; sshd checks it.

PROTOCOL.u2f of OpenSSH has the format of keys and signatures, draft-ietf-sshm-ssh-agent that of the messages.
"""

import base64
import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_KIND = b"sk-ssh-ed25519@openssh.com"
_APPLICATION = b"ssh:"
_USER_WAS_PRESENT = 1
_REQUEST_IDENTITIES, _IDENTITIES_ANSWER, _SIGN_REQUEST, _SIGN_RESPONSE, _FAILURE = 11, 12, 13, 14, 5


@contextmanager
def fido_agent(path: Path) -> Iterator[str]:
    """Runs an agent on a socket; yields its public key, a line for authorized_keys."""
    token = _Token()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        threading.Thread(target=_serve, args=(server, token), daemon=True).start()
        try:
            yield f"{_KIND.decode()} {base64.b64encode(token.public_key).decode()} token\n"
        finally:
            server.shutdown(socket.SHUT_RDWR)


class _Token:
    """What the hardware does: counts, and signs what somebody has touched it for."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._counter = 0
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_key = _string(_KIND) + _string(raw) + _string(_APPLICATION)

    def sign(self, message: bytes) -> bytes:
        """Returns a signature as SSH has it."""
        self._counter += 1
        state = bytes([_USER_WAS_PRESENT]) + self._counter.to_bytes(4, "big")
        signed = hashlib.sha256(_APPLICATION).digest() + state + hashlib.sha256(message).digest()
        return _string(_KIND) + _string(self._key.sign(signed)) + state


def _serve(server: socket.socket, token: _Token) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # it was shut down
            return
        threading.Thread(target=_answer_all, args=(connection, token), daemon=True).start()


def _answer_all(connection: socket.socket, token: _Token) -> None:
    with connection, connection.makefile("rb") as stream:
        while head := stream.read(4):
            connection.sendall(_string(_answer(stream.read(int.from_bytes(head, "big")), token)))


def _answer(request: bytes, token: _Token) -> bytes:
    kind, rest = request[0], request[1:]
    if kind == _REQUEST_IDENTITIES:
        return bytes([_IDENTITIES_ANSWER]) + (1).to_bytes(4, "big") + _string(token.public_key) + _string(b"token")
    if kind == _SIGN_REQUEST:
        key_bytes = int.from_bytes(rest[:4], "big")
        message = rest[4 + key_bytes + 4 : -4]
        if rest[4 : 4 + key_bytes] == token.public_key:
            return bytes([_SIGN_RESPONSE]) + _string(token.sign(message))
    return bytes([_FAILURE])


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
