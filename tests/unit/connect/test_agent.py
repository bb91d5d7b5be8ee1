import asyncio
import copy
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from fleetmem.connect import agent as agent_module
from fleetmem.connect.agent import Agent, AgentError, AgentKey, Signing, public_keys
from unit.connect.scripted_agent import ScriptedAgent, scripted_agent

_KEY = asyncssh.generate_private_key("ssh-ed25519")
_NONSENSE = (
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\xff\xff\xff\xff\x0c",  # 4 GB are to come
    b"\0\0\0\0",
    b"\0\0\0\x05\x0c\0\0\xff\xff",  # so many keys, and none of them
    b"\0\0\0\x09\x0c\0\0\0\x01\xff\xff\xff\xff",
    b"\0\0\0\x01\x06",
)


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedAgent]:
    """An agent that does as it is told, and limits that a test can wait for."""
    monkeypatch.setattr(agent_module, "AGENT_ANSWER_SECONDS", 0.3)
    with scripted_agent(tmp_path / "agent", _KEY) as agent:
        yield agent


def _problem(agent: Agent, *, is_needed: bool = True) -> AgentError | None:
    """Returns what kept an agent from saying which keys it has."""

    async def ask() -> AgentError | None:
        try:
            await agent.keys(is_needed=is_needed)
        except AgentError as error:
            return error
        return None

    return asyncio.run(ask())


def test_it_lists_and_signs(scripted: ScriptedAgent) -> None:
    """Its keys are asked for once in a while; each signature has a connection of its own."""

    async def run() -> None:
        agent = Agent(str(scripted.path))
        for _ in range(3):
            (key,) = await agent.keys(is_needed=True)
        assert isinstance(key, AgentKey)
        assert _KEY.convert_to_public().verify(b"data", await key.sign_async(b"data"))

    asyncio.run(run())
    assert scripted.asked == ["list", "sign"]


@pytest.mark.slow
def test_one_that_never_answers(scripted: ScriptedAgent) -> None:
    """A hundred logins that wait share one question and its limit; the agent is named."""
    scripted.does["list"] = "hang"

    async def run() -> list[object]:
        agent = Agent(str(scripted.path))
        return await asyncio.gather(*(agent.keys(is_needed=True) for _ in range(100)), return_exceptions=True)

    begun = time.monotonic()
    problems = asyncio.run(run())
    assert {str(problem) for problem in problems} == {f"ssh agent {scripted.path} did not answer within 0 s"}
    assert scripted.asked == ["list"]
    assert time.monotonic() - begun < 5


@pytest.mark.slow
@pytest.mark.timing
def test_nobody_waits_again_who_has_other_keys(scripted: ScriptedAgent) -> None:
    """Who has a key of a file waits once; from then on the agent is asked on the side, and used when it is well."""
    scripted.does["list"] = "hang"

    async def run() -> None:
        agent = Agent(str(scripted.path))
        with pytest.raises(AgentError):
            await agent.keys(is_needed=False)
        begun = time.monotonic()
        for _ in range(50):
            with pytest.raises(AgentError):
                await agent.keys(is_needed=False)
        assert time.monotonic() - begun < 0.2
        scripted.does["list"] = "well"
        await asyncio.sleep(0.4)
        assert len(await agent.keys(is_needed=False)) == 1

    asyncio.run(run())


@pytest.mark.parametrize("nonsense", _NONSENSE)
def test_nonsense(scripted: ScriptedAgent, nonsense: bytes) -> None:
    """What is no answer is told at once, costs no memory, and is over with the next answer that is one."""
    scripted.does["list"] = nonsense
    agent = Agent(str(scripted.path))
    assert str(_problem(agent)) == f"ssh agent {scripted.path}: what answers there is no agent"
    assert public_keys(str(scripted.path)) is None
    scripted.does["list"] = "well"
    assert _problem(agent) is None
    assert public_keys(str(scripted.path)) == frozenset([_KEY.public_data])


