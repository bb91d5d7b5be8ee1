"""Frames of protocol 2: what they change is what the host says, or it is no data."""

from collections.abc import Sequence

import pytest

from fleetmem.errors import HostError, Kind
from fleetmem.lab.simulated_host import SimulatedHost, SimulationPlan
from fleetmem.lab.simulated_probe import SimulatedProbe
from fleetmem.model import ProcessMemory
from fleetmem.probe.dialogue import ChangesParser, Dialogue, OutOfStepError, anew_each
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import ProbeKind, Processes

_HEAD = b"M 1000000 500000 0 0 0\nK 3 boot\nS 1500000 2 0.10 0.00\nU 100.00\n"
_SYSTEMD = b"N 0 1 0 25 0 1 168124 12868 12868 3552 0 40 0 systemd\n"
_NGINX = b"N 1 2 33 1500 -900 1 4096 1024 2048 - 16 8 0 nginx: worker\n"
_GROUP = b"C 1 1048576 /system.slice\n"
_FIRST = (_GROUP, _SYSTEMD, _NGINX)


def _frame(
    lines: Sequence[bytes] = _FIRST, *, request_id: int = 1, base: int = 0, end: bytes = b"2 13892 172220 3"
) -> bytes:
    begin = b"BEGIN fleetmem/2 %d %d\n" % (request_id, base)
    return begin + _HEAD + b"".join(lines) + b"END %d 0 %b\n" % (request_id, end)


def _parsed(parser: ChangesParser, frame: bytes) -> dict[int, ProcessMemory]:
    return {row.pid: row for row in parser.parse(frame, 1_000_000.0).processes}


def test_every_field() -> None:
    """Sizes become bytes, `-` becomes None, the start of a process is a time."""
    snapshot = ChangesParser().parse(_frame(), 1_000_000.0)
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
        started_unix_seconds=999_915,
        hugetlb_bytes=None,
    )
    assert len(snapshot.processes) == 2
    assert snapshot.memory.oom_kills_total == 3
    assert snapshot.memory.hugetlb_bytes == 0
    assert snapshot.memory.pressure is not None
    assert snapshot.memory.pressure.some_seconds_total == 1.5
    assert snapshot.memory.pressure.some_percent == 0.1


def test_what_changes() -> None:
    """A row that changed, one that is gone, and a new one in another slot."""
    parser = ChangesParser()
    _parsed(parser, _frame())
    changed = (b"P 1 4096 2048 2048 - 16 8 4\n", b"N 2 9 0 9000 0 1 10 5 5 - - - - sh\n", b"G 0\n")
    rows = _parsed(parser, _frame(changed, request_id=2, base=1, end=b"2 2053 4106 11"))
    assert {pid: (row.command, row.rss_bytes) for pid, row in rows.items()} == {
        2: ("nginx: worker", 2048 * 1024),
        9: ("sh", 5 * 1024),
    }
    assert rows[2].hugetlb_bytes == 4096


@pytest.mark.parametrize(
    "end", [b"3 13892 172220 3", b"2 13893 172220 3", b"2 13892 172221 3", b"2 13892 172220 4", b"2"]
)
def test_sums_that_differ(end: bytes) -> None:
    """Whatever the host says of its table and is not true of ours, nothing of the frame is data."""
    parser = ChangesParser()
    with pytest.raises(OutOfStepError) as caught:
        parser.parse(_frame(end=end), 0.0)
    assert caught.value.kind is Kind.BAD_FRAME
    assert parser.base == 0


def test_changes_of_another_frame() -> None:
    """A frame that builds on one that is not known is refused, and then everything is asked for."""
    parser = ChangesParser()
    _parsed(parser, _frame())
    with pytest.raises(OutOfStepError):
        parser.parse(_frame((), request_id=4, base=3), 0.0)
    assert parser.base == 0
    assert len(_parsed(parser, _frame(request_id=5))) == 2


@pytest.mark.parametrize(
    "lines",
    [
        [b"P 2 1 1 1 1 1 1 1\n"],
        [b"G 2\n"],
        [b"G 0\n", b"G 0\n"],
        [b"N 3 9 0 9 0 1 10 5 5 - - - - sh\n"],
        [b"N 2 2 0 9 0 1 10 5 5 - - - - sh\n"],
        [b"N 2 9 0 9 0 2 10 5 5 - - - - sh\n"],
        [b"N 2 9 0 9 1001 1 10 5 5 - - - - sh\n"],
        [b"N 2 9 4294967295 9 0 1 10 5 5 - - - - sh\n"],
        [b"N 2 0 0 9 0 1 10 5 5 - - - - sh\n"],
        [b"N 2 09 0 9 0 1 10 5 5 - - - - sh\n"],
        [b"C 3 - /x\n"],
        [b"C 2 max /x\n"],
        [b"P 1 1 1\n"],
        [b"P 1 -1 1 1 1 1 1 1\n"],
        [b"P 1 1_0 1 1 1 1 1 1\n"],
        [b"P 1 9999999999999999 1 1 1 1 1 1\n"],
        [b"X 1\n"],
        [b"\n"],
    ],
)
def test_lines_that_no_probe_sends(lines: Sequence[bytes]) -> None:
    """They fail the sample, whatever the sums say; the next frame with everything is good again."""
    parser = ChangesParser()
    _parsed(parser, _frame())
    with pytest.raises(HostError) as caught:
        parser.parse(_frame(lines, request_id=2, base=1), 0.0)
    assert caught.value.kind is Kind.BAD_FRAME
    assert parser.base == 0
    assert len(_parsed(parser, _frame(request_id=3))) == 2


