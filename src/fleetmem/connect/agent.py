"""ssh-agent (draft-ietf-sshm-ssh-agent): every question to it has a limit, and its failure is no host's.

    KeyRing ──keys──> Agent ──one question for all who wait──> the agent's socket
    login ──sign──> AgentKey ──> Agent.sign ──a connection of its own──^

Each question has a connection of its own: one that is given up leaves no late answer behind, and an agent that was
started again is found at once.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

from fleetmem.connect import wire
from fleetmem.connect.ssh import asyncssh
from fleetmem.connect.ssh_settings import AGENT_ANSWER_SECONDS
from fleetmem.errors import reason_of

_SIGN_SECONDS = 60.0  # somebody may have to touch a token or to say yes; the login's own limit is mostly shorter
_KEPT_SECONDS = 10.0
_MOST_SIGNATURES = 8  # at the same time
_BUSY_SECONDS = 0.02  # after which a socket is tried again whose queue is full

_REQUEST_IDENTITIES = b"\x0b"
_IDENTITIES_ANSWER = 12
_SIGN_REQUEST = b"\x0d"
_SIGN_RESPONSE = 14
_FAILURE = 5
_SIGN_FLAGS = {b"rsa-sha2-256": 2, b"rsa-sha2-512": 4}
_LONGEST_ANSWER_BYTES = 1 << 20
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED)


class AgentError(ValueError):
    """An agent did not do what it was asked; the message names it. A ValueError: asyncssh then tries the next key.

    Attributes:
        is_absent: whether nobody listens there, and nobody has since the start: the same as no agent.
    """

    def __init__(self, message: str, *, is_absent: bool = False) -> None:
        super().__init__(message)
        self.is_absent = is_absent


class Signing:
    """What an agent does for one login.

    Attributes:
        problem: why a signature is missing; None while none is.
    """

    def __init__(self) -> None:
        self.problem: AgentError | None = None
        self._path = ""
        self._since: float | None = None

    def begin(self, path: str) -> None:
        """Notes that an agent has been asked for a signature."""
        self._path, self._since = path, time.monotonic()

    def end(self, problem: AgentError | None = None) -> None:
        """Notes that it has answered, or what kept it from doing so."""
        self._since = None
        self.problem = problem or self.problem

    def overdue(self, limit_seconds: float) -> AgentError | None:
        """Returns what to say of a login that had to end: the agent took more than half of its time."""
        if self._since is None or time.monotonic() - self._since < limit_seconds / 2:
            return None
        waited_seconds = time.monotonic() - self._since
        return AgentError(f"ssh agent {self._path} listed its keys and did not sign within {waited_seconds:.0f} s")


class AgentKey(asyncssh.SSHAgentKeyPair):
    """A key that an agent has.

    Attributes:
        signing: of the login that this copy is for.
    """

    signing: Signing | None = None

    def __init__(self, agent: "Agent", algorithm: bytes, public_data: bytes, comment: bytes) -> None:
        super().__init__(agent, algorithm, public_data, comment)  # type: ignore[arg-type]
        self._of = agent

    async def sign_async(self, data: bytes) -> bytes:
        """Returns a signature. Raises AgentError where there is none; asyncssh calls this."""
        signing = self.signing or Signing()
        signing.begin(self._of.path)
        try:
            signature = await self._of.sign(self.key_public_data, data, _SIGN_FLAGS.get(self.sig_algorithm, 0))
        except AgentError as error:
            signing.end(error)
            raise
        signing.end()  # not where the login was given up meanwhile: that is what `overdue` tells
        return signature


class Agent:
    """An agent, and the keys that it has.

    Args:
        path: of its socket.

    Attributes:
        problem: why it did not say last time which keys it has; None where it did, or has not been asked.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._keys: Sequence[asyncssh.SSHKeyPair] = ()
        self._keys_until = 0.0
        self._has_answered = False
        self.problem: AgentError | None = None
        self._question: asyncio.Task[None] | None = None
        self._places = asyncio.Semaphore(_MOST_SIGNATURES)

    async def keys(self, *, is_needed: bool) -> Sequence[asyncssh.SSHKeyPair]:
        """Returns its keys as of the last seconds, certificates and FIDO keys among them.

        Args:
            is_needed: whether there are no other keys. Otherwise nobody waits for an agent that did not answer last
                time; it is asked all the same, for the next login.

        Raises:
            AgentError: it does not say which.
        """
        if time.monotonic() >= self._keys_until:
            if self._question is None:
                self._question = asyncio.create_task(self._ask_keys())
            if is_needed or not self.problem:
                await asyncio.shield(self._question)
        if self.problem:
            raise self.problem
        return self._keys

    async def sign(self, public_data: bytes, data: bytes, flags: int) -> bytes:
        """Returns a signature.

        Raises:
            AgentError: it does not sign.
        """
        question = _SIGN_REQUEST + wire.string(public_data) + wire.string(data) + wire.uint32(flags)
        try:
            async with asyncio.timeout(_SIGN_SECONDS), self._places:
                kind, answer = await self._ask(question)
            if kind == _SIGN_RESPONSE:
                return answer.string()
        except TimeoutError as error:
            raise AgentError(f"ssh agent {self.path} did not sign within {_SIGN_SECONDS:.0f} s") from error
        except wire.WireError as error:
            raise self._nonsense() from error
        self._keys_until = 0.0
        if kind == _FAILURE:
            raise AgentError(f"ssh agent {self.path} refused to sign: it is locked, or somebody said no")
        raise self._nonsense()

    async def _ask_keys(self) -> None:
        """Asks for its keys on behalf of everybody who waits."""
        try:
            async with asyncio.timeout(AGENT_ANSWER_SECONDS):
                self._keys = _parse_keys(self, *await self._ask(_REQUEST_IDENTITIES))
        except TimeoutError:
            self.problem = AgentError(f"ssh agent {self.path} did not answer within {AGENT_ANSWER_SECONDS:.0f} s")
        except AgentError as error:
            self.problem = error
        else:
            self.problem, self._has_answered = None, True
            self._keys_until = time.monotonic() + _KEPT_SECONDS
        finally:
            self._question = None

    async def _ask(self, question: bytes) -> tuple[int, wire.WireReader]:
        """Returns kind and rest of the answer to a question; there is no limit but that of the caller.

        Raises:
            AgentError: there is none, or it is none.
        """
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_unix_connection(sock=await _connect(self.path))
            writer.write(wire.string(question))
            size = int.from_bytes(await reader.readexactly(4), "big")
            if not 0 < size <= _LONGEST_ANSWER_BYTES:
                raise self._nonsense()
            answer = wire.WireReader(await reader.readexactly(size))
            return answer.byte(), answer
        except asyncio.IncompleteReadError as error:
            raise AgentError(f"ssh agent {self.path} hung up") from error
        except OSError as error:
            if isinstance(error, TimeoutError) and not error.errno:  # the caller's limit
                raise
            is_absent = error.errno in _NOBODY and not self._has_answered
            raise AgentError(f"ssh agent {self.path}: {reason_of(error)}", is_absent=is_absent) from error
        except wire.WireError as error:
            raise self._nonsense() from error
        finally:
            if writer:
                writer.close()

    def _nonsense(self) -> AgentError:
        return AgentError(f"ssh agent {self.path}: what answers there is no agent")


