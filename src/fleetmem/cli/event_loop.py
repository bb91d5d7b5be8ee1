"""The event loop: uvloop where it is installed, name look-ups that do not wait for each other, enough open files."""

import asyncio
import resource
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_LOOKUP_THREADS = 64  # getaddrinfo blocks a thread; the default pool has about the cores plus four
_FILES_FOR_OURSELVES = 64

_T = TypeVar("_T")


def run_async(main: Coroutine[Any, Any, _T]) -> _T:
    """Runs a coroutine to its end; Ctrl-C cancels it and raises KeyboardInterrupt."""
    try:
        import uvloop
    except ImportError:
        loop_factory = None
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.get_loop().set_default_executor(ThreadPoolExecutor(_LOOKUP_THREADS, "lookup"))
        try:
            return runner.run(main)
        except ExceptionGroup as group:
            raise _first(group) from group


def _first(error: Exception) -> Exception:
    """Returns the first error inside nested groups: what a person is told, and what picks the exit status."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def raise_file_limit(wanted: int) -> int:
    """Raises the limit of open files as far as needed and allowed; returns how many connections fit, 1 at least."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _FILES_FOR_OURSELVES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft - _FILES_FOR_OURSELVES))
