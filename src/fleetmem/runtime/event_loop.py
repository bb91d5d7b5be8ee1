"""The event loop: uvloop where it is installed, name look-ups that do not wait for each other, enough open files."""

import asyncio
import ipaddress
import logging
import resource
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fleetmem.runtime.side_thread import start_thread

log = logging.getLogger(__name__)

_LOOKUPS_AT_ONCE = 512
_MOST_ABANDONED = 512  # look-ups that hang while nobody waits for them; each keeps a thread
_SLOT_SECONDS = 10.0
FILES_FOR_OURSELVES = 64

_T = TypeVar("_T")


class _LookupMixin:
    """Looks names up in a thread each.

    getaddrinfo blocks for as long as a dead name server makes it, 20 s and more. With libuv all names share two
    threads, and Python waits for an executor at exit. These threads are daemons: after a time limit they stay behind.

    What is an IP address already takes no thread. uvloop asks for that once more with each connection.
    """

    _slots: asyncio.Semaphore | None = None
    _abandoned = 0

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - asyncio's name
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[Any, ...]]:
        """Does what `socket.getaddrinfo` does, while the loop goes on; OSError also where there may be no thread."""
        if _is_address(host):
            return list(socket.getaddrinfo(host, port, family, type, proto, flags | socket.AI_NUMERICHOST))
        loop = asyncio.get_running_loop()
        slots = await self._slot()
        found: asyncio.Future[list[tuple[Any, ...]]] = loop.create_future()
        is_abandoned = False

        def settle(result: list[tuple[Any, ...]], error: Exception | None) -> None:
            if is_abandoned:
                self._abandoned -= 1
            else:
                slots.release()
            if found.done():  # its limit has passed
                return
            if error:
                found.set_exception(error)
            else:
                found.set_result(result)

        def look_up() -> None:
            result: list[tuple[Any, ...]] = []
            problem: Exception | None = None
            try:
                result = list(socket.getaddrinfo(host, port, family, type, proto, flags))
            except Exception as error:  # noqa: BLE001 - it is the caller's
                problem = error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, result, problem)

        try:
            start_thread(look_up, f"look up {host}")
        except OSError:
            slots.release()
            raise
        try:
            return await found
        except asyncio.CancelledError:
            if found.cancelled() and self._abandoned < _MOST_ABANDONED:
                is_abandoned = True  # others need not wait for a name server that never answers
                self._abandoned += 1
                slots.release()
            raise

    async def _slot(self) -> asyncio.Semaphore:
        """Returns the slots when one of them is the caller's.

        Raises:
            gaierror: all are taken by look-ups that hang.
        """
        slots = self._slots = self._slots or asyncio.Semaphore(_LOOKUPS_AT_ONCE)
        try:
            async with asyncio.timeout(_SLOT_SECONDS):
                await slots.acquire()
        except TimeoutError:
            hang = f"{_LOOKUPS_AT_ONCE} name look-ups hang; the name server does not answer"
            raise socket.gaierror(socket.EAI_AGAIN, hang) from None
        return slots


def _is_address(host: object) -> bool:
    try:
        ipaddress.ip_address(str(host).partition("%")[0])  # a zone follows the percent sign
    except ValueError:
        return False
    return True


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        base: Any = asyncio.SelectorEventLoop
    else:
        base = uvloop.Loop
    loop: asyncio.AbstractEventLoop = type("Loop", (_LookupMixin, base), {"__module__": base.__module__})()
    return loop


def run_async(main: Coroutine[Any, Any, _T]) -> _T:
    """Runs a coroutine to its end; Ctrl-C cancels it and raises KeyboardInterrupt."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        try:
            return runner.run(main)
        except ExceptionGroup as group:
            raise first_error(group) from group


def first_error(error: Exception) -> Exception:
    """Returns the first error inside nested groups: what people are shown, and what picks the exit status."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def raise_file_limit(hosts: int, files: int, consequence: str = "") -> int:
    """Raises the limit of open files as far as needed and allowed.

    Args:
        hosts: of the fleet.
        files: that it takes to be connected to all of them.
        consequence: what to say where they are too many; `{fits}` is how many hosts fit.

    Returns:
        How many hosts can be connected at the same time, 1 at least.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files + FILES_FOR_OURSELVES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = soft - FILES_FOR_OURSELVES
    fits = hosts if room >= files else max(1, hosts * room // files)
    if fits < hosts and consequence:
        told = consequence.format(fits=fits)
        mend = f"`ulimit -n {needed}` as root, or LimitNOFILE={needed} in the systemd unit, raises that"
        log.warning("%d hosts need %d open files, %d are allowed: %s. %s", hosts, needed, soft, told, mend)
    return fits


def file_limit() -> int:
    """Returns how many files may be open now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
