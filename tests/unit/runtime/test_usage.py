"""What this process takes, and what a child does."""

import asyncio
import subprocess
import sys
import time

import pytest

from fleetmem.runtime.usage import Usage, own_usage, usage_of

_MIB = 1024 * 1024


def _now() -> Usage:
    usage = own_usage()
    assert usage
    return usage


_TAKES_AND_GIVES_BACK = """
import asyncio, os, threading, time
from fleetmem.runtime.usage import own_usage

async def main():
    before, ending = own_usage(), threading.Event()
    thread = threading.Thread(target=ending.wait)
    thread.start()
    task = asyncio.create_task(asyncio.sleep(60))
    reader, writer = os.pipe()
    memory = bytearray(b"x") * 50_000_000
    taken = own_usage()
    os.close(reader)
    os.close(writer)
    ending.set()
    thread.join()
    task.cancel()
    await asyncio.wait([task])
    until = time.monotonic() + 30
    while os.path.exists(f"/proc/self/task/{thread.native_id}") and time.monotonic() < until:
        time.sleep(0.001)  # joined, it still has to end
    after = own_usage()
    print(len(memory), *before, *taken, *after)

asyncio.run(main())
"""


def test_what_is_taken_is_counted() -> None:
    """Memory, a pipe, a thread and a task, each as it is taken and given back: in a process that does nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", _TAKES_AND_GIVES_BACK], capture_output=True, text=True, timeout=60, check=True
    )
    memory_bytes, *numbers = map(float, done.stdout.split())
    fields = len(Usage._fields)
    before, taken, after = (Usage._make(map(int, numbers[at : at + fields])) for at in range(0, 3 * fields, fields))
    assert taken.rss_bytes - before.rss_bytes == pytest.approx(memory_bytes, rel=0.1)
    assert taken.open_files - before.open_files == 2
    assert taken.threads - before.threads == 1
    assert taken.tasks - before.tasks == 1
    assert (after.open_files, after.threads, after.tasks) == (before.open_files, before.threads, before.tasks)


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

    monkeypatch.setattr("fleetmem.runtime.usage.usage_of", missing)

    async def main() -> None:
        assert own_usage() is None

    asyncio.run(main())
