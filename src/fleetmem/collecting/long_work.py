"""The work on a frame that may take long, done so that other hosts have their turns meanwhile."""

import time
from functools import partial

from fleetmem.collecting.work_share import LONG_FRAME_BYTES, Turn
from fleetmem.connect.link import ProbeAnswer
from fleetmem.errors import HostError, Kind, Stage
from fleetmem.model import Snapshot
from fleetmem.probe.dialogue import Dialogue
from fleetmem.runtime.pattern import Pattern
from fleetmem.runtime.side_thread import SideThread
from fleetmem.shape.shaper import Shaper

_NAMES_AT_ONCE = 20  # at a limit of time for each: others' names wait for them


class LongWork:
    """Parses long frames, and applies people's rules to new names, beside the event loop or in portions."""

    def __init__(self) -> None:
        self._aside = SideThread("long work")

    async def parse(self, dialogue: Dialogue, shaper: Shaper, answer: ProbeAnswer, turn: Turn) -> Snapshot:
        """Parses a frame, and applies people's rules to the names in it that are new.

        Raises:
            HostError: see `Dialogue`; or a pattern needs a process of its own, and none can be started; or the
                host has cost too much.
        """
        await turn.begin(len(answer.frame))
        snapshot = await self._parse(dialogue, answer, turn)
        await turn.rest()
        await self._decide(shaper, snapshot, turn)
        return snapshot

    async def _parse(self, dialogue: Dialogue, answer: ProbeAnswer, turn: Turn) -> Snapshot:
        """Parses a frame; a long one in a thread, which lets the event loop go on every few milliseconds."""
        if len(answer.frame) <= LONG_FRAME_BYTES:
            return dialogue.parse(answer.frame, answer.asked_unix_seconds)
        seconds: list[float] = []

        def parse() -> Snapshot:
            begun = time.thread_time()
            try:
                return dialogue.parse(answer.frame, answer.asked_unix_seconds)
            finally:
                seconds.append(time.thread_time() - begun)

        with turn.paused():
            try:
                return await self._aside.call(parse)
            except OSError:  # no thread can be started now
                return parse()
            finally:
                turn.charge(sum(seconds))

    async def _decide(self, shaper: Shaper, snapshot: Snapshot, turn: Turn) -> None:
        """Applies people's rules to the names that are new: the one thing whose time grows with more than a name."""
        if not shaper.name_patterns or not (names := shaper.undecided(snapshot)):
            return
        turn.measure()
        for first in range(0, len(names), _NAMES_AT_ONCE):
            portion = names[first : first + _NAMES_AT_ONCE]
            for pattern in shaper.name_patterns:
                if isinstance(pattern, Pattern) and not pattern.is_bounded:
                    with turn.paused():
                        turn.charge(await self._look_up(pattern, portion))
            for name in portion:
                shaper.decide([name])
                await turn.rest()

    async def _look_up(self, pattern: Pattern, names: list[str]) -> float:
        try:
            return await self._aside.call(partial(pattern.look_up, names))
        except OSError as error:
            message = f"no process can be started here to search with pattern {pattern.pattern!r}: {error}"
            raise HostError(Stage.SHAPE, Kind.COMMAND_FAILED, message) from error

    def end(self) -> None:
        """Lets the thread end."""
        self._aside.end()
