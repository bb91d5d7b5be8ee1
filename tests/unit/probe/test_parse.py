import time
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetmem.errors import HostError, Kind, Stage
from fleetmem.model import ProcessMemory, Snapshot
from fleetmem.probe.frame import MAX_FRAME_BYTES
from fleetmem.probe.parse import MAX_COMMAND_BYTES, MAX_PROCESSES, SnapshotParser
from fleetmem.probe.script import ProbeKind
from fleetmem.process_table import ProcessTable

_ROWS = (b"P 1 0 168124 12868 12868 3552 0 systemd", b"P 2 33 4096 1024 2048 - 16 nginx: worker")


def _frame(rows: Sequence[bytes] = _ROWS, total_kib: int = 1_000_000, request_id: int = 1) -> bytes:
    lines = [b"BEGIN fleetmem/1 %d" % request_id, b"M %d 500000 0 0" % total_kib, b"K 0 boot", *rows]
    return b"\n".join([*lines, b"END %d 0 %d\n" % (request_id, len(rows))])


def _parser(kind: ProbeKind = ProbeKind.STATUS) -> SnapshotParser:
    return SnapshotParser(kind)


def test_every_field() -> None:
    """Sizes become bytes, `-` becomes None, the percentage is of the host's memory."""
    snapshot = _parser().parse(_frame())
    assert snapshot.processes[1] == ProcessMemory(
        pid=2,
        uid=33,
        command="nginx: worker",
        rss_bytes=1024 * 1024,
        vsz_bytes=4096 * 1024,
        mem_percent=0.1024,
        peak_rss_bytes=2048 * 1024,
        anon_bytes=None,
        swap_bytes=16 * 1024,
    )
    assert snapshot.memory.total_bytes == 1_024_000_000


def test_an_unknown_user() -> None:
    """Where the probe knows no uid there is None."""
    assert _parser().parse(_frame([b"P 1 - 8 4 - - - x"])).processes[0].uid is None


def test_an_unchanged_row_gives_the_identical_object() -> None:
    """For who looks at all rows those that did not change are the very same tuples, and only those."""
    parser = _parser()
    first = tuple(parser.parse(_frame()).processes)
    changed = b"P 2 33 4096 1028 2048 - 16 nginx: worker"
    second = tuple(parser.parse(_frame([changed, _ROWS[0]], request_id=2)).processes)
    assert second[1] is first[0]
    assert second[0].rss_bytes == 1028 * 1024


def test_a_row_that_was_gone_is_forgotten() -> None:
    """Only the last frame's rows are kept, so that a parser does not grow."""
    parser = _parser()
    first = tuple(parser.parse(_frame()).processes)
    second = tuple(parser.parse(_frame(_ROWS[:1], request_id=2)).processes)
    third = tuple(parser.parse(_frame(request_id=3)).processes)
    assert third[0] is second[0] is first[0]
    assert third[1] is not first[1]


