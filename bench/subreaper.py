"""A process that inherits what its children leave behind, so that the CPU of all of them can be taken.

PID 1 of a PID namespace where `unshare` may make one, otherwise a "child subreaper" (prctl(2)). Either way every
process that a child leaves behind becomes a child, so that after every child has been waited for, RUSAGE_CHILDREN
(getrusage(2)) holds the CPU of all of them. Nothing escapes, nothing counts twice.
"""

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""Put before a command, it is PID 1."""

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER in linux/prctl.h
_POLL_SECONDS = 0.01


def can_have_own_pids() -> bool:
    """Whether this user may make a PID namespace."""
    try:
        return subprocess.run([*NAMESPACE, "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


def inherit_orphans() -> None:
    """Makes this process the parent of what its children leave behind."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def children(pid: int) -> set[int]:
    """Returns the children of a process, whichever of its threads started them."""
    found: set[int] = set()
    tasks = Path(f"/proc/{pid}/task")
    with suppress(OSError):  # the process has ended meanwhile
        for thread in os.listdir(tasks):  # noqa: PTH208 - not every Python's glob bears that it goes away
            # proc(5): exact where no child ends meanwhile; who needs it exact asks until it is empty.
            with suppress(OSError):  # the thread has
                found.update(map(int, (tasks / thread / "children").read_text(encoding="ascii").split()))
    return found


def reap_orphans(kept: Collection[int], seconds: float) -> None:
    """Waits for every child apart from those kept.

    Raises:
        TimeoutError: some have not ended in that time.
    """
    deadline = time.monotonic() + seconds
    while orphans := children(os.getpid()) - set(kept):
        for pid in orphans:
            os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            raise TimeoutError(f"they do not end: {orphans}")
        time.sleep(_POLL_SECONDS)


def cpu_of_children_seconds() -> float:
    """Returns user and system time of all children waited for, and of those that they waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
