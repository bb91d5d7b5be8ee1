"""Threads for calls that block: a disk or a server that hangs holds up neither the loop nor the process's end."""

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

_T = TypeVar("_T")

_MOST_LEFT_BEHIND = 64
"""Calls of one name that may hang at the same time; each keeps a thread and 8 MB of address space."""

_left_behind: Counter[str] = Counter()
_left_behind_lock = threading.Lock()


async def call_aside(
    work: Callable[[], _T], *, name: str, limit_seconds: float, discard: Callable[[_T], None] | None = None
) -> _T:
    """Returns the result of a call that blocks, made in a thread of its own while the event loop goes on.

    After the limit, or when the caller is cancelled, the thread is left behind: neither the loop nor the end of the
    process waits for it.

    Args:
        work: the call.
        name: what is done, for messages and for the thread.
        limit_seconds: how long the caller waits.
        discard: is called with a result that comes when nobody waits for it any more, to close what it holds.

    Raises:
        TimeoutError: the call is not done within the limit, or too many calls of this name hang already.
        OSError: no thread can be started; the call is not made.
    """
    with _left_behind_lock:
        if _left_behind[name] >= _MOST_LEFT_BEHIND:
            raise TimeoutError(f"{name}: {_MOST_LEFT_BEHIND} calls before this one still hang")
        _left_behind[name] += 1

    def settled_work() -> _T:
        try:
            return work()
        finally:
            _forget(name)

    thread = SideThread(name)
    try:
        future = thread.call(settled_work, discard)
    except OSError:
        _forget(name)
        raise
    try:
        async with asyncio.timeout(limit_seconds) as limit:
            return await future
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(f"{name}: not done after {limit_seconds:g} s") from error
        raise
    finally:
        thread.end()


def _forget(name: str) -> None:
    with _left_behind_lock:
        _left_behind[name] -= 1


def start_thread(work: Callable[[], None], name: str) -> threading.Thread:
    """Returns a thread that does the work, and for which the end of the process does not wait.

    Raises:
        OSError: there are as many as may be.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError("no more threads may be started on this machine (ulimit -u, TasksMax)") from error
    return thread


def look_at_error(future: asyncio.Future[Any]) -> None:
    """Looks at the error of a call that nobody may ask about any more: else asyncio reports it."""
    if not future.cancelled():
        future.exception()


class SideThread:
    """Runs calls one after the other.

    `concurrent.futures` joins its threads when the interpreter ends, for ever where a disk has gone away; this one is a
    daemon, and is left behind.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], _T], discard: Callable[[_T], None] | None = None) -> asyncio.Future[_T]:
        """Returns the future result of a call; who cancels it does not stop the call.

        Args:
            work: the call.
            discard: is called on the loop with the result of a call that was cancelled.

        Raises:
            OSError: there is no thread, and may be no more; the call is not done.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                if discard and not error:
                    discard(result)
                return
            if error:
                future.set_exception(error)
            else:
                future.set_result(result)

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 - it is the caller's
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        if self._thread is None or not self._thread.is_alive():
            self._thread = start_thread(self._run, self._name)
        self._calls.put(run)
        return future

    def end(self) -> None:
        """Lets the thread end after the calls that it has."""
        self._calls.put(None)

    def _run(self) -> None:
        while (run := self._calls.get()) is not None:
            run()