def _parse_keys(agent: Agent, kind: int, answer: wire.WireReader) -> list[asyncssh.SSHKeyPair]:
    if kind == _FAILURE:
        raise AgentError(f"ssh agent {agent.path} refused to say which keys it has")
    if kind != _IDENTITIES_ANSWER:
        raise agent._nonsense()
    keys: list[asyncssh.SSHKeyPair] = []
    try:
        for _ in range(answer.uint32()):
            public_data, comment = answer.string(), answer.string()
            keys.append(AgentKey(agent, wire.WireReader(public_data).string(), public_data, comment))
    except wire.WireError as error:
        raise agent._nonsense() from error
    return keys


async def _connect(path: str) -> socket.socket:
    """Returns a connected socket. Where the agent takes nobody for now the kernel says so, instead of waiting."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        while True:
            with suppress(BlockingIOError):
                _begin(sock, path)
                return sock
            await asyncio.sleep(_BUSY_SECONDS)
    except BaseException:
        sock.close()
        raise


def _begin(sock: socket.socket, path: str) -> None:
    try:
        sock.connect(path)
    except ValueError as error:  # no path can be that
        raise OSError(errno.EINVAL, str(error)) from error


def public_keys(path: str) -> frozenset[bytes] | None:
    """Returns the public keys that an agent can sign for, before there is an event loop; none where it is away.

    Returns None where it is there and does not say.
    """
    until = time.monotonic() + AGENT_ANSWER_SECONDS
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(AGENT_ANSWER_SECONDS)
            sock.connect(path)
            sock.sendall(wire.string(_REQUEST_IDENTITIES))
            size = int.from_bytes(_receive(sock, 4, until), "big")
            if not 0 < size <= _LONGEST_ANSWER_BYTES:
                return None
            answer = wire.WireReader(_receive(sock, size, until))
        if answer.byte() != _IDENTITIES_ANSWER:
            return None
        return frozenset([(answer.string(), answer.string())[0] for _ in range(answer.uint32())])
    except OSError as error:
        return frozenset() if error.errno in _NOBODY else None
    except ValueError:  # an answer that is none, or a path
        return None


def _receive(sock: socket.socket, size: int, until: float) -> bytes:
    """Returns so many bytes. Raises OSError where they do not come, or not in time."""
    data = bytearray()
    while len(data) < size:
        left_seconds = until - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError
        sock.settimeout(left_seconds)
        part = sock.recv(size - len(data))
        if not part:
            raise OSError(errno.ECONNRESET, "hung up")
        data += part
    return bytes(data)
