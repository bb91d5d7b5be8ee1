"""The processes of one sample, and what has changed since the one before: numbers for each row, rows where one looks.

    rows of a frame ──> prints ──RowKeys.runs_of──> runs: the same as before, or new ──> parse, shape, format only these

Between two samples of a host there is no object for a process (decision 0005). Pure.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from operator import ne
from typing import NamedTuple, overload

from fleetmem.model import ProcessMemory

PID_BITS = 24
"""A pid fits them: PID_MAX_LIMIT is 2^22."""

_PID_MASK = (1 << PID_BITS) - 1


def name_print(pid: int, command: str) -> int:
    """Returns 64 bits that stand for the name of a process' series: its pid, and 40 bits for its command."""
    return hash(command) & ~_PID_MASK | pid & _PID_MASK


def pids_of(names: Iterable[int]) -> set[int]:
    """Returns the pids in such prints."""
    return {name & _PID_MASK for name in names}


Run = tuple[int, int]
"""Either rows that the sample before had, the same and in the same order: places there of the first and
behind the last. Or a row that is new or has changed: NEW and its place in this sample."""

NEW = -1


class Changes(NamedTuple):
    """What is different from the sample before.

    Attributes:
        runs: all rows of this sample, in their order.
        new: places of rows whose names were not there before.
        gone: places, in the sample before, of rows whose names are there no more.
        is_in_place: whether each row that is the same has the place that it had, and there are as many rows as before.
    """

    runs: list[Run]
    new: list[int]
    gone: list[int]
    is_in_place: bool


class RowKeys(NamedTuple):
    """Two numbers for each row of a sample: all that has to be remembered of it to see what is new in the next one.

    Nine of ten rows are what they were. Python's hash of text is keyed by a secret of this run: no host can make two
    rows alike, and by chance two are in 1 of 2**64 comparisons.

    Attributes:
        prints: 64 bits that stand for all of a row.
        names: 64 bits that stand for what its series are called by: its pid, and 40 bits for its command.
        scale: what else the rows depend on: those of two samples with different ones are all different.
    """

    prints: "array[int]" = array("q")
    names: "array[int]" = array("q")
    scale: int = 0

    def runs_of(self, prints: Sequence[int], scale: int) -> tuple[list[Run], bool]:
        """Returns the rows of the next sample by where they are in this one, and whether all of them are in place."""
        if scale == self.scale and len(prints) == len(self.prints):
            # Mostly no process has come or gone: half the work.
            changed = list(compress(range(len(prints)), map(ne, self.prints, prints)))
            if {self.prints[place] for place in changed}.isdisjoint([prints[place] for place in changed]):
                return _runs_between(changed, len(prints)), True
        return self._runs_by_print(prints, scale), False

    def _runs_by_print(self, prints: Sequence[int], scale: int) -> list[Run]:
        places = dict(zip(self.prints, range(len(self.prints)), strict=True)) if scale == self.scale else {}
        runs: list[Run] = []
        begin = end = 0
        for place, old in enumerate(map(places.get, prints)):
            if old == end:
                end += 1
                continue
            if begin < end:
                runs.append((begin, end))
            if old is None:
                runs.append((NEW, place))
                begin = end = NEW
            else:
                begin, end = old, old + 1
        if begin < end:
            runs.append((begin, end))
        return runs

    def changes_to(self, after: "RowKeys", runs: list[Run] | None = None, *, is_in_place: bool = False) -> Changes:
        """Returns what is different in the next sample.

        Args:
            after: its keys.
            runs: its rows, where they are known already.
            is_in_place: of these runs, as `runs_of` says.
        """
        if runs is None:
            runs, is_in_place = self.runs_of(after.prints, after.scale)
        if after.names == self.names:
            return Changes(runs, [], [], is_in_place)
        fresh = [end for begin, end in runs if begin == NEW]
        left = fresh if is_in_place else self._left_by(runs)  # those that have changed or are gone
        before, now = {self.names[place] for place in left}, {after.names[place] for place in fresh}
        new = [place for place in fresh if after.names[place] not in before]
        # 0 is no name: protocol 2 has places without a process.
        gone = [place for place in left if self.names[place] and self.names[place] not in now]
        return Changes(runs, new, gone, is_in_place)

    def _left_by(self, runs: list[Run]) -> list[int]:
        left: list[int] = []
        at = 0
        for begin, end in sorted(runs):
            if begin != NEW:
                left += range(at, begin)
                at = end
        left += range(at, len(self.names))
        return left


def _runs_between(changed: list[int], count: int) -> list[Run]:
    """Returns the runs of so many rows, of which these have changed in place."""
    runs: list[Run] = []
    at = 0
    for place in changed:
        if at < place:
            runs.append((at, place))
        runs.append((NEW, place))
        at = place + 1
    if at < count:
        runs.append((at, count))
    return runs


class ProcessTable(Sequence[ProcessMemory]):
    """The processes of one sample: keys, what has changed, and rows where somebody looks.

    Args:
        keys: see below.
        before: the keys of the sample before.
        changes: from there to here.
        new: rows by place that are made already.
        make: makes all rows.

    Attributes:
        keys: of the rows.
    """

    __slots__ = ("_before", "_changes", "_make", "_new", "_rows", "keys")

    def __init__(
        self,
        keys: RowKeys,
        before: RowKeys,
        changes: Changes,
        new: Mapping[int, ProcessMemory],
        make: Callable[[], tuple[ProcessMemory, ...]],
    ) -> None:
        self.keys = keys
        self._before = before
        self._changes = changes
        self._new = new
        self._make = make
        self._rows: tuple[ProcessMemory, ...] | None = None

    @classmethod
    def of(cls, rows: Sequence[ProcessMemory]) -> "ProcessTable":
        """Returns the table of rows that are there already."""
        if isinstance(rows, ProcessTable):
            return rows
        names = array("q", [name_print(row.pid, row.command) for row in rows])
        keys = RowKeys(array("q", map(hash, rows)), names)
        return cls(keys, keys, Changes([], [], [], is_in_place=True), {}, lambda: tuple(rows))

    def changes_since(self, before: RowKeys) -> Changes:
        """Returns what is different from another sample of the host: mostly the one before, for which it is known."""
        return self._changes if before is self._before else before.changes_to(self.keys)

    def line_of(self, place: int) -> ProcessMemory | None:
        """Returns the row at a place of its changes, None where there is none any more."""
        return self[place]

    def sizes(self, places: Iterable[int]) -> Iterator[tuple[str, int, int, int] | None]:
        """Yields command, pid, RSS and VSZ of the rows at places of its changes, None where there is none any more."""
        for place in places:
            row = self[place]
            yield row.command, row.pid, row.rss_bytes, row.vsz_bytes

    @property
    def rows(self) -> tuple[ProcessMemory, ...]:
        """All of them."""
        if self._rows is None:
            self._rows = self._make()
        return self._rows

    def __len__(self) -> int:
        return len(self.keys.prints)

    def __iter__(self) -> Iterator[ProcessMemory]:
        return iter(self.rows)

    def __eq__(self, other: object) -> bool:
        return self.rows == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.rows)

    @overload
    def __getitem__(self, place: int) -> ProcessMemory: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[ProcessMemory, ...]: ...

    def __getitem__(self, place: int | slice) -> ProcessMemory | tuple[ProcessMemory, ...]:
        if isinstance(place, int) and (row := self._new.get(place)):
            return row
        return self.rows[place]
