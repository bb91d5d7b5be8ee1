"""What hosts may cost."""

import asyncio
import time
from contextlib import closing

import pytest

from fleetmem.collecting import work_share
from fleetmem.collecting.work_share import (
    COMMON_SECONDS,
    FREE_FRAME_BYTES,
    LONG_FRAME_BYTES,
    OWN_SECONDS,
    OWN_SHARE,
    Allowance,
    Turn,
    WorkShare,
)
from fleetmem.errors import HostError, Kind, Stage


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Returns its time."""
        return self.now


def _is_over(work: WorkShare, host: str) -> bool:
    try:
        work.check(host)
    except HostError as error:
        assert (error.stage, error.kind) == (Stage.PARSE, Kind.BAD_FRAME)  # noqa: PT017
        return True
    return False


def test_an_allowance_grows_again() -> None:
    """What is spent comes back at its share, and never more than all of it."""
    allowance = Allowance(1.0, 0.1)
    allowance.spend(1.5, 0.0)
    assert allowance.wait_seconds(0.0) == pytest.approx(5.0)
    assert allowance.wait_seconds(4.0) == pytest.approx(1.0)
    assert allowance.wait_seconds(6.0) == 0.0
    assert allowance.spent_seconds(100.0) == 0.0
    allowance.spend(1.0, 100.0)
    assert allowance.wait_seconds(100.0) == 0.0


def test_ordinary_work_is_free() -> None:
    """Thousands of hosts are charged for nothing, and nothing is remembered of them."""
    work = WorkShare(Clock())
    for _ in range(100_000):
        work.charge("a", 0.0005)
    assert not _is_over(work, "a")
    assert not work.costly


def test_a_host_over_its_share_fails_alone() -> None:
    """First its own allowance, then what all share; others go on; and it comes back."""
    clock = Clock()
    work = WorkShare(clock)
    samples = 0
    while not _is_over(work, "evil"):
        work.charge("evil", 0.5)
        samples += 1
    assert samples * 0.5 == pytest.approx(OWN_SECONDS + COMMON_SECONDS, abs=1.1)
    assert not _is_over(work, "good")
    work.charge("good", 0.5)
    assert not _is_over(work, "good")
    clock.now += 0.6 / OWN_SHARE + COMMON_SECONDS
    assert not _is_over(work, "evil")


def test_many_hosts_share_what_is_beyond_their_own() -> None:
    """Sixteen that cost without end take half a core together, in the long run."""
    clock = Clock()
    work = WorkShare(clock)
    spent = 0.0
    for _ in range(200):
        clock.now += 5
        for host in range(16):
            if not _is_over(work, str(host)):
                work.charge(str(host), 0.3)
                spent += 0.3
    assert spent / 1000 < 0.6


def test_a_quiet_host_is_forgotten() -> None:
    """Once all has grown again."""
    clock = Clock()
    work = WorkShare(clock)
    work.charge("a", 0.5)
    clock.now += 3600
    work.check("a")
    assert not work.costly
    work.charge("a", 0.5)
    work.forget("a")
    assert not work.costly


def _burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.slow
def test_a_turn_is_charged_and_rests() -> None:
    """What others do in between is not charged, and they have their turn."""

    async def main() -> None:
        work = WorkShare(Clock())
        others = 0

        async def other() -> None:
            nonlocal others
            while True:
                others += 1
                _burn(0.02)
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        with closing(Turn(work, "a")) as turn:
            await turn.begin(100)
            turn.measure()
            for _ in range(5):
                _burn(0.02)
                await turn.rest()
            before = others
            await turn.rest()  # not yet
            assert others == before >= 5
            turn.charge(0.1)
        task.cancel()
        assert work.costly["a"].spent_seconds(1000.0) == pytest.approx(0.2, abs=0.05)

    asyncio.run(main())


@pytest.mark.parametrize(("frame_bytes", "is_charged"), [(FREE_FRAME_BYTES, False), (FREE_FRAME_BYTES + 1, True)])
def test_work_on_ordinary_frames_is_not_measured(frame_bytes: int, is_charged: bool) -> None:
    """To ask for its CPU would take longer than is gained; that on longer frames is charged."""

    async def main() -> None:
        work = WorkShare(Clock())
        with closing(Turn(work, "a")) as turn:
            await turn.begin(frame_bytes)
            _burn(0.02)
        assert ("a" in work.costly) == is_charged

    asyncio.run(main())


def test_one_long_frame_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for it, not for ever; short ones do not."""
    monkeypatch.setattr(work_share, "LONGEST_WAIT_SECONDS", 0.05)

    async def main() -> None:
        work = WorkShare()
        with closing(Turn(work, "a")) as first:
            await first.begin(LONG_FRAME_BYTES + 1)
            with closing(Turn(work, "b")) as short:
                await short.begin(LONG_FRAME_BYTES)
            with closing(Turn(work, "c")) as second, pytest.raises(HostError, match="in vain"):
                await second.begin(LONG_FRAME_BYTES + 1)
        with closing(Turn(work, "c")) as third:
            await third.begin(LONG_FRAME_BYTES + 1)

    asyncio.run(main())


def test_a_turn_that_costs_too_much_ends_in_the_middle() -> None:
    """Its host fails while it is at work, not after it."""

    async def main() -> None:
        clock = Clock()
        work = WorkShare(clock)
        work._common.spend(1000, clock.now)
        with closing(Turn(work, "a")) as turn:
            await turn.begin(100)
            turn.measure()
            for _ in range(5):
                turn.charge(0.3)
                _burn(0.011)
                await turn.rest()
            turn.charge(0.8)
            _burn(0.011)
            with pytest.raises(HostError, match="more than its share"):
                await turn.rest()

    asyncio.run(main())
