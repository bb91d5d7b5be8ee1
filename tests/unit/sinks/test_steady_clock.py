import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetmem.sinks.files.archive import Rotation
from fleetmem.sinks.files.record_file import RecordFile
from fleetmem.sinks.queue.backlog import Backlog, Bounds, Item
from fleetmem.sinks.queue.disk import DiskQueue
from fleetmem.sinks.queue.spool import Spool
from fleetmem.sinks.steady_clock import SteadyClock

_NOW = 1_704_110_400.0
_TWO_DAYS = 2 * 86_400.0

Clocks = Callable[[float, float], None]


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Sets seconds that have passed, and how far the wall clock is ahead."""

    def set_to(passed: float, ahead: float) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + passed)
        monkeypatch.setattr(time, "time", lambda: _NOW + passed + ahead)

    set_to(0, 0)
    return set_to


def test_a_jump_that_is_taken_back_is_none(clocks: Clocks) -> None:
    """Two days ahead for 20 s, then right again: the time goes on as if nothing had been."""
    clock = SteadyClock()
    for passed in range(200):
        clocks(passed, _TWO_DAYS if 80 <= passed < 100 else 0.0)
        assert clock.unix_seconds() == pytest.approx(_NOW + passed)
        assert clock.is_settled == (60 <= passed < 80 or passed >= 160)


@pytest.mark.parametrize("ahead", [_TWO_DAYS, -_TWO_DAYS])
def test_a_jump_that_lasts_is_followed(clocks: Clocks, ahead: float) -> None:
    """After a minute: it was the time before that was wrong."""
    clock = SteadyClock()
    for passed in range(100):
        clocks(passed, ahead if passed else 0.0)
        assert clock.unix_seconds() == pytest.approx(_NOW + passed + (ahead if passed > 60 else 0.0))


def test_a_clock_that_is_slewed_is_followed_at_once(clocks: Clocks) -> None:
    """As NTP does it, a little at a time."""
    clock = SteadyClock()
    for passed in range(100):
        clocks(passed, passed * 0.1)
        assert clock.unix_seconds() == pytest.approx(_NOW + passed * 1.1)
    assert clock.is_settled


def test_a_start_while_the_clock_is_wrong(clocks: Clocks) -> None:
    """Nothing is settled for a minute; then the right time is taken."""
    clocks(0, _TWO_DAYS)
    clock = SteadyClock()
    for passed in range(1, 75):
        clocks(passed, 0.0)
        is_right = clock.unix_seconds() == pytest.approx(_NOW + passed)
        assert clock.is_settled == is_right == (passed > 60)


def test_a_file_is_not_rotated_by_a_glitch(clocks: Clocks, tmp_path: Path) -> None:
    """Two days ahead for some seconds: one file, and the next rotation comes when it is due."""
    path = tmp_path / "m.csv"
    file = RecordFile(path, b"", Rotation(every_seconds=86_400.0))
    for passed, ahead in ((0, 0.0), (10, _TWO_DAYS), (20, _TWO_DAYS), (30, 0.0), (40, 0.0)):
        clocks(passed, ahead)
        file.write(b"x\n")
    assert [found.name for found in tmp_path.glob("m*")] == ["m.csv"]
    clocks(86_400, 0.0)
    file.write(b"y\n")
    file.close()
    assert len(list(tmp_path.glob("m*"))) == 2
    assert path.read_bytes() == b"y\n"


def test_nothing_on_disk_is_late_by_a_glitch(clocks: Clocks, tmp_path: Path) -> None:
    """Points keep their age while the clock is two days ahead, and points of that time do not look older later."""
    spool = Spool(tmp_path / "x.spool", 10**6, 86_400.0)
    passed = 0

    async def cycle(ahead: float, backlog: Backlog, disk: DiskQueue) -> int:
        nonlocal passed
        passed += 1
        clocks(passed, ahead)
        backlog.put(Item(b"a 1 2\n", 1, time.time()), time.monotonic())
        dropped = await disk.take_over(backlog)
        return dropped.late + dropped.full

    async def main() -> None:
        backlog, disk = Backlog(Bounds()), DiskQueue(spool, "carbon:2003")
        late = 0
        for ahead in (*[0.0] * 70, *[_TWO_DAYS] * 20, *[0.0] * 70, *[-_TWO_DAYS] * 20, *[0.0] * 70):
            late += await cycle(ahead, backlog, disk)
            assert 0 <= disk.age_seconds < 300
        assert late == 0
        assert disk.points == 250
        clocks(passed + 86_410, 0.0)
        assert (await disk.take_over(backlog)).late == 250, "a day later they are late"
        await disk.close()

    asyncio.run(main())
