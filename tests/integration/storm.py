"""A fork storm: processes that hold memory for as long as it lasts, and short-lived ones by the thousand.

Started by file name, stdlib only: `storm.py SECONDS FORKS_PER_SECOND STABLE`. It writes the pids of the stable ones,
and at its end how many short-lived ones it started. All of it ends in time, or with its standard input.
"""

import mmap
import os
import select
import signal
import sys
import time
from pathlib import Path

STABLE_BYTES = 24 * 1024 * 1024

_LIFE_SECONDS = 1.0
_TICK_SECONDS = 0.01


def name_process(name: str) -> None:
    """Names this process; what it forks has the name, too."""
    Path("/proc/self/comm").write_text(name, encoding="ascii")


def start_stable(number: int, lifeline: tuple[int, int]) -> int:
    """Starts a process that holds memory until nobody holds the other end of the lifeline; returns its pid."""
    ready, is_ready = os.pipe()
    pid = os.fork()
    if not pid:
        name_process(f"stable-{number:02}")
        memory = mmap.mmap(-1, STABLE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory[:: mmap.PAGESIZE] = bytes(len(range(0, STABLE_BYTES, mmap.PAGESIZE)))
        os.close(is_ready)
        os.close(lifeline[1])
        os.read(lifeline[0], 1)
        os._exit(0)
    os.close(is_ready)
    os.read(ready, 1)
    os.close(ready)
    return pid


def rage(seconds: float, forks_per_second: float) -> int:
    """Starts processes that live a second each; returns how many."""
    name_process("short")
    started, start = 0, time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds:
        if select.select([0], [], [], _TICK_SECONDS)[0]:
            break
        # What a busy machine did not get to is made up for in steps.
        for _fork in range(min(round(elapsed * forks_per_second) - started, round(forks_per_second / 10))):
            if not os.fork():
                time.sleep(_LIFE_SECONDS)
                os._exit(0)
            started += 1
    return started


def main() -> None:
    """Does as its arguments say."""
    seconds, forks_per_second, count = map(float, sys.argv[1:])
    signal.signal(
        signal.SIGCHLD, signal.SIG_IGN
    )  # the kernel reaps, so no pid may be used to end one: it may be reused
    lifeline = os.pipe()
    pids = [start_stable(number, lifeline) for number in range(int(count))]
    sys.stdout.write(" ".join(map(str, pids)) + "\n")
    sys.stdout.flush()
    sys.stdout.write(f"{rage(seconds, forks_per_second)}\n")


if __name__ == "__main__":
    main()
