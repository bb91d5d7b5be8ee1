"""ssh agents that fail: each host's failure names the agent, other keys go on working, and it heals by itself."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest

from unit.connect.scripted_agent import ScriptedAgent, scripted_agent

from . import servers
from .servers import PATIENT, Agent, Cli, Running, Sshd, environment, find_tool, make_key, wait_for

HOSTS = "127.0.1.[1-10]"


@pytest.fixture
def scripted(fleet: Sshd, tmp_path: Path) -> Iterator[ScriptedAgent]:
    """An agent that has the fleet's key."""
    with scripted_agent(tmp_path / "scripted", asyncssh.read_private_key(str(fleet.key))) as agent:
        yield agent


def _options(fleet: Sshd, hosts: str = HOSTS) -> tuple[object, ...]:
    return ("-i", hosts, "-p", fleet.port, "-F", "none", "--host-keys", "insecure")


def _failures(result: servers.Result) -> set[tuple[str, str]]:
    return {(each["error"]["kind"], each["error"]["message"]) for each in result.by_host().values()}


@pytest.mark.parametrize("does", ["hang", "refuse", b"nonsense that is no answer", b"\0\0", b"\xff\xff\xff\xff\x0c"])
def test_an_agent_that_does_not_say_what_it_has(fleet: Sshd, cli: Cli, scripted: ScriptedAgent, does: str) -> None:
    """Every host fails within its limits with the agent's name, and none is said to have refused anything."""
    scripted.does["list"] = does
    options = ("collect", *_options(fleet), "--format", "jsonl")
    result = cli(*options, SSH_AUTH_SOCK=str(scripted.path), seconds=25)
    assert result.status == 3
    ((kind, message),) = _failures(result)
    assert kind == "agent_unavailable"
    assert f"ssh agent {scripted.path}" in message
    assert "refused root" not in result.stderr


@pytest.mark.parametrize("what", ["list", "sign"])
def test_a_named_key_needs_no_agent(fleet: Sshd, cli: Cli, scripted: ScriptedAgent, what: str, tmp_path: Path) -> None:
    """With -k, or IdentitiesOnly and a key of a file, the agent is not even asked."""
    scripted.does[what] = "hang"
    options = ("collect", *_options(fleet), *PATIENT, "-k", fleet.key, "--format", "jsonl")
    told = cli(*options, SSH_AUTH_SOCK=str(scripted.path))
    assert told.status == 0, told.stderr
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {fleet.key}\nIdentitiesOnly yes\nStrictHostKeyChecking accept-new\n")
    options = ("collect", "-i", HOSTS, "-p", fleet.port, "-F", config, *PATIENT, "--format", "jsonl")
    configured = cli(*options, SSH_AUTH_SOCK=str(scripted.path))
    assert configured.status == 0, configured.stderr
    assert scripted.asked == []


def test_a_key_of_a_file_beside_an_agent_that_hangs(
    fleet: Sshd, cli: Cli, scripted: ScriptedAgent, tmp_path: Path
) -> None:
    """A host that takes the file's key is sampled, whatever the agent does."""
    scripted.does["list"] = "hang"
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {fleet.key}\n")
    options = ("collect", "-i", HOSTS, "-p", fleet.port, "-F", config, "--host-keys", "insecure", *PATIENT)
    result = cli(*options, "--format", "jsonl", SSH_AUTH_SOCK=str(scripted.path))
    assert result.status == 0, result.stderr
    assert result.seconds < 25


def test_an_agent_that_never_signs(fleet: Sshd, cli: Cli, scripted: ScriptedAgent) -> None:
    """It says which keys it has, and the signature does not come: the agent is named, not the host."""
    scripted.does["sign"] = "hang"
    options = ("collect", *_options(fleet), "--format", "jsonl")
    result = cli(*options, SSH_AUTH_SOCK=str(scripted.path), seconds=40)
    assert {kind for kind, _message in _failures(result)} == {"agent_unavailable"}
    assert {message.partition(" did not sign")[0] for _kind, message in _failures(result)} == {
        f"ssh agent {scripted.path} listed its keys and"
    }


def test_a_refused_signature(fleet: Sshd, cli: Cli, scripted: ScriptedAgent) -> None:
    """An agent that is locked between list and signature, or whose owner says no, is told as that."""
    scripted.does["sign"] = "refuse"
    result = cli("collect", *_options(fleet), "--format", "jsonl", SSH_AUTH_SOCK=str(scripted.path))
    message = f"ssh agent {scripted.path} refused to sign: it is locked, or somebody said no"
    assert _failures(result) == {("agent_unavailable", message)}


