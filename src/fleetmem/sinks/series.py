"""The series of one host in one sink: which exist, what their text is, which have ended. Pure."""

from array import array
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from fleetmem.model import (
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
    measures_of_sum,
)
from fleetmem.process_table import ProcessTable, RowKeys
from fleetmem.sinks.endings import Endings, Room, lines_of, without
from fleetmem.sinks.formats import Format, Wrap, statsd_zeros
from fleetmem.sinks.lines import Ended, ProcessLines, RowLines, Write
from fleetmem.sinks.measures import has_more, has_one_of, is_lacking, lacking_of, value_of
from fleetmem.sinks.naming import FleetNames, HostNames, Place, place
from fleetmem.units import format_number

RETIRE_AFTER_FAILURES = 3
"""Cycles without an answer after which a host's series end: a receiver that repeats them shows a dead host alive."""

_NONE: frozenset[bytes] = frozenset()
_NO_PRESSURE: tuple[None, None] = None, None
_ALL_KNOWN: list[bool] = []


class Retire(StrEnum):
    """What happens to a series whose process or command is gone."""

    ZERO = "zero"
    NONE = "none"


class Text(NamedTuple):
    """What one outcome adds to a sink.

    Attributes:
        text: its lines.
        points: how many these hold.
        ended: how many series end with it.
        zeros: those of the lines that end a series, now or in the cycles before.
        begun: those of the lines whose series begin.
        last: those of the zeros that are the last ones of their series.
    """

    text: bytes
    points: int
    ended: int = 0
    zeros: bytes = b""
    begun: bytes = b""
    last: bytes = b""


