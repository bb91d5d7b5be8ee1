import os
from pathlib import Path

import pytest

from fleetmem.runtime import cpus
from fleetmem.runtime.cpus import HOSTS_PER_WORKER, usable_cpus, worker_count


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with eight CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def _machine(folder: Path, own: str, quotas: dict[str, str]) -> int:
    """Returns the CPUs that may be used in a cgroup, with what the files of the cgroups on the way say."""
    (folder / "own").write_text(own)
    for group, quota in quotas.items():
        (folder / "fs" / group).mkdir(parents=True, exist_ok=True)
        (folder / "fs" / group / "cpu.max").write_text(quota)
    return usable_cpus(folder / "own", folder / "fs")


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/a/b\n", {"a/b": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/b": "250000 100000\n"}, 2),
        ("0::/a/b\n", {"a": "150000 50000\n", "a/b": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a": "300000 100000\n", "a/b": "500000 100000\n"}, 3),
        ("0::/\n", {"": "400000 100000\n"}, 4),
        ("0::/a\n", {"a": "50000 100000\n"}, 1),
        ("0::/a\n", {"a": "1600000 100000\n"}, 8),
        ("3:cpu:/a\n1:memory:/a\n", {"a": "100000 100000\n"}, 8),
        ("0::/a\n", {"a": "nonsense"}, 8),
    ],
)
def test_quotas_of_cgroups(tmp_path: Path, own: str, quotas: dict[str, str], expected: int) -> None:
    """The smallest on the way up counts, whole CPUs of it, one at least; without version 2 there is none."""
    assert _machine(tmp_path, own, quotas) == expected


@pytest.mark.usefixtures("eight")
def test_without_cgroups(tmp_path: Path) -> None:
    """As on other systems than Linux."""
    assert usable_cpus(tmp_path / "nothing", tmp_path) == 8


def test_this_machine() -> None:
    """Whatever it is, it has one CPU at least, and no more than it has."""
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("hosts", "expected"), [(0, 1), (1, 1), (2500, 1), (2501, 2), (5000, 2), (10_000, 4), (100_000, 4)]
)
def test_auto(monkeypatch: pytest.MonkeyPatch, hosts: int, expected: int) -> None:
    """One worker for 2,500 hosts, as far as there are CPUs."""
    assert HOSTS_PER_WORKER == 2500
    monkeypatch.setattr(cpus, "usable_cpus", lambda: 4)
    assert worker_count(hosts) == expected