@pytest.mark.parametrize("half", [b"", b"\0\0", b"\0\0\0\x50\x0c\0\0"])
def test_half_an_answer(scripted: ScriptedAgent, half: bytes) -> None:
    """An agent that hangs up in the middle, or at once, is told as that."""
    scripted.does["list"] = half
    assert str(_problem(Agent(str(scripted.path)))) == f"ssh agent {scripted.path} hung up"
    assert public_keys(str(scripted.path)) is None


def test_it_refuses(scripted: ScriptedAgent) -> None:
    """A refusal is told as one, to list and to sign."""
    scripted.does = {"list": "refuse", "sign": "refuse"}
    assert "refused to say which keys it has" in str(_problem(Agent(str(scripted.path))))
    with pytest.raises(AgentError, match="refused to sign: it is locked, or somebody said no"):
        asyncio.run(Agent(str(scripted.path)).sign(_KEY.public_data, b"data", 0))


@pytest.mark.parametrize("nonsense", _NONSENSE)
def test_nonsense_for_a_signature(scripted: ScriptedAgent, nonsense: bytes) -> None:
    """Likewise where a signature is asked for."""
    scripted.does["sign"] = nonsense
    with pytest.raises(AgentError, match="is no agent"):
        asyncio.run(Agent(str(scripted.path)).sign(_KEY.public_data, b"data", 0))


def test_a_signature_that_never_comes(scripted: ScriptedAgent) -> None:
    """The login that waits can be given up, and says so; the next one is served by a new connection."""
    scripted.does["sign"] = "hang"

    async def run() -> None:
        agent = Agent(str(scripted.path))
        (listed,) = await agent.keys(is_needed=True)
        key = copy.copy(listed)
        assert isinstance(key, AgentKey)
        key.signing = Signing()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(key.sign_async(b"data"), 0.2)
        late = key.signing.overdue(0.3)
        assert late
        assert "listed its keys and did not sign within" in str(late)
        assert key.signing.overdue(60.0) is None, "most of the time was somebody else's"
        scripted.does["sign"] = "well"
        assert await key.sign_async(b"data")
        assert key.signing.overdue(0.0) is None

    asyncio.run(run())


def test_one_that_is_started_again(scripted: ScriptedAgent) -> None:
    """A new socket in the place of the old one is found at once; while nobody is there, that is said."""
    agent = Agent(str(scripted.path))

    async def run() -> None:
        assert await agent.keys(is_needed=True)
        scripted.stop()
        with pytest.raises(AgentError, match="connection refused") as caught:
            await agent.sign(_KEY.public_data, b"data", 0)
        assert not caught.value.is_absent, "it was there before"
        scripted.start()
        assert await agent.sign(_KEY.public_data, b"data", 0)
        assert await agent.keys(is_needed=True)

    asyncio.run(run())


def test_what_is_no_socket(tmp_path: Path) -> None:
    """A file, a pipe, a folder, nothing, a path that cannot be one: each is told, and waits for nobody."""
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.touch()
    os.mkfifo(pipe)
    for path in (file, pipe, tmp_path, tmp_path / "nothing", tmp_path / ("long" * 50), "nul\0"):
        problem = _problem(Agent(str(path)))
        assert problem
        assert str(problem).startswith(f"ssh agent {path}: "), problem
        assert not public_keys(str(path))


@pytest.mark.slow
def test_a_full_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that takes no more connections is one that does not answer: the kernel says that in words of its own."""
    monkeypatch.setattr(agent_module, "AGENT_ANSWER_SECONDS", 0.3)
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(str(path))
        assert "did not answer" in str(_problem(Agent(str(path))))
        assert public_keys(str(path)) is None
        for each in waiting:
            each.close()


@pytest.mark.slow
def test_one_that_dribbles(scripted: ScriptedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit at the start is one for the whole answer, not for each byte."""

    class Dribbling:
        """A socket from which each byte comes after a while."""

        def settimeout(self, _seconds: float) -> None:
            """Does nothing."""

        def recv(self, _size: int) -> bytes:
            """Returns one byte, late."""
            time.sleep(0.1)
            return b"\0"

    with pytest.raises(TimeoutError):
        agent_module._receive(Dribbling(), 1000, time.monotonic() + 0.3)  # type: ignore[arg-type]
