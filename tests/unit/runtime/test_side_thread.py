import asyncio
import subprocess
import sys
import threading

import pytest

from fleetmem.runtime import side_thread
from fleetmem.runtime.side_thread import SideThread, call_aside


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
from fleetmem.runtime import side_thread
from fleetmem.runtime.side_thread import SideThread, call_aside
async def main():
    SideThread("x").call(lambda: time.sleep(60))
    await asyncio.sleep(0.1)
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


def test_call_aside() -> None:
    """The result and the error of a call come back while the loop goes on."""

    async def main() -> None:
        assert await call_aside(lambda: threading.current_thread().name, name="x", limit_seconds=5) == "x"
        with pytest.raises(ZeroDivisionError):
            await call_aside(lambda: 1 // 0, name="x", limit_seconds=5)

    asyncio.run(main())


def test_call_aside_leaves_a_call_that_hangs_behind() -> None:
    """The caller is free after its limit, and is told which call hung; a timeout of the call's own is the call's."""
    gate = threading.Event()

    def time_out() -> None:
        raise TimeoutError("of its own")

    async def main() -> None:
        with pytest.raises(TimeoutError, match=r"^reading x: not done after 0\.05 s$"):
            await call_aside(lambda: gate.wait(20), name="reading x", limit_seconds=0.05)
        with pytest.raises(TimeoutError, match=r"^of its own$"):
            await call_aside(time_out, name="reading x", limit_seconds=5)
        gate.set()

    asyncio.run(main())


def test_calls_left_behind_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs for days does not fill the machine with threads; what ends makes room again."""
    monkeypatch.setattr(side_thread, "_MOST_LEFT_BEHIND", 2)
    gate = threading.Event()

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(TimeoutError, match="not done"):
                await call_aside(lambda: gate.wait(20), name="bounded", limit_seconds=0.01)
        with pytest.raises(TimeoutError, match="2 calls before this one still hang"):
            await call_aside(lambda: None, name="bounded", limit_seconds=5)
        gate.set()
        async with asyncio.timeout(20):
            while side_thread._left_behind["bounded"]:  # noqa: ASYNC110 - threads tell nobody
                await asyncio.sleep(0.01)
        await call_aside(lambda: None, name="bounded", limit_seconds=5)

    asyncio.run(main())


def test_call_aside_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started the call fails at once, as often as it is tried, and holds nothing."""
    monkeypatch.setattr(side_thread, "_MOST_LEFT_BEHIND", 2)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        for _ in range(5):
            with pytest.raises(OSError, match="no more threads"):
                await call_aside(lambda: 1, name="refused", limit_seconds=5)
        monkeypatch.setattr(threading.Thread, "start", start)
        assert await call_aside(lambda: 1, name="refused", limit_seconds=5) == 1

    asyncio.run(main())


def test_the_thread_outlives_a_loop_that_is_closed() -> None:
    """A call that ends after its loop does not end the thread that the next loop's calls need."""
    thread, gate = SideThread("x"), threading.Event()

    async def leave() -> None:
        thread.call(lambda: gate.wait(20))

    async def call() -> int:
        gate.set()
        return await thread.call(lambda: 7)

    asyncio.run(leave())
    assert asyncio.run(call()) == 7
    thread.end()
