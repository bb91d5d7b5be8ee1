"""Keys: certificates, agents, FIDO tokens, many keys, and what the ssh configuration says of them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import servers
from .fido import fido_agent
from .servers import Agent, Cli, Sshd, find_tool, make_key, wait_for
from .terminal import on_terminal

PASSPHRASE = "correct horse"  # noqa: S105 - of a key that lives for one test
HOSTS = "127.0.1.[1-10]"


def sign(authority: Path, key: Path, *words: str) -> Path:
    """Signs the public key beside a private one; returns the certificate."""
    public = key.with_suffix(".pub")
    command = [find_tool("ssh-keygen"), "-q", "-s", str(authority), "-I", "test", *words, str(public)]
    subprocess.run(command, check=True)
    return public.with_name(f"{key.name}-cert.pub")


@contextmanager
def trusting(folder: Path, authority: Path) -> Iterator[Sshd]:
    """Starts an sshd that lets in whom an authority has signed, and nobody else."""
    with servers.sshd(folder, public_keys=[], options=f"TrustedUserCAKeys {authority}.pub") as sshd:
        yield sshd


# --- certificates ----------------------------------------------------------------------------------------------------


def test_a_certificate_that_the_ssh_configuration_names(tmp_path: Path, cli: Cli) -> None:
    """CertificateFile may lie anywhere; it goes with the key that it was made for."""
    authority, key, other = (make_key(tmp_path / name) for name in ("ca", "key", "other"))
    certificate = sign(authority, key, "-n", servers.USER).rename(tmp_path / "elsewhere")
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {other}\nIdentityFile {key}\nCertificateFile {certificate}\nIdentitiesOnly yes\n")
    with trusting(tmp_path / "sshd", authority) as sshd:
        result = cli("collect", "-i", HOSTS, "-p", sshd.port, "-F", config, "--format", "jsonl")
        assert result.status == 0, result.stderr
        assert "Failed publickey" not in sshd.log(), "the key with the certificate is offered first"


def test_a_certificate_in_the_agent(tmp_path: Path, agent: Agent, cli: Cli) -> None:
    """ssh-add takes the certificate along; it lets us in without any file."""
    authority, key = make_key(tmp_path / "ca"), make_key(tmp_path / "key")
    sign(authority, key, "-n", servers.USER)
    agent.add(key)
    with trusting(tmp_path / "sshd", authority) as sshd:
        options = ("-i", HOSTS, "-p", sshd.port, "--format", "jsonl")
        result = cli("collect", *options, SSH_AUTH_SOCK=str(agent.path))
    assert result.status == 0, result.stderr


def test_a_certificate_that_is_renewed_while_running(tmp_path: Path, cli: Cli) -> None:
    """After the host was away, the login is with the new one, in the same file, without a reload."""
    authority, key = make_key(tmp_path / "ca"), make_key(tmp_path / "key")
    sign(authority, key, "-n", servers.USER, "-z", "1")
    with trusting(tmp_path / "sshd", authority) as sshd:
        options = ("-i", "127.0.1.1", "-p", sshd.port, "-k", key, "-o", "-", "--interval", 0.3)
        with cli.run(*options) as running:
            wait_for("it answers", lambda: running.outcomes()[-1:] and running.outcomes()[-1]["ok"])
            assert "ID test (serial 1)" in sshd.log()
            sign(authority, key, "-n", servers.USER, "-z", "2")
            sshd.stop()
            sshd.start()
            wait_for("it logs in with the new one", lambda: "ID test (serial 2)" in sshd.log())


# --- agents ----------------------------------------------------------------------------------------------------------


def test_an_encrypted_key_that_the_agent_has(tmp_path: Path, agent: Agent, cli: Cli) -> None:
    """Nobody is asked for its passphrase: the agent signs, for -k and for the ssh configuration, on many hosts."""
    key = make_key(tmp_path / "key", passphrase=PASSPHRASE)
    agent.add(key, passphrase=PASSPHRASE)
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {key}\nIdentitiesOnly yes\nIdentityAgent {agent.path}\n")
    with servers.sshd(tmp_path / "sshd", public_keys=[key.with_suffix(".pub").read_text()]) as sshd:
        options = ("collect", "-i", HOSTS, "-p", sshd.port, "--format", "jsonl")
        told = cli(*options, "-k", key, SSH_AUTH_SOCK=str(agent.path))
        assert told.status == 0, told.stderr
        assert len(told.by_host()) == 10
        configured = cli(*options, "-F", config)
        assert configured.status == 0, configured.stderr
        key.unlink()
        config.write_text(f"IdentityFile {key}.pub\nIdentitiesOnly yes\nIdentityAgent {agent.path}\n")
        public = cli(*options, "-F", config)
        assert public.status == 0, public.stderr


def test_an_encrypted_key_of_the_ssh_configuration(tmp_path: Path, cli: Cli) -> None:
    """As with ssh it is asked for, once for all hosts; where nobody is there it is skipped, with a word."""
    key, other = make_key(tmp_path / "key", passphrase=PASSPHRASE), make_key(tmp_path / "other")
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {key}\nIdentityFile {other}\n")
    public_keys = [path.with_suffix(".pub").read_text() for path in (key, other)]
    with servers.sshd(tmp_path / "sshd", public_keys=public_keys) as sshd:
        options = (
            "collect",
            "-i",
            "127.0.1.[1-5]",
            "-p",
            sshd.port,
            "-F",
            config,
            *servers.PATIENT,
            "--format",
            "jsonl",
        )
        with on_terminal(cli, *options) as terminal:
            terminal.expect(f"Passphrase for {key}: ")
            terminal.type(PASSPHRASE)
            terminal.finish()
        assert terminal.status == 0, terminal.screen
        assert terminal.screen.count("Passphrase for") == 1
        alone = cli(*options)
        assert alone.status == 0, alone.stderr
        assert alone.stderr.count(f"key {key} is encrypted and nobody is there to type its passphrase") == 1


def test_identities_only(tmp_path: Path, agent: Agent, cli: Cli) -> None:
    """With it, what else the agent has is not offered, not even once."""
    keys = [make_key(tmp_path / f"key{number}") for number in range(3)]
    agent.add(*keys)
    with servers.sshd(tmp_path / "sshd", public_keys=[keys[2].with_suffix(".pub").read_text()]) as sshd:
        config = tmp_path / "config"
        config.write_text(f"IdentityFile {keys[2]}\nIdentitiesOnly yes\n")
        options = ("collect", "-i", HOSTS, "-p", sshd.port, "-F", config, "--format", "jsonl")
        result = cli(*options, SSH_AUTH_SOCK=str(agent.path))
        assert result.status == 0, result.stderr
        assert "Failed publickey" not in sshd.log()


def test_the_right_one_of_many_keys_is_found_once(tmp_path: Path, agent: Agent, cli: Cli) -> None:
    """The agent's fifth key is the right one: the first hosts refuse four, the others are offered it at once."""
    keys = [make_key(tmp_path / f"key{number}") for number in range(5)]
    agent.add(*keys)
    with servers.sshd(tmp_path / "sshd", public_keys=[keys[4].with_suffix(".pub").read_text()]) as sshd:
        options = ("collect", "-i", "127.0.1.[1-30]", "-p", sshd.port, *servers.PATIENT, "--format", "jsonl")
        result = cli(*options, SSH_AUTH_SOCK=str(agent.path))
        assert result.status == 0, result.stderr
        assert sshd.log().count("Failed publickey") <= 5 * 4 + 10, "30 hosts could refuse 120"


