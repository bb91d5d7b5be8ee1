"""What one host is asked, and what its answers mean, in whichever protocol it speaks.

    first request of a connection: one that protocol 1 understands ──> the answer says which protocol the host speaks
    1: every answer holds everything                                                     parse.SnapshotParser
    2: requests name the frame that is known, answers hold what has changed since then   ChangesParser

A frame of protocol 2 is data only where the table that it leads to has the rows and the sums that its END tells. Else
the columns are worth nothing, and the next request asks for everything. The format is on top of `probe2.sh`.
"""

import re
import weakref
from array import array
from collections.abc import Callable, Sequence, Set
from functools import lru_cache

from fleetmem.errors import HostError
from fleetmem.model import HostMemory, MemoryPressure, Snapshot
from fleetmem.probe.parse import (
    MAX_PROCESSES,
    SnapshotParser,
    bad_frame,
    cut_name,
    decode_command,
    parse_counters,
    probe_failure,
)
from fleetmem.probe.script import USUAL, ProbeKind, Processes
from fleetmem.process_slots import UNKNOWN_TEXT, Columns, ControlGroup, Row, SlotTable, all_changed
from fleetmem.process_table import NEW, Changes, RowKeys, pids_of
from fleetmem.units import KIB

MAX_THREADLESS = 16
"""Processes without their first thread that a request names: there is hardly ever one."""

_MAX_GROUPS = 65_536
_MAX_PATH_CHARACTERS = 4096  # PATH_MAX
_SLOT = rb"(0|[1-9]\d{0,4})"
_FIGURES = rb"\d{1,15} \d{1,15}(?: (?:\d{1,15}|-)){5}"
_WHO = rb"([1-9]\d{0,6}) (\d{1,10}|-) (\d{1,15}|-) (-?\d{1,4}|-) (\d{1,5})"
_NEW = re.compile(b"N " + _SLOT + b" " + _WHO + b" (" + _FIGURES + b") (.*)", re.DOTALL)
_GONE = re.compile(b"G " + _SLOT)
_GROUP = re.compile(rb"C (\d{1,5}) (\d{1,18}|-) (/.*)", re.DOTALL)
_THREADLESS = re.compile(rb"Z ([1-9]\d{0,6})")
_MEMORY = re.compile(rb"M (\d{1,15}|-) (\d{1,15}|-) (\d{1,15}|-) (\d{1,15}|-) (\d{1,15}|-)")
_PRESSURE = re.compile(rb"S (\d{1,18}|-) (\d{1,18}|-) (\d{1,3}\.\d\d|-) (\d{1,3}\.\d\d|-)")
_UPTIME = re.compile(rb"U (?:(\d{1,12}(?:\.\d{1,9})?)|-)")
_END = re.compile(rb"END \d+ (\d{1,3}) (\d{1,15})(?: (\d{1,19}) (\d{1,19}) (\d{1,15}))?")
_SPACES = b" " * 7 + b"\n"  # between the numbers of a process that has changed, and behind them
MAX_FIGURE = 10**15 - 1
_MOST_OTHER_LINES = 2 * MAX_PROCESSES + 100  # new and gone, control groups, head and end


class OutOfStepError(HostError):
    """The table is not the host's: all of it has to be asked for."""


