"""The state file, and the configuration made from it."""

import stat
import tomllib
from pathlib import Path

import pytest

from fleetmem import config
from fleetmem.config import Server
from fleetmem.errors import LabError
from fleetmem.lab.access import make_keys, settings, write_files
from fleetmem.lab.directory import Directory
from fleetmem.lab.process import Identity
from fleetmem.lab.state import LabProcess, State, read_state

ADDRESSES = [("127.0.1.1", 2222), ("127.0.1.2", 2222)]


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    """A lab's directory, empty."""
    directory = Directory(tmp_path / "a lab")
    directory.make()
    return directory


@pytest.fixture
def state() -> State:
    """A lab of two hosts."""
    member = LabProcess("host-1", "127.0.1.1:2222", Identity(4_000_000, 7, "boot"))
    return State(2, ["127.0.1.1", "127.0.1.2"], 2222, is_isolated=True, statsd_port=8125, members=[member])


def test_state_is_read_as_it_was_written(directory: Directory, state: State) -> None:
    """Nothing is lost on the way to the file and back; a process of another boot does not run."""
    state.write(directory.state)
    assert read_state(directory.state) == state
    assert not state.is_running


def test_no_state(directory: Directory) -> None:
    """No file, no lab."""
    assert read_state(directory.state) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"members": [{}]}', '{"members": [], "colour": "red"}'])
def test_damaged_state_is_told(directory: Directory, text: str) -> None:
    """A file that is none of ours is named, not guessed at."""
    directory.state.write_text(text)
    with pytest.raises(LabError, match=r"state\.json cannot be read"):
        read_state(directory.state)


def test_files_are_private_and_say_the_same(directory: Directory, state: State) -> None:
    """The TOML file is what the demo uses; it loads; keys are for this user only, and stay the same."""
    keys = make_keys(directory, 2)
    write_files(directory, state, ADDRESSES)
    assert tomllib.loads(directory.config.read_text()) == settings(directory, state)
    loaded = config.load(directory.config, {})
    assert loaded.inventory.hosts == ("127.0.1.1", "127.0.1.2")
    assert (loaded.ssh.port, loaded.run.interval_seconds) == (2222, 2)
    assert loaded.statsd.servers() == [Server("udp", "127.0.0.1", 8125)]
    private = directory.key.read_bytes()
    assert make_keys(directory, 2) == keys
    assert directory.key.read_bytes() == private
    for path in (*keys, directory.key, directory.known_hosts, directory.config, directory.state.parent):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert [line.split()[0] for line in directory.known_hosts.read_text().splitlines()] == [
        "[127.0.1.1]:2222",
        "[127.0.1.2]:2222",
    ]
    assert len({path.read_text() for path in keys}) == 2


def test_one_command_at_a_time(directory: Directory) -> None:
    """A second command on the same lab is refused while the first is at it."""
    with directory.locked(), pytest.raises(LabError, match="another"), directory.locked():
        pass
    with directory.locked():
        pass
