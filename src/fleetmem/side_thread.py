"""Threads for calls that block: a disk or a server that hangs holds up neither the loop nor the process's end."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


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


class SideThread:
    """Runs calls one after the other.

    `concurrent.futures` joins its threads when the interpreter ends, for ever where a disk has gone away; this one is a
    daemon, and is left behind.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Returns the future result of a call; who cancels it does not stop the call.

        Raises:
            OSError: there is no thread, and may be no more; the call is not done.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
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
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        if self._thread is None:
            self._thread = start_thread(self._run, self._name)
        self._calls.put(run)
        return future

    def end(self) -> None:
        """Lets the thread end after the calls that it has."""
        self._calls.put(None)

    def _run(self) -> None:
        while (run := self._calls.get()) is not None:
            run()
