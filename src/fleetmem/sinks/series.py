"""The series of one host in one sink: which exist, what their text is, which have ended. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from fleetmem.model import (
    COMMAND_MEASURES,
    HOST_MEASURES,
    PROCESS_MEASURES,
    CollectorStats,
    CommandMemory,
    Failure,
    Host,
    Outcome,
    ProcessMemory,
    Sample,
    Shaped,
)
from fleetmem.sinks.formats import Format, Wrap, without_time
from fleetmem.sinks.naming import FleetNames, HostNames, Place, place
from fleetmem.units import format_number

RETIRE_AFTER_FAILURES = 3
"""Cycles without an answer after which a host's series end: a receiver that repeats them shows a dead host alive."""

_OTHER_PROCESSES, _OTHER_COMMANDS = -1, -2  # beside pids and command names, neither of which they can be


class Retire(StrEnum):
    """What happens to a series whose process or command is gone."""

    ZERO = "zero"
    NONE = "none"


class _Series(NamedTuple):
    row: ProcessMemory | CommandMemory
    place: Place
    measures: tuple[str, ...]
    template: str
    text: bytes


class Text(NamedTuple):
    """What one outcome adds to a sink: its lines, how many points they hold, and how many of these end a series."""

    text: bytes
    points: int
    ended: int = 0


class HostSeries:
    """Turns the outcomes of one host into text; a row that did not change keeps the text it had.

    Args:
        names: of this host.
        wrap: the sink's format.
        retire: whether series that are gone get a final 0.

    Attributes:
        count: series that live now, the host's own included.
    """

    def __init__(self, names: HostNames, wrap: Callable[[Place], Wrap], retire: Retire) -> None:
        self.count = 0
        self._names = names
        self._wrap = wrap
        self._is_retiring = retire is Retire.ZERO
        self._live: dict[int | str, _Series] = {}
        self._generation = names.generation
        self._failures = 0
        self._host = wrap(names.host)
        self._host_template = ""
        self._host_measures: tuple[str, ...] = ()

    @property
    def names(self) -> HostNames:
        """Of this host."""
        return self._names

    def update(self, outcome: Outcome) -> Text:
        """Returns the text of an outcome: its series, those that ended with it, and the host's own."""
        if isinstance(outcome, Failure):
            self._failures += 1
            text, ended = self._host.template(["up"]) % 0, ""
            points = 0
            if self._failures == RETIRE_AFTER_FAILURES:
                ended, points = self._retire()
            return Text((text + ended).encode("ascii"), points + 1, points)
        self._failures = 0
        current = self._current(outcome.shaped)
        ended, ended_points = self._ended(current)
        host, host_points = self._host_text(outcome)
        self._live = current
        parts = [series.text for series in current.values()]
        parts.append((host + ended).encode("ascii"))
        shaped = outcome.shaped
        sums = len(current) - len(shaped.processes)
        self.count = len(shaped.processes) * len(PROCESS_MEASURES) + sums * len(COMMAND_MEASURES) + host_points
        return Text(b"".join(parts), self.count + ended_points, ended_points)

    def retire(self) -> Text:
        """Returns the text that ends every series of a host that is sampled no more."""
        text, points = self._retire()
        if points:
            text += self._host.template(["up"]) % 0
            points += 1
        return Text(text.encode("ascii"), points, points)

    def _retire(self) -> tuple[str, int]:
        text, points = self._ended({})
        if self._is_retiring and self._host_template:
            others = [measure for measure in self._host_measures if measure != "up"]
            text += self._host.template(others) % (("0",) * len(others))
            points += len(others)
        self._live, self._host_template = {}, ""
        self.count = 1  # `up` stays
        return text, points

    def _current(self, shaped: Shaped) -> dict[int | str, _Series]:
        # Another sink's look-up, with the same names, may have changed them, too.
        current = self._look_up(shaped, self._live if self._generation == self._names.generation else {})
        if self._generation != self._names.generation:
            # Two commands of this host fold to one name, seen just now: once more, with that known.
            self._generation = self._names.generation
            current = self._look_up(shaped, {})
        return current

    def _look_up(self, shaped: Shaped, live: Mapping[int | str, _Series]) -> dict[int | str, _Series]:
        names, known = self._names, live.get
        current: dict[int | str, _Series] = {}
        for process in shaped.processes:
            pid = process.pid
            series = known(pid)
            if series is None or series.row is not process:
                if series is None or series.row.command != process.command:
                    place = names.process(process.command, pid)
                    template = self._wrap(place).template(PROCESS_MEASURES)
                else:
                    place, template = series.place, series.template
                text = template % (process.rss_bytes, process.vsz_bytes, format_number(process.mem_percent))
                series = _Series(process, place, PROCESS_MEASURES, template, text.encode("ascii"))
            current[pid] = series
        for command in shaped.commands:
            current[command.command] = self._sum(command, known(command.command), names.command(command.command))
        if shaped.other_processes:
            key = _OTHER_PROCESSES
            current[key] = self._sum(shaped.other_processes, known(key), names.other_processes)
        if shaped.other_commands:
            key = _OTHER_COMMANDS
            current[key] = self._sum(shaped.other_commands, known(key), names.other_commands)
        return current

    def _sum(self, row: CommandMemory, before: _Series | None, place: Place) -> _Series:
        if before and before.row == row:
            return before
        template = before.template if before else self._wrap(place).template(COMMAND_MEASURES)
        text = template % (row.rss_bytes, row.vsz_bytes, format_number(row.mem_percent), row.procs)
        return _Series(row, place, COMMAND_MEASURES, template, text.encode("ascii"))

    def _ended(self, current: Mapping[int | str, _Series]) -> tuple[str, int]:
        if not self._is_retiring:
            return "", 0
        # The template stays the same object for as long as the name does.
        changed = [
            series
            for key, series in self._live.items()
            if (now := current.get(key)) is not series and (now is None or now.template is not series.template)
        ]
        if not changed:
            return "", 0
        places = {series.place for series in current.values()}
        ended = [series for series in changed if series.place not in places]
        text = "".join(series.template % (("0",) * len(series.measures)) for series in ended)
        return text, sum(len(series.measures) for series in ended)

    def _host_text(self, sample: Sample) -> tuple[str, int]:
        memory = sample.shaped.memory
        values = (
            1,
            memory.total_bytes,
            memory.available_bytes,
            memory.swap_total_bytes,
            memory.swap_free_bytes,
            sample.shaped.process_count,
            sample.collect_seconds,
        )
        known = [format_number(value) for value in values if value is not None]
        if not self._host_template or len(known) != len(self._host_measures) or len(known) != len(values):
            told = zip(HOST_MEASURES, values, strict=True)
            self._host_measures = tuple(measure for measure, value in told if value is not None)
            self._host_template = self._host.template(self._host_measures)
        return self._host_template % tuple(known), len(known)