def test_nothing_is_made_of_rows_that_did_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is new is parsed: a row that was there before is known by its number, and was checked then."""
    parser = _parser()
    before = ProcessTable.of(parser.parse(_frame()).processes)
    parsed: list[bytes] = []
    parse_row = SnapshotParser._parse_row

    def note(parser: SnapshotParser, row: bytes, total_bytes: int) -> ProcessMemory:
        parsed.append(row)
        return parse_row(parser, row, total_bytes)

    monkeypatch.setattr(SnapshotParser, "_parse_row", note)
    changed = b"P 2 33 4096 1028 2048 - 16 nginx: worker"
    now = ProcessTable.of(parser.parse(_frame([changed, _ROWS[0]], request_id=2)).processes)
    assert parsed == [changed]
    assert [key[1] for key in now.keys[:2]] == [key[0] for key in before.keys[:2]]
    assert (now.keys.names[0], now.keys.prints[0] in before.keys.prints) == (before.keys.names[1], False)
    assert (now[0].rss_bytes, now[1], now[-1:]) == (1028 * 1024, before[0], (before[0],))


def test_rows_of_a_sample_that_is_kept() -> None:
    """Who looks late, after other frames have come, sees the rows of the frame that was asked for."""
    parser = _parser()
    first = parser.parse(_frame())
    parser.parse(_frame([b"P 2 33 4096 1028 2048 - 16 x"], total_kib=2_000_000, request_id=2))
    assert [(row.pid, row.command, row.mem_percent) for row in first.processes] == [
        (1, "systemd", 1.2868),
        (2, "nginx: worker", 0.1024),
    ]


@pytest.mark.parametrize("row", [b"P 01 0 168124 12868 12868 3552 0 systemd", b"P 1 0 8 4 4 4 0 x"])
def test_a_pid_twice_among_rows_that_were_there_before(row: bytes) -> None:
    """A pid that is there already is refused, also where its row was not parsed again, and in whatever spelling."""
    parser = _parser()
    parser.parse(_frame())
    with pytest.raises(HostError) as caught:
        parser.parse(_frame([*_ROWS, row], request_id=2))
    assert caught.value.kind is Kind.BAD_FRAME


def test_another_total_changes_every_percent() -> None:
    """Memory that was added (or a reboot into another machine) makes all rows anew."""
    parser = _parser()
    first = parser.parse(_frame(total_kib=1_000_000)).processes
    second = parser.parse(_frame(total_kib=2_000_000)).processes
    assert [row.mem_percent for row in second] == [(row.mem_percent or 0) / 2 for row in first]


def test_a_bad_frame_leaves_the_parser_usable() -> None:
    """After a failed sample the next good one is parsed as ever."""
    parser = _parser()
    parser.parse(_frame())
    with pytest.raises(HostError):
        parser.parse(_frame([_ROWS[0], b"P nonsense"]))
    assert len(parser.parse(_frame()).processes) == 2


@pytest.mark.parametrize(("kind", "command"), [(ProbeKind.STATUS, "a\nb\\c"), (ProbeKind.PS, r"a\nb\\c")])
def test_only_the_kernel_escapes(kind: ProbeKind, command: str) -> None:
    """/proc escapes newline and backslash; what ps prints is taken as it is."""
    assert _parser(kind).parse(_frame([rb"P 1 0 8 4 4 4 0 a\nb\\c"])).processes[0].command == command


def test_twenty_thousand_processes() -> None:
    """A very large host is parsed whole and in order."""
    rows = [b"P %d 0 %d %d %d 4 0 worker %d" % (pid, pid * 9, pid, pid, pid) for pid in range(1, 20_001)]
    processes = _parser().parse(_frame(rows)).processes
    assert len(processes) == 20_000
    assert [processes[0].command, processes[-1].command] == ["worker 1", "worker 20000"]
    assert sum(row.rss_bytes for row in processes) == 1024 * sum(range(1, 20_001))


@pytest.mark.slow
def test_more_processes_than_a_host_has() -> None:
    """A frame beyond the limit is refused before anything is made of its rows."""
    rows = [b"P %d 0 8 4 - - - x" % pid for pid in range(1, MAX_PROCESSES + 1)]
    assert len(_parser().parse(_frame(rows)).processes) == MAX_PROCESSES
    for flood in (_frame([*rows, *rows[:100]]), b"\n" * MAX_FRAME_BYTES):
        started = time.process_time()
        with pytest.raises(HostError, match="more than 65536 rows") as caught:
            _parser().parse(flood)
        assert (caught.value.stage, caught.value.kind) == (Stage.PARSE, Kind.BAD_FRAME)
        assert time.process_time() - started < 0.1


@pytest.mark.parametrize("frame", [b"", b"\n", b"x", b"END 1 0 0", b"END 1 0 0\n", b"\nEND 1 0 0\n"])
def test_hardly_a_frame(frame: bytes) -> None:
    """What is too short to be a frame is a bad frame and no crash."""
    with pytest.raises(HostError) as caught:
        _parser().parse(frame)
    assert (caught.value.stage, caught.value.kind) == (Stage.PARSE, Kind.BAD_FRAME)


@pytest.mark.parametrize(
    ("status", "kind"), [(1, Kind.COMMAND_FAILED), (126, Kind.COMMAND_MISSING), (127, Kind.COMMAND_MISSING)]
)
def test_failure_frames(status: int, kind: Kind) -> None:
    """126 and 127 are the shell's words for a missing tool; others are failures of one that is there."""
    with pytest.raises(HostError, match="awk said no") as caught:
        _parser().parse(b"BEGIN fleetmem/1 1\nE awk said no\nEND 1 %d 0\n" % status)
    assert (caught.value.stage, caught.value.kind) == (Stage.COMMAND, kind)


def test_what_a_failed_probe_says_is_cut() -> None:
    """It comes from the host, and goes into logs."""
    with pytest.raises(HostError) as caught:
        _parser().parse(b"BEGIN fleetmem/1 1\nE %b\nEND 1 1 0\n" % (b"x" * 100_000))
    assert caught.value.message == "x" * 500


