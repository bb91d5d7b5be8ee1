import asyncio
import subprocess
import sys
import threading

import pytest

from fleetmem.side_thread import SideThread


def test_calls_run_one_after_the_other_in_one_thread() -> None:
    """Results and errors come back to who asked."""

    async def main() -> None:
        thread = SideThread("x")
        order: list[int] = []
        futures = [thread.call(lambda number=number: order.append(number)) for number in range(50)]  # type: ignore[misc]
        names = {await thread.call(lambda: threading.current_thread().name) for _ in range(3)}
        await asyncio.gather(*futures)
        assert order == list(range(50))
        assert names == {"x"}
        with pytest.raises(ZeroDivisionError):
            await thread.call(lambda: 1 // 0)
        thread.end()

    asyncio.run(main())


def test_a_cancelled_call_goes_on() -> None:
    """Who waited is free at once; what comes next comes after it."""

    async def main() -> None:
        thread = SideThread("x")
        gate, done = threading.Event(), threading.Event()

        def wait() -> None:
            gate.wait(5)
            done.set()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await thread.call(wait)
        after = thread.call(done.is_set)
        gate.set()
        assert await after
        thread.end()

    asyncio.run(main())


def test_a_call_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there may be no more threads it is not done, neither then nor later; the next one may be."""
    start, done = threading.Thread.start, list[int]()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        thread = SideThread("x")
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="no more threads"):
            thread.call(lambda: done.append(1))
        monkeypatch.setattr(threading.Thread, "start", start)
        await thread.call(lambda: done.append(2))
        thread.end()

    asyncio.run(main())
    assert done == [2]


def test_a_call_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    """A disk that has gone away: the interpreter ends all the same."""
    program = """
import asyncio, time
from fleetmem.side_thread import SideThread
async def main():
    SideThread("x").call(lambda: time.sleep(60))
    await asyncio.sleep(0.1)
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
