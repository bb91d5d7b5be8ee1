"""What a process takes of the machine, as /proc tells it."""

import asyncio
import os
import time
from functools import cache
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


class ProcessState(NamedTuple):
    """What monitoring wants to know of any process.

    Attributes:
        cpu_seconds: user and system time since the process began, of all its threads.
        rss_bytes: resident memory.
        virtual_bytes: address space.
        started_unix_seconds: when it began.
        open_files: descriptors.
        files_allowed: the most that it may have (RLIMIT_NOFILE).
    """

    cpu_seconds: float
    rss_bytes: int
    virtual_bytes: int
    started_unix_seconds: float
    open_files: int
    files_allowed: float


def state_of(process: int | str) -> ProcessState:
    """Returns how a process is now.

    Args:
        process: its id, or `self`.

    Raises:
        OSError: there is no such process, or it is another user's; or this is not Linux.
    """
    fields, usage = _stat_of(process), usage_of(process)
    started_unix_seconds = _boot_unix_seconds() + int(fields[19]) / _TICKS_PER_SECOND
    limits = Path("/proc", str(process), "limits").read_text().splitlines()
    allowed = next(line.split()[3] for line in limits if line.startswith("Max open files"))
    return ProcessState(
        usage.cpu_seconds_total,
        usage.rss_bytes,
        int(fields[20]),
        round(started_unix_seconds, 2),
        usage.open_files,
        float("inf") if allowed == "unlimited" else int(allowed),
    )


@cache  # else it moves with each look, and a process would seem to have started again
def _boot_unix_seconds() -> float:
    """Returns when this machine was started. systemd's ProcSubset=pid hides /proc/stat, which says it, too."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _stat_of(process: int | str) -> list[str]:
    """Returns the fields of /proc/PID/stat, from the third of proc(5) on: the name before may have any sign in it."""
    return Path("/proc", str(process), "stat").read_text(errors="replace").rpartition(")")[2].split()


def usage_of(process: int | str) -> Usage:
    """Returns what a process takes now.

    Args:
        process: its id, or `self`.

    Raises:
        OSError: there is no such process, or it is another user's; or this is not Linux.
    """
    folder = Path("/proc", str(process))
    fields = _stat_of(process)
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
