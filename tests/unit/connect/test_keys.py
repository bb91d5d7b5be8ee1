import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest

from fleetmem.connect import keys as keys_module
from fleetmem.connect.keys import KeyFile
from fleetmem.errors import UsageError

_PASSPHRASE = "sesame"  # noqa: S105
_TYPES = ("rsa", "ecdsa", "ed25519")
_FORMATS = ("RFC4716", "PEM", "PKCS8")  # ssh-keygen's words; the first is OpenSSH's own format
_ENCRYPTIONS = (("ed25519", "RFC4716"), ("rsa", "PEM"), ("ecdsa", "PKCS8"))  # each is encrypted in its own way

MakeKey = Callable[..., Path]


@pytest.fixture(scope="module")
def make_key(tmp_path_factory: pytest.TempPathFactory) -> MakeKey:
    """Makes each kind of key once."""
    folder = tmp_path_factory.mktemp("keys")

    def make(key_type: str = "ed25519", key_format: str = "RFC4716", passphrase: str = "") -> Path:
        path = folder / f"{key_type}-{key_format}-{passphrase}"
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", key_type, "-m", key_format, "-N", passphrase, "-f", str(path)]
            if key_type == "rsa":
                command += ["-b", "2048"]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        return path

    return make


class Person:
    """Types these passphrases, one after the other; None stands for nobody there."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.asked_for: list[Path] = []

    def ask(self, path: Path) -> str | None:
        """Answers, and remembers for which key."""
        self.asked_for.append(path)
        return self.answers.pop(0)


def _load(path: Path, person: Person | None = None, *, in_agent: bool = False) -> KeyFile:
    return KeyFile(path, (person or Person()).ask, lambda public: in_agent and public == _public(path))


def _public(path: Path) -> bytes:
    return asyncssh.read_public_key(str(path) if path.suffix == ".pub" else f"{path}.pub").public_data


@pytest.mark.slow
@pytest.mark.parametrize("key_format", _FORMATS)
@pytest.mark.parametrize("key_type", _TYPES)
def test_a_key_without_passphrase(make_key: MakeKey, key_type: str, key_format: str) -> None:
    """Every usual type and format is read, and nobody is asked for anything."""
    file = _load(path := make_key(key_type, key_format))
    assert [pair.public_data for pair in file.pairs] == [_public(path)]
    assert (file.public_data, file.problem) == (_public(path), None)


@pytest.mark.slow
@pytest.mark.parametrize("key_format", _FORMATS)
@pytest.mark.parametrize("key_type", _TYPES)
def test_an_encrypted_key(make_key: MakeKey, key_type: str, key_format: str) -> None:
    """The passphrase is asked for once, with the key's name."""
    person = Person(_PASSPHRASE)
    path = make_key(key_type, key_format, _PASSPHRASE)
    assert [pair.public_data for pair in _load(path, person).pairs] == [_public(path)]
    assert person.asked_for == [path]


@pytest.mark.slow
@pytest.mark.parametrize(("key_type", "key_format"), _ENCRYPTIONS)
def test_a_wrong_passphrase_may_be_corrected(make_key: MakeKey, key_type: str, key_format: str) -> None:
    """A slip of the finger is no reason to stop."""
    person = Person("wrong", "Sesame", _PASSPHRASE)
    assert len(_load(make_key(key_type, key_format, _PASSPHRASE), person).pairs) == 1
    assert not person.answers


@pytest.mark.slow
@pytest.mark.parametrize(("key_type", "key_format"), _ENCRYPTIONS)
def test_three_wrong_passphrases(make_key: MakeKey, key_type: str, key_format: str) -> None:
    """After three tries it ends with the key's name."""
    person = Person("a", "b", "c", "d")
    with pytest.raises(UsageError, match=f"{key_type}-{key_format}-sesame: wrong passphrase"):
        _load(make_key(key_type, key_format, _PASSPHRASE), person)
    assert person.answers == ["d"]


def test_nobody_to_ask(make_key: MakeKey) -> None:
    """In a script or a daemon there is a problem, which says what to do instead."""
    file = _load(make_key(passphrase=_PASSPHRASE), Person(None))
    assert not file.pairs
    assert file.problem
    assert "is encrypted and nobody is there to type its passphrase: load it with ssh-add" in file.problem


@pytest.mark.parametrize(("key_type", "key_format"), _ENCRYPTIONS)
def test_the_agent_has_an_encrypted_key(make_key: MakeKey, key_type: str, key_format: str) -> None:
    """Nobody is asked for what the agent can sign with."""
    file = _load(path := make_key(key_type, key_format, _PASSPHRASE), in_agent=True)
    assert (file.pairs, file.public_data, file.problem) == ((), _public(path), None)


def test_a_public_key(make_key: MakeKey) -> None:
    """It names one of the agent's keys; where the agent has none for it, a private key is wanted."""
    public = Path(f"{make_key()}.pub")
    file = _load(public, in_agent=True)
    assert (file.pairs, file.public_data, file.problem) == ((), _public(public), None)
    assert (
        _load(public).problem == f"key {public} is a public key, and no agent has its private one; give a private key"
    )


