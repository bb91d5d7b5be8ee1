"""From the lines of a frame to a snapshot, in bytes. The format is described on top of `probe.sh`."""

import re
from array import array
from collections.abc import Mapping
from hashlib import blake2b
from struct import pack

from fleetmem.errors import HostError, Kind, Stage
from fleetmem.model import HostMemory, ProcessMemory, Snapshot
from fleetmem.probe.script import ProbeKind
from fleetmem.process_table import NEW, ProcessTable, RowKeys, Run, name_print, pids_of
from fleetmem.units import KIB, kib_to_bytes, percent_of

MAX_PROCESSES = 65_536
"""More rows than this are a flood. So many take 0.2 s to parse and 0.4 s to format, while the others wait."""

MAX_COMMAND_BYTES = 255
"""Bytes of a process name that are kept: The kernel's own limit is 15, and 64 of a kworker. `ps` may print paths.
A longer name is cut, and ends with `~` and a hash of all of it: two that differ stay different."""

_HASH_BYTES = 8
_ROW_BYTES = 300
"""A frame whose rows are longer than this on average holds names that no kernel has: they are cut before all else."""

_BOOT_ID = re.compile(rb"[!-~]{1,64}")
"""What random(4) prints has 36 characters."""

_HEAD_AND_END_LINES = 16  # BEGIN, M, K, E, END, and some to spare

_SAID_BYTES = 500  # what the probe says of its failure is a line of a shell's

_COMMAND_NOT_FOUND = 127  # the shell's exit status for it, POSIX XCU 2.8.2
_COMMAND_NOT_EXECUTABLE = 126

# A pid has at most 7 digits (PID_MAX_LIMIT is 2^22), a size in KiB at most 15; more is not from a kernel.
# So a pid fits the PID_BITS of a name's print, and bytes fit 63 bits.
_ROW = re.compile(
    rb"P (0|[1-9]\d{0,6}) (\d{1,10}|-) (\d{1,15}) (\d{1,15}) (\d{1,15}|-) (\d{1,15}|-) (\d{1,15}|-)(?: (.*))?",
    re.DOTALL,
)
_FIELDS_BEFORE_NAME = 8
_MAX_DIGITS = 15
_NO_NAME = array("q", [0])
_NO_MEMORY_LINES = "memory lines M and K are missing"
_ESCAPED = re.compile(r"\\([n\\])")


