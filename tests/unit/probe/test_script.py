import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest

from fleetmem.probe import script
from fleetmem.probe.dialogue import Dialogue
from fleetmem.probe.frame import FrameReader
from fleetmem.probe.script import ProbeKind, Processes

pytestmark = pytest.mark.shells

_LOGIN_SHELLS = ("sh", "bash", "dash", "zsh", "fish", "csh", "tcsh", "ksh", "busybox sh")
_POSIX_SHELLS = ("dash", "bash", "busybox sh", "zsh --emulate sh")


def _found(shell: str) -> list[str]:
    """Returns a shell's command line; skips the test where it is not installed."""
    name, *arguments = shell.split()
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed")
    return [path, *arguments]


def _sample(command: list[str]) -> bytes:
    done = subprocess.run(
        command,
        input=script.request_maker(ProbeKind.STATUS, Processes.USER)(5),
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == b""
    reader = FrameReader()
    reader.expect(5)
    frame = reader.feed(done.stdout)
    assert frame is not None
    return frame


def _argument() -> str:
    """Returns the script as the command carries it."""
    head, quote, tail = script.command().rpartition(" '")
    assert quote
    assert tail.endswith("'")
    assert head == """exec /bin/sh -c 'eval "$(printf %b "$0")"'"""
    return tail[:-1]


def test_nothing_in_the_argument_is_special_anywhere() -> None:
    """No quote that ends it, no newline that csh ends it at, no `!` that csh replaces, no backslash that fish reads."""
    argument = _argument()
    assert not set(argument) & set("'\n!")
    assert r"\\" not in argument
    assert r"\'" not in argument
    assert argument.isascii()
    assert len(argument) < 4096 * 2  # a small part of what sshd and the kernel take


@pytest.mark.parametrize("shell", _LOGIN_SHELLS)
def test_any_login_shell_runs_it(shell: str) -> None:
    """The command gives a frame whichever shell the account has."""
    frame = _sample([*_found(shell), "-c", script.command()])
    assert Dialogue(ProbeKind.STATUS, Processes.USER).parse(frame, 0.0).processes


@pytest.mark.parametrize("shell", _LOGIN_SHELLS)
def test_any_login_shell_passes_the_first_request_on(shell: str) -> None:
    """It stands behind the command; without any input there is a frame."""
    command = f"{script.command()} {script.request_maker(ProbeKind.STATUS, Processes.USER)(5).decode().strip()}"
    done = subprocess.run([*_found(shell), "-c", command], input=b"", capture_output=True, timeout=30, check=True)
    reader = FrameReader()
    reader.expect(5)
    frame = reader.feed(done.stdout)
    assert frame
    assert Dialogue(ProbeKind.STATUS, Processes.USER).parse(frame, 0.0).processes


_AWKWARD = r"""# title
printf '%s|' 'back\slash' '\\n' 'a\0101b' "it's" '!bang!' '100%' '$HOME' '`x`' '{a,b}' '~' '#x'
printf '%s|' "$(echo '7' | sed 's/\(.\)/\1\1/')"
"""


@pytest.mark.parametrize("shell", _LOGIN_SHELLS)
def test_any_text_survives_any_login_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a later probe.sh holds: quotes, backslashes, `!`, and all that some shell replaces."""
    monkeypatch.setattr(script, "source", lambda _protocol: _AWKWARD)
    command = script.command.__wrapped__()
    direct = subprocess.run(["sh", "-c", _AWKWARD], capture_output=True, timeout=30, check=True).stdout
    sent = subprocess.run([*_found(shell), "-c", command], capture_output=True, timeout=30, check=True).stdout
    assert sent == direct
    assert direct.startswith(rb"back\slash|\\n|a\0101b|it's|!bang!|")


@pytest.mark.parametrize("shell", _POSIX_SHELLS)
def test_any_sh_decodes_it(shell: str) -> None:
    """`printf %b` of each shell that may be /bin/sh gives the same script."""
    done = subprocess.run(
        [*_found(shell), "-c", """printf %b "$0" """, _argument()], capture_output=True, timeout=30, check=True
    )
    assert done.stdout.decode() == script._compact(script.source())


def test_the_script_travels_without_its_comments() -> None:
    """What is sent is the same program: first line, no indentation, no comment, every other line."""
    compact = script._compact(script.source()).splitlines()
    code = [line.strip() for line in script.source().splitlines() if line.strip() and not line.strip().startswith("#")]
    assert compact[0].startswith("# fleetmem probe, protocol 1")
    assert compact[1:] == code


@pytest.mark.parametrize(
    ("kind", "processes", "line"),
    [
        (ProbeKind.STATUS, Processes.USER, b"sample 3 status user\n"),
        (ProbeKind.PS, Processes.ALL, b"sample 3 ps all\n"),
    ],
)
def test_request(kind: ProbeKind, processes: Processes, line: bytes) -> None:
    """One line, as the head of probe.sh describes it."""
    assert script.request_maker(kind, processes)(3) == line


def test_authorized_keys_line(tmp_path: Path) -> None:
    """An sshd reads the line as the key, restricted, with the whole probe as its command."""
    key = asyncssh.generate_private_key("ssh-ed25519", "fleet@collector")
    public_key = key.export_public_key().decode()
    line = script.authorized_keys_line(public_key, command=script.command(), sources=["192.0.2.10", "2001:db8::/32"])
    head, tail = 'restrict,from="192.0.2.10,2001:db8::/32",command="', f'" {public_key.strip()}'
    assert line.startswith(head)
    assert line.endswith(tail)
    value = line.removeprefix(head).removesuffix(tail)
    assert not re.search(r'(?<!\\)"', value)  # sshd(8): a quote inside is written \", and nothing else is escaped
    assert value.replace('\\"', '"') == script.command()
    assert "\n" not in line
    path = tmp_path / "authorized_keys"
    path.write_text(line + "\n")
    listed = subprocess.run(["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, timeout=30, check=True)
    assert key.get_fingerprint() in listed.stdout


@pytest.mark.parametrize(
    "text", ["", "ssh-ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-rsa A\nssh-rsa B", "AAAA ssh-rsa"]
)
def test_authorized_keys_line_refuses(text: str) -> None:
    """A private key, two keys or none never end up in authorized_keys."""
    with pytest.raises(ValueError, match="not a public key: expected one line"):
        script.authorized_keys_line(text, command=script.command())


@pytest.mark.parametrize("source", ["", 'a",command="id', "10.0.0.1 ssh-rsa", "a,b", "10.0.0.1\n"])
def test_authorized_keys_line_refuses_what_is_no_address(source: str) -> None:
    """Nothing that is typed after --from ends the option, or the line."""
    with pytest.raises(ValueError, match="is not an address"):
        script.authorized_keys_line("ssh-ed25519 AAAA me", command="x", sources=[source])


@pytest.mark.parametrize("command", [script.command, script.root_command])
def test_an_authorized_keys_line_is_not_too_long(command: Callable[[], str]) -> None:
    """OpenSSH reads 8192 bytes of a line, and later versions 16384; a key of 8192 bits has 1400."""
    line = script.authorized_keys_line(f"ssh-rsa {'A' * 1400} me", command=command(), sources=["192.0.2.10"] * 10)
    assert len(line) < 8192


def test_bastion_line() -> None:
    """All is forbidden but channels to the targets: no command, no listening, and only from the sources."""
    line = script.bastion_line(
        "ssh-ed25519 AAAA me\n", targets=["web:22", "*:2222", "10.0.0.1:*", "[2001:db8::1]:22"], sources=["192.0.2.10"]
    )
    assert line == (
        'restrict,port-forwarding,permitlisten="none:1",permitopen="web:22",permitopen="*:2222",'
        'permitopen="10.0.0.1:*",permitopen="[2001:db8::1]:22",from="192.0.2.10",command="/bin/false" '
        "ssh-ed25519 AAAA me"
    )


@pytest.mark.parametrize(
    "target",
    ["", "web", "web:", "web:ssh", "web:0", "2001:db8::1:22", "*.example.com:22", 'a:22",command="id', "*:*", "a:22\n"],
)
def test_bastion_line_refuses_a_target(target: str) -> None:
    """A pattern that sshd would compare letter by letter, what ends the option, and what would open everything."""
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        script.bastion_line("ssh-ed25519 AAAA me", targets=["good:22", target])


def test_bastion_line_refuses_more_than_sshd_reads() -> None:
    """With one more sshd would ignore the whole line."""
    targets = [f"web{number}:22" for number in range(4097)]
    assert script.bastion_line("ssh-ed25519 AAAA me", targets=targets[:-1]).count("permitopen") == 4096
    with pytest.raises(ValueError, match=r"4096 at most; any host is '\*:22'"):
        script.bastion_line("ssh-ed25519 AAAA me", targets=targets)


# --- as root ---------------------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_what_is_sent() -> None:
    """It is in the command for sudo, once for each time it is compared, and the input has it."""
    sent = script.root_input()
    assert sent.endswith(b"\n")
    assert hashlib.sha256(sent[:-1]).hexdigest() == script.digest()
    assert script.root_command().count(script.digest()) == 2
    assert sent[:-1].decode() == _argument()


@pytest.mark.parametrize("shell", _LOGIN_SHELLS)
def test_any_login_shell_runs_it_as_root(shell: str, tmp_path: Path) -> None:
    """Here without sudo, which would take the same words."""
    fake = tmp_path / "sudo"
    fake.write_text('#!/bin/sh\n[ "$1" = -n ] && shift && exec "$@"\n')
    fake.chmod(0o755)
    done = subprocess.run(
        [*_found(shell), "-c", script.root_command()],
        input=script.root_input() + script.request_maker(ProbeKind.STATUS, Processes.USER)(5),
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        timeout=30,
        check=True,
    )
    reader = FrameReader()
    reader.expect(5)
    frame = reader.feed(done.stdout)
    assert frame is not None, done
    assert Dialogue(ProbeKind.STATUS, Processes.USER).parse(frame, 0.0).processes


def test_sudoers_is_short_and_says_what_it_allows() -> None:
    """Three lines: the digest, no terminal wanted, one command of one user; 1024 characters are what sudo-rs reads."""
    comment, defaults, rule = script.sudoers("fleetmem").splitlines()
    assert comment == f"# fleetmem's probe, SHA-256 {script.digest()}"
    assert defaults == "Defaults:fleetmem !requiretty"
    head, word = rule.rsplit(" ", 1)
    assert head == "fleetmem ALL=(root) NOPASSWD: /bin/sh -c"
    assert len(word) < 1024
    assert not re.search(r"(?<!\\)[,:=#]", word)
    unescaped = re.sub(r"\\(.)", r"\1", word)
    assert script.root_command().endswith(f" /bin/sh -c '{unescaped}'")


@pytest.mark.parametrize("user", ["", "a b", "ALL=(ALL)", "%wheel", "x\nroot ALL", "-x", "a" * 33, "ALL"])
def test_sudoers_refuses(user: str) -> None:
    """What is not the name of one user never ends up in sudoers."""
    with pytest.raises(ValueError, match="is not the name of a user"):
        script.sudoers(user)
