"""The state folder of one collector: found again by the same one, and locked against another."""

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path

_LOCK = "lock"
_DIGEST_DIGITS = 8


class HeldError(Exception):
    """Another process has the folder."""


def default_base() -> Path:
    """Returns where state is kept: what systemd says, then the XDG base directory specification."""
    if "STATE_DIRECTORY" in os.environ:
        return Path(os.environ["STATE_DIRECTORY"].partition(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "fleetmem"


class StateFolder:
    """A folder below a base, for one collector.

    Args:
        base: of all collectors on this machine.
        collector: the collector's id.
        identity: what tells two collectors with one id from each other: the path of the configuration and the shard.

    Attributes:
        path: the folder.
    """

    def __init__(self, base: Path, collector: str, identity: str) -> None:
        digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGEST_DIGITS]
        self.path = base.expanduser() / f"{collector}-{digest}"
        self._lock: int | None = None

    def claim(self) -> None:
        """Makes the folder where there is none, for the owner alone, and locks it until `release` or the end.

        Raises:
            HeldError: another process has locked it.
            OSError: it cannot be made or written to.
        """
        if self._lock is not None:
            return
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise HeldError(f"another fleetmem uses {self.path}") from error
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor

    def check(self) -> None:
        """Makes nothing. Raises OSError where the folder could not be made, or not be written."""
        found = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not found.is_dir():
            raise NotADirectoryError(f"{found} is no folder")
        if not os.access(found, os.W_OK | os.X_OK):
            raise PermissionError(f"{found} cannot be written by this user")
        if os.statvfs(found).f_flag & os.ST_RDONLY:
            raise PermissionError(f"{found} is on a file system that is read-only")

    def release(self) -> None:
        """Lets another process have it."""
        if self._lock is not None:
            with suppress(OSError):
                os.close(self._lock)
            self._lock = None
