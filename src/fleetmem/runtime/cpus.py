"""How many CPUs this process may use, and how many workers that is good for."""

import os
from collections.abc import Iterator
from pathlib import Path

HOSTS_PER_WORKER = 2500
"""A worker more is worth its memory from here on: 2,500 hosts each 10 s take a sixth of a core."""

_CGROUPS = Path("/sys/fs/cgroup")


def worker_count(hosts: int) -> int:
    """Returns how many workers `auto` is for so many hosts."""
    return max(1, min(usable_cpus(), -(-hosts // HOSTS_PER_WORKER)))


def usable_cpus(own_cgroup: Path = Path("/proc/self/cgroup"), cgroups: Path = _CGROUPS) -> int:
    """Returns the CPUs that this process may use: its affinity, and the quota of its cgroups (v2), 1 at least."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *map(int, _quotas(own_cgroup, cgroups))]))


def _quotas(own_cgroup: Path, cgroups: Path) -> Iterator[float]:
    """Yields the CPUs that each cgroup on the way up allows, where it has a limit: `cpu.max` is `<quota> <period>`."""
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:
        return
    path = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), None)
    if path is None:
        return
    for folder in (cgroups / path, *(cgroups / path).parents):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            quota = period = "max"
        if quota != "max":
            yield int(quota) / int(period)
        if folder == cgroups:
            return
