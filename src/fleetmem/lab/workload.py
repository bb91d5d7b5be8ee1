"""What runs on a lab host: processes whose memory stays, grows, or comes and goes. Started by file name, stdlib only.

Each ends when its standard input does, and so with its host, however that ends. As a service, whose input is /dev/null,
it runs until it is stopped. The test hosts of terraform/ run this file too, with Python 3.6 where they are old.
"""

import mmap
import os
import select
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

_MIB = 1024 * 1024
_STEADY_BYTES = 20 * _MIB
_COME_AND_GO_BYTES = 12 * _MIB
_COME_AND_GO_SECONDS = 5.0
_LEAK_BYTES = _MIB // 4
_LEAK_EVERY_SECONDS = 1.0
_LEAK_LIMIT_BYTES = 32 * _MIB
_STORM_PROCESSES = 20
_STORM_BYTES = _MIB
_STORM_SECONDS = 15.0
_STORM_PAUSE_SECONDS = 285.0  # each process leaves three series: more of them would fill Graphite's disk
_FOR_EVER_SECONDS = 365 * 86400.0
_PAGE_BYTES = mmap.PAGESIZE


def hold(size_bytes: int) -> mmap.mmap:
    """Returns resident memory: every page is written to."""
    memory = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[::_PAGE_BYTES] = bytes(len(range(0, size_bytes, _PAGE_BYTES)))
    return memory


def pause(seconds: float) -> None:
    """Waits; ends the process when its host is gone."""
    is_device = stat.S_ISCHR(os.fstat(sys.stdin.fileno()).st_mode)  # a service's: nothing comes, and it never closes
    ended, _, _ = select.select([] if is_device else [sys.stdin], [], [], seconds)
    if ended:
        sys.exit()


def run_steady() -> None:
    """Holds 20 MiB."""
    _memory = hold(_STEADY_BYTES)
    pause(_FOR_EVER_SECONDS)


def run_leaky() -> None:
    """Takes 256 KiB more each second; at 32 MiB it starts over."""
    leaked: list[mmap.mmap] = []
    while True:
        leaked.append(hold(_LEAK_BYTES))
        if len(leaked) * _LEAK_BYTES >= _LEAK_LIMIT_BYTES:
            leaked.clear()
        pause(_LEAK_EVERY_SECONDS)


def run_come_and_go() -> None:
    """Holds 12 MiB for 5 s and ends; its host starts it again 5 s later."""
    _memory = hold(_COME_AND_GO_BYTES)
    pause(_COME_AND_GO_SECONDS)


def run_fork_storm() -> None:
    """Every five minutes, 20 children at once, which hold 1 MiB for 15 s each; never more than those."""
    while True:
        children = [_fork() for _ in range(_STORM_PROCESSES)]
        for child in children:
            os.waitpid(child, 0)
        pause(_STORM_PAUSE_SECONDS)


def _fork() -> int:
    """Returns the pid of a child that holds memory for a while."""
    pid = os.fork()
    if pid == 0:
        _memory = hold(_STORM_BYTES)
        time.sleep(_STORM_SECONDS)
        os._exit(0)
    return pid


WORKLOADS = {
    "steady": run_steady,
    "leaky": run_leaky,
    "come-and-go": run_come_and_go,
    "fork-storm": run_fork_storm,
}
"""By the name that the process gets."""


def main(name: str) -> None:
    """Becomes a workload."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")
    WORKLOADS[name]()


if __name__ == "__main__":
    main(sys.argv[1])
