"""What a process takes of the machine, as /proc tells it."""

import asyncio
import os
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """What a process takes. Several can be added up; the fields are counters that `telemetry.counters` declares.

    Attributes:
        cpu_seconds_total: user and system time since the process began, of all its threads.
        rss_bytes: resident memory.
        open_files: descriptors: connections, files, the event loop's own.
        threads: of the kernel.
        tasks: of asyncio that are not done; 0 for a process other than this one.
    """

    cpu_seconds_total: float
    rss_bytes: int
    open_files: int
    threads: int
    tasks: int = 0


def usage_of(process: int | str) -> Usage:
    """Returns what a process takes now.

    Args:
        process: its id, or `self`.

    Raises:
        OSError: there is no such process, or it is another user's; or this is not Linux.
    """
    folder = Path("/proc", str(process))
    fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()  # from the third of proc(5) on
    cpu_ticks = int(fields[11]) + int(fields[12])
    files = folder / "fd"
    open_files = files.stat().st_size or len(list(files.iterdir()))  # Linux 6.2 and later knows without a list
    return Usage(cpu_ticks / _TICKS_PER_SECOND, int(fields[21]) * _PAGE_BYTES, open_files, int(fields[17]))


def own_usage() -> Usage | None:
    """Returns what this process takes, with the tasks of its event loop; None where there is no /proc (macOS)."""
    try:
        return usage_of("self")._replace(tasks=len(asyncio.all_tasks()))
    except OSError:
        return None
