"""What the collector has of each host: a link, a parser and a shaper."""

import asyncio
import time
from collections.abc import Callable, Iterable, Set
from typing import NamedTuple

from fleetmem.collecting.long_work import LongWork
from fleetmem.collecting.work_share import Turn, WorkShare
from fleetmem.connect.link import Link, ProbeAnswer
from fleetmem.errors import HostError, Kind, Stage
from fleetmem.model import Host, Snapshot
from fleetmem.probe.dialogue import Dialogue, OutOfStepError
from fleetmem.shape.shaper import Shaper
from fleetmem.telemetry.bugs import Bugs

ASK_AGAIN_WITHIN_SECONDS = 1.0
"""Of the begin of a sample: later there is no time for another one in the slot."""


class Member(NamedTuple):
    """A host that has been sampled."""

    link: Link
    dialogue: Dialogue


class Members:
    """Keeps what there is of each host.

    Args:
        make_link: makes the connection to a host; nothing is connected before its first sample.
        make_dialogue: makes what asks a host and reads its answers.
        make_shaper: makes what a host's snapshots are shaped by.
        bugs: counts what goes wrong by a fault of ours.

    Attributes:
        bugs: see above.
        work: what hosts cost.
        long_work: what is not done on the event loop.
        frames_resynced_total: frames that did not lead to what the host said, so that everything was asked for again.
    """

    def __init__(
        self,
        make_link: Callable[[Host], Link],
        make_dialogue: Callable[[Host], Dialogue],
        make_shaper: Callable[[Host], Shaper],
        bugs: Bugs,
    ) -> None:
        self.bugs = bugs
        self.work = WorkShare()
        self.long_work = LongWork()
        self.frames_resynced_total = 0
        self._make_link = make_link
        self._make_dialogue = make_dialogue
        self._make_shaper = make_shaper
        self._members: dict[Host, Member] = {}
        self._shapers: dict[Host, Shaper] = {}
        self._gone_handshakes = self._gone_reconnects = 0

    async def _ask_for_all(
        self, member: Member, shaper: Shaper, turn: Turn, begun_seconds: float, error: OutOfStepError
    ) -> tuple[ProbeAnswer, Snapshot]:
        """Asks for everything, in the same slot, where a frame did not lead to what the host says; charges the host.

        Raises:
            HostError: there is no time for that any more, or there is no answer; the frame after the next one is whole.
        """
        self.frames_resynced_total += 1
        if time.monotonic() - begun_seconds > ASK_AGAIN_WITHIN_SECONDS:
            raise error
        dialogue = member.dialogue
        answer = await member.link.ask(dialogue.request, dialogue.first_request)
        return answer, await self.long_work.parse(dialogue, shaper, answer, turn)

    async def _begin_anew(self, host: Host, stage: Stage, bug: Exception) -> HostError:
        """Notes a bug, and lets go of what it may have left half changed; returns what the host's outcome says."""
        self.bugs.note(f"host {host.name}", bug)
        with self.bugs.caught(f"host {host.name}"):
            await self._make_anew(host, stage)
        what = f"{type(bug).__name__}: {bug}" if str(bug) else type(bug).__name__
        return HostError(stage, Kind.INTERNAL, f"a bug in fleetmem: {what}")

    async def _make_anew(self, host: Host, stage: Stage) -> None:
        """Lets go of what a bug may have left half changed."""
        if stage is Stage.COMMAND or not (member := self._members.get(host)):
            await self.forget(host)
            return
        # The answer is there: the link is as it should be, and a login for each bug would harm the host.
        self._members[host] = member._replace(dialogue=self._make_dialogue(host))
        if shaper := self._shapers.pop(host, None):
            shaper.close()

    @property
    def connected_hosts(self) -> Set[Host]:
        """Hosts that have been sampled: each has a connection here, or is about to have one."""
        return self._members.keys()

    @property
    def handshakes_total(self) -> int:
        """Connections tried so far."""
        return self._gone_handshakes + sum(member.link.connects_total for member in self._members.values())

    @property
    def reconnects_total(self) -> int:
        """Connections tried so far to hosts that had been tried before."""
        return self._gone_reconnects + sum(max(0, member.link.connects_total - 1) for member in self._members.values())

    def adopt(self, other: "Members", hosts: Iterable[Host]) -> list[Link]:
        """Takes over, and returns, the connections of another collector to these hosts; the other keeps the rest."""
        adopted = {host: other._members.pop(host) for host in hosts if host in other._members}
        self._members |= adopted
        self.frames_resynced_total = other.frames_resynced_total
        self._gone_handshakes, self._gone_reconnects = other.handshakes_total, other.reconnects_total  # of the rest
        return [member.link for member in adopted.values()]

    def adopt_shapers(self, other: "Members", hosts: Iterable[Host]) -> None:
        """Takes over what another collector knows of earlier samples: which series there are, and which are to stay."""
        self._shapers |= {host: other._shapers.pop(host) for host in hosts if host in other._shapers}

    async def forget(self, host: Host) -> None:
        """Disconnects from a host; its probe ends."""
        self.work.forget(host)
        if shaper := self._shapers.pop(host, None):
            shaper.close()
        if member := self._members.pop(host, None):
            self._gone_handshakes += member.link.connects_total
            self._gone_reconnects += max(0, member.link.connects_total - 1)
            await member.link.close()

    async def close(self) -> None:
        """Disconnects from all hosts."""
        await asyncio.gather(*map(self._forget_safely, {*self._members, *self._shapers}))
        self.long_work.end()

    async def _forget_safely(self, host: Host) -> None:
        with self.bugs.caught(f"host {host.name}"):
            await self.forget(host)
