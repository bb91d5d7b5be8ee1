"""What runs on a lab host: processes whose memory stays, grows, or comes and goes. Started by file name, stdlib only.

Each ends when its standard input does, and so with its host, however that ends.
"""

import mmap
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_MIB = 1024 * 1024
_STEADY_BYTES = 20 * _MIB
_COME_AND_GO_BYTES = 12 * _MIB
_COME_AND_GO_SECONDS = 5.0
_LEAK_BYTES = _MIB // 4
_LEAK_EVERY_SECONDS = 1.0
_LEAK_LIMIT_BYTES = 32 * _MIB
_PAGE_BYTES = mmap.PAGESIZE


def hold(size_bytes: int) -> mmap.mmap:
    """Returns resident memory: every page is written to."""
    memory = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[::_PAGE_BYTES] = bytes(len(range(0, size_bytes, _PAGE_BYTES)))
    return memory


def pause(seconds: float | None) -> None:
    """Waits, for ever with None; ends the process when its host is gone."""
    ended, _, _ = select.select([sys.stdin], [], [], seconds)
    if ended:
        sys.exit()


def run_steady() -> None:
    """Holds 20 MiB."""
    _memory = hold(_STEADY_BYTES)
    pause(None)


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


WORKLOADS: dict[str, Callable[[], None]] = {
    "steady": run_steady,
    "leaky": run_leaky,
    "come-and-go": run_come_and_go,
}
"""By the name that the process gets."""


def main(name: str) -> None:
    """Becomes a workload."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")
    WORKLOADS[name]()


if __name__ == "__main__":
    main(sys.argv[1])
