from pathlib import Path

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.ansible_config import AnsibleSettings, find_file, read_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder and a home without an ansible.cfg."""
    folder = tmp_path / "folder"
    for name in ("here", "home"):
        (folder / name).mkdir(mode=0o755, parents=True)
    monkeypatch.chdir(folder / "here")
    monkeypatch.setenv("HOME", str(folder / "home"))
    return folder


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_where_the_file_is_found(folder: Path) -> None:
    """The environment's first, then the current folder's, then the home's."""
    home = _write(folder / "home" / ".ansible.cfg", "")
    assert find_file({}) == home
    here = _write(folder / "here" / "ansible.cfg", "")
    assert find_file({}) == here
    other = _write(folder / "ansible.cfg", "")
    assert find_file({"ANSIBLE_CONFIG": str(other)}) == other
    assert find_file({"ANSIBLE_CONFIG": str(folder)}) == other
    assert find_file({"ANSIBLE_CONFIG": str(folder / "none")}) == here


def test_a_folder_that_everybody_may_write_to(folder: Path) -> None:
    """Somebody else may have put the file there."""
    _write(folder / "here" / "ansible.cfg", "")
    (folder / "here").chmod(0o777)
    home = _write(folder / "home" / ".ansible.cfg", "")
    assert find_file({}) == home


def test_what_is_taken(folder: Path) -> None:
    """The file's, and the environment's where it says something else; quotation marks around all of it go."""
    _write(
        folder / "here" / "ansible.cfg",
        "[defaults]\nremote_user = file\nremote_port: 2200\nprivate_key_file=~/k ; of the fleet\n# x\n"
        "[ssh_connection]\nssh_args = \"-F cfg\"\nssh_common_args = -o ProxyCommand='ssh -W %h:%p b'\n",
    )
    assert read_settings({"ANSIBLE_REMOTE_USER": "environment"}) == AnsibleSettings(
        {
            "remote_user": "environment",
            "remote_port": "2200",
            "private_key_file": "~/k",
            "ssh_args": "-F cfg",
            "ssh_common_args": "-o ProxyCommand='ssh -W %h:%p b'",
        }
    )


def test_what_is_not_taken_is_told(folder: Path) -> None:
    """With the setting of ours that does it; what makes no difference is not."""
    path = _write(
        folder / "here" / "ansible.cfg",
        "[defaults]\nhost_key_checking = False\n[ssh_connection]\nssh_executable = ssh\ntimeout = 30\n",
    )
    assert read_settings({}).remarks == (
        f"{path}: host_key_checking is not taken over: set ssh.host_keys",
        f"{path}: timeout is not taken over: set ssh.connect_timeout_seconds",
    )


@pytest.mark.parametrize("text", ["remote_user = x\n", "[defaults]\nx\n y", "[defaults]\na=1\na=2\n", "\x00\n"])
def test_a_file_that_is_none(folder: Path, text: str) -> None:
    """Ansible refuses it, too."""
    path = _write(folder / "here" / "ansible.cfg", text)
    with pytest.raises(InventoryError, match=str(path)):
        read_settings({})