class SeriesEncoding:
    """Outcomes as series in one receiver's format.

    Args:
        format_: the receiver's lines.
        retire: whether series that are gone get a final 0.
        at: puts the time into text, where the protocol carries one.
    """

    def __init__(self, format_: Format, retire: Retire, at: Callable[[bytes, float], bytes] = without_time) -> None:
        self.at = at
        self._format = format_
        self._retire = retire

    def host(self, names: FleetNames, host: Host) -> HostSeries:
        """Returns the series of one host."""
        return HostSeries(names.host(host.name), partial(self._format, names.prefix), self._retire)

    def is_same_host(self, old: FleetNames, new: FleetNames, host: Host) -> bool:
        """Whether a host's series keep their names; tags are part of them where the format has tags."""
        before, after = (self._format(names.prefix, names.host(host.name).host) for names in (old, new))
        return before == after

    def stats(self, names: FleetNames, stats: CollectorStats) -> Text:
        """Returns the collector's own counters, those of a sink below the name of the sink."""
        lines = []
        for counter in stats.counters:
            values = [stats.collector, *([counter.sink] if counter.sink else [])]
            wrap = self._format(names.prefix, place("collector", *values))
            lines.append(wrap.template([counter.measure]) % format_number(counter.value))
        return Text("".join(lines).encode("ascii"), len(lines))

    def end_stats(self, names: FleetNames, stats: CollectorStats) -> Text:
        """Returns a final 0 for each of the collector's own counters."""
        if self._retire is not Retire.ZERO:
            return Text(b"", 0)
        zeros = tuple(counter._replace(value=0) for counter in stats.counters)
        text = self.stats(names, replace(stats, counters=zeros))
        return text._replace(ended=text.points)
