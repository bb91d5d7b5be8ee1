"""What this process takes, and what a child does."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from fleetmem.usage import Usage, own_usage, usage_of

_MIB = 1024 * 1024


def _now() -> Usage:
    usage = own_usage()
    assert usage
    return usage


def test_what_is_taken_is_counted() -> None:
    """Memory, a pipe, a thread, a task and CPU time, each as it is taken, and given back."""

    async def main() -> None:
        before, ending = _now(), threading.Event()
        thread = threading.Thread(target=ending.wait)
        thread.start()
        task = asyncio.create_task(asyncio.sleep(60))
        reader, writer = os.pipe()
        memory = bytearray(b"x") * (50 * _MIB)
        taken = _now()
        os.close(reader)
        os.close(writer)
        assert taken.rss_bytes - before.rss_bytes == pytest.approx(len(memory), rel=0.1)
        assert taken.open_files - before.open_files == 2
        assert taken.threads - before.threads == 1
        assert taken.tasks - before.tasks == 1
        ending.set()
        thread.join()
        task.cancel()
        await asyncio.wait([task])
        after = _now()
        assert (after.open_files, after.threads, after.tasks) == (before.open_files, before.threads, before.tasks)

    asyncio.run(main())


def test_cpu_time() -> None:
    """As the clock of the process has it, to the kernel's tick."""

    async def main() -> None:
        before = time.process_time()
        while time.process_time() < before + 0.1:
            pass
        assert _now().cpu_seconds_total == pytest.approx(time.process_time(), abs=0.05)

    asyncio.run(main())


def test_another_process() -> None:
    """It is told of by its id; of one that is gone there is nothing to tell."""
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout
    child.stdout.readline()
    usage = usage_of(child.pid)
    assert (usage.open_files, usage.threads, usage.tasks) == (3, 1, 0)
    child.communicate(b"\n")
    with pytest.raises(OSError, match="No such"):
        usage_of(child.pid)


def test_a_system_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to tell then, and no error."""

    def missing(_process: object) -> Usage:
        raise FileNotFoundError("/proc/self/stat")

    monkeypatch.setattr("fleetmem.usage.usage_of", missing)

    async def main() -> None:
        assert own_usage() is None

    asyncio.run(main())