class ChangesParser:
    """Applies the frames of one host to its columns.

    Args:
        words: of a request, with `%d` for its id.
        all_each: see `Dialogue`.
        all_first: see `Dialogue`.

    Attributes:
        base: id of the frame that the columns are of; 0 where everything has to be asked for.
        threadless: processes that the next request has to name.
    """

    def __init__(self, words: bytes = b"sample %d status user\n", all_each: int = 30, all_first: int = 30) -> None:
        self.base = 0
        self._words = words
        self._all_each = all_each
        self._all_in = all_first
        self.threadless: tuple[int, ...] = ()
        self._columns = Columns()
        self._is_sound = False  # the columns are those of the last table
        self._keys = RowKeys()
        self._table: weakref.ref[SlotTable] | None = None
        self._counters_line = self._pressure_line = b""  # of the last frame, and what they said
        self._counters: tuple[int | None, str | None] = None, None
        self._pressure: MemoryPressure | None = None
        self._boot: tuple[str | None, float | None] | None = None
        self._highest_pid = 0  # or one above it, which is gone

    def request(self, request_id: int) -> bytes:
        """Returns the line that asks for what changed since the last frame, or for everything."""
        if self._all_in <= 0:
            self.base = 0
        named = (self._words[:-1] % request_id, b"%d" % self.base, *map(b"%d".__mod__, self.threadless))
        return b" ".join(named) + b"\n"

    def parse(self, frame: bytes, asked_unix_seconds: float) -> Snapshot:
        """Returns what a frame means.

        Args:
            frame: whole lines, from BEGIN to END.
            asked_unix_seconds: when it was asked for.

        Raises:
            OutOfStepError: (bad_frame) it holds changes of something else, or does not lead to what the host says.
            HostError: (bad_frame) the frame is not one of protocol 2; (command_missing, command_failed) the probe says
                that it failed.
        """
        known_base, self.base = self.base, 0
        self._all_in = self._all_each if not known_base and self._all_in <= 0 else self._all_in - 1
        try:
            _begin, _protocol, request_id, base_text = frame[: frame.index(b"\n")].split(b" ")
            base = int(base_text)
            if base and base != known_base:
                raise _out_of_step(f"frame holds the changes since frame {base}, not since {known_base}")
            snapshot = self._apply(frame, asked_unix_seconds, is_full=not base)
        except (ValueError, IndexError) as error:
            raise bad_frame(f"frame is not of protocol 2: {error}") from error
        self.base = int(request_id)
        return snapshot

    def _apply(self, frame: bytes, asked_unix_seconds: float, *, is_full: bool) -> Snapshot:
        lines = frame.split(b"\n", MAX_PROCESSES + _MOST_OTHER_LINES)
        end = _END.fullmatch(lines[-2])
        if not end or lines[-1]:
            raise ValueError(f"end {lines[-2][:80]!r}")
        if int(end[1]):
            raise probe_failure(int(end[1]), lines)
        _begin, memory_line, counters_line, pressure_line, uptime_line, *rows = lines
        memory = self._memory(memory_line, counters_line, pressure_line)
        before = self._columns if self._is_sound else None
        self._is_sound = False
        if is_full:
            self._columns = Columns()
        elif self._table is not None and self._table() is not None:  # somebody looks at these
            self._columns = self._columns.copy()
        columns = self._columns
        if self._boot is None or self._boot[0] != memory.boot_id:
            self._boot = memory.boot_id, _booted_at(uptime_line, asked_unix_seconds)
        columns.boot_unix_seconds = self._boot[1]
        is_other_total = memory.total_bytes != columns.total_bytes
        if is_other_total:
            columns.set_total(memory.total_bytes)
        changes = self._take(rows[:-2], columns)
        told, have = end.groups(), (columns.count, columns.rss_kib, columns.vsz_kib, columns.pids)
        if told[1:] != tuple([b"%d" % number for number in have]):
            raise _out_of_step(f"rows and sums are {have}, the host says {told[1:]}")
        if is_full and before:
            changes = columns.others_than(before)
        elif is_full or is_other_total:
            changes = all_changed(self._keys.names, columns.names)
        table = SlotTable(columns, self._keys, changes)
        self._keys, self._table, self._is_sound = table.keys, weakref.ref(table), True
        return Snapshot(memory, table)

    def _memory(self, memory_line: bytes, counters_line: bytes, pressure_line: bytes) -> HostMemory:
        if counters_line != self._counters_line:  # only another boot or an OOM kill changes it
            self._counters, self._counters_line = parse_counters(counters_line), counters_line
        if pressure_line != self._pressure_line:
            self._pressure, self._pressure_line = _pressure(pressure_line), pressure_line
        match = _MEMORY.fullmatch(memory_line)
        if not match:
            raise ValueError(f"memory {memory_line[:80]!r}")
        total, available, swap_total, swap_free, huge = [
            None if text == b"-" else int(text) * KIB for text in match.groups()
        ]
        if total == 0:
            raise ValueError("the host has no memory")
        oom_kills, boot_id = self._counters
        return HostMemory(total, available, swap_total, swap_free, oom_kills, boot_id, huge, self._pressure)

    def _take(self, lines: list[bytes], columns: Columns) -> Changes:
        """Takes the lines between head and end into columns; returns what they changed."""
        changed = [line for line in lines if line[:2] == b"P "]
        told: list[Row] = []
        freed: list[int] = []
        self.threadless = ()
        if len(changed) < len(lines):
            told, freed = self._take_others([line for line in lines if line[:2] != b"P "], columns)
        old = columns.names
        if told or freed:
            columns.names = old[:]
        new = columns.tell(told, command_of) if told else []
        touched = columns.change(_numbers(changed)) if changed else []
        if not told and not freed:
            return Changes([(NEW, slot) for slot in sorted(touched)], [], [], is_in_place=True)
        for slot in freed:
            columns.free(slot)
        if told:
            self._check_pids(columns, [int(row[1]) for row in told])
        return _named(sorted({*touched, *new, *freed}), {*new, *freed}, old, columns.names)

    def _take_others(self, lines: list[bytes], columns: Columns) -> tuple[list[Row], list[int]]:
        """Takes control groups and processes without their first thread; returns new processes, and free slots."""
        told: list[Row] = []
        freed: list[int] = []
        for line in lines:
            if match := _NEW.fullmatch(line):
                told.append(match.groups())
            elif match := _GONE.fullmatch(line):
                freed.append(int(match[1]))
            elif match := _GROUP.fullmatch(line):
                _take_group(columns, *match.groups())
            elif match := _THREADLESS.fullmatch(line):
                self.threadless = (*self.threadless, int(match[1]))[:MAX_THREADLESS]
            else:
                raise ValueError(f"line {line[:80]!r}")
        return told, freed

    def _check_pids(self, columns: Columns, told: Sequence[int]) -> None:
        """Looks whether a pid is there twice. One above all that there were is not: the kernel counts them up."""
        lowest, highest = min(told), max(told)
        if lowest > self._highest_pid and len(set(told)) == len(told):
            self._highest_pid = highest
            return
        if len(pids_of(filter(None, columns.names))) != columns.count:
            raise bad_frame("frame has two rows for one pid")
        self._highest_pid = max(pids_of(columns.names), default=0)