class SnapshotParser:
    """Parses the frames of one host. A row that was in the last one was checked then: it is parsed where one looks.

    Rows of the last frame are remembered as numbers, and as such where somebody looked at all of them.
    """

    def __init__(self, kind: ProbeKind) -> None:
        self._is_escaped = kind is ProbeKind.STATUS
        self._counters_line = b""  # of the last frame, and what it said: only another boot or an OOM kill changes it
        self._counters: tuple[int | None, str | None] = None, None
        self._keys = RowKeys()
        self._made: dict[int, ProcessMemory] = {}
        self._highest_pid = 0  # or one above it, which is gone

    def parse(self, frame: bytes, _asked_unix_seconds: float = 0.0) -> Snapshot:
        """Returns what a frame means.

        Args:
            frame: whole lines, from BEGIN to END.

        Raises:
            HostError: (bad_frame) the frame is not one of protocol 1 or does not add up; (command_missing,
                command_failed) the probe says that a tool is missing on the host or failed.
        """
        lines = frame.split(b"\n", MAX_PROCESSES + _HEAD_AND_END_LINES)
        if len(lines) > MAX_PROCESSES + _HEAD_AND_END_LINES:
            raise bad_frame(f"frame has more than {MAX_PROCESSES} rows")
        try:
            count = take_end(lines)
            _begin, memory_line, counters_line, *rows = lines
            if counters_line != self._counters_line:
                self._counters, self._counters_line = parse_counters(counters_line), counters_line
            memory = _parse_memory(memory_line, *self._counters)
            if len(rows) != count:
                raise bad_frame(f"frame has {len(rows)} rows, its end says {count}")
            if len(frame) > _ROW_BYTES * count + MAX_COMMAND_BYTES:
                rows = [_cut_row(row) for row in rows]
            processes = self._parse_rows(rows, memory.total_bytes)
        except (ValueError, IndexError) as error:
            raise bad_frame(f"frame is not of protocol 1: {error}") from error
        return Snapshot(memory=memory, processes=processes)

    def _parse_rows(self, rows: list[bytes], total_bytes: int | None) -> ProcessTable:
        before, prints, scale = self._keys, list(map(hash, rows)), total_bytes or 0
        runs, is_in_place = before.runs_of(prints, scale)  # with another total every percent is another
        new = {end: self._parse_row(rows[end], total_bytes) for begin, end in runs if begin == NEW}
        names = before.names[:] if is_in_place else _names_of(runs, before)
        for place, row in new.items():
            names[place] = name_print(row.pid, row.command)
        keys = RowKeys(array("q", pack(f"{len(prints)}q", *prints)), names, scale)  # in two thirds of the time
        changes = before.changes_to(keys, runs, is_in_place=is_in_place)
        if before.names != names and not self._has_a_row_per_pid(names, new if is_in_place else None):
            raise bad_frame("frame has two rows for one pid")
        self._keys = keys
        known, self._made = self._made, {}

        def make() -> tuple[ProcessMemory, ...]:
            made = {
                print_: new.get(place) or known.get(print_) or self._parse_row(row, total_bytes)
                for place, (print_, row) in enumerate(zip(prints, rows, strict=True))
            }
            if self._keys is keys:  # else they are asked for late, in another thread perhaps: others are known by now
                self._made = made
            return tuple(made.values())

        return ProcessTable(keys, before, changes, new, make)

    def _has_a_row_per_pid(self, names: "array[int]", new: Mapping[int, ProcessMemory] | None) -> bool:
        """Whether no pid is there twice.

        Args:
            names: of the rows.
            new: those that have changed, by place, where all others are as they were: mostly these are all to look at.
        """
        if new is not None:
            left = pids_of(self._keys.names[place] for place in new)
            pids = {row.pid for row in new.values()}
            # What was left is free, and so is a pid above all that there were: the kernel counts them up.
            if len(pids) == len(new) and all(pid > self._highest_pid for pid in pids - left):
                self._highest_pid = max(self._highest_pid, *pids)
                return True
        pids = pids_of(names)
        if len(pids) != len(names):
            return False
        self._highest_pid = max(pids, default=0)
        return True

    def _parse_row(self, row: bytes, total_bytes: int | None) -> ProcessMemory:
        match = _ROW.fullmatch(row if len(row) <= MAX_COMMAND_BYTES else _cut_row(row))
        if not match:
            raise ValueError(f"row {row[:80]!r}")
        pid, uid, vsz, rss, peak, anon, swap, name = match.groups()
        rss_bytes = int(rss) * KIB  # `kib_to_bytes` five times for a row is a tenth of its time
        return ProcessMemory._make(  # in a third of the time that its constructor takes
            (
                int(pid),
                None if uid == b"-" else int(uid),
                decode_command(name or b"", is_escaped=self._is_escaped),
                rss_bytes,
                int(vsz) * KIB,
                percent_of(rss_bytes, total_bytes),
                None if peak == b"-" else int(peak) * KIB,
                None if anon == b"-" else int(anon) * KIB,
                None if swap == b"-" else int(swap) * KIB,
                None,
                None,
            )
        )


def _names_of(runs: list[Run], before: RowKeys) -> "array[int]":
    """Returns the names of the rows that were in the sample before, each in its place; 0 for the others."""
    names = array("q")
    for begin, end in runs:
        names += _NO_NAME if begin == NEW else before.names[begin:end]
    return names


def bad_frame(message: str) -> HostError:
    """Returns what to say of a frame that is none."""
    return HostError(Stage.PARSE, Kind.BAD_FRAME, message)


def take_end(lines: list[bytes]) -> int:
    """Takes the last line of a frame, its END, off the others; returns the number of rows in it.

    Raises:
        HostError: (command_missing, command_failed) the probe says that it failed.
        ValueError, IndexError: there is no such line.
    """
    lines.pop()  # after the last newline
    _end, _request_id, *numbers = lines.pop().split(b" ", 4)
    status, count = map(_number, numbers)
    if status != 0:
        raise probe_failure(status, lines)
    return count


