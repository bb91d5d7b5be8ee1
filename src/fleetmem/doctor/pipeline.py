"""Sends canaries through StatsD and carbon, and reads them back.

A canary is a gauge `<prefix>.doctor.<this machine>.<sink>`, its value the time it was sent at, in milliseconds. Its
name is always the same, so that the doctor leaves one series for each sink. New series, to see how many files carbon
makes at once, are `<prefix>.doctor.<this machine>.new_<number>.*`; that is repeated only until all of them were made.
"""

import asyncio
import itertools
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from fleetmem.config import Server, Settings
from fleetmem.doctor.management import Management, StatsdConfig
from fleetmem.doctor.verdicts import CarbonAnswer, Creations, PipelineAnswers, Sighting, StatsdAnswer
from fleetmem.errors import GraphiteError, SinkError
from fleetmem.sinks import formats
from fleetmem.sinks.graphite_web import Datapoint, GraphiteWeb
from fleetmem.sinks.naming import Place
from fleetmem.sinks.queue.runner import Transport
from fleetmem.telemetry.selfstats import collector_id
from fleetmem.wiring.outputs import graphite_transport, statsd_transport

_FEED_SECONDS = 0.1
_POLL_SECONDS = 0.5
_LOOK_BACK_SECONDS = 300
_LOOK_FAR_BACK_SECONDS = 86_400
_TRIES = 3
_FLUSHES_OF_PATIENCE = 4
"""How many times a gauge has to be repeated to be called sticky: gaugesMaxTTL is 3 in our own advice."""

_STALLED_SECONDS = 2.5  # carbon's writer looks for work each second
_STALLED_SHARE = 0.1
_DROPPED_SECONDS = 600
_USUAL_PREFIXES = ("stats.gauges.", "gauges.", "", "*.", "*.*.")

Report = Callable[[str], None]
"""Told what is being waited for."""


class _Seen(NamedTuple):
    """A canary as Graphite has it, gaps included."""

    name: str
    points: list[Datapoint]

    @property
    def step_seconds(self) -> int | None:
        times = [point.unix_seconds for point in self.points]
        return times[1] - times[0] if len(times) > 1 else None

    @property
    def filled(self) -> list[Datapoint]:
        return [point for point in self.points if point.value is not None]


class Canary:
    """A gauge of the doctor's own, and where it is looked for."""

    def __init__(self, prefix: str, sink: str, format_: formats.Format, config: StatsdConfig | None) -> None:
        self._place = Place("doctor", (("collector", collector_id()),))
        self._prefix = prefix
        self._format = format_
        self._sink = sink
        self.stem = f"{prefix}.doctor.{collector_id()}"
        self.name = f"{self.stem}.{sink}"
        self._prefixes = (config.prefix,) if config else _USUAL_PREFIXES
        self._suffix = config.suffix if config else ""
        self._begun_ms = time.time() * 1000

    @property
    def targets(self) -> list[str]:
        """Names that it may have in Graphite."""
        return [f"{prefix}{self.name}{self._suffix}" for prefix in self._prefixes]

    def line(self, measure: str = "") -> bytes:
        """Returns what is to be sent now."""
        unix_seconds = time.time()
        text = self._format(self._prefix, self._place).template([measure or self._sink]) % int(unix_seconds * 1000)
        return formats.with_time(text.encode(), unix_seconds)

    def is_of_now(self, value: float | None) -> bool:
        """Whether a value was sent by this doctor, not by one before."""
        return value is not None and value >= int(self._begun_ms)


