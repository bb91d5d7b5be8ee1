"""Files that are looked at again before they are used: beside the event loop, and nobody waits long for a disk."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from fleetmem.runtime.side_thread import call_aside

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 1.0
"""A login waits so long for a look at a file; then it goes on with what was read before."""

_LIMIT_SECONDS = 10.0
_GAP_SECONDS = 0.5  # logins come in hundreds: one look is for all of them

_T = TypeVar("_T")


class Refresh(Generic[_T]):
    """Looks again at what may have changed. All who come meanwhile share one look.

    Args:
        look: reads, in another thread; what it returns is used in the event loop.
        use: takes what was read.
        name: what is looked at, for messages and for the thread.
    """

    def __init__(self, look: Callable[[], _T], use: Callable[[_T], None], name: str) -> None:
        self._look = look
        self._use = use
        self._name = name
        self._looking: asyncio.Task[None] | None = None
        self._begun_at = 0.0
        self._is_told = False

    def begin(self) -> None:
        """Begins to look, unless that goes on already, or was done just now."""
        now = time.monotonic()
        if self._looking is None and now >= self._begun_at + _GAP_SECONDS:
            self._begun_at = now
            self._looking = asyncio.create_task(self._run())

    async def wait(self) -> None:
        """Waits for a look that has begun; not for one that takes so long that a disk must hang."""
        left_seconds = self._begun_at + _PATIENCE_SECONDS - time.monotonic()
        if self._looking and left_seconds > 0:
            await asyncio.wait({self._looking}, timeout=left_seconds)

    async def _run(self) -> None:
        try:
            self._use(await call_aside(self._look, name=self._name, limit_seconds=_LIMIT_SECONDS))
        except OSError as error:  # TimeoutError is one
            if not self._is_told:
                log.warning("%s; what was read before stays in force", error)
            self._is_told = True
        else:
            self._is_told = False
        finally:
            self._looking = None
