"""Programs that fleetmem starts: what they inherit, and that none outlives it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SETTING_PREFIX = "FLEETMEM_"

_groups: set[int] = set()
_lock = threading.Lock()


def environment() -> dict[str, str]:
    """Returns the environment of a program: this process's own, without settings of fleetmem, which may be secret."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SETTING_PREFIX)}


@contextmanager
def known(pid: int) -> Iterator[None]:
    """Lets `kill_all` end a program, which leads a process group of its own, within the context."""
    add(pid)
    try:
        yield
    finally:
        remove(pid)


def add(pid: int) -> None:
    """Lets `kill_all` end a program, which leads a process group of its own."""
    with _lock:
        _groups.add(pid)


def remove(pid: int) -> None:
    """Forgets a program that has ended: its number may soon be another's."""
    with _lock:
        _groups.discard(pid)


def kill_all() -> None:
    """Ends all programs that still run, with all that they have started; waits for nothing."""
    for pid in list(_groups):  # without the lock: the thread that has it may hang
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
