"""The processes of a host as protocol 2 tells of them: columns by slot, which change in place.

A host gives each process a slot, and then speaks of slots only. Work grows with what has changed, and between two
samples there are 60 bytes for a process, and no object (decision 0005). Pure.

    lines of a frame ──> Columns, changed in place ──> SlotTable: what this sample changed, rows where one looks
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct, error
from typing import NamedTuple

from fleetmem.model import ProcessMemory
from fleetmem.process_table import NEW, Changes, ProcessTable, RowKeys, name_print
from fleetmem.units import KIB, percent_of

FIGURES = 6
"""Of each process, in KiB: VSZ, RSS, peak RSS, anonymous, swapped, page tables."""

MAX_SLOTS = 65_536
"""More processes than this are a flood."""

_SMALL, _SMALL_SIZES = Struct(f"={FIGURES}I"), Struct("=2I")
_LARGE, _LARGE_SIZES = Struct(f"={FIGURES}Q"), Struct("=2Q")
"""Address spaces may be larger than 32 bits of KiB: then all figures of the host have 64."""

_IDENTITY = Struct("=IHH")  # user, OOM score adjustment, control group
_ADJUSTMENT_OFFSET = 1001  # from -1000 on; 0 stands for unknown
_MAX_ADJUSTMENT = 1000
_MAX_UID = 2**32 - 2
_TICKS_A_SECOND = 100  # USER_HZ, in which the kernel tells times of processes (time(7))
_PID = 0xFFFFFF  # in the print of a name
_HOLE = 0
_NUMBERS = 1 + FIGURES + 1  # of a process that has changed

UNKNOWN = 2**32 - 1
UNKNOWN_TEXT = b"4294967295"
"""Stands for a figure that the kernel does not tell. No process has exactly 4 TiB less a KiB of anything."""

Row = Sequence[bytes]
"""What a line says of a process, as it stands there."""


class ControlGroup(NamedTuple):
    """A control group of a host.

    Attributes:
        path: below the root of its hierarchy.
        limit_bytes: the least memory limit of it and those above it, None for no limit.
    """

    path: str
    limit_bytes: int | None


class Columns:
    """All processes of a host, by slot.

    Of starts, users and adjustments 0 stands for unknown, and all others are one more than they are; of figures
    UNKNOWN does.

    Attributes:
        names: what the series of a process are called by (`name_print`); 0 for a slot that is free. Another array when
            any of them has changed: who has the old one keeps it as it was.
        commands: of each process.
        groups: control groups by number, from 1 on.
        count: processes.
        rss_kib: the sum of RSS.
        vsz_kib: the sum of VSZ.
        pids: the sum of pids.
        total_bytes: memory of the host, None where unknown.
        boot_unix_seconds: when the host was started, None where unknown.
    """

    __slots__ = (
        "_figures",
        "_form",
        "_huge_kib",
        "_identities",
        "_made",
        "_sizes",
        "_starts",
        "boot_unix_seconds",
        "commands",
        "count",
        "groups",
        "names",
        "pids",
        "rss_kib",
        "total_bytes",
        "vsz_kib",
    )

    def __init__(self) -> None:
        self.names = array("q")
        self.commands: list[str] = []
        self.groups: list[ControlGroup] = []
        self.count = self.rss_kib = self.vsz_kib = self.pids = 0
        self.total_bytes: int | None = None
        self.boot_unix_seconds: float | None = None
        self._figures = bytearray()
        self._form, self._sizes = _SMALL, _SMALL_SIZES
        self._identities = bytearray()
        self._starts = array("q")
        self._huge_kib: dict[int, int] = {}  # by slot, where there is any
        self._made: list[ProcessMemory | None] | None = None  # where one looked at all of them

    def copy(self) -> "Columns":
        """Returns what may be changed while others look at these."""
        other = Columns()
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(other, name, value[:] if isinstance(value, array | list | bytearray) else value)
        other._huge_kib = dict(self._huge_kib)
        return other

    def tell(self, rows: Iterable[Row], command_of: Callable[[bytes], str]) -> list[int]:
        """Takes processes that are new, or others than before; returns their slots. `names` must be no one else's.

        Args:
            rows: slot, pid, user, start in ticks of 1/100 s since boot, OOM score adjustment, control group, figures,
                name; `-` for unknown. The figures are one text: FIGURES of them and huge pages, in KiB.
            command_of: returns the command of a name.

        Raises:
            ValueError: a number that no kernel tells.
        """
        slots: list[int] = []
        for slot_text, pid_text, uid_text, start, adjustment_text, group_text, figures, name in rows:
            slot, pid, group = int(slot_text), int(pid_text), int(group_text)
            if slot >= len(self.names):
                self._extend(slot + 1)
            elif self.names[slot] != _HOLE:
                self.free(slot)
            uid = 0 if uid_text == b"-" else int(uid_text) + 1
            adjustment = 0 if adjustment_text == b"-" else int(adjustment_text) + _ADJUSTMENT_OFFSET
            if uid > _MAX_UID + 1 or not 0 <= adjustment <= _MAX_ADJUSTMENT + _ADJUSTMENT_OFFSET:
                raise ValueError(f"user {uid_text!r}, adjustment {adjustment_text!r}")
            if group > len(self.groups):
                raise ValueError(f"there is no control group {group}")
            command = command_of(name)
            self.names[slot] = name_print(pid, command)
            self.commands[slot] = command
            self._starts[slot] = 0 if start == b"-" else int(start) + 1
            _IDENTITY.pack_into(self._identities, slot * _IDENTITY.size, uid, adjustment, group)
            *numbers, huge_kib = map(int, figures.replace(b"-", UNKNOWN_TEXT).split())
            try:
                self._form.pack_into(self._figures, slot * self._form.size, *numbers)
            except error:
                self._widen()
                self._form.pack_into(self._figures, slot * self._form.size, *numbers)
            self.vsz_kib += numbers[0]
            self.rss_kib += numbers[1]
            self._set_huge(slot, huge_kib)
            self.count += 1
            self.pids += pid
            slots.append(slot)
        if self._made is not None:
            self._forget_made(slots)
        return slots

    def _extend(self, slots: int) -> None:
        if slots > MAX_SLOTS:
            raise ValueError(f"more than {MAX_SLOTS} rows")
        more = slots - len(self.names)
        self.names.frombytes(bytes(more * self.names.itemsize))
        self._starts.frombytes(bytes(more * self._starts.itemsize))
        self.commands += [""] * more
        self._figures += bytes(more * self._form.size)
        self._identities += bytes(more * _IDENTITY.size)
        if self._made is not None:
            self._made += [None] * more

    def change(self, numbers: Sequence[int]) -> list[int]:
        """Takes other figures of processes; returns their slots.

        Args:
            numbers: of each process its slot, FIGURES of them in KiB, and huge pages in KiB; UNKNOWN for what the
                kernel does not tell.

        Raises:
            ValueError, IndexError: there is no process in a slot.
        """
        names, figures, size, sizes_at, put = self.names, self._figures, self._form.size, self._sizes, self._form
        rss_kib = vsz_kib = 0
        each = iter(numbers)
        for slot, vsz, rss, peak, anon, swap, tables, huge in zip(*[each] * _NUMBERS, strict=True):
            if names[slot] == _HOLE:
                raise ValueError(f"there is no process in slot {slot}")
            vsz_before, rss_before = sizes_at.unpack_from(figures, slot * size)
            try:
                put.pack_into(figures, slot * size, vsz, rss, peak, anon, swap, tables)
            except error:
                self._widen()
                figures, size, sizes_at, put = self._figures, self._form.size, self._sizes, self._form
                put.pack_into(figures, slot * size, vsz, rss, peak, anon, swap, tables)
            vsz_kib += vsz - vsz_before
            rss_kib += rss - rss_before
            if (huge and huge != UNKNOWN) or self._huge_kib:
                self._set_huge(slot, huge)
        self.vsz_kib += vsz_kib
        self.rss_kib += rss_kib
        slots = list(numbers[::_NUMBERS])
        if self._made is not None:
            self._forget_made(slots)
        return slots

    def _set_huge(self, slot: int, huge_kib: int) -> None:
        if huge_kib and huge_kib != UNKNOWN:
            self._huge_kib[slot] = huge_kib
        else:
            self._huge_kib.pop(slot, None)

    def _forget_made(self, slots: Iterable[int]) -> None:
        made = self._made or []
        for slot in slots:
            made[slot] = None

    def _widen(self) -> None:
        self._figures = bytearray().join([_LARGE.pack(*row) for row in _SMALL.iter_unpack(self._figures)])
        self._form, self._sizes = _LARGE, _LARGE_SIZES

    def free(self, slot: int) -> None:
        """Takes the process out of a slot; `names` must be no one else's.

        Raises:
            ValueError, IndexError: there is none.
        """
        if self.names[slot] == _HOLE:
            raise ValueError(f"there is no process in slot {slot}")
        vsz, rss = self._sizes.unpack_from(self._figures, slot * self._form.size)
        self.vsz_kib -= vsz
        self.rss_kib -= rss
        self.count -= 1
        self.pids -= self.names[slot] & _PID
        self.names[slot] = _HOLE
        self.commands[slot] = ""
        self._huge_kib.pop(slot, None)
        if self._made is not None:
            self._made[slot] = None

    def set_total(self, total_bytes: int | None) -> None:
        """Takes the memory of the host: every share is another one."""
        self.total_bytes = total_bytes
        self._made = None

    def sizes(self, slots: Iterable[int]) -> Iterator[tuple[str, int, int, int] | None]:
        """Yields command, pid, RSS and VSZ in bytes of the processes in some slots, None for one that is free."""
        names, commands, figures, size, sizes_at = (
            self.names,
            self.commands,
            self._figures,
            self._form.size,
            self._sizes,
        )
        for slot in slots:
            if name := names[slot]:
                vsz, rss = sizes_at.unpack_from(figures, slot * size)
                yield commands[slot], name & _PID, rss * KIB, vsz * KIB
            else:
                yield None

    def others_than(self, before: "Columns") -> Changes:
        """Returns what is different from other columns of the host, whose slots may stand for other processes.

        There are as many slots as there were, so that each of them has its place in both.
        """
        if len(self.names) < len(before.names):
            self._extend(len(before.names))
        old, new = before.names, self.names
        if before._form is not self._form or before.total_bytes != self.total_bytes:
            return all_changed(old, new)
        size, common = self._form.size, len(old)
        differs = [
            slot
            for slot in range(common)
            if old[slot] != new[slot]
            or before._figures[slot * size : slot * size + size] != self._figures[slot * size : slot * size + size]
        ]
        touched = [*differs, *range(common, len(new))]
        known, there = frozenset(old), frozenset(new)
        return Changes(
            [(NEW, slot) for slot in touched],
            [slot for slot in touched if slot < len(new) and new[slot] != _HOLE and new[slot] not in known],
            [slot for slot in touched if slot < len(old) and old[slot] != _HOLE and old[slot] not in there],
            is_in_place=True,
        )

    def row(self, slot: int) -> ProcessMemory:
        """Returns the process in a slot."""
        vsz, rss, peak, anon, swap, _page_tables = self._form.unpack_from(self._figures, slot * self._form.size)
        uid, _adjustment, _group = _IDENTITY.unpack_from(self._identities, slot * _IDENTITY.size)
        rss_bytes, start = rss * KIB, self._starts[slot]
        started = None
        if start and self.boot_unix_seconds is not None:
            started = round(self.boot_unix_seconds + (start - 1) / _TICKS_A_SECOND)
        return ProcessMemory(
            self.names[slot] & _PID,
            uid - 1 if uid else None,
            self.commands[slot],
            rss_bytes,
            vsz * KIB,
            percent_of(rss_bytes, self.total_bytes),
            None if peak == UNKNOWN else peak * KIB,
            None if anon == UNKNOWN else anon * KIB,
            None if swap == UNKNOWN else swap * KIB,
            started,
            self._huge_kib.get(slot, 0) * KIB or None,
        )

    def rows(self) -> tuple[ProcessMemory, ...]:
        """Returns all processes, in the order of their slots."""
        made = self._made
        if made is None:
            made = self._made = [None] * len(self.names)
        for slot, name in enumerate(self.names):
            if name != _HOLE and made[slot] is None:
                made[slot] = self.row(slot)
        return tuple([row for row in made if row is not None])


class SlotTable(ProcessTable):
    """The processes of one sample, by slot.

    Args:
        columns: all of them. Who changes them makes a copy while somebody has this table.
        before: keys of the sample before.
        changes: from there to here.

    Attributes:
        columns: see above.
    """

    __slots__ = ("__weakref__", "columns")

    def __init__(self, columns: Columns, before: RowKeys, changes: Changes) -> None:
        self.keys = RowKeys(names=columns.names)
        self.columns = columns
        self._before = before
        self._changes = changes
        self._new = {}
        self._make = columns.rows
        self._rows = None

    def __len__(self) -> int:
        return self.columns.count

    def line_of(self, place: int) -> ProcessMemory | None:
        """Returns the process in a slot, None where it is free."""
        return self.columns.row(place) if self.columns.names[place] != _HOLE else None

    def sizes(self, places: Iterable[int]) -> Iterator[tuple[str, int, int, int] | None]:
        """See `ProcessTable`."""
        return self.columns.sizes(places)

    def changes_since(self, before: RowKeys) -> Changes:
        """Returns what is different from another sample of the host: mostly the one before, for which it is known."""
        return self._changes if before is self._before else all_changed(before.names, self.keys.names)


def all_changed(before: "array[int]", now: "array[int]") -> Changes:
    """Returns what is different where nothing is known of any process but its name."""
    known, there = frozenset(before), frozenset(now)
    return Changes(
        [(NEW, slot) for slot in range(len(now))],
        [slot for slot, name in enumerate(now) if name != _HOLE and name not in known],
        [slot for slot, name in enumerate(before) if name != _HOLE and name not in there],
        is_in_place=False,
    )
