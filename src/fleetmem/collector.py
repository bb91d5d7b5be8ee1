"""The main path.

     inventory ──> connect ──> probe ──> shape ──> sinks
     which hosts   link.ask    parse     limits    put

One `Collector` holds a fleet: for each host a link, a parser and a shaper. `sample` takes one host all the way: only
there the stages follow each other. A host has one outcome per cycle, a `Sample` or a `Failure`. A collector is
built from plain values and callables (see `build`), and touches no signal, no global and no terminal.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Set
from typing import NamedTuple

from fleetmem.connect.link import Link
from fleetmem.errors import HostError
from fleetmem.model import Failure, Host, Outcome, Sample
from fleetmem.probe.parse import SnapshotParser
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.sink import Sink


class _Member(NamedTuple):
    link: Link
    parser: SnapshotParser


class Collector:
    """Samples hosts and hands their outcomes to the sinks.

    Args:
        make_link: makes the connection to a host; nothing is connected before its first sample.
        make_parser: makes the parser of a host's frames.
        make_request: makes the line that asks the probe of a host for a frame, for a request id.
        make_shaper: makes what a host's snapshots are shaped by.
        sinks: where outcomes go.
    """

    def __init__(
        self,
        make_link: Callable[[Host], Link],
        make_parser: Callable[[Host], SnapshotParser],
        make_request: Callable[[Host, int], bytes],
        make_shaper: Callable[[Host], Shaper],
        sinks: Iterable[Sink],
    ) -> None:
        self.sinks = list(sinks)
        self._make_link = make_link
        self._make_parser = make_parser
        self._make_request = make_request
        self._make_shaper = make_shaper
        self._members: dict[Host, _Member] = {}
        self._shapers: dict[Host, Shaper] = {}
        self._gone_handshakes = self._gone_reconnects = 0

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

    async def sample(self, host: Host) -> Outcome:
        """Samples a host: ask, parse, shape, put. Returns its outcome of this cycle."""
        if not (member := self._members.get(host)):
            member = self._members[host] = _Member(self._make_link(host), self._make_parser(host))
        shaper = self._shapers.get(host) or self._shapers.setdefault(host, self._make_shaper(host))
        begun_unix_seconds, begun = time.time(), time.monotonic()
        try:
            answer = await member.link.ask(lambda request_id: self._make_request(host, request_id))
            shaped = shaper.shape(member.parser.parse(answer.frame), answer.asked_unix_seconds)
            seconds = time.monotonic() - begun
            outcome: Outcome = Sample(host, answer.asked_unix_seconds, seconds, len(answer.frame), shaped)
        except HostError as error:
            seconds = time.monotonic() - begun
            outcome = Failure(host, begun_unix_seconds, seconds, error.stage, error.kind, error.message)
        for sink in self.sinks:
            sink.put(outcome)
        return outcome

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
                on_start(host)
                on_outcome(await self.sample(host))
                await self.forget(host)

        async with asyncio.TaskGroup() as group:
            for host in hosts:
                group.create_task(visit(host))

    def adopt(self, other: "Collector", hosts: Iterable[Host]) -> list[Link]:
        """Takes over, and returns, the connections of another collector to these hosts; the other keeps the rest."""
        adopted = {host: other._members.pop(host) for host in hosts if host in other._members}
        self._members |= adopted
        self._gone_handshakes, self._gone_reconnects = other.handshakes_total, other.reconnects_total  # of the rest
        return [link for link, _parser in adopted.values()]

    def adopt_shapers(self, other: "Collector", hosts: Iterable[Host]) -> None:
        """Takes over, likewise, what is known of earlier samples: which series there are, and which are to stay."""
        self._shapers |= {host: other._shapers.pop(host) for host in hosts if host in other._shapers}

    async def forget(self, host: Host) -> None:
        """Disconnects from a host; its probe ends."""
        if shaper := self._shapers.pop(host, None):
            shaper.close()
        if member := self._members.pop(host, None):
            self._gone_handshakes += member.link.connects_total
            self._gone_reconnects += max(0, member.link.connects_total - 1)
            await member.link.close()

    async def close(self) -> None:
        """Disconnects from all hosts."""
        await asyncio.gather(*map(self.forget, {*self._members, *self._shapers}))
