"""Several blocking calls at once, with a limit that holds whatever hangs: a disk, a resolver, a peer that drips."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from fleetmem.runtime.side_thread import start_thread

_T = TypeVar("_T")


class Call(Generic[_T]):
    """One call in a thread of its own. One that hangs is left behind: the end of the process does not wait for it."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self._result: list[_T] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        try:
            self._thread = start_thread(self._run, "inventory")
        except OSError as error:
            self._error = error

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            self._error = error

    def wait(self, until: float) -> bool:
        """Waits until it is done, at most until then (monotonic seconds); returns whether it is."""
        if self._thread is None:
            return True
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def result(self) -> _T:
        """Returns what the call returned, or raises what it raised, OSError without a thread; only once it is done."""
        if self._error:
            raise self._error
        return self._result[0]


def run_all(works: Sequence[Callable[[], _T]], timeout_seconds: float) -> list[_T]:
    """Returns what the calls return, in their order.

    Raises:
        TimeoutError: one is not done in time.
        Exception: what the first of them raised that failed.
    """
    until = time.monotonic() + timeout_seconds
    calls = [Call(work) for work in works]
    if not all(call.wait(until) for call in calls):
        raise TimeoutError
    return [call.result() for call in calls]