class CanaryReader:
    """Reads a canary back from Graphite."""

    def __init__(self, web: GraphiteWeb, canary: Canary) -> None:
        self._web = web
        self._canary = canary

    async def read(self) -> _Seen | None:
        """Returns it, None where it is not there yet.

        Raises:
            GraphiteError: Graphite does not answer.
        """
        return await self._read_since(_LOOK_BACK_SECONDS)

    async def _read_since(self, seconds: float) -> _Seen | None:
        since = time.time() - seconds
        found = await asyncio.to_thread(self._web.render, self._canary.targets, since)
        for name, points in found.items():
            if any(self._canary.is_of_now(value) for value, _at in points):
                return _Seen(name, points)
        return None

    async def distinct(self) -> list[Datapoint]:
        """Returns the values of this doctor's, each where it was first seen."""
        seen = await self.read()
        first: dict[float | None, Datapoint] = {}
        for point in seen.filled if seen else ():
            if self._canary.is_of_now(point.value):
                first.setdefault(point.value, point)
        return list(first.values())

    async def step_seconds(self, seen: _Seen) -> int | None:
        """Returns the step of the finest archive that is known to reach back."""
        if seen.step_seconds:
            return seen.step_seconds
        further = await self._read_since(_LOOK_FAR_BACK_SECONDS)
        return further.step_seconds if further else None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What is to be checked.

    Attributes:
        settings: the configuration.
        web: Graphite's, None where it is not known.
        report: told what is being waited for.
    """

    settings: Settings
    web: GraphiteWeb | None
    report: Report

    async def check(self) -> PipelineAnswers:
        """Returns what came of it."""
        settings = self.settings
        answers = PipelineAnswers(settings.run.interval_seconds, settings.statsd.retire)
        if self.web:
            answers = replace(answers, web=self.web.url, web_error=await self._ask_web(self.web))
        web = self.web if self.web and not answers.web_error else None
        servers = settings.statsd.servers()
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(self._check_statsd(number, server, web)) for number, server in enumerate(servers, 1)
            ]
            carbon = group.create_task(self._check_carbon(web))
        answers = replace(answers, statsd=tuple(task.result() for task in asked), carbon=carbon.result())
        if not web:
            return answers
        # Asked once more: one that went away meanwhile is why canaries were not seen.
        answers = replace(answers, creations=await self._check_creations(answers, web))
        return replace(answers, web_error=await self._ask_web(web))

    async def _ask_web(self, web: GraphiteWeb) -> str:
        self.report(f"asking {web.url}")
        try:
            await asyncio.to_thread(web.render, [self.settings.prefix], time.time() - 60)
        except SinkError as error:
            return str(error)
        return ""

    @property
    def _patience_seconds(self) -> float:
        return max(self.settings.doctor.wait_seconds, 3 * self.settings.run.interval_seconds)

    # --- StatsD ------------------------------------------------------------------------------------------------------

    async def _check_statsd(self, number: int, server: Server, web: GraphiteWeb | None) -> StatsdAnswer:
        transport = statsd_transport(self.settings.statsd, server)
        answer = StatsdAnswer(transport.address)
        management = self._management(server)
        if management:
            answer = await _ask_config(answer, management)
        sink = "statsd" if number == 1 else f"statsd_{number}"
        canary = Canary(self.settings.prefix, sink, formats.statsd_plain, answer.config)
        self.report(f"sending a canary to {transport.address}")
        try:
            await transport.send(canary.line(), 0)
            await transport.flush()
            if management and answer.config:
                answer = replace(answer, has_canary=await _is_held(transport, canary, management))
            if web:
                answer = await self._watch_statsd(answer, transport, canary, CanaryReader(web, canary))
        except GraphiteError:
            return answer
        except SinkError as error:
            return replace(answer, error=_reason(str(error)))
        finally:
            if management and answer.config:
                with suppress(SinkError):
                    await management.delete_gauges([canary.name])
            await transport.close()
        return answer

    def _management(self, server: Server) -> Management | None:
        address = self.settings.doctor.management(server.host) if server.scheme != "unix" else None
        return Management(*address) if address else None

    async def _watch_statsd(
        self, answer: StatsdAnswer, transport: Transport, canary: Canary, reader: CanaryReader
    ) -> StatsdAnswer:
        """Feeds a canary until Graphite has it; where nothing is known of StatsD, until it shows what that does."""
        wanted, begun = (1 if answer.config else 3), time.monotonic()
        self.report(f"waiting for the canary in Graphite, {self._patience_seconds:.0f} s at the most")
        async with _feeding(transport, canary):
            values = await _until_enough(reader, wanted, begun + self._patience_seconds)
        answer = replace(answer, waited_seconds=time.monotonic() - begun)
        seen = await reader.read()
        if not values or not seen:
            return answer
        sighting = Sighting(seen.name, await reader.step_seconds(seen))
        if not answer.config and len(values) > 1:
            flush_seconds = _shortest_seconds([value or 0.0 for value, _at in values])
            self.report("watching whether StatsD repeats what is sent no more")
            step_seconds = sighting.step_seconds or flush_seconds
            repeats = await _repeats(reader, flush_seconds, max(flush_seconds, step_seconds))
            sighting = replace(sighting, flush_seconds=flush_seconds, repeats=repeats)
        return replace(answer, sighting=sighting)

    # --- carbon ------------------------------------------------------------------------------------------------------

    async def _check_carbon(self, web: GraphiteWeb | None) -> CarbonAnswer | None:
        if not self.settings.graphite.server:
            return None
        transport = graphite_transport(self.settings.graphite)
        answer = CarbonAnswer(transport.address)
        canary = Canary(self.settings.prefix, "graphite", formats.carbon_plain, None)
        self.report(f"sending a canary to {transport.address}")
        try:
            await transport.send(canary.line(), 0)
            await transport.flush()
            if not web:
                return answer
            reader, begun = CanaryReader(web, canary), time.monotonic()
            async with _feeding(transport, canary):
                await _until_enough(reader, 1, begun + self._patience_seconds)
            answer = replace(answer, waited_seconds=time.monotonic() - begun)
            seen = await reader.read()
            if seen:
                answer = replace(answer, sighting=Sighting(seen.name, await reader.step_seconds(seen)))
        except GraphiteError:
            return answer
        except SinkError as error:
            return replace(answer, error=_reason(str(error)))
        finally:
            await transport.close()
        return answer

    # --- new files ---------------------------------------------------------------------------------------------------

    async def _check_creations(self, answers: PipelineAnswers, web: GraphiteWeb) -> Creations:
        try:
            creations = Creations(dropped=await _dropped(web))
            burst = self._burst(answers)
            return await burst.run(web, creations, self.report) if burst else creations
        except SinkError:  # it answered before; what is known already stays
            return Creations()

    def _burst(self, answers: PipelineAnswers) -> "_Burst | None":
        """Returns how new series can be sent: to carbon rather than through StatsD, which may keep them for ever."""
        count = self.settings.doctor.new_series
        if count and answers.carbon and answers.carbon.sighting:
            canary = Canary(self.settings.prefix, "graphite", formats.carbon_plain, None)
            return _Burst(canary, answers.carbon.sighting, graphite_transport(self.settings.graphite), None, count, 0.0)
        for server, answer in zip(self.settings.statsd.servers(), answers.statsd, strict=True):
            management = self._management(server) if answer.config else None
            if count and answer.sighting and (management or answer.repeats is False):
                canary = Canary(self.settings.prefix, "statsd", formats.statsd_plain, answer.config)
                transport = statsd_transport(self.settings.statsd, server)
                flush_seconds = answer.flush_seconds or self.settings.run.interval_seconds
                return _Burst(canary, answer.sighting, transport, management, count, flush_seconds)
        return None


@dataclass(frozen=True, slots=True)
class _Burst:
    """New series, sent at once.

    Attributes:
        canary: whose name theirs begin with.
        sighting: of that canary: what Graphite's names begin with.
        transport: takes them.
        management: of StatsD, which then forgets them.
        count: how many.
        flush_seconds: of StatsD, 0 without one.
    """

    canary: Canary
    sighting: Sighting
    transport: Transport
    management: Management | None
    count: int
    flush_seconds: float

    async def run(self, web: GraphiteWeb, so_far: Creations, report: Report) -> Creations:
        """Sends them, unless all of an earlier burst are there and nothing was dropped since.

        Raises:
            SinkError: somebody on the way does not answer any more.
        """
        head, _, tail = self.sighting.name.rpartition(self.canary.name)
        earlier = _bursts(await asyncio.to_thread(web.expand, f"{head}{self.canary.stem}.new_*.*{tail}"))
        newest = max(earlier, default=0)
        names = f"{head}{self.canary.stem}.new_{newest}.*{tail}"
        if earlier[newest] >= self.count and not so_far.dropped:
            return replace(so_far, asked=self.count, made=earlier[newest], is_earlier=True, names=names)
        group = f"new_{newest + 1}"
        names = f"{head}{self.canary.stem}.{group}.*{tail}"
        report(f"sending {self.count} new series")
        measures = [f"{group}.s{number:03d}" for number in range(self.count)]
        try:
            await self.transport.send(b"".join(map(self.canary.line, measures)), 0)
            await self.transport.flush()
            made = await self._wait(web, names)
        finally:
            if self.management:
                with suppress(SinkError):
                    await self.management.delete_gauges([f"{self.canary.stem}.{group}.*"])
            await self.transport.close()
        return replace(so_far, asked=self.count, made=made, names=names)

    async def _wait(self, web: GraphiteWeb, names: str) -> int:
        """Returns how many are there when all are, or hardly any come any more."""
        deadline = time.monotonic() + 2 * self.flush_seconds + 3 * _STALLED_SECONDS
        made, counted_at, first_at = 0, 0, None
        while time.monotonic() < deadline:
            made = len(await asyncio.to_thread(web.expand, names))
            if made >= self.count:
                break
            if made and (first_at is None or time.monotonic() - first_at >= _STALLED_SECONDS):
                if first_at is not None and made - counted_at < _STALLED_SHARE * self.count:
                    break
                counted_at, first_at = made, time.monotonic()
            await asyncio.sleep(_POLL_SECONDS)
        return min(made, self.count)


async def _dropped(web: GraphiteWeb) -> int | None:
    """Returns how many points of new series carbon dropped lately, by its own count; None where it does not say."""
    since = time.time() - _DROPPED_SECONDS
    found = await asyncio.to_thread(web.render, ["carbon.agents.*.droppedCreates"], since)
    values = [value for points in found.values() for value, _at in points if value is not None]
    return int(sum(values)) if values else None


def _bursts(names: Iterable[str]) -> Counter[int]:
    """Returns how many series each burst has."""
    numbers = (re.search(r"\.new_(\d+)\.s\d+", name) for name in names)
    return Counter(int(match[1]) for match in numbers if match)


async def _ask_config(answer: StatsdAnswer, management: Management) -> StatsdAnswer:
    answer = replace(answer, management=management.address)
    try:
        return replace(answer, config=await management.config())
    except SinkError as error:
        return replace(answer, management_error=str(error))


async def _is_held(transport: Transport, canary: Canary, management: Management) -> bool | None:
    """Whether StatsD has a canary. Forgotten with that: it is asked by way of deleting."""
    try:
        for _ in range(_TRIES):
            if canary.name in await management.delete_gauges([canary.name]):
                return True
            await transport.send(canary.line(), 0)  # a datagram may be lost; or StatsD has just flushed and forgotten
            await transport.flush()
    except SinkError:
        return None
    return False


@asynccontextmanager
async def _feeding(transport: Transport, canary: Canary) -> AsyncIterator[None]:
    """Sends a canary again and again."""

    async def feed() -> None:
        while True:
            await transport.send(canary.line(), 0)
            await asyncio.sleep(_FEED_SECONDS)

    feeding = asyncio.create_task(feed())
    try:
        yield
    finally:
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding
        await transport.flush()


async def _until_enough(reader: CanaryReader, wanted: int, deadline: float) -> Sequence[Datapoint]:
    """Returns the values of a canary when there are enough that differ, or the time is over (monotonic seconds)."""
    while True:
        values = await reader.distinct()
        if len(values) >= wanted or time.monotonic() > deadline:
            return values
        await asyncio.sleep(_POLL_SECONDS)


async def _repeats(reader: CanaryReader, flush_seconds: float, longest_seconds: float) -> bool | None:
    """Whether the last value goes on though nothing is sent, by Graphite's own clock; None where that is not clear."""
    deadline = time.monotonic() + _FLUSHES_OF_PATIENCE * longest_seconds + 3 * longest_seconds + 5
    while time.monotonic() < deadline:
        seen, distinct = await reader.read(), await reader.distinct()
        if seen and distinct:
            newest = seen.filled[-1].unix_seconds
            if newest - distinct[-1].unix_seconds >= _FLUSHES_OF_PATIENCE * flush_seconds:
                return True
            if seen.points[-1].unix_seconds - newest > 2 * longest_seconds + 1:
                return False
        await asyncio.sleep(_POLL_SECONDS)
    return None


def _shortest_seconds(sent_ms: Sequence[float]) -> float:
    """Returns how long it is between two flushes, whole seconds where it is about that.

    The shortest one: of two flushes that fall into one step, the first one is lost, and the time is that of two.
    """
    seconds = min(later - earlier for earlier, later in itertools.pairwise(sent_ms)) / 1000
    whole = round(seconds)
    return float(whole) if whole and abs(seconds - whole) <= 2 * _FEED_SECONDS else seconds


def _reason(message: str) -> str:
    """Returns what a sink says, without its own name, which the finding has."""
    return message.split(": ", 1)[-1]
