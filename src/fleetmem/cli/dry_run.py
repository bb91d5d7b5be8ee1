"""Samples a fleet for `fleetmem plan`: what would be sent, and what it would cost in storage."""

import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.table import Table

from fleetmem.cli.tables import plain
from fleetmem.model import Failure, Host, Outcome, Sample
from fleetmem.shape.budget import REMEMBER_SECONDS
from fleetmem.sinks.formats import cut_lines, statsd_plain
from fleetmem.sinks.series import HostSeries, Retire, SeriesEncoding
from fleetmem.sinks.transports.udp import MAX_DATAGRAM_BYTES
from fleetmem.sinks.whisper import Retention
from fleetmem.units import format_size
from fleetmem.wiring.fleet import FleetParts

_DAY_SECONDS = 86_400
_HOSTS_SHOWN = 20
_CYCLES = 3


@dataclass(slots=True)
class _HostTally:
    """What one host would send in a cycle.

    Attributes:
        series: that it would have.
        names: of these.
        new: of these, not there in the cycle before.
    """

    series: HostSeries
    processes: int = 0
    left_out: int = 0
    names: frozenset[str] = frozenset()
    new: int = 0
    text: bytes = b""


@dataclass(slots=True)
class DryRun:
    """Samples a fleet and counts, instead of sending.

    Args:
        fleet: its sinks are not used.
        retention: what storage would keep.
        plugins: names of sinks of one's own, which would get every outcome.
    """

    fleet: FleetParts
    retention: Retention
    plugins: Sequence[str] = ()
    failures: list[Failure] = field(default_factory=list)
    _hosts: dict[Host, _HostTally] = field(default_factory=dict)

    async def run(self, at_once: int) -> None:
        """Samples all hosts three times, an interval apart: how fast series come and go shows between the last two.

        Between the first two, the probe's own shells and awk have just come.
        """
        interval = self.fleet.settings.run.interval_seconds
        self.fleet.collector.sinks.clear()
        try:
            for cycle in range(1, _CYCLES + 1):
                begun = time.monotonic()
                self.failures.clear()
                print(f"cycle {cycle} of {_CYCLES}, {len(self.fleet.hosts)} hosts", file=sys.stderr)
                await self._cycle(at_once)
                if not self._hosts:
                    break
                if cycle < _CYCLES:
                    await asyncio.sleep(begun + interval - time.monotonic())
        finally:
            await self.fleet.collector.close()
            await self.fleet.reach.close()

    async def _cycle(self, at_once: int) -> None:
        slots = asyncio.Semaphore(at_once)

        async def visit(host: Host) -> None:
            async with slots:
                self.add(await self.fleet.collector.sample(host))

        async with asyncio.TaskGroup() as group:
            for host in self.fleet.hosts:
                group.create_task(visit(host))

    def add(self, outcome: Outcome) -> None:
        """Counts an outcome."""
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            return
        tally = self._hosts.get(outcome.host)
        is_first = tally is None
        if tally is None:
            encoding = SeriesEncoding(statsd_plain, Retire.NONE)
            tally = self._hosts[outcome.host] = _HostTally(encoding.host(self.fleet.names, outcome.host))
        self._count(tally, outcome, is_first=is_first)

    def _count(self, tally: _HostTally, sample: Sample, *, is_first: bool) -> None:
        tally.text = tally.series.update(sample).text
        names = frozenset(line.partition(":")[0] for line in tally.text.decode("ascii").splitlines())
        tally.new = 0 if is_first else len(names - tally.names)
        tally.names = names
        tally.processes = sample.shaped.process_count
        tally.left_out = sum(sample.shaped.left_out.values())

    @property
    def series(self) -> int:
        """Of all hosts."""
        return sum(len(tally.names) for tally in self._hosts.values())

    @property
    def new_series(self) -> int:
        """That came with the last cycle."""
        return sum(tally.new for tally in self._hosts.values())

    def write_lines(self, file: TextIO) -> None:
        """Writes every line that a cycle would send, as StatsD gets it."""
        file.writelines(tally.text.decode("ascii") for tally in self._hosts.values())

    def print_report(self, console: Console) -> None:
        """Prints hosts, the sum, and the cost."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("HOST", overflow="fold")
        for title in ("PROCESSES", "WITHOUT OWN SERIES", "SERIES", "NEW"):
            table.add_column(title, justify="right", no_wrap=True)
        ordered = sorted(self._hosts.items(), key=lambda item: len(item[1].names), reverse=True)
        for host, tally in ordered[:_HOSTS_SHOWN]:
            figures = tally.processes, tally.left_out, len(tally.names), tally.new
            table.add_row(plain(host.name), *(f"{figure:,}" for figure in figures))
        console.print(table)
        if len(ordered) > _HOSTS_SHOWN:
            console.print(f"and {len(ordered) - _HOSTS_SHOWN} hosts with fewer series")
        console.print()
        for line in self._lines():
            console.print(line, highlight=False, soft_wrap=True)

    def _lines(self) -> Iterable[str]:
        for label, text in self._facts():
            yield f"{label:<17}{text}"

    def _facts(self) -> Iterable[tuple[str, str]]:
        settings = self.fleet.settings
        interval, file_bytes, series = settings.run.interval_seconds, self.retention.file_bytes, self.series
        text_bytes = sum(len(tally.text) for tally in self._hosts.values())
        datagrams = sum(len(cut_lines(tally.text, MAX_DATAGRAM_BYTES)) for tally in self._hosts.values())
        yield "series", f"{series:,}, of {len(self._hosts)} of {len(self.fleet.hosts)} hosts; the collector has its own"
        yield (
            f"each {interval:g} s",
            f"{series:,} points, {format_size(text_bytes)}, {datagrams:,} datagrams to StatsD "
            f"({datagrams / interval:.0f} a second)",
        )
        for name in self.plugins:
            yield "also to", f"sinks.{name}, a plug-in: each outcome"
        daily, allowed = self.new_series * _DAY_SECONDS / interval, settings.shape.max_series_per_host
        most = allowed * len(self._hosts) * _DAY_SECONDS / REMEMBER_SECONDS if allowed else daily
        limit = f"the budget allows {most:,.0f} a day" if daily > most else "if that goes on"
        yield "new series", f"{self.new_series:,} in {interval:g} s: {daily:,.0f} a day, {limit}"
        yield "a whisper file", f"{file_bytes:,} bytes, whatever is in it"
        yield "on disk", f"{series:,} files, {format_size(series * file_bytes)} at once"
        if daily:
            daily_bytes = min(daily, most) * file_bytes
            yield "", f"and {format_size(daily_bytes)} more each day, as nothing deletes files of pids that are gone"
            yield "to spend less", "--detail command, --top N, --min-rss SIZE, or shape.max_series_per_host"
        if self.retention.step_seconds != interval:
            step = self.retention.step_seconds
            what = "points overwrite each other" if interval < step else "there are gaps"
            yield "mind", f"--interval is {interval:g} s, the finest step of the retention {step} s: {what}"
