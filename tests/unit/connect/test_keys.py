import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest

from fleetmem.connect.keys import load_default_keys, load_keys
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


def _public(path: Path) -> bytes:
    return asyncssh.read_public_key(f"{path}.pub").public_data


@pytest.mark.parametrize("key_format", _FORMATS)
@pytest.mark.parametrize("key_type", _TYPES)
def test_a_key_without_passphrase(make_key: MakeKey, key_type: str, key_format: str) -> None:
    """Every usual type and format is read, and nobody is asked for anything."""
    person = Person()
    path = make_key(key_type, key_format)
    (pair,) = load_keys([path], person.ask)
    assert pair.public_data == _public(path)
    assert not person.asked_for


@pytest.mark.parametrize("key_format", _FORMATS)
@pytest.mark.parametrize("key_type", _TYPES)
def test_an_encrypted_key(make_key: MakeKey, key_type: str, key_format: str) -> None:
    """The passphrase is asked for once, with the key's name."""
    person = Person(_PASSPHRASE)
    path = make_key(key_type, key_format, _PASSPHRASE)
    (pair,) = load_keys([path], person.ask)
    assert pair.public_data == _public(path)
    assert person.asked_for == [path]


@pytest.mark.parametrize(("key_type", "key_format"), _ENCRYPTIONS)
def test_a_wrong_passphrase_may_be_corrected(make_key: MakeKey, key_type: str, key_format: str) -> None:
    """A slip of the finger is no reason to stop."""
    person = Person("wrong", "Sesame", _PASSPHRASE)
    assert len(load_keys([make_key(key_type, key_format, _PASSPHRASE)], person.ask)) == 1
    assert not person.answers


@pytest.mark.parametrize(("key_type", "key_format"), _ENCRYPTIONS)
def test_three_wrong_passphrases(make_key: MakeKey, key_type: str, key_format: str) -> None:
    """After three tries it ends with the key's name."""
    person = Person("a", "b", "c", "d")
    with pytest.raises(UsageError, match=f"{key_type}-{key_format}-sesame: wrong passphrase"):
        load_keys([make_key(key_type, key_format, _PASSPHRASE)], person.ask)
    assert person.answers == ["d"]


def test_nobody_to_ask(make_key: MakeKey) -> None:
    """In a script or a daemon the message says what to do instead."""
    with pytest.raises(
        UsageError, match="is encrypted and nobody is there to type its passphrase: load it with ssh-add"
    ):
        load_keys([make_key(passphrase=_PASSPHRASE)], Person(None).ask)


def test_several_keys_in_order(make_key: MakeKey) -> None:
    """Keys are offered in the order given."""
    paths = [make_key("rsa"), make_key("ed25519"), make_key("ecdsa")]
    assert [pair.public_data for pair in load_keys(paths, Person().ask)] == [_public(path) for path in paths]


def test_a_certificate_beside_a_key(tmp_path: Path, make_key: MakeKey) -> None:
    """`<key>-cert.pub` is found and offered together with the plain key."""
    key = tmp_path / "key"
    key.write_bytes(make_key().read_bytes())
    authority = asyncssh.generate_private_key("ssh-ed25519")
    certificate = authority.generate_user_certificate(asyncssh.read_private_key(str(key)), "id")
    certificate.write_certificate(f"{key}-cert.pub")
    assert [pair.has_cert for pair in load_keys([key], Person().ask)] == [True, False]


def test_a_key_in_home(home: Path, make_key: MakeKey) -> None:
    """A tilde means home."""
    (home / "key.pem").write_bytes(make_key().read_bytes())
    assert len(load_keys([Path("~/key.pem")], Person().ask)) == 1


def test_a_missing_key(tmp_path: Path) -> None:
    """The message names the file and the reason."""
    with pytest.raises(UsageError, match=r"key .*nowhere: no such file or directory"):
        load_keys([tmp_path / "nowhere"], Person().ask)


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_no_key(tmp_path: Path, content: str) -> None:
    """A file that is no key is named, with what one is, and nobody is asked for its passphrase."""
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"key .*/key: .*; give a private key in PEM or OpenSSH format"):
        load_keys([path], Person().ask)


def test_a_public_key_is_no_private_key(make_key: MakeKey) -> None:
    """A .pub given by mistake is refused."""
    with pytest.raises(UsageError, match="give a private key"):
        load_keys([Path(f"{make_key()}.pub")], Person().ask)


def test_default_keys(home: Path, make_key: MakeKey) -> None:
    """The usual names in ~/.ssh are read; encrypted ones are left to the agent, other names alone."""
    folder = home / ".ssh"
    folder.mkdir()
    (folder / "id_ed25519").write_bytes(make_key("ed25519").read_bytes())
    (folder / "id_rsa").write_bytes(make_key("rsa", "PEM").read_bytes())
    (folder / "id_ecdsa").write_bytes(make_key("ecdsa", passphrase=_PASSPHRASE).read_bytes())
    (folder / "work").write_bytes(make_key("ecdsa").read_bytes())
    expected = [_public(make_key("ed25519")), _public(make_key("rsa", "PEM"))]
    assert [pair.public_data for pair in load_default_keys()] == expected


def test_no_default_keys(home: Path) -> None:
    """Without ~/.ssh there are none."""
    assert not (home / ".ssh").exists()
    assert load_default_keys() == []
