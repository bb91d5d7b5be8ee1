"""Hosts with accounts and files of their own: each sees this machine's files, and what it changes nobody else sees."""

import hashlib
import os
import pwd
import re
import signal
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import servers
from .servers import Sshd, descendants, find_tool, missing

ADMIN = "ops"

_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_LIKE_INSTALLED = f"""AuthorizedKeysFile .ssh/authorized_keys
StrictModes yes
Subsystem sftp internal-sftp
AllowUsers root {ADMIN} fleetmem
SetEnv LC_ALL=C
"""
_TRIAL = """
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
"""
# $1: a folder, the only one that is the same inside and outside; then the command.
# An overlay over /: its upper part, which /mnt shows, is what was changed here. The account may do everything by sudo.
_START = rf"""
mount --make-rprivate /
mkdir -p "$1/own"
mount -t tmpfs tmpfs "$1/own"
mkdir "$1/own/upper" "$1/own/work" "$1/own/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/own/upper,workdir=$1/own/work" "$1/own/root"
cd "$1/own/root"
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs tmpfs run
mkdir run/sshd
mount --bind "$1/own/upper" mnt
mkdir -p ".$1"
mount --bind "$1" ".$1"
echo "{ADMIN}:x:20001:20001::/home/{ADMIN}:/bin/sh" >>etc/passwd
echo "{ADMIN}:x:20001:" >>etc/group
echo "{ADMIN}:*:19000::::::" >>etc/shadow
echo "{ADMIN} ALL=(ALL) NOPASSWD: ALL" >etc/sudoers.d/{ADMIN}
chmod 440 etc/sudoers.d/{ADMIN}
mkdir -p home/{ADMIN}/.ssh
cp "$1/admin.pub" home/{ADMIN}/.ssh/authorized_keys
chown -R 20001:20001 home/{ADMIN}
mkdir -p root/.ssh
cp "$1/admin.pub" root/.ssh/authorized_keys
chmod go-w root root/.ssh
shift
exec chroot . "$@"
"""

State = tuple[int, int, int, str]
"""Of a file: mode, owner, group, and a hash of what is in it, or where it points to."""


@dataclass(frozen=True)
class OwnRoot:
    """A host.

    Attributes:
        sshd: lets in root; `ADMIN`, who may do everything by sudo; and an account that is yet to be made.
    """

    sshd: Sshd

    @property
    def root(self) -> Path:
        """Its files, as it sees them."""
        pid = next(pid for pid in descendants(self.sshd.pid) if _is_first(pid))
        return Path(f"/proc/{pid}/root")

    def read(self, path: str) -> str:
        """Returns the text of a file there; "" for none."""
        file = self.root / path
        return file.read_text() if file.exists() else ""

    def changes(self) -> dict[str, State]:
        """Returns the files that are not this machine's, or were written there."""
        upper = self.root / "mnt"
        return {str(path.relative_to(upper)): _state(path) for path in sorted(upper.rglob("*"))}

    def left_since(self, before: dict[str, State]) -> set[str]:
        """Returns the files that are not as they were when `changes` said `before`: new, gone or of other content."""
        now = self.changes()
        differing = {path for path, state in now.items() if state != (before.get(path) or _state(Path("/") / path))}
        return {path for path in differing | (before.keys() - now.keys()) if "__pycache__" not in path}


def _is_first(pid: int) -> bool:
    """Whether a process is the first one of its namespace of pids."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # gone in the meantime
        return False
    return bool(re.search(r"^NSpid:.*\s1$", status, re.MULTILINE))


def _state(path: Path) -> State:
    try:
        found = path.lstat()
    except OSError:
        return 0, 0, 0, ""
    if stat.S_ISLNK(found.st_mode):
        content = str(path.readlink())
    else:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(found.st_mode) else ""
    return found.st_mode, found.st_uid, found.st_gid, content


@contextmanager
def own_root(folder: Path, admin_key: Path, wrapper: Sequence[str] = ()) -> Iterator[OwnRoot]:
    """Starts a host.

    Args:
        folder: for its sshd.
        admin_key: private key, beside a public one that logs in as `ADMIN` or root.
        wrapper: words in front of its command.
    """
    if os.getuid() != 0:
        pytest.skip("only root can give a host files of its own")
    find_tool("sudo")
    trial = subprocess.run([*_UNSHARE, "/bin/sh", "-euc", _TRIAL], check=False, capture_output=True, text=True)
    if trial.returncode:
        pytest.skip(f"namespaces or overlays are not allowed here: {trial.stderr.strip()}")
    try:
        pwd.getpwnam("fleetmem")
    except KeyError:
        pass
    else:
        missing("a machine without an account fleetmem")
    folder.mkdir(parents=True)
    (folder / "admin.pub").write_text(admin_key.with_suffix(".pub").read_text())
    words = [*wrapper, *_UNSHARE, "/bin/sh", "-euc", _START, "sh", str(folder)]
    with servers.sshd(folder, options=_LIKE_INSTALLED, public_keys=[], wrapper=words) as sshd:
        try:
            yield OwnRoot(sshd)
        finally:
            for pid in descendants(sshd.pid):
                if _is_first(pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)  # and with it all that runs there