def test_doctor_names_the_agent(fleet: Sshd, cli: Cli, scripted: ScriptedAgent) -> None:
    """Its advice is about the agent."""
    scripted.does["list"] = "hang"
    result = cli("doctor", *_options(fleet, "127.0.1.1"), SSH_AUTH_SOCK=str(scripted.path), seconds=40)
    assert f"ssh agent {scripted.path} did not answer within 3 s" in result.stdout
    assert "ssh-add -l" in result.stdout
    assert "ssh-copy-id" not in result.stdout


def test_an_encrypted_key_at_the_start(cli: Cli, scripted: ScriptedAgent, tmp_path: Path) -> None:
    """Whether the agent has the key cannot be told while it hangs: each host says so, and the start waits once."""
    key = make_key(tmp_path / "key", passphrase="sesame")  # noqa: S106
    scripted.does["list"] = "hang"
    with servers.sshd(tmp_path / "sshd", public_keys=[key.with_suffix(".pub").read_text()]) as sshd:
        options = ("collect", *_options(sshd, "127.0.1.[1-5]"), "-k", key, "--format", "jsonl")
        result = cli(*options, SSH_AUTH_SOCK=str(scripted.path), seconds=40)
    assert {kind for kind, _message in _failures(result)} == {"agent_unavailable"}, result.stderr


def _all_well(running: Running, hosts: int) -> Callable[[], bool]:
    """Returns whether each host has answered once more, from now on."""
    before = len(running.outcomes())

    def is_well() -> bool:
        return len({each["host"] for each in running.outcomes()[before:] if each["ok"]}) == hosts

    return is_well


@pytest.mark.parametrize("break_it", ["list hangs", "sign hangs", "slow once", "away", "nonsense"])
def test_it_heals(fleet: Sshd, cli: Cli, scripted: ScriptedAgent, break_it: str) -> None:
    """What broke is over with the next attempts; no host is said to have refused, and none is left out for it."""
    match break_it:
        case "list hangs":
            scripted.does["list"] = "hang"
        case "sign hangs":
            scripted.does["sign"] = "hang"
        case "slow once":
            scripted.does["sign"], scripted.seconds = "slow", 7.0
        case "away":
            scripted.stop()
        case _:
            scripted.does["list"] = b"nonsense that is no answer"
    options = (*_options(fleet), "-o", "-", "--interval", 1)
    with cli.run(*options, SSH_AUTH_SOCK=str(scripted.path)) as running:
        wait_for("failures are told", lambda: len({each["host"] for each in running.outcomes()}) == 10)
        assert {each["error"]["kind"] for each in running.outcomes()} == {"agent_unavailable"}
        if break_it == "away":
            scripted.start()
        scripted.does = {"list": "well", "sign": "well"}
        wait_for("all hosts answer", _all_well(running, 10))
        assert "have refused" not in running.stderr


def test_a_real_agent_is_locked_restarted_and_replaced(fleet: Sshd, cli: Cli, agent: Agent, tmp_path: Path) -> None:
    """A locked agent shows no keys, a killed one is away; a new one at the same path is used without a reload."""
    agent.add(fleet.key)
    askpass = cli.home / "askpass"
    askpass.write_text("#!/bin/sh\necho sesame\n")
    env = environment(cli.home) | {"SSH_AUTH_SOCK": str(agent.path), "SSH_ASKPASS": str(askpass)}
    env |= {"SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}

    def lock(flag: str) -> None:
        subprocess.run([find_tool("ssh-add"), flag], env=env, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    lock("-x")
    options = (*_options(fleet), "-o", "-", "--interval", 1)
    with cli.run(*options, SSH_AUTH_SOCK=str(agent.path)) as running:
        wait_for("failures are told", lambda: len({each["host"] for each in running.outcomes()}) == 10)
        message = running.outcomes()[0]["error"]["message"]
        assert "no key to log in with" in message
        assert "have refused" not in running.stderr
        lock("-X")
        wait_for("all hosts answer", _all_well(running, 10))
        agent.path.unlink()
        with subprocess.Popen([find_tool("ssh-agent"), "-D", "-a", agent.path], stdout=subprocess.DEVNULL) as other:
            wait_for("the other agent listens", agent.path.is_socket)
            agent.add(fleet.key)
            wait_for("all hosts answer still", _all_well(running, 10))
            other.terminate()
