"""Where a lab keeps its things: one directory, nothing outside of it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetmem.errors import LabError

DEFAULT_DIRECTORY = Path("~/.cache/fleetmem/lab")


class Directory:
    """The paths of a lab."""

    def __init__(self, path: Path) -> None:
        try:
            self.path = path.expanduser().resolve()
        except RuntimeError as error:  # ~somebody without a home
            raise LabError(f"{path}: {error}") from error
        self.state = self.path / "state.json"
        self.key = self.path / "key"
        self.authorized_keys = self.path / "authorized_keys"
        self.host_keys = self.path / "host_keys"
        self.known_hosts = self.path / "known_hosts"
        self.ssh_config = self.path / "ssh_config"
        self.hosts_file = self.path / "hosts.txt"
        self.config = self.path / "fleetmem.toml"
        self.logs = self.path / "log"
        self.graphite = self.path / "graphite"
        self.venv = self.path / "graphite-venv"

    def make(self) -> None:
        """Makes it, for this user only.

        Raises:
            LabError: it cannot be made.
        """
        try:
            for path in (self.path, self.logs, self.host_keys):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(f"directory {self.path}: {error.strerror}; give another one with --dir") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other `fleetmem lab` commands from changing the same lab at the same time.

        Raises:
            LabError: another one is at it.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise LabError(f"another `fleetmem lab` is at work in {self.path}; wait until it is done") from error
        finally:
            os.close(descriptor)


def write_private(path: Path, text: bytes) -> None:
    """Writes a file that only this user can read; it is never there half."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    new.replace(path)
