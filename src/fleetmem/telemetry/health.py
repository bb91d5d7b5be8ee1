"""Whether the collector does its work: what `run` shows on its health pages, and what it tells systemd by.

    end of a cycle ──> Health.add ──> one immutable `_Cycle` ──> pages, in threads of their own; the watchdog

Hosts that fail and a sink that is away are shown, and are no reason to end the collector: it would find them the same.
"""

import math
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from fleetmem.sinks.sink import SinkState
from fleetmem.telemetry.selfstats import CycleStats

if TYPE_CHECKING:
    from fleetmem.sinks.pages.http_server import HttpAnswer, Page

_CYCLES = 3


class WorkerState(NamedTuple):
    """A worker process at the end of an interval.

    Attributes:
        pid: None while it is down.
        hosts: that are its share.
        restarts_total: how often it was started again.
        outcomes: of its hosts, in the interval.
    """

    pid: int | None
    hosts: int
    restarts_total: int
    outcomes: int


class Status(StrEnum):
    """How the collector is."""

    STARTING = "starting"
    OK = "ok"
    STALLED = "stalled"
    STOPPING = "stopping"


class _Cycle(NamedTuple):
    """What is shown of the last cycle. Never changes: threads read it."""

    at_seconds: float
    line: str
    facts: dict[str, object]


class Health:
    """Knows when a cycle was completed last, and what it came to.

    A cycle is completed when its time is over and a host at least had its outcome in it; with workers, a host of each.
    So it stands still when the event loop does, and also when the loop turns and no sample ends.

    Args:
        now: returns monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._begun_seconds = now()
        self._interval_seconds, self._allowed_seconds = 0.0, math.inf
        self._cycle: _Cycle | None = None
        self._worker_at: list[float] = []
        self._is_stopping = False

    def begin(self, interval_seconds: float, sample_seconds: float) -> None:
        """Starts the time of a cycle again, with the configuration in force.

        Args:
            interval_seconds: between two cycles.
            sample_seconds: the longest that a sample may take, with connecting.
        """
        self._begun_seconds = self._now()
        self._interval_seconds = interval_seconds
        self._allowed_seconds = _CYCLES * interval_seconds + sample_seconds
        self._worker_at.clear()

    def add(
        self, stats: CycleStats, line: str, sinks: Sequence[SinkState], workers: Sequence[WorkerState] = ()
    ) -> None:
        """Notes the end of an interval: what happened, the same for people, and the state of sinks and workers."""
        now = self._now()
        before = self._worker_at or [self._begun_seconds] * len(workers)
        self._worker_at = [
            now if worker.outcomes or not worker.hosts else at for worker, at in zip(workers, before, strict=True)
        ]
        if stats.samples or stats.failures:
            away = "".join(f", {sink.name} away" for sink in sinks if sink.problem)
            self._cycle = _Cycle(now, line + away, _facts(stats, sinks, workers))

    def stop(self) -> None:
        """The collector is about to end; nothing more is expected of it."""
        self._is_stopping = True

    @property
    def status(self) -> Status:
        """How it is now."""
        last = max(self._begun_seconds, self._cycle.at_seconds if self._cycle else 0.0)
        if self._is_stopping:
            return Status.STOPPING
        if self._now() - min([last, *self._worker_at]) > self._allowed_seconds:
            return Status.STALLED
        return Status.OK if self._cycle else Status.STARTING

    @property
    def is_alive(self) -> bool:
        """Whether cycles are completed; one that has not had the time for it is alive."""
        return self.status is not Status.STALLED

    @property
    def is_ready(self) -> bool:
        """Whether a cycle has been completed, and cycles still are."""
        return self.status is Status.OK

    @property
    def line(self) -> str:
        """What the last cycle came to, on one line for people."""
        line = self._cycle.line if self._cycle else "no cycle yet"
        return line if self.is_alive else f"stalled; before that: {line}"

    def report(self) -> dict[str, object]:
        """Returns what the pages show."""
        cycle = self._cycle
        age_seconds = round(self._now() - cycle.at_seconds, 3) if cycle else None
        report = {"status": self.status, "interval_seconds": self._interval_seconds}
        return report | {"last_cycle_age_seconds": age_seconds} | (cycle.facts if cycle else {})

    def pages(self) -> "dict[str, Page]":
        """Returns the pages by path: 200 for yes, 503 for no; the body is the same."""
        return {
            "/healthz": lambda _encodings: self._answer(is_good=self.is_alive),
            "/readyz": lambda _encodings: self._answer(is_good=self.is_ready),
        }

    def _answer(self, *, is_good: bool) -> "HttpAnswer":
        # Imported here: a start without a page does without.
        from fleetmem.sinks.pages.http_server import json_answer

        return json_answer(self.report(), is_good=is_good)


def _facts(stats: CycleStats, sinks: Sequence[SinkState], workers: Sequence[WorkerState]) -> dict[str, object]:
    told = [{"pid": worker.pid, "hosts": worker.hosts, "restarts": worker.restarts_total} for worker in workers]
    return {
        "hosts_up": stats.samples,
        "hosts_failed": sum(stats.failures.values()),
        "failures": dict(stats.failures),
        "sinks": [_sink(sink) for sink in sinks],
    } | ({"workers": told} if told else {})


def _sink(sink: SinkState) -> dict[str, object]:
    stats = sink.counters
    return {
        "name": sink.name,
        "address": sink.address,
        "problem": sink.problem,
        "waiting_points": stats.queue_points + stats.spool_points,
        "dropped_points": stats.points_dropped_total,
    }
