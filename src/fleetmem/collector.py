"""The main path.

     inventory ──> connect ──> probe ──> shape ──> sinks
     which hosts   link.ask    parse     limits    put

One `Collector` holds a fleet: for each host a link, a parser and a shaper. `sample` takes one host all the way: only
there the stages follow each other. A host has one outcome per cycle, a `Sample` or a `Failure`. A collector is
built from plain values and callables (see `build`), and touches no signal, no global and no terminal.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from fleetmem.collecting.members import Member, Members
from fleetmem.collecting.visit import Visit
from fleetmem.collecting.work_share import FREE_FRAME_BYTES, Turn
from fleetmem.connect.link import Link
from fleetmem.errors import HostError, Stage
from fleetmem.model import Host, Outcome, Sample
from fleetmem.probe.dialogue import Dialogue, OutOfStepError
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.sink import Sink
from fleetmem.telemetry.bugs import Bugs


class Collector(Members):
    """Samples hosts and hands their outcomes to the sinks.

    Args:
        make_link: makes the connection to a host; nothing is connected before its first sample.
        make_dialogue: makes what asks a host and reads its answers.
        make_shaper: makes what a host's snapshots are shaped by.
        sinks: where outcomes go.
        bugs: counts what goes wrong by a fault of ours; its own where there is none.
        is_strict: bugs surface, for tests.

    Attributes:
        sinks: see above.
    """

    def __init__(
        self,
        make_link: Callable[[Host], Link],
        make_dialogue: Callable[[Host], Dialogue],
        make_shaper: Callable[[Host], Shaper],
        sinks: Iterable[Sink],
        bugs: Bugs | None = None,
        *,
        is_strict: bool = False,
    ) -> None:
        super().__init__(make_link, make_dialogue, make_shaper, bugs or Bugs(is_strict=is_strict))
        self.sinks = list(sinks)

    async def sample(self, host: Host, slot_unix_seconds: float | None = None, *, is_last: bool = False) -> Outcome:
        """Samples a host: ask, parse, shape, put. Returns its outcome of this cycle, also after a bug.

        Args:
            host: which.
            slot_unix_seconds: the time of its slot; None for the moment of asking.
            is_last: whether there is no other cycle: then a failure speaks of no next attempt.
        """
        visit = Visit(host, time.monotonic(), time.time(), slot_unix_seconds, is_last=is_last)
        stage, turn = Stage.COMMAND, None
        try:
            try:
                member, shaper = self._member(host)
                if host in self.work.costly:
                    self.work.check(host)
                member.link.is_last_visit = is_last
                dialogue = member.dialogue
                answer = await member.link.ask(dialogue.request, dialogue.first_request)
                stage = Stage.PARSE
                try:
                    if len(answer.frame) > FREE_FRAME_BYTES or shaper.name_patterns:
                        turn = Turn(self.work, host)
                        snapshot = await self.long_work.parse(dialogue, shaper, answer, turn)
                    else:
                        snapshot = dialogue.parse(answer.frame, answer.asked_unix_seconds)
                except OutOfStepError as error:
                    if turn:
                        turn.close()  # others need not wait while the host is asked again
                    turn = Turn(self.work, host)
                    answer, snapshot = await self._ask_for_all(member, shaper, turn, visit.begun_seconds, error)
                stage = Stage.SHAPE
                shaped = shaper.shape(snapshot, answer.asked_unix_seconds)
                if turn:
                    await turn.rest()
                asked, seconds = answer.asked_unix_seconds, time.monotonic() - visit.begun_seconds
                slot = slot_unix_seconds or asked
                outcome: Outcome = Sample(host, asked, seconds, len(answer.frame), shaped, slot_unix_seconds=slot)
            except HostError as error:
                outcome = visit.failure(error)
            except Exception as bug:  # noqa: BLE001 - a bug of ours costs one host, not the fleet
                outcome = visit.failure(await self._begin_anew(host, stage, bug))
            for sink in self.sinks:
                try:
                    sink.put(outcome)
                except Exception as bug:  # noqa: BLE001 - a bug of ours costs one sink, not the others
                    self.bugs.note(f"sink {sink.name}", bug)
            return outcome
        finally:
            if turn:
                turn.close()

    def _member(self, host: Host) -> tuple[Member, Shaper]:
        """Returns what there is of a host, made where it is missing."""
        if not (member := self._members.get(host)):
            member = self._members[host] = Member(self._make_link(host), self._make_dialogue(host))
        return member, self._shapers.get(host) or self._shapers.setdefault(host, self._make_shaper(host))

    async def collect(
        self,
        hosts: Iterable[Host],
        at_once: int,
        on_start: Callable[[Host], None],
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        """Runs one cycle and disconnects from each host after its sample.

        Args:
            hosts: to sample.
            at_once: hosts at the same time; handshakes have a limit of their own.
            on_start: called when a host's turn comes.
            on_outcome: called with each outcome as it comes.
        """
        slots = asyncio.Semaphore(at_once)

        async def visit(host: Host) -> None:
            async with slots:
                with self.bugs.caught("collect"):
                    on_start(host)
                    on_outcome(await self.sample(host, is_last=True))
                await self._forget_safely(host)

        async with asyncio.TaskGroup() as group:
            for host in hosts:
                group.create_task(visit(host))