def parse_counters(line: bytes) -> tuple[int | None, str | None]:
    """Returns OOM kills since boot, and the boot's id; None where the host does not tell."""
    tag, oom_kills, boot_id = line.split(b" ")
    if tag != b"K":
        raise ValueError(_NO_MEMORY_LINES)
    return None if oom_kills == b"-" else _number(oom_kills), None if boot_id == b"-" else _boot_id(boot_id)


def _parse_memory(line: bytes, oom_kills_total: int | None, boot_id: str | None) -> HostMemory:
    tag, total, available, swap_total, swap_free = line.split(b" ")
    if tag != b"M":
        raise ValueError(_NO_MEMORY_LINES)
    # The probe prints 0 where /proc/meminfo is empty or not there: of a container, or of a /proc with subset=pid.
    is_unknown = available == b"-" and total in (b"-", b"0")
    total_bytes = None if is_unknown else kib_to_bytes(_number(total))
    if total_bytes == 0:
        raise ValueError("the host has no memory")
    return HostMemory(
        total_bytes=total_bytes,
        available_bytes=_optional_bytes(available),
        swap_total_bytes=_optional_bytes(swap_total),
        swap_free_bytes=_optional_bytes(swap_free),
        oom_kills_total=oom_kills_total,
        boot_id=boot_id,
    )


def _boot_id(text: bytes) -> str:
    if not _BOOT_ID.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no boot id")
    return text.decode("ascii")


def _number(text: bytes) -> int:
    """Returns a number; `int` alone would take a sign, underscores and any length."""
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise ValueError(f"{text[:80]!r} is no number from a kernel")
    return int(text)


def _optional_bytes(kib: bytes) -> int | None:
    return None if kib == b"-" else kib_to_bytes(_number(kib))


def _cut_row(row: bytes) -> bytes:
    """Returns a row whose name has no more than MAX_COMMAND_BYTES."""
    *numbers, name = row.split(b" ", _FIELDS_BEFORE_NAME)
    return row if len(numbers) < _FIELDS_BEFORE_NAME else b" ".join([*numbers, cut_name(name)])


def cut_name(name: bytes) -> bytes:
    """Returns a name that has no more than MAX_COMMAND_BYTES."""
    if len(name) <= MAX_COMMAND_BYTES:
        return name
    digest = blake2b(name, digest_size=_HASH_BYTES).hexdigest().encode("ascii")
    end = MAX_COMMAND_BYTES - len(digest) - 1
    # A character of UTF-8 has at most three bytes behind its first one.
    kept = name[: next((at for at in range(end, end - 4, -1) if name[at] & 0xC0 != 0x80), end)]
    if (len(kept) - len(kept.rstrip(b"\\"))) % 2:  # in the middle of an escape
        kept = kept[:-1]
    return b"%b~%b" % (kept, digest)


def decode_command(name: bytes, *, is_escaped: bool) -> str:
    r"""Returns a command name as the process has it.

    `/proc/PID/status` prints newline as `\n` and backslash as `\\`, nothing else; `ps` prints `?` or `.` for what it
    minds, which cannot be undone. Bytes that are not UTF-8 survive as surrogates: two different names stay different.
    """
    text = name.decode("utf-8", "surrogateescape")
    if is_escaped and "\\" in text:
        text = _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else "\\", text)
    return text


def probe_failure(status: int, lines: list[bytes]) -> HostError:
    """Returns what a frame says that failed."""
    said = next((line[2:] for line in reversed(lines) if line.startswith(b"E ")), b"")[:_SAID_BYTES]
    is_missing = status in (_COMMAND_NOT_EXECUTABLE, _COMMAND_NOT_FOUND)
    kind = Kind.COMMAND_MISSING if is_missing else Kind.COMMAND_FAILED
    return HostError(Stage.COMMAND, kind, said.decode("utf-8", "replace") or f"probe ended with status {status}")
