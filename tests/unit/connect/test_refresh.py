import asyncio
import threading
import time

import pytest

from fleetmem.connect import refresh as refresh_module
from fleetmem.connect.refresh import Refresh


class Disk:
    """What is looked at; it may hang."""

    def __init__(self) -> None:
        self.works = threading.Event()
        self.works.set()
        self.looks = 0
        self.used: list[int] = []

    def look(self) -> int:
        """Returns the number of the look, once the disk works."""
        self.looks += 1
        number = self.looks
        self.works.wait(20)
        return number


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that works, and limits that a test can wait for."""
    monkeypatch.setattr(refresh_module, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(refresh_module, "_LIMIT_SECONDS", 0.4)
    monkeypatch.setattr(refresh_module, "_GAP_SECONDS", 0.01)
    return Disk()


def test_all_share_one_look(disk: Disk) -> None:
    """A hundred logins at once look once, and all see what was found."""

    async def run() -> None:
        refresh = Refresh(disk.look, disk.used.append, "disk")

        async def log_in() -> list[int]:
            refresh.begin()
            await refresh.wait()
            return list(disk.used)

        assert await asyncio.gather(*(log_in() for _ in range(100))) == [[1]] * 100

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.timing
def test_a_disk_that_hangs(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    """A login waits for it a little, and those after it not at all; it is told once, and looked at once it is back."""

    async def run() -> None:
        refresh = Refresh(disk.look, disk.used.append, "disk")
        disk.works.clear()
        begun = time.monotonic()
        for _ in range(100):
            refresh.begin()
            await refresh.wait()
        assert time.monotonic() - begun < 2
        assert disk.looks == 1
        await asyncio.sleep(0.6)
        refresh.begin()
        await asyncio.sleep(0.6)
        assert caplog.messages == ["disk: not done after 0.4 s; what was read before stays in force"]
        disk.works.set()
        await asyncio.sleep(0.05)
        refresh.begin()
        await refresh.wait()
        assert disk.used == [3]

    asyncio.run(run())