def test_a_certificate_beside_a_key(tmp_path: Path, make_key: MakeKey) -> None:
    """`<key>-cert.pub` is found and offered before the plain key; a new one takes its place without a restart."""
    key = tmp_path / "key"
    key.write_bytes(make_key().read_bytes())
    authority = asyncssh.generate_private_key("ssh-ed25519")

    def sign(name: str) -> bytes:
        certificate = authority.generate_user_certificate(asyncssh.read_private_key(str(key)), name)
        certificate.write_certificate(f"{key}-cert.pub")
        return certificate.public_data

    first = sign("first")
    file = _load(key)
    assert [pair.public_data for pair in file.pairs] == [first, _public(make_key())]
    second = sign("second, which is longer")
    file.refresh_now()
    assert [pair.public_data for pair in file.pairs] == [second, _public(make_key())]


def test_a_key_that_is_replaced(tmp_path: Path, make_key: MakeKey, caplog: pytest.LogCaptureFixture) -> None:
    """The new key counts from then on; nonsense does not, and is told."""
    key = tmp_path / "key"
    key.write_bytes(make_key("ed25519").read_bytes())
    file = _load(key)
    key.write_bytes(make_key("ecdsa").read_bytes())
    file.refresh_now()
    assert [pair.public_data for pair in file.pairs] == [_public(make_key("ecdsa"))]
    assert file.public_data == _public(make_key("ecdsa"))
    key.write_text("nonsense")
    file.refresh_now()
    file.refresh_now()
    assert [pair.public_data for pair in file.pairs] == [_public(make_key("ecdsa"))]
    (message,) = caplog.messages
    assert message.startswith(f"key {key} has changed and cannot be read: ")


@pytest.mark.slow
@pytest.mark.parametrize("becomes", ["a pipe", "endless", "a folder", "missing"])
def test_a_key_that_cannot_be_read_for_a_while(
    tmp_path: Path, make_key: MakeKey, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    """The old key stays in force, one line says why, no memory is taken; the key that is back counts."""
    monkeypatch.setattr(keys_module, "_LOOK_SECONDS", 0.1)
    key = tmp_path / "key"
    key.write_bytes(make_key("ed25519").read_bytes())
    file = _load(key)
    key.unlink()
    if becomes == "a pipe":
        os.mkfifo(key)
    elif becomes == "endless":
        key.symlink_to("/dev/zero")
    elif becomes == "a folder":
        key.mkdir()
    for _ in range(3):
        file.refresh_now()
    assert [pair.public_data for pair in file.pairs] == [_public(make_key("ed25519"))]
    (message,) = caplog.messages
    assert message.startswith(f"key {key} has changed and cannot be read: ")
    if key.is_dir():
        key.rmdir()
    key.unlink(missing_ok=True)
    key.write_bytes(make_key("ecdsa").read_bytes())
    file.refresh_now()
    assert [pair.public_data for pair in file.pairs] == [_public(make_key("ecdsa"))]


def test_a_key_from_a_pipe(tmp_path: Path, make_key: MakeKey) -> None:
    """`-k <(vault ...)`: it is read once, and that is enough."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = make_key("ed25519").read_bytes()
    writing = threading.Thread(target=pipe.write_bytes, args=(data,))
    writing.start()
    assert [pair.public_data for pair in _load(pipe).pairs] == [_public(make_key("ed25519"))]
    writing.join(10)


def test_several_keys_in_a_file(tmp_path: Path, make_key: MakeKey) -> None:
    """Each of them is offered."""
    paths = [make_key("ed25519"), make_key("ecdsa")]
    (tmp_path / "keys").write_bytes(b"".join(path.read_bytes() for path in paths))
    assert [pair.public_data for pair in _load(tmp_path / "keys").pairs] == [_public(path) for path in paths]


@pytest.mark.slow
def test_a_passphrase_is_remembered_for_a_renewed_certificate(tmp_path: Path, make_key: MakeKey) -> None:
    """Nobody is asked again because a certificate was renewed."""
    key = tmp_path / "key"
    key.write_bytes(make_key(passphrase=_PASSPHRASE).read_bytes())
    person = Person(_PASSPHRASE)
    file = _load_with(key, person)
    authority = asyncssh.generate_private_key("ssh-ed25519")
    private = asyncssh.read_private_key(str(key), _PASSPHRASE)
    authority.generate_user_certificate(private, "id").write_certificate(f"{key}-cert.pub")
    file.refresh_now()
    assert [pair.has_cert for pair in file.pairs] == [True, False]
    assert person.asked_for == [key]


def _load_with(path: Path, person: Person) -> KeyFile:
    return KeyFile(path, person.ask, lambda _public: False)


def test_a_missing_key(tmp_path: Path) -> None:
    """The message names the file and the reason."""
    with pytest.raises(UsageError, match=r"key .*nowhere: no such file or directory"):
        _load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_no_key(tmp_path: Path, content: str) -> None:
    """A file that is no key is named, with what one is, and nobody is asked for its passphrase."""
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"key .*/key: .*; give a private key in PEM or OpenSSH format"):
        _load(path)