class HostSeries:
    """Turns the outcomes of one host into text; a row that did not change keeps the text it had.

    Args:
        names: of this host.
        wrap: the sink's format.
        retire: whether series that are gone get a final 0.
        room: for zeros that are still to be sent.

    Attributes:
        count: series that live now, the host's own included.
        endings: zeros that are still to be sent.
    """

    def __init__(
        self, names: HostNames, wrap: Callable[[Place], Wrap], retire: Retire, room: Room | None = None
    ) -> None:
        self.count = 0
        self.endings = Endings(room or Room())
        self._names = names
        self._wrap = wrap
        self._is_retiring = retire is Retire.ZERO
        self._processes = RowLines()
        self._process_count = 0
        self._sums = RowLines()  # commands, and what has no series of its own
        self._generation = names.commands.generation
        self._failures = 0
        self._rows = ProcessLines(names.process_called, wrap)
        self._asked: tuple[str, ...] = PROCESS_MEASURES
        self._asks_for_more = False
        self._measures_of_sums = measures_of_sum(PROCESS_MEASURES)
        self._lacking: frozenset[str] = frozenset()  # of those asked for, what the host's kernel does not tell
        self._is_doubtful = False  # a row has less than that, or more
        self._host = wrap(names.host)
        self._host_template = ""
        self._host_measures: tuple[str, ...] = ()
        self._host_unknown = _ALL_KNOWN
        self._remembered = b""  # zeros of what lived before the start, until an outcome says what of it still does

    @property
    def names(self) -> HostNames:
        """Of this host."""
        return self._names

    def update(self, outcome: Outcome) -> Text:
        """Returns the text of an outcome: its series, those that ended with it, and the host's own."""
        if isinstance(outcome, Failure):
            self._failures += 1
            gone = self._retire() if self._failures == RETIRE_AFTER_FAILURES else b""
            return self._text(self._down(), 1, gone)
        self._failures = 0
        rows = self._take(outcome.shaped)
        had_measures = self._host_measures
        host, host_points, host_gone = self._host_text(outcome)
        has_new_measures = self._host_measures is not had_measures
        # What has ended lives again only where it begins again: the rest of what lives needs no look.
        has_zeros = bool(rows.gone or host_gone or self.endings.left or self._remembered)
        alive = lines_of(statsd_zeros(rows.new)) if has_zeros else _NONE
        gone = self._gone(rows.gone, alive) + host_gone if rows.gone else host_gone
        if has_zeros and has_new_measures:
            alive |= lines_of(statsd_zeros(host))
        self.count = (
            self._process_count * len(self._rows.measures) + len(self._sums) * len(self._measures_of_sums) + host_points
        )
        text = b"".join([self._rows.full(self._processes.text), self._sums.text, host])
        begun = rows.new + host if has_new_measures else rows.new
        if self._remembered:
            gone = without(self._remembered, alive | lines_of(gone)) + gone
            self._remembered = b""
        return self._text(text, self.count, gone, alive, begun)

    def _text(self, text: bytes, points: int, gone: bytes, alive: Set[bytes] = _NONE, begun: bytes = b"") -> Text:
        """Returns a text with the zeros that belong to it."""
        if not gone and not self.endings.left:
            return Text(text, points, begun=begun)
        zeros, last = self.endings.next(gone, alive)
        return Text(text + zeros, points + zeros.count(b"\n"), gone.count(b"\n"), zeros, begun, last)

    def retire(self) -> Text:
        """Returns the text that ends every series of a host that is sampled no more."""
        gone = self._retire()
        if not gone:
            return Text(b"", 0)
        return self._text(b"", 0, gone + self._down())

    def end_again(self, lost: bytes) -> None:
        """Takes zeros that did not arrive: they go again, except for series that live now."""
        rows = self._rows.full(self._processes.text) + self._sums.text
        self.endings.again(lost, statsd_zeros(rows) + self._host_zeros(self._host_measures))

    def recall(self, zeros: bytes) -> None:
        """Takes the zeros of the series that the host had before the start: those that live no more end."""
        if self._is_retiring:
            self._remembered = zeros

    def lines(self) -> bytes:
        """Returns lines of all series that live, or have still to be ended; their values do not matter."""
        rows = self._rows.full(self._processes.text) + self._sums.text
        host = self._host_zeros(self._host_measures)
        return rows + host + self.endings.lines + self._remembered

    def _down(self) -> bytes:
        return (self._host.template(["up"]) % 0).encode("ascii")

    def _retire(self) -> bytes:
        """Forgets all series but `up`; returns the zeros that end them."""
        gone = self._gone(self._rows.full(self._processes.text) + self._sums.text)
        if self._is_retiring:
            gone += self._host_zeros([measure for measure in self._host_measures if measure != "up"])
        if self._remembered:
            gone += without(self._remembered, lines_of(self._down() + gone))
            self._remembered = b""
        self._processes, self._sums = RowLines(), RowLines()
        self._host_template, self._host_measures = "", ()
        self.count = 1  # `up` stays
        return gone

    def _host_zeros(self, measures: Sequence[str]) -> bytes:
        return (self._host.template(measures) % (("0",) * len(measures))).encode("ascii")

    def _take(self, shaped: Shaped) -> Ended:
        """Takes the rows of a sample; returns what became of series."""
        measures = self._measures_of(shaped)
        if measures != self._rows.measures:
            return self._take_others(shaped, measures)
        before = self._processes.text[:], self._sums.text[:]
        ended = self._write(shaped)
        if self._is_doubtful:
            self._is_doubtful = False
            if (lacking := lacking_of(shaped)) != self._lacking:
                gone = self._rows.full(before[0]) + before[1]
                self._lacking = lacking
                return self._take_others(shaped, self._measures_of(shaped))._replace(gone=gone)
        if self._generation != self._names.commands.generation:
            # Two commands of this host fold to one name, seen just now or by another sink: once more, with that known.
            self._generation = self._names.commands.generation
            self._processes, self._sums = RowLines(), RowLines()
            processes, sums = before
            ended = self._write(shaped)._replace(gone=self._rows.full(processes) + sums)
        return ended

    def _measures_of(self, shaped: Shaped) -> tuple[str, ...]:
        """Returns the measures that are asked for and that the host has, as far as that is known."""
        if shaped.measures != self._asked:
            self._asked, self._lacking = shaped.measures, frozenset()
            self._asks_for_more = has_more(shaped.measures)
        if shaped.memory.total_bytes is not None and not self._lacking:
            return shaped.measures
        unknown = self._lacking if shaped.memory.total_bytes is not None else self._lacking | {"mem_percent"}
        return tuple(measure for measure in shaped.measures if measure not in unknown)

    def _take_others(self, shaped: Shaped, measures: tuple[str, ...]) -> Ended:
        """Takes the rows of a sample that have other measures than those before: some come, or come no more."""
        gone = self._rows.full(self._processes.text) + self._sums.text
        self._processes, self._sums = RowLines(), RowLines()
        self._rows = ProcessLines(self._names.process_called, self._wrap, measures)
        self._measures_of_sums = measures_of_sum(measures)
        ended = self._take(shaped)
        return ended._replace(gone=gone)

    def _write(self, shaped: Shaped) -> Ended:
        rows, lines = shaped.processes, self._processes
        table = rows if isinstance(rows, ProcessTable) else ProcessTable.of(rows)
        self._process_count = len(table)
        ended = lines.update(
            table.keys, table.changes_since(lines.keys), self._process_writer(table, shaped.memory.total_bytes)
        )
        ended = Ended(self._rows.full(ended.gone), self._rows.full(ended.new))
        if not (shaped.commands or shaped.other_processes or shaped.other_commands or self._sums):
            return ended
        sums, lines = self._places_of_sums(shaped), self._sums
        keys = RowKeys(array("q", map(hash, sums)), array("q", [hash(place) for place, _row in sums]))
        others = lines.update(
            keys, lines.keys.changes_to(keys), lambda places: [self._sum_lines(*sums[place]) for place in places]
        )
        return Ended(ended.gone + others.gone, ended.new + others.new)

    def _places_of_sums(self, shaped: Shaped) -> list[tuple[Place, CommandMemory]]:
        names = self._names
        sums = [(names.command(row.command), row) for row in shaped.commands]
        if shaped.other_processes:
            sums.append((names.other_processes, shaped.other_processes))
        if shaped.other_commands:
            sums.append((names.other_commands, shaped.other_commands))
        return sums

    def _process_writer(self, table: ProcessTable, total_bytes: int | None) -> Write:
        """Returns what writes the lines of the processes at some places: thousands a second, so all in one go."""
        known, name_of, rows = self._names.commands.known, self._names.commands.name, self._rows
        measures = rows.measures
        if not (measures == self._asked == PROCESS_MEASURES and total_bytes):
            return lambda places: rows.short(
                [
                    row and (known.get(row.command) or name_of(row.command), row.pid, *self._values(row, measures))
                    for row in map(table.line_of, places)
                ]
            )
        return lambda places: rows.short(
            [
                row
                and (
                    known.get(row[0]) or name_of(row[0]),
                    row[1],
                    row[2],
                    row[3],
                    f"{row[2] / total_bytes * 100:.6f}".rstrip("0").rstrip("."),  # `format_number` of `percent_of`
                )
                for row in table.sizes(places)
            ]
        )

    def _values(self, row: ProcessMemory | CommandMemory, measures: Sequence[str]) -> tuple[int | str, ...]:
        """Returns the measures of a row as they are sent; notes where it has not those that the host had so far."""
        if self._asks_for_more and (is_lacking(row, measures) or has_one_of(row, self._lacking)):
            self._is_doubtful = True
        values = [value_of(row, measure) or 0 for measure in measures]
        return tuple([value if isinstance(value, int) else format_number(value) for value in values])

    def _sum_lines(self, place: Place, row: CommandMemory) -> bytes:
        measures = self._measures_of_sums
        return (self._wrap(place).template(measures) % self._values(row, measures)).encode("ascii")

    def _gone(self, gone: bytes, alive: Set[bytes] = _NONE) -> bytes:
        """Returns the zeros that end these lines, except for series that another row has taken over."""
        if not self._is_retiring or not gone:
            return b""
        return without(statsd_zeros(gone), alive)

    def _host_text(self, sample: Sample) -> tuple[bytes, int, bytes]:
        """Returns the lines of the host's own series, how many they are, and the zeros of those that it has no more."""
        memory = sample.shaped.memory
        pressure = memory.pressure or _NO_PRESSURE
        values = (
            1,
            memory.total_bytes,
            memory.available_bytes,
            memory.swap_total_bytes,
            memory.swap_free_bytes,
            sample.shaped.process_count,
            sample.collect_seconds,
            memory.oom_kills_total,
            pressure[0],
            pressure[1],
            memory.hugetlb_bytes,
        )
        known = [format_number(value) for value in values if value is not None]
        gone = b""
        unknown = [value is None for value in values] if len(known) < len(values) else _ALL_KNOWN
        if not self._host_template or unknown != self._host_unknown:
            self._host_unknown = unknown
            told = zip(HOST_MEASURES, values, strict=True)
            before = self._host_measures
            self._host_measures = tuple(measure for measure, value in told if value is not None)
            self._host_template = self._host.template(self._host_measures)
            if self._is_retiring:
                gone = self._host_zeros([measure for measure in before if measure not in self._host_measures])
        return (self._host_template % tuple(known)).encode("ascii"), len(known), gone


class SeriesEncoding:
    """Outcomes as series in one receiver's format.

    Args:
        format_: the receiver's lines.
        retire: whether series that are gone get a final 0.
        at: puts the time into text, where the protocol carries one.
    """

    def __init__(self, format_: Format, retire: Retire, at: Callable[[bytes, float], bytes] | None = None) -> None:
        self.at = at
        self._format = format_
        self._retire = retire
        self._room = Room()

    def host(self, names: FleetNames, host: Host) -> HostSeries:
        """Returns the series of one host."""
        return HostSeries(names.host(host.name), partial(self._format, names.prefix), self._retire, self._room)

    def endings(self) -> Endings:
        """Returns where zeros wait that are no host's any more."""
        return Endings(self._room)

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
        return text._replace(ended=text.points, zeros=text.text)