def _booted_at(uptime_line: bytes, asked_unix_seconds: float) -> float | None:
    """Returns when the host was started: as it seems in the first frame of a boot, so that it does not waver."""
    match = _UPTIME.fullmatch(uptime_line)
    if not match:
        raise ValueError(f"uptime {uptime_line[:80]!r}")
    return None if match[1] is None else asked_unix_seconds - float(match[1])


def _numbers(lines: list[bytes]) -> list[int]:
    """Returns the numbers of lines that tell of changed processes, in one go; UNKNOWN for `-`.

    Raises:
        ValueError: that is no such line.
    """
    text = b"\n".join(lines).replace(b"P ", b"").replace(b" -", b" " + UNKNOWN_TEXT)
    numbers = list(map(int, text.split()))
    # Digits and single spaces: `int` alone takes `1_0` and `+1`.
    if text.translate(None, b"0123456789") != (_SPACES * len(lines))[:-1] or max(numbers) > MAX_FIGURE:
        raise ValueError(f"line {lines[0][:80]!r} or one of those behind it")
    return numbers


def _named(touched: Sequence[int], named: Set[int], old: "array[int]", now: "array[int]") -> Changes:
    """Returns what is different where these slots were touched, and some of them have other names or none."""
    new = [slot for slot in named if now[slot] and (slot >= len(old) or old[slot] != now[slot])]
    gone = [slot for slot in named if slot < len(old) and old[slot] and old[slot] != now[slot]]
    return Changes([(NEW, slot) for slot in touched], new, gone, is_in_place=True)


