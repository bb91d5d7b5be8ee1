"""What a command imports before it does anything: asyncssh and what it takes are half of the slowest start."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_HEAVY = {"asyncssh", "cryptography", "fleetmem.connect.ssh"}


def _imported(*arguments: str) -> set[str]:
    """Returns the modules that a command imports, which has to end well."""
    command = [sys.executable, "-X", "importtime", "-m", "fleetmem", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("probe",),
        ("config", "sample"),
        ("config", "show"),
        ("hosts", "-i", "web[01-02],u@db:2222"),
        ("hosts", "--help"),
    ],
    ids=" ".join,
)
def test_commands_that_speak_no_ssh_import_none(arguments: tuple[str, ...]) -> None:
    """Neither asyncssh nor what it takes."""
    assert not _imported(*arguments) & _HEAVY


def test_hosts_of_an_ssh_configuration(tmp_path: Path) -> None:
    """Resolving hosts takes its lines, and no SSH: keys are not read, and algorithms not looked up."""
    config = tmp_path / "config"
    config.write_text(f"Host web*\n  User deploy\n  IdentityFile {tmp_path}/none\n  ProxyJump gate\n")
    assert not _imported("hosts", "-i", "web01", "-F", str(config)) & _HEAVY


def test_commands_that_read_keys_do() -> None:
    """What is looked for above can be found."""
    assert _imported("config", "check", "-i", "127.0.0.1") >= _HEAVY
