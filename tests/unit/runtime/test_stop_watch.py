import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unit.builders import is_running

pytestmark = pytest.mark.slow

_PROGRAM = """
import asyncio, contextlib, ctypes, logging, os, re, signal, sys, threading, time
from fleetmem.runtime import stop_watch
from fleetmem.runtime.event_loop import run_async
stop_watch.LAST_RESORT_SECONDS = 1.0
logging.basicConfig(format="%(levelname)s %(message)s")
watch = stop_watch.StopWatch()

def ready():
    print("ready", flush=True)

def lock_forever():
    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)

def open_fifo():
    os.mkfifo(sys.argv[1])
    open(sys.argv[1])

async def hang_in_a_task():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

async def block(work):
    with watch.stopping(lambda: None):
        asyncio.get_running_loop().call_later(0.05, ready)
        await asyncio.sleep(0.1)
        work()

def no_threads():
    def start(thread):
        raise RuntimeError("can't start new thread")
    threading.Thread.start = start

def fill(descriptor):
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x" * 4096)
    os.set_blocking(descriptor, True)
"""

_LONG_REGEX = 're.match("(a|a)+$", "a" * 60 + "b")'


def _end(tmp_path: Path, body: str, *, wants_line: bool = True) -> tuple[int, str]:
    """Runs a program until it says that it is ready, and ends it; returns status and what it has said on stderr."""
    command = [sys.executable, "-c", f"{_PROGRAM}\n{body}", str(tmp_path / "fifo")]
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file if wants_line else subprocess.PIPE)
    with process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            return process.wait(30), errors.read_text()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("work", "place"),
    [
        ("lambda: time.sleep(60)", "<lambda>"),
        (f"lambda: {_LONG_REGEX}", "match"),
        ("open_fifo", "open_fifo"),
        ("lock_forever", "lock_forever"),
    ],
)
@pytest.mark.parametrize("has_uvloop", [True, False])
def test_a_loop_that_is_blocked(tmp_path: Path, work: str, place: str, *, has_uvloop: bool) -> None:
    """The process ends with status 0, and one line names the function that hung."""
    without = "" if has_uvloop else "sys.modules['uvloop'] = None\n"
    status, said = _end(tmp_path, f"{without}run_async(block({work}))")
    assert status == 0
    assert said.startswith("ERROR not stopped within 5 s, ended: the main thread was in ")
    assert place in said
    assert said.count("\n") == 1


def test_a_task_that_hangs(tmp_path: Path) -> None:
    """The loop turns, and what it waits for is named."""
    body = """
async def main():
    hanging = asyncio.create_task(hang_in_a_task())
    with watch.stopping(lambda: None):
        ready()
        await hanging
run_async(main())
"""
    status, said = _end(tmp_path, body)
    assert status == 0
    assert "2 tasks waited" in said
    assert "hang_in_a_task" in said


def test_a_start_that_hangs(tmp_path: Path) -> None:
    """Before there is a loop the process ends at once, quietly where Python runs, by the last resort where not."""
    assert _end(tmp_path, "with watch.installed():\n    ready()\n    time.sleep(60)") == (0, "")
    status, said = _end(tmp_path, "with watch.installed():\n    ready()\n    lock_forever()")
    assert status == 0
    assert "lock_forever" in said


@pytest.mark.parametrize("work", ["lambda: time.sleep(60)", f"lambda: {_LONG_REGEX}"])
def test_no_thread_can_be_started(tmp_path: Path, work: str) -> None:
    """The alarm does without one."""
    status, said = _end(tmp_path, f"no_threads()\nrun_async(block({work}))")
    assert status == 0
    assert "ERROR not stopped within 5 s" in said


def test_stderr_takes_nothing(tmp_path: Path) -> None:
    """A full pipe does not keep the process: it ends without its line."""
    body = "import threading\nlogging.raiseExceptions = False\nfill(2)\nrun_async(block(lambda: time.sleep(60)))"
    assert _end(tmp_path, body, wants_line=False)[0] == 0


def test_a_thread_holds_the_lock_of_the_log(tmp_path: Path) -> None:
    """The line needs no lock."""
    body = """
lock = logging.getLogger().handlers[0].lock
threading.Thread(target=lambda: (lock.acquire(), time.sleep(60)), daemon=True).start()
run_async(block(lambda: time.sleep(60)))
"""
    status, said = _end(tmp_path, body)
    assert status == 0
    assert "ERROR not stopped within 5 s" in said


def test_a_stop_in_time(tmp_path: Path) -> None:
    """Nothing is heard of the last resort, and later signals are the caller's own again."""
    body = """
async def main():
    stopped = asyncio.Event()
    with watch.stopping(stopped.set):
        ready()
        await stopped.wait()
    await asyncio.sleep(1.5)
before = signal.getsignal(signal.SIGTERM)
run_async(main())
assert signal.getsignal(signal.SIGTERM) is before
sys.exit(7)
"""
    assert _end(tmp_path, body) == (7, "")


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Also where the loop is blocked: nobody has to wait for the limit."""
    body = """
def again():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGTERM)
stop_watch.LAST_RESORT_SECONDS = 60
threading.Timer(1, again).start()
run_async(block(lambda: time.sleep(60)))
"""
    assert _end(tmp_path, body) == (130, "WARNING stopped at once: data in the queues is lost\n")


def test_a_signal_that_the_kernel_keeps(tmp_path: Path) -> None:
    """A main thread that may not run gets none; the thread looks for it."""
    body = """
with watch.installed():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    ready()
    time.sleep(60)
"""
    status, said = _end(tmp_path, body)
    assert status == 0
    assert "the main thread was in <module>" in said


def test_programs_are_ended(tmp_path: Path) -> None:
    """Those that fleetmem has started do not outlive it, nor does what they have started."""
    body = """
import subprocess
from fleetmem.runtime import children
child = subprocess.Popen(["sh", "-c", "sleep 61 & echo $! > $0; wait", sys.argv[1]], start_new_session=True)
children.add(child.pid)
while not (os.path.exists(sys.argv[1]) and open(sys.argv[1]).read()):
    time.sleep(0.01)
run_async(block(lambda: time.sleep(60)))
"""
    assert _end(tmp_path, body)[0] == 0
    pid = int((tmp_path / "fifo").read_text())
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)
