"""An ssh agent in a thread, which does as it is told."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncssh
from asyncssh.packet import SSHPacket, String, UInt32

_LIST, _SIGN = 11, 13
_FAILURE = b"\x05"


class ScriptedAgent:
    """Answers as an agent with one key does, or not.

    Attributes:
        path: of its socket.
        does: what it does with a question for keys (`list`) and for a signature (`sign`): answers `well`, never
            (`hang`), after `seconds` (`slow`), with `refuse`, or with any other bytes, after which it hangs up.
        seconds: how long `slow` takes.
        asked: the questions so far.
    """

    def __init__(self, path: Path, key: asyncssh.SSHKey) -> None:
        self.path = path
        self.does: dict[str, str | bytes] = {"list": "well", "sign": "well"}
        self.seconds = 0.0
        self.asked: list[str] = []
        self._key = key
        self._ending = threading.Event()
        self._socket: socket.socket | None = None
        self._connections: list[socket.socket] = []

    def start(self) -> None:
        """Listens, on a socket of its own where there was one before."""
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen(50)
        threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    def stop(self) -> None:
        """Goes away, with its connections; the socket's file stays."""
        if self._socket:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def end(self) -> None:
        """Goes away for good."""
        self._ending.set()
        self.stop()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection = listening.accept()[0]
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError), connection:
            while True:
                question = _read(connection, int.from_bytes(_read(connection, 4), "big"))
                what = {_LIST: "list", _SIGN: "sign"}[question[0]]
                self.asked.append(what)
                does = self.does[what]
                if isinstance(does, bytes):
                    connection.sendall(does)
                    return
                if does == "hang":
                    self._ending.wait()
                    return
                if does == "slow":
                    self._ending.wait(self.seconds)
                answer = _FAILURE if does == "refuse" else self._answer(SSHPacket(question))
                connection.sendall(String(answer))

    def _answer(self, question: SSHPacket) -> bytes:
        if question.get_byte() == _LIST:
            return b"\x0c" + UInt32(1) + String(self._key.public_data) + String(b"scripted")
        question.get_string()
        return b"\x0e" + String(self._key.sign(question.get_string(), self._key.sig_algorithms[0]))


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


@contextmanager
def scripted_agent(path: Path, key: asyncssh.SSHKey) -> Iterator[ScriptedAgent]:
    """Starts one."""
    agent = ScriptedAgent(path, key)
    agent.start()
    try:
        yield agent
    finally:
        agent.end()
