"""What breaks and heals in any order leaves its user as it was: threads, look-ups, known hosts, the spool."""

import asyncio
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetmem.errors import SinkError
from fleetmem.runtime import event_loop, side_thread
from fleetmem.runtime.event_loop import run_async
from fleetmem.runtime.side_thread import SideThread, call_aside
from fleetmem.sinks.queue.backlog import Backlog, Bounds, Item
from fleetmem.sinks.queue.disk import DiskQueue
from fleetmem.sinks.queue.spool import Spool

_LIMIT_SECONDS = 0.01
_PATIENT_SECONDS = 20.0


@contextmanager
def _no_threads() -> Iterator[None]:
    """Lets no thread start, as where there are as many as may be."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENT_SECONDS):
        while not is_so():  # noqa: ASYNC110 - threads tell nobody
            await asyncio.sleep(0.001)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["works", "fails", "hangs", "no thread"]), max_size=12))
def test_calls_aside(events: list[str]) -> None:
    """After any calls that fail, hang or get no thread, the next ones are made, and no thread is left behind."""
    before = threading.active_count()

    async def call(event: str, gate: threading.Event) -> None:
        if event == "works":
            assert await call_aside(lambda: 7, name="healing", limit_seconds=_PATIENT_SECONDS) == 7
        elif event == "fails":
            with pytest.raises(ZeroDivisionError):
                await call_aside(lambda: 1 // 0, name="healing", limit_seconds=_PATIENT_SECONDS)
        elif event == "hangs":
            with pytest.raises(TimeoutError):
                await call_aside(lambda: gate.wait(_PATIENT_SECONDS), name="healing", limit_seconds=_LIMIT_SECONDS)
        else:
            with _no_threads(), pytest.raises(OSError, match="no more threads"):
                await call_aside(lambda: 7, name="healing", limit_seconds=_PATIENT_SECONDS)

    async def main() -> None:
        for event in events:
            gate = threading.Event()
            await call(event, gate)
            gate.set()
            await _until(lambda: not side_thread._left_behind["healing"])
        await call("works", threading.Event())
        await _until(lambda: threading.active_count() <= before)

    asyncio.run(main())


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["works", "fails", "is given up", "no thread"]), max_size=12))
def test_a_side_thread(events: list[str]) -> None:
    """One thread serves whoever comes after a call that failed, was given up, or found no thread."""

    async def call(thread: SideThread, event: str) -> None:
        if event == "works":
            assert await thread.call(lambda: 7) == 7
        elif event == "fails":
            with pytest.raises(ZeroDivisionError):
                await thread.call(lambda: 1 // 0)
        elif event == "is given up":
            gate = threading.Event()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(_LIMIT_SECONDS):
                    await thread.call(lambda: gate.wait(_PATIENT_SECONDS))
            gate.set()
        else:
            with _no_threads(), suppress(OSError):  # where it has its thread already, it needs none
                await thread.call(lambda: 7)

    async def main() -> None:
        thread = SideThread("healing")
        for event in events:
            await call(thread, event)
        await call(thread, "works")
        thread.end()

    asyncio.run(main())


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["works", "fails", "hangs", "no thread"]), max_size=10))
def test_look_ups(events: list[str]) -> None:
    """With room for two at once: after any that fail, hang or get no thread, two more have room."""
    gate = threading.Event()
    state = {"mode": "works"}

    def look_up(host: str, *_: Any) -> list[Any]:
        if state["mode"] == "hangs":
            gate.wait(_PATIENT_SECONDS)
        if state["mode"] != "works":
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [(host,)]

    async def find(limit_seconds: float = _PATIENT_SECONDS) -> None:
        async with asyncio.timeout(limit_seconds):
            found: Any = await asyncio.get_running_loop().getaddrinfo("web01", 22)
            assert found == [("web01",)]

    async def meet(event: str) -> None:
        state["mode"] = event
        if event == "works":
            await find()
        elif event == "fails":
            with pytest.raises(socket.gaierror):
                await find()
        elif event == "hangs":
            gate.clear()
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await find(_LIMIT_SECONDS)
            state["mode"] = "works"
            gate.set()
        else:
            with _no_threads(), pytest.raises(OSError, match="no more threads"):
                await find()

    async def main() -> None:
        for event in events:
            await meet(event)
        state["mode"] = "works"
        await asyncio.gather(*(find() for _ in range(4)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        patch.setattr(event_loop, "_LOOKUPS_AT_ONCE", 2)
        run_async(main())


class _Failing:
    """A spool on a disk that fails now and then."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.is_broken = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._spool, name)
        if not callable(found) or name == "close":
            return found

        def call(*arguments: Any) -> Any:
            if self.is_broken:
                raise SinkError("spool: No space left on device")
            return found(*arguments)

        return call


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["points", "take", "breaks", "heals", "no thread"]), max_size=30))
def test_a_spool(events: list[str]) -> None:
    """However often its disk fails in between: what was put comes out, each once, in order."""

    async def main(folder: Path) -> None:
        with closing(Spool(folder / "x.spool", 2**26, 86_400.0)) as real:
            failing: Any = _Failing(real)
            disk, backlog = DiskQueue(failing, "x:1"), Backlog(Bounds())
            put = 0
            with ExitStack() as threads:
                for event in events:
                    if event == "points":
                        backlog.put(Item(b"%d\n" % put, 1, 1e12), 0.0)
                        put += 1
                    elif event == "no thread":
                        threads.enter_context(_no_threads())
                    elif event == "take":
                        await disk.take_over(backlog)
                    else:
                        failing.is_broken = event == "breaks"
                        threads.close()
            failing.is_broken = False
            await disk.take_over(backlog)
            assert not backlog
            assert [item.text for _key, item in await disk.first()] == [b"%d\n" % number for number in range(put)]
            await disk.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