def _is_sound(snapshot: Snapshot) -> bool:
    """Whether everything in a snapshot may be sent: no sign, no size that a kernel cannot have."""
    memory = snapshot.memory
    sizes = [memory.total_bytes, memory.available_bytes, memory.swap_total_bytes, memory.swap_free_bytes]
    for row in snapshot.processes:
        sizes += [row.rss_bytes, row.vsz_bytes, row.peak_rss_bytes, row.anon_bytes, row.swap_bytes]
    return memory.total_bytes != 0 and all(0 <= size < 2**63 for size in sizes if size is not None)


@given(st.binary(max_size=200))
@example(b"BEGIN fleetmem/1 1\nM 5 -1 0 0\nK 0 b\nEND 1 0 0\n")
def test_arbitrary_bytes(frame: bytes) -> None:
    """Whatever a host sends: a sound snapshot or a HostError, nothing else."""
    with suppress(HostError):
        assert _is_sound(_parser().parse(frame))


_NUMBERS = st.sampled_from(
    [b"0", b"-", b"-5", b"+5", b"1_0", b"1e3", b"9" * 17, b"9" * 5000, b"", b"\xd9\xa4", b" ", b"7"]
)


@given(st.data())
def test_a_frame_with_hostile_numbers(data: st.DataObject) -> None:
    """Any number of a good frame may be replaced by any nonsense: still a sound snapshot or a HostError."""
    fields = _frame().split(b" ")
    for place in data.draw(st.sets(st.integers(1, len(fields) - 1), max_size=4)):
        fields[place] = data.draw(_NUMBERS) + (b"\nEND" if fields[place].endswith(b"\nEND") else b"")
    with suppress(HostError):
        assert _is_sound(_parser().parse(b" ".join(fields)))


@given(st.lists(st.binary(max_size=15).map(lambda name: name.replace(b"\0", b"").replace(b"\n", b"")), max_size=20))
def test_every_name_comes_back(names: list[bytes]) -> None:
    """The bytes of a name survive, whatever they are."""
    escaped = [name.replace(b"\\", b"\\\\") for name in names]
    rows = [b"P %d 0 8 4 4 4 0 %b" % (pid, name) for pid, name in enumerate(escaped, 1)]
    processes = _parser().parse(_frame(rows)).processes
    assert [row.command.encode("utf-8", "surrogateescape") for row in processes] == names


def test_two_rows_for_one_pid_are_a_bad_frame() -> None:
    """No kernel has two processes under one pid; one of them would be lost without a word."""
    frame = b"BEGIN fleetmem/1 1\nM 1000 - - -\nK - -\nP 7 0 10 5 - - - a\nP 7 0 10 6 - - - b\nEND 1 0 2\n"
    with pytest.raises(HostError, match="two rows for one pid"):
        SnapshotParser(ProbeKind.STATUS).parse(frame)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(b"P 7 0 10 5 - - - a\nP 7 0 10 6 - - - b\nP 9 0 1 1 - - - c\n", id="in the place of another"),
        pytest.param(b"P 7 0 10 5 - - - a\nP 7 0 10 9 - - - a\nP 9 0 1 1 - - - c\n", id="of the same name"),
        pytest.param(b"P 7 0 10 5 - - - a\nP 8 0 10 6 - - - b\nP 9 0 1 1 - - - c\nP 7 0 1 1 - - - d\n", id="one more"),
    ],
)
def test_a_pid_twice_is_refused_each_time(rows: bytes) -> None:
    """A frame that was refused is not what the next one is compared with."""
    parser = SnapshotParser(ProbeKind.STATUS)
    head = b"BEGIN fleetmem/1 1\nM 1000 - - -\nK - -\n"
    good = b"P 7 0 10 5 - - - a\nP 8 0 10 6 - - - b\nP 9 0 1 1 - - - c\n"
    parser.parse(b"%b%bEND 1 0 3\n" % (head, good))
    for _ in range(2):
        with pytest.raises(HostError, match="two rows for one pid"):
            parser.parse(b"%b%bEND 1 0 %d\n" % (head, rows, rows.count(b"\n")))
    assert len(parser.parse(b"%b%bEND 1 0 3\n" % (head, good)).processes) == 3


