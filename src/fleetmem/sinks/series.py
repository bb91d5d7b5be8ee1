"""The series of one host in one sink: which exist, what their text is, which have ended. Pure."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from fleetmem.model import CommandMemory, Failure, Outcome, ProcessMemory, Sample, Shaped
from fleetmem.sinks.naming import HostNames
from fleetmem.units import format_number

Points = Sequence[tuple[str, str]]
"""Names and values; a value is an unsigned decimal without exponent."""

Encode = Callable[[Points], bytes]
"""Turns points into a sink's text."""

RETIRE_AFTER_FAILURES = 3
"""Cycles without an answer after which a host's series end: a receiver that repeats them shows a dead host alive."""


_ROW_MEASURES = ("rss_bytes", "vsz_bytes", "mem_percent")
_COMMAND_MEASURES = (*_ROW_MEASURES, "procs")
_HOST_MEASURES = (
    "mem_total_bytes",
    "mem_available_bytes",
    "swap_total_bytes",
    "swap_free_bytes",
    "processes",
    "collect_seconds",
)
_OTHER_PROCESSES, _OTHER_COMMANDS = -1, -2  # beside pids and command names, neither of which they can be


class Retire(StrEnum):
    """What happens to a series whose process or command is gone."""

    ZERO = "zero"
    NONE = "none"


class _Series(NamedTuple):
    row: ProcessMemory | CommandMemory
    stem: str
    measures: tuple[str, ...]
    text: bytes


class Text(NamedTuple):
    """What one outcome adds to a sink, and how many points that is."""

    text: bytes
    points: int


class HostSeries:
    """Turns the outcomes of one host into text; a row that did not change keeps the text it had.

    Args:
        names: of this host.
        encode: the sink's format.
        retire: whether series that ended get a final 0 (some StatsD servers repeat the last value for ever).
    """

    def __init__(self, names: HostNames, encode: Encode, retire: Retire) -> None:
        self._names = names
        self._encode = encode
        self._is_retiring = retire is Retire.ZERO
        self._live: dict[int | str, _Series] = {}
        self._failures = 0
        self._host_measures: list[str] = []

    def update(self, outcome: Outcome) -> Text:
        """Returns the text of an outcome: its series, those that ended with it, and the host's own."""
        if isinstance(outcome, Failure):
            self._failures += 1
            points = [(f"{self._names.host_stem}up", "0")]
            if self._failures == RETIRE_AFTER_FAILURES:
                points += self._retire()
            return Text(self._encode(points), len(points))
        self._failures = 0
        current = self._current(outcome.shaped)
        points = self._host_points(outcome) + self._ended(current)
        self._live = current
        text = b"".join([*(series.text for series in current.values()), self._encode(points)])
        return Text(text, len(points) + sum(len(series.measures) for series in current.values()))

    def retire(self) -> Text:
        """Returns the text that ends every series of a host that is sampled no more."""
        points = self._retire()
        if points:
            points.append((f"{self._names.host_stem}up", "0"))
        return Text(self._encode(points), len(points))

    def _retire(self) -> list[tuple[str, str]]:
        ended = self._ended({})
        if self._is_retiring:
            ended += [(self._names.host_stem + measure, "0") for measure in self._host_measures]
        self._live, self._host_measures = {}, []
        return ended

    def _current(self, shaped: Shaped) -> dict[int | str, _Series]:
        generation = self._names.generation
        current = self._look_up(shaped, self._live)
        if self._names.generation != generation:
            # Two commands of this host fold to one name, seen just now: once more, with that known.
            current = self._look_up(shaped, {})
        return current

    def _look_up(self, shaped: Shaped, live: Mapping[int | str, _Series]) -> dict[int | str, _Series]:
        names, known, make = self._names, live.get, self._make
        current: dict[int | str, _Series] = {}
        for process in shaped.processes:
            series = known(process.pid)
            if series is None or series.row is not process:
                series = make(process, names.process_stem(process.command, process.pid), _ROW_MEASURES)
            current[process.pid] = series
        for command in shaped.commands:
            series = known(command.command)
            if series is None or series.row != command:
                series = make(command, names.command_stem(command.command), _COMMAND_MEASURES)
            current[command.command] = series
        for key, other in ((_OTHER_PROCESSES, shaped.other_processes), (_OTHER_COMMANDS, shaped.other_commands)):
            if other:
                stem = names.other_stem(is_by_command=key == _OTHER_COMMANDS)
                current[key] = make(other, stem, _COMMAND_MEASURES)
        return current

    def _make(self, row: ProcessMemory | CommandMemory, stem: str, measures: tuple[str, ...]) -> _Series:
        points = [(stem + measure, format_number(getattr(row, measure))) for measure in measures]
        return _Series(row, stem, measures, self._encode(points))

    def _ended(self, current: Mapping[int | str, _Series]) -> list[tuple[str, str]]:
        if not self._is_retiring:
            return []
        changed = [series for key, series in self._live.items() if current.get(key) is not series]
        if not changed:
            return []
        stems = {series.stem for series in current.values()}
        return [
            (series.stem + measure, "0")
            for series in changed
            if series.stem not in stems
            for measure in series.measures
        ]

    def _host_points(self, sample: Sample) -> list[tuple[str, str]]:
        memory = sample.shaped.memory
        values = (
            memory.total_bytes,
            memory.available_bytes,
            memory.swap_total_bytes,
            memory.swap_free_bytes,
            sample.shaped.process_count,
            sample.collect_seconds,
        )
        stem = self._names.host_stem
        known = {name: value for name, value in zip(_HOST_MEASURES, values, strict=True) if value is not None}
        self._host_measures = list(known)
        return [(f"{stem}up", "1"), *((stem + measure, format_number(value)) for measure, value in known.items())]
