"""One level of detail of one host: which rows are kept, and what the ones before them have to do with it. Pure.

Series stay stable: one at the edge does not come and go with every sample. So rows that were kept count as a tenth
bigger than they are (hysteresis), and keep their place in the budget (incumbents).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence, Set
from math import exp
from operator import attrgetter
from typing import Generic, TypeVar

from fleetmem.errors import HostError, Kind, Stage
from fleetmem.model import CommandMemory, LeftOut, ProcessMemory, measures_of_sum
from fleetmem.process_table import ProcessTable, RowKeys, name_print
from fleetmem.shape.budget import REMEMBER_SECONDS, HostBudget
from fleetmem.shape.limits import Limits, TopBy
from fleetmem.units import percent_of

_Row = TypeVar("_Row", ProcessMemory, CommandMemory)

_MAX_SUM_BYTES = 2**63 - 1
_NO_NAME = frozenset([0])  # of a free slot
_GROWTH_SECONDS = 600.0
_NOISE_BYTES = 1024**2  # what RSS of an idle process wobbles by, give or take (the kernel counts per CPU)


class Level(ABC, Generic[_Row]):
    """Keeps the rows that the limits and the budget allow.

    Args:
        limits: how many, how large, by what.
        budget: of the host; None is no limit.
        key: what a row is found again by in the next sample.
        name: what its series are called by.
        series_per_row: how many these are.
    """

    def __init__(
        self,
        limits: Limits,
        budget: HostBudget | None,
        key: Callable[[_Row], Hashable],
        name: Callable[[_Row], Hashable],
        series_per_row: int,
    ) -> None:
        self._series_per_row = series_per_row
        self._key: Callable[[_Row], Hashable] = key
        self._name: Callable[[_Row], Hashable] = name
        self._top = limits.top
        self._min_rss_bytes = limits.min_rss_bytes
        self._top_by = limits.top_by
        self._budget = budget
        self._is_first = True
        self._names: Collection[Hashable] = ()  # of the rows kept in the sample before, where there is a budget
        self._has_all = True  # no row of that sample was left out
        self._rows: dict[Hashable, _Row] = {}  # of that sample, where one took a closer look at it
        self._ended: dict[Hashable, float] = {}  # names that may come back, and when they ended; oldest first
        self._averages: dict[Hashable, tuple[_Row, float]] = {}
        self._averaged_at = 0.0

    def keep(
        self, rows: Sequence[_Row], clock_seconds: float, *, is_same_boot: bool
    ) -> tuple[Sequence[_Row], dict[LeftOut, list[_Row]]]:
        """Returns the rows to keep and the others by reason.

        Args:
            rows: those of a sample that no filter has excluded.
            clock_seconds: when it was taken, on any clock that never goes back.
            is_same_boot: whether the sample before was of the same boot; processes of another one are others.
        """
        if self._ended:
            self._forget_ended(clock_seconds)
        if self._top is None and not self._min_rss_bytes and self._all_fit(rows, clock_seconds):
            self._rows, self._has_all, self._is_first = {}, True, False
            return rows, {}
        rows = tuple(rows)
        if self._top_by is TopBy.GROWTH:
            self._average(rows, clock_seconds, is_same_boot=is_same_boot)
        kept, left_out = self._look_closer(rows, self._rows if is_same_boot else {}, clock_seconds)
        self._rows = {self._key(row): row for row in rows}
        self._has_all, self._is_first = len(kept) == len(rows), False
        return kept, {reason: members for reason, members in left_out.items() if members}

    def _look_closer(
        self, rows: tuple[_Row, ...], before: dict[Hashable, _Row], clock_seconds: float
    ) -> tuple[tuple[_Row, ...], dict[LeftOut, list[_Row]]]:
        """Does what `keep` does, row by row.

        Where the sample before had no such look there are no rows of it, only the names of all of them. That is enough:
        all of them had series then, and what has series keeps them whatever its size.
        """
        known = frozenset(self._names) - _NO_NAME
        incumbents = {key: row for key, row in before.items() if self._name(row) in known}
        large, small = self._by_size(rows, incumbents)
        kept, unranked, refused = self._choose(large, known, incumbents, before)
        self._names = [self._name(row) for row in kept]
        if self._budget:
            self._book(self._budget, rows, known, clock_seconds)
        return kept, {LeftOut.SMALL: small, LeftOut.TOP: unranked, LeftOut.BUDGET: refused}

    @abstractmethod
    def _is_same(self, before: _Row, row: _Row) -> bool:
        """Whether two rows with one key, of two samples of one boot, are the same process or command."""

    @abstractmethod
    def _swap_bytes(self, row: _Row) -> int: ...

    @abstractmethod
    def _end(self, budget: HostBudget, gone: Set[Hashable], alive: Set[Hashable], clock_seconds: float) -> None:
        """Notes that the series of these names have ended; the rows of some are alive and may be kept again."""

    def _all_fit(self, rows: Sequence[_Row], _clock_seconds: float) -> bool:
        """Whether all rows are kept, without a closer look; what there is to book is booked then."""
        return self._budget is None or (self._has_all and list(map(self._name, rows)) == self._names)

    def _by_size(self, rows: tuple[_Row, ...], incumbents: dict[Hashable, _Row]) -> tuple[Sequence[_Row], list[_Row]]:
        at_least = self._min_rss_bytes
        if not at_least:
            return rows, []
        large: list[_Row] = []
        small: list[_Row] = []
        for row in rows:
            is_kept = row.rss_bytes >= at_least or (
                row.rss_bytes * 10 >= at_least * 9 and self._is_incumbent(row, incumbents)
            )
            (large if is_kept else small).append(row)
        return large, small

    def _is_incumbent(self, row: _Row, incumbents: dict[Hashable, _Row]) -> bool:
        before = incumbents.get(self._key(row))
        return before is not None and self._is_same(before, row)

    def _choose(
        self,
        rows: Sequence[_Row],
        known: Set[Hashable],
        incumbents: dict[Hashable, _Row],
        settled: dict[Hashable, _Row],
    ) -> tuple[tuple[_Row, ...], list[_Row], list[_Row]]:
        """Returns the rows to keep, those below `top` and those that the budget has no room for.

        The largest come first. One that the budget refuses takes no place of `top`, the next one gets it.
        """
        top = len(rows) if self._top is None else self._top
        if top >= len(rows) and not self._budget:
            return self._in_order(rows), [], []
        ranked = self._ranked(rows, incumbents)
        if not self._budget:
            return self._in_order(ranked[:top]), ranked[top:], []
        kept: list[_Row] = []
        refused: list[_Row] = []
        for place, row in enumerate(ranked):
            if len(kept) == top:
                return self._in_order(kept), ranked[place:], refused
            has_series = (name := self._name(row)) in known or name in self._ended
            (kept if has_series or self._admits(self._budget, row, settled) else refused).append(row)
        if self._top is None:  # in the order of the frame
            refused_keys = {self._key(row) for row in refused}
            return tuple(row for row in rows if self._key(row) not in refused_keys), [], refused
        return self._in_order(kept), [], refused

    def _in_order(self, rows: Sequence[_Row]) -> tuple[_Row, ...]:
        """Returns the largest first where `top` asks for the largest, else the order of the frame."""
        return tuple(rows) if self._top is None else tuple(_largest_first(rows, self._sizes(rows)))

    def _admits(self, budget: HostBudget, row: _Row, settled: dict[Hashable, _Row]) -> bool:
        """Whether a new row gets series. Once half of the budget is used only those do that have outlived a sample."""
        return (self._is_first or not budget.is_tight or self._is_incumbent(row, settled)) and budget.take(
            self._series_per_row
        )

    def _sizes(self, rows: Sequence[_Row]) -> list[tuple[float, float]]:
        """Returns what rows are ranked by; among equals, RSS decides."""
        match self._top_by:
            case TopBy.RSS:
                return [(row.rss_bytes, 0) for row in rows]
            case TopBy.SWAP:
                return [(self._swap_bytes(row), row.rss_bytes) for row in rows]
            case TopBy.GROWTH:
                averages = self._averages
                return [(row.rss_bytes - averages[self._key(row)][1], row.rss_bytes) for row in rows]

    def _ranked(self, rows: Sequence[_Row], incumbents: dict[Hashable, _Row]) -> list[_Row]:
        """Returns the rows, the largest first; incumbents count as a tenth larger than they are."""
        sizes = self._sizes(rows)
        for place, key in enumerate(map(self._key, rows)):
            if key in incumbents and self._is_same(incumbents[key], rows[place]):
                sizes[place] = self._favoured(*sizes[place])
        return _largest_first(rows, sizes)

    def _favoured(self, size: float, rss_bytes: float) -> tuple[float, float]:
        favour = abs(size) / 10
        if self._top_by is TopBy.GROWTH:  # most grow by nothing, give or take a page: a tenth of that is no advantage
            favour += min(_NOISE_BYTES, (rss_bytes - size) / 100)
        return size + favour, rss_bytes * 1.1

    def _average(self, rows: Iterable[_Row], clock_seconds: float, *, is_same_boot: bool) -> None:
        """Follows the RSS of each row with an exponential average over ten minutes; a new one begins with its own."""
        weight = 1 - exp((self._averaged_at - clock_seconds) / _GROWTH_SECONDS)
        averages = self._averages if is_same_boot else {}
        self._averages, self._averaged_at = {}, clock_seconds
        for row in rows:
            key = self._key(row)
            average = float(row.rss_bytes)
            if key in averages and self._is_same(averages[key][0], row):
                before = averages[key][1]
                average = before + (average - before) * weight
            self._averages[key] = row, average

    def _book(self, budget: HostBudget, rows: Sequence[_Row], known: Set[Hashable], clock_seconds: float) -> None:
        if self._ended:
            for name in self._names:
                self._ended.pop(name, None)
        gone = known - set(self._names)
        if gone:
            self._end(budget, gone, set(map(self._name, rows)), clock_seconds)

    def _forget_ended(self, clock_seconds: float) -> None:
        while self._ended and self._budget:
            name, ended_at = next(iter(self._ended.items()))
            if ended_at + REMEMBER_SECONDS > clock_seconds:
                return
            del self._ended[name]
            self._budget.give_back(self._series_per_row)


class ProcessLevel(Level[ProcessMemory]):
    """A row per process.

    Which process is it? The one of the sample before when pid, command, user, boot and start are the same. Protocol 1
    has no start times: they would take a second file per process. So the peak RSS (VmHWM) must not have fallen by more
    than 10 %, too. A peak only rises, give or take what the kernel counts per CPU. Anything else is a new process that
    took over a pid: hysteresis, growth and the wait at a tight budget begin again. With the same command its series
    have the names of the old ones, and with them their place in the budget.
    """

    def __init__(self, limits: Limits, budget: HostBudget | None) -> None:
        super().__init__(limits, budget, attrgetter("pid"), _print_of, len(limits.measures))
        self._keys = RowKeys()  # of the sample before, where there is a budget

    def _is_same(self, before: ProcessMemory, row: ProcessMemory) -> bool:
        return before is row or (
            before.command == row.command
            and before.uid == row.uid
            and before.started_unix_seconds == row.started_unix_seconds
            and (row.peak_rss_bytes or 0) * 10 >= (before.peak_rss_bytes or 0) * 9
        )

    def _swap_bytes(self, row: ProcessMemory) -> int:
        return row.swap_bytes or 0

    def keep(
        self, rows: Sequence[ProcessMemory], clock_seconds: float, *, is_same_boot: bool
    ) -> tuple[Sequence[ProcessMemory], dict[LeftOut, list[ProcessMemory]]]:
        """See `Level.keep`."""
        if self._budget is None:
            return super().keep(rows, clock_seconds, is_same_boot=is_same_boot)
        table = rows if isinstance(rows, ProcessTable) else ProcessTable.of(rows)
        kept, left_out = super().keep(table, clock_seconds, is_same_boot=is_same_boot)
        self._keys = table.keys
        return rows if kept is table else kept, left_out

    def _all_fit(self, rows: Sequence[ProcessMemory], clock_seconds: float) -> bool:
        if self._budget is None:
            return True
        if not self._has_all:
            return False
        table = rows if isinstance(rows, ProcessTable) else ProcessTable.of(rows)
        changes = table.changes_since(self._keys)
        new, gone = len(changes.new), len(changes.gone)
        if (new or gone) and not self._book_all(self._budget, new, gone, clock_seconds):
            return False
        self._names = table.keys.names
        return True

    def _book_all(self, budget: HostBudget, new: int, gone: int, clock_seconds: float) -> bool:
        """Books new and ended rows where none of the new ones has to wait, or has been there before."""
        if self._ended or not budget.take(new * self._series_per_row):
            return False
        if budget.is_tight and new and not self._is_first:
            budget.give_back(new * self._series_per_row)
            return False
        budget.end(gone * self._series_per_row, clock_seconds)
        return True

    def _end(self, budget: HostBudget, gone: Set[Hashable], alive: Set[Hashable], clock_seconds: float) -> None:
        """Remembers the names of those that live on and may be kept again, and of the dead only how many they are."""
        self._ended |= dict.fromkeys(gone & alive, clock_seconds)
        budget.end(len(gone - alive) * self._series_per_row, clock_seconds)


class CommandLevel(Level[CommandMemory]):
    """A row per command. What is gone is remembered by name: commands come back, and have their series then."""

    def __init__(self, limits: Limits, budget: HostBudget | None) -> None:
        measures = measures_of_sum(limits.measures)
        super().__init__(limits, budget, attrgetter("command"), attrgetter("command"), len(measures))
        self._measures = measures
        self._total_bytes: int | None = 0
        self._sums: dict[str, tuple[list[ProcessMemory], CommandMemory]] = {}

    def add_up(self, processes: Iterable[ProcessMemory], total_bytes: int | None) -> tuple[CommandMemory, ...]:
        """Returns a row per command, in the order in which they are seen; the one before where nothing changed."""
        members: dict[str, list[ProcessMemory]] = {}
        for process in processes:
            members.setdefault(process.command, []).append(process)
        before = self._sums if total_bytes == self._total_bytes else {}
        self._sums, self._total_bytes = {}, total_bytes
        for command, rows in members.items():
            seen = before.get(command)
            self._sums[command] = (
                seen
                if seen and seen[0] == rows
                else (rows, sum_of(command, rows, len(rows), total_bytes, self._measures))
            )
        return tuple([row for _rows, row in self._sums.values()])

    def _is_same(self, _before: CommandMemory, _row: CommandMemory) -> bool:
        return True

    def _swap_bytes(self, row: CommandMemory) -> int:
        return sum(process.swap_bytes or 0 for process in self._sums[row.command][0])

    def _end(self, _budget: HostBudget, gone: Set[Hashable], _alive: Set[Hashable], clock_seconds: float) -> None:
        self._ended |= dict.fromkeys(gone, clock_seconds)


def _print_of(row: ProcessMemory) -> int:
    return name_print(row.pid, row.command)


def sum_of(
    command: str,
    rows: Sequence[ProcessMemory | CommandMemory],
    procs: int,
    total_bytes: int | None,
    measures: Collection[str] = (),
) -> CommandMemory:
    """Returns the sum of rows under a name, with the share of a host that has so much memory.

    Args:
        command: the name.
        rows: to add up.
        procs: processes that they stand for.
        total_bytes: memory of the host.
        measures: that are asked for, beside those which every sum has.

    Raises:
        HostError: (bad_frame) the sum is beyond 2^63: no receiver holds it, and no host has it.
    """
    rss_bytes = sum([row.rss_bytes for row in rows])
    vsz_bytes = sum([row.vsz_bytes for row in rows])
    anon_bytes = _sum_of_known([(row.anon_bytes, row.vsz_bytes) for row in rows]) if "anon_bytes" in measures else None
    swap_bytes = _sum_of_known([(row.swap_bytes, row.vsz_bytes) for row in rows]) if "swap_bytes" in measures else None
    if max(rss_bytes, vsz_bytes, anon_bytes or 0, swap_bytes or 0) > _MAX_SUM_BYTES:
        raise HostError(Stage.PARSE, Kind.BAD_FRAME, "sizes of its processes add up to more than 2^63 bytes")
    return CommandMemory(
        command, procs, rss_bytes, vsz_bytes, percent_of(rss_bytes, total_bytes), anon_bytes, swap_bytes
    )


def _sum_of_known(sizes: Iterable[tuple[int | None, int]]) -> int | None:
    """Returns the sum of sizes, each with the virtual one; None where one is not known that there must be."""
    total = 0
    for size, vsz_bytes in sizes:
        if size is None and vsz_bytes:
            return None
        total += size or 0
    return total


def _largest_first(rows: Sequence[_Row], sizes: Sequence[tuple[float, float]]) -> list[_Row]:
    return [rows[place] for place in sorted(range(len(rows)), key=sizes.__getitem__, reverse=True)]