@pytest.mark.parametrize("count", [8, 9])
def test_a_pid_twice_is_refused_whatever_was_there_before(count: int) -> None:
    """What is known of frames before spares a look at all pids, and hides none."""
    parser = SnapshotParser(ProbeKind.STATUS)

    def parse(*pids: int) -> int:
        rows = b"".join(b"P %d 0 10 5 - - - a\n" % pid for pid in pids)
        return len(
            parser.parse(b"BEGIN fleetmem/1 1\nM 1000 - - -\nK - -\n%bEND 1 0 %d\n" % (rows, len(pids))).processes
        )

    others = range(100, 100 + count)
    for good, bad in (
        ((7, 8, 9), (7, 7, 9)),
        ((7, 8, 500), (500, 8, 500)),  # counted up
        ((9, 8, 500), (9, 9, 500)),  # used again
        ((9, 501, 500), (501, 501, 500)),
        ((502, 503, 500), (504, 504, 500)),  # twice at once
        ((503, 502, 500), (503, 502, 503)),  # two have changed places
    ):
        assert parse(*good, *others) == 3 + count
        with pytest.raises(HostError, match="two rows for one pid"):
            parse(*bad, *others)


@pytest.mark.parametrize("kind", list(ProbeKind))
def test_a_long_name_is_cut_and_stays_apart(kind: ProbeKind) -> None:
    """No kernel has such names; two that differ behind the cut stay different, and each is the same every time."""
    names = [b"a" * 300_000, b"a" * 299_999 + b"b", b"a" * MAX_COMMAND_BYTES, b"a" * (MAX_COMMAND_BYTES + 1)]
    rows = [b"P %d 0 8 4 4 4 0 %b" % (pid, name) for pid, name in enumerate(names, 1)]
    commands = [row.command for row in _parser(kind).parse(_frame(rows)).processes]
    assert len(set(commands)) == len(names)
    assert max(len(command.encode()) for command in commands) == MAX_COMMAND_BYTES
    assert commands[2] == "a" * MAX_COMMAND_BYTES
    assert [row.command for row in _parser(kind).parse(_frame(rows)).processes] == commands


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=80, max_size=400))
@example("\\" * 300)
@example("é" * 127 + "é" * 20)
def test_a_cut_splits_no_character(name: str) -> None:
    """Text stays text: neither a character nor an escape of the kernel's is cut in two."""
    raw = name.encode().replace(b"\\", b"\\\\")
    command = _parser().parse(_frame([b"P 1 0 8 4 4 4 0 " + raw])).processes[0].command
    assert len(command.encode()) <= MAX_COMMAND_BYTES
    assert command == name or name.startswith(command.rpartition("~")[0])


def test_long_rows_that_did_not_change_hold_no_memory() -> None:
    """A snapshot that is kept holds the cut names, not the megabytes that came."""
    parser = _parser()
    frame = _frame([b"P 1 0 8 4 4 4 0 " + b"a" * 2_000_000])
    tracemalloc.start()
    try:
        kept = [parser.parse(bytes(bytearray(frame))) for _ in range(5)]
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()
    assert len({snapshot.processes[0].command for snapshot in kept}) == 1


_TOO_BIG = b"9" * 16


@pytest.mark.parametrize("field", range(2, 8))
def test_a_number_that_no_kernel_has(field: int) -> None:
    """Beyond what a receiver's number holds: refused, whichever field it is in."""
    row = _ROWS[0].split(b" ")
    row[field] = _TOO_BIG
    with pytest.raises(HostError, match="row") as caught:
        _parser().parse(_frame([b" ".join(row)]))
    assert caught.value.kind is Kind.BAD_FRAME


@pytest.mark.parametrize("memory", [b"M %b - - -", b"M 5 %b - -", b"M 5 - %b -", b"M 5 - - %b"])
def test_a_size_of_the_host_that_no_kernel_has(memory: bytes) -> None:
    """The same for the memory of the host."""
    frame = b"BEGIN fleetmem/1 1\n%b\nK 0 boot\nEND 1 0 0\n" % (memory % _TOO_BIG)
    with pytest.raises(HostError, match="no number from a kernel"):
        _parser().parse(frame)


@pytest.mark.parametrize("boot_id", [b"x" * 1_000_000, b"x" * 65, b"\xff", b"\x1b[2J"])
def test_a_boot_id_that_is_none(boot_id: bytes) -> None:
    """The kernel's has 36 characters."""
    with pytest.raises(HostError, match="boot id") as caught:
        _parser().parse(b"BEGIN fleetmem/1 1\nM 5 - - -\nK 0 %b\nEND 1 0 0\n" % boot_id)
    assert caught.value.kind is Kind.BAD_FRAME
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("end", [b"END 1 +0 2", b"END 1 0 0_2", b"END 1 0 +2", b"END 1 0 2 x", b"END 1 0 " + b"9" * 60])
def test_an_end_that_is_none(end: bytes) -> None:
    """Status and count are plain numbers, and nothing follows them."""
    with pytest.raises(HostError) as caught:
        _parser().parse(_frame().rpartition(b"END")[0] + end + b"\n")
    assert caught.value.kind is Kind.BAD_FRAME