@lru_cache(8192)
def command_of(name: bytes) -> str:
    """Returns the command of a name; for the same name mostly the same object, as thousands of hosts have it."""
    return decode_command(cut_name(name), is_escaped=True)


def _take_group(columns: Columns, number: bytes, limit: bytes, path: bytes) -> None:
    if int(number) != len(columns.groups) + 1 or len(columns.groups) >= _MAX_GROUPS:
        raise ValueError(f"control group {number!r} follows {len(columns.groups)}")
    text = path[:_MAX_PATH_CHARACTERS].decode("utf-8", "surrogateescape")
    columns.groups.append(ControlGroup(text, None if limit == b"-" else int(limit)))


def _pressure(line: bytes) -> MemoryPressure | None:
    match = _PRESSURE.fullmatch(line)
    if not match:
        raise ValueError(f"pressure {line[:80]!r}")
    if b"-" in match.groups():
        return None
    some, full, some_percent, full_percent = match.groups()
    return MemoryPressure(int(some) / 1e6, int(full) / 1e6, float(some_percent), float(full_percent))


def _out_of_step(message: str) -> OutOfStepError:
    error = bad_frame(message)
    return OutOfStepError(error.stage, error.kind, error.message)


ALL_ANEW_SECONDS = 300.0
"""After so long everything is asked for: adjustment, control group and limits of a process may have changed."""


def anew_each(interval_seconds: float) -> int:
    """Returns the number of frames in that time, 1 at least."""
    return max(1, round(ALL_ANEW_SECONDS / interval_seconds))


class Dialogue:
    """Asks one host, and reads its answers.

    The first answer over a connection says who is there: it decides how the others are asked for and read.

    Args:
        kind: how the probe reads the process table.
        processes: which ones it reports.
        protocol: what it is asked to speak.
        on_older: called once when it speaks an older one.
        all_each: after so many frames everything is asked for.
        all_first: after so many frames for the first time; different hosts do it at different times.

    Attributes:
        request: returns the line that asks for a frame, from a request id.
        parse: returns what a frame means, from the frame and the time of asking (seconds since 1970). It raises what
            `SnapshotParser` and `ChangesParser` do: OutOfStepError where everything has to be asked for.
    """

    def __init__(
        self,
        kind: ProbeKind,
        processes: Processes,
        protocol: int = USUAL,
        on_older: Callable[[], None] = lambda: None,
        all_each: int = 30,
        all_first: int = 30,
    ) -> None:
        self._kind = kind
        self._words = f"sample %d {kind} {processes}\n".encode()
        self._rows: SnapshotParser | None = None  # one of the two is enough for most hosts
        self._changes = ChangesParser(self._words, all_each, all_first)
        self._is_older_told = protocol == 1 or kind is ProbeKind.PS  # whose frames are those of protocol 1
        self._on_older = on_older
        self.request: Callable[[int], bytes] = self._words.__mod__
        self.parse: Callable[[bytes, float], Snapshot] = self._parse_first

    @property
    def protocol(self) -> int:
        """Of the last answer."""
        return 2 if self.parse == self._changes.parse else 1

    def first_request(self, request_id: int) -> bytes:
        """Returns the line that asks for a frame over a new connection: nothing is known of who will answer."""
        self._changes.base = 0
        self.request, self.parse = self._words.__mod__, self._parse_first
        return self._words % request_id

    def _parse_first(self, frame: bytes, asked_unix_seconds: float) -> Snapshot:
        if frame.startswith(b"BEGIN fleetmem/2 "):
            self.request, self.parse = self._changes.request, self._changes.parse
            return self._changes.parse(frame, asked_unix_seconds)
        self._rows = self._rows or SnapshotParser(self._kind)
        snapshot = self._rows.parse(frame)
        self.parse = self._rows.parse
        if not self._is_older_told:
            self._is_older_told = True
            self._on_older()
        return snapshot
