"""Bugs of fleetmem itself: each costs what it happened to, and nothing else.

Each is counted, and logged once per place and type. A bug is any `Exception` that nobody expects where it surfaces.
Cancellation and interrupts are none.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from fleetmem.errors import PluginBugError

log = logging.getLogger(__name__)

MOST_TRACEBACKS = 1000
_MESSAGE_CHARACTERS = 1000  # a host may have its say in it
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0


class Bugs:
    """Counts bugs, and logs the first one of each place and type with its traceback.

    Args:
        is_strict: each bug surfaces where it is noted, for tests.

    Attributes:
        total: how many there were.
    """

    def __init__(self, *, is_strict: bool = False) -> None:
        self.total = 0
        self.is_strict = is_strict
        self._logged: set[tuple[str, type[BaseException]]] = set()

    def note(self, place: str, bug: Exception) -> None:
        """Counts a bug, of fleetmem or of a plug-in.

        Args:
            place: what it happened to, for people: a host, a sink.
            bug: the exception; raised again where this is strict.
        """
        if self.is_strict:
            raise bug
        self.total += 1
        is_ours = not isinstance(bug, PluginBugError)
        key = place, type(bug if is_ours else bug.__cause__ or bug)
        if key in self._logged or len(self._logged) >= MOST_TRACEBACKS:
            return
        self._logged.add(key)
        facts = {"place": place, "kind": "internal"}
        whose = "in fleetmem, please report it" if is_ours else "in a plug-in, please report it to its author"
        log.error("a bug %s: %s", whose, _short(bug), extra=facts, exc_info=_cut(bug))
        if len(self._logged) == MOST_TRACEBACKS:
            log.error("further bugs are counted (bugs_total) and no longer logged")

    @contextmanager
    def caught(self, place: str) -> Iterator[None]:
        """Notes a bug in what is done inside, and goes on after it."""
        try:
            yield
        except Exception as bug:  # noqa: BLE001 - that is what it is for
            self.note(place, bug)

    async def keep_running(self, place: str, run: Callable[[], Awaitable[None]]) -> None:
        """Awaits what `run` returns; where a bug ends that, begins it again, each time after a longer wait."""
        wait_seconds = _FIRST_WAIT_SECONDS
        while True:
            try:
                await run()
            except Exception as bug:  # noqa: BLE001 - that is what it is for
                self.note(place, bug)
            else:
                return
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)


def _short(bug: Exception) -> str:
    return f"{type(bug).__name__}: {bug}"[:_MESSAGE_CHARACTERS]


def _cut(bug: Exception) -> Exception:
    """Returns a bug with a message of bounded length, and its traceback."""
    if len(str(bug)) <= _MESSAGE_CHARACTERS:
        return bug
    return RuntimeError(_short(bug)).with_traceback(bug.__traceback__)