@pytest.mark.parametrize("base", [0, 1])
def test_a_pid_twice(base: int) -> None:
    """A pid has one row, also where all sums are right."""
    parser = ChangesParser()
    _parsed(parser, _frame())
    twice = b"N 2 2 0 9 0 1 10 5 5 - - - - sh\n"
    lines = [twice] if base else [*_FIRST, twice]
    with pytest.raises(HostError, match="two rows for one pid"):
        parser.parse(_frame(lines, request_id=2, base=base, end=b"3 13897 172230 5"), 0.0)


def test_a_table_that_somebody_keeps() -> None:
    """Who looks late, after other frames have come, sees the rows of the frame that was asked for."""
    parser = ChangesParser()
    first = parser.parse(_frame(), 0.0).processes
    parser.parse(_frame([b"G 0\n"], request_id=2, base=1, end=b"1 1024 4096 2"), 0.0)
    parser.parse(_frame([b"P 1 5 5 5 5 5 5 0\n"], request_id=3, base=2, end=b"1 5 5 2"), 0.0)
    assert [(row.pid, row.rss_bytes) for row in first] == [(1, 12868 * 1024), (2, 1024 * 1024)]


def test_an_address_space_of_petabytes() -> None:
    """More than 32 bits of KiB: sanitizers reserve that much."""
    parser = ChangesParser()
    _parsed(parser, _frame())
    rows = _parsed(
        parser, _frame([b"P 1 21474836480 1024 2048 - 16 8 0\n"], request_id=2, base=1, end=b"2 13892 21475004604 3")
    )
    assert rows[2].vsz_bytes == 21474836480 * 1024
    assert rows[1].vsz_bytes == 168124 * 1024


def test_everything_now_and_then() -> None:
    """After so many frames the base is 0, for the first time after fewer of them."""
    dialogue = Dialogue(ProbeKind.STATUS, Processes.USER, all_each=4, all_first=2)
    probe = SimulatedProbe(SimulatedHost(SimulationPlan(1, 5, 0.2, 1, {}), 0))
    assert dialogue.first_request(1) == b"sample 1 status user\n"
    asked = []
    for request_id in range(1, 15):
        line = dialogue.request(request_id).split()
        asked.append(int(line[4]) if len(line) > 4 else 0)
        dialogue.parse(probe.frame(request_id, asked[-1]), 0.0)
    assert [request_id for request_id, base in enumerate(asked, 1) if not base] == [1, 3, 8, 13]


def test_intervals() -> None:
    """A few minutes, in frames."""
    assert [anew_each(seconds) for seconds in (1, 10, 60, 3600)] == [300, 30, 5, 1]


def test_a_host_that_speaks_protocol_1() -> None:
    """It never gets another request than one of protocol 1, until it says that it speaks another one."""
    dialogue = Dialogue(ProbeKind.STATUS, Processes.USER)
    host = SimulatedHost(SimulationPlan(1, 5, 0.2, 1, {}), 0)
    assert dialogue.first_request(1) == b"sample 1 status user\n"
    for request_id in range(1, 5):
        assert len(dialogue.parse(host.frame(request_id), 0.0).processes) == 5
        assert dialogue.request(request_id + 1) == b"sample %d status user\n" % (request_id + 1)
    assert dialogue.protocol == 1


def test_processes_without_their_first_thread_are_named() -> None:
    """The next request names them, so that the probe finds their threads."""
    dialogue = Dialogue(ProbeKind.STATUS, Processes.USER)
    dialogue.first_request(1)
    dialogue.parse(_frame([*_FIRST, b"Z 77\n"]), 0.0)
    assert dialogue.request(2) == b"sample 2 status user 1 77\n"


def _figures(rows: Sequence[ProcessMemory]) -> list[tuple[object, ...]]:
    return sorted(row[:9] for row in rows)


@pytest.mark.parametrize("churn", [0.0, 0.1, 0.5, 1.0])
def test_the_same_as_protocol_1(churn: float) -> None:
    """Of the same history both protocols make the same rows."""
    plan = SimulationPlan(1, 60, churn, 4, {})
    one, two = SimulatedHost(plan, 0), SimulatedProbe(SimulatedHost(plan, 0))
    rows, changes = SnapshotParser(ProbeKind.STATUS), ChangesParser()
    for request_id in range(1, 200):
        expected = rows.parse(one.frame(request_id))
        found = changes.parse(two.frame(request_id, changes.base), 0.0)
        assert _figures(found.processes) == _figures(expected.processes)
        assert found.memory.available_bytes == expected.memory.available_bytes