def test_more_keys_than_sshd_takes(tmp_path: Path, agent: Agent, cli: Cli) -> None:
    """Of nine keys six are offered; the message says that there are more, and names them."""
    keys = [make_key(tmp_path / f"key{number}") for number in range(9)]
    agent.add(*keys)
    with servers.sshd(tmp_path / "sshd", public_keys=[keys[8].with_suffix(".pub").read_text()]) as sshd:
        options = ("collect", "-i", "127.0.1.1", "-p", sshd.port, "--format", "jsonl")
        result = cli(*options, SSH_AUTH_SOCK=str(agent.path))
        error = result.by_host()["127.0.1.1"]["error"]
        assert error["kind"] == "auth_failed"
        assert "3 more were not tried" in error["message"]
        assert "test (agent)" in error["message"]
        named = cli(*options, "-k", keys[8])
        assert named.status == 0, named.stderr


def test_several_keys_are_offered_in_order(tmp_path: Path, cli: Cli) -> None:
    """-k twice: the host takes the second one."""
    keys = [make_key(tmp_path / f"key{number}") for number in range(2)]
    with servers.sshd(tmp_path / "sshd", public_keys=[keys[1].with_suffix(".pub").read_text()]) as sshd:
        result = cli("collect", "-i", "127.0.1.1", "-p", sshd.port, "-k", keys[0], "-k", keys[1], "--format", "jsonl")
        assert result.status == 0, result.stderr
        assert sshd.log().count("Failed publickey") == 1


def test_a_refusal_names_user_and_keys(tmp_path: Path, cli: Cli) -> None:
    """One line says who was refused with what."""
    key = make_key(tmp_path / "key")
    with servers.sshd(tmp_path / "sshd", public_keys=[]) as sshd:
        result = cli("collect", "-i", "127.0.1.1", "-p", sshd.port, "-k", key, "--format", "jsonl")
        assert result.by_host()["127.0.1.1"]["error"]["message"] == f"{servers.USER} is refused with {key}"
        nothing = cli("collect", "-i", "127.0.1.1", "-p", sshd.port, "--format", "jsonl")
        assert "has no key to log in with" in nothing.by_host()["127.0.1.1"]["error"]["message"]


def test_a_key_on_a_token(tmp_path: Path, cli: Cli) -> None:
    """sk-ssh-ed25519: the agent has the token sign, on many hosts; the file beside it is a handle and stays alone."""
    with (
        fido_agent(tmp_path / "agent") as public_key,
        servers.sshd(tmp_path / "sshd", public_keys=[public_key]) as sshd,
    ):
        options = ("collect", "-i", HOSTS, "-p", sshd.port, "--format", "jsonl")
        result = cli(*options, SSH_AUTH_SOCK=str(tmp_path / "agent"))
        assert result.status == 0, result.stderr
        assert "ED25519-SK" in sshd.log()
        public = tmp_path / "token.pub"
        public.write_text(public_key)
        named = cli(*options, "-k", public, SSH_AUTH_SOCK=str(tmp_path / "agent"))
        assert named.status == 0, named.stderr
