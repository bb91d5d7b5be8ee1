"""One simulated host: processes that grow, leak, come and go by a seed, and the frames that tell of them. Pure.

Rows that did not change are the same objects in all hosts and frames, so that thousands of hosts fit beside a
collector on a small machine. What a host does depends on seed, number and how often it was asked; on no clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import NamedTuple

_MEM_TOTAL_KIB = 16 * 1024 * 1024
_FIRST_PID = 300
_FIRST_NEW_PID = 100_000
_MOST_RSS_KIB = 512 * 1024
_LEAK_KIB = 64
_STEP_KIB = 512
_GOLDEN_RATIO = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly, however many there are
_KINDS = 10  # one row of so many leaks, one comes and goes; the others grow and shrink
_LEAKS, _COMES_AND_GOES = 0, 1
_NAMES = (
    b"nginx",
    b"postgres",
    b"redis-server",
    b"java",
    b"python3",
    b"node",
    b"systemd-journal",
    b"sshd",
    b"cron",
    b"containerd-shim",
    b"(sd-pam)",
    b"npm start",
)


class Fault(StrEnum):
    """What is wrong with a host."""

    SLOW = "slow"
    SILENT = "silent"
    REFUSING = "refusing"
    DROPPING = "dropping"
    FLOODING = "flooding"


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """What a simulated fleet does.

    Attributes:
        hosts: how many.
        processes: of each host.
        churn: part of the rows of a host that change from one frame to the next, 0 to 1.
        seed: the same one makes the same fleet.
        faults: part of the hosts that has each fault, 0 to 1 in sum.
    """

    hosts: int
    processes: int
    churn: float
    seed: int
    faults: dict[Fault, float]

    def fault_of(self, number: int) -> Fault | None:
        """Returns what is wrong with a host, None for a good one. Faults are spread over the fleet."""
        place = (number * _GOLDEN_RATIO + _mixed(self.seed, 0) / 2**64) % 1
        for fault, share in self.faults.items():
            if place < share:
                return fault
            place -= share
        return None


class Sums(NamedTuple):
    """What a host's processes add up to."""

    processes: int
    rss_bytes: int
    vsz_bytes: int


class SimulatedHost:
    """The processes of one host.

    Args:
        plan: of the fleet.
        number: of the host, from 0.
    """

    def __init__(self, plan: SimulationPlan, number: int) -> None:
        self._rows: list[bytes] = list(_first_rows(plan.processes))
        self._churn = plan.churn
        self._state = _mixed(plan.seed, number)
        self._due = 0.0
        self._next_pid = _FIRST_NEW_PID
        self._boot_id = b"%08x-0000-4000-8000-%012x" % (plan.seed & 0xFFFFFFFF, number)

    def frame(self, request_id: int) -> bytes:
        """Returns the frame that answers a request, after the processes have gone on a little."""
        self.go_on()
        available_kib = self._available_kib
        head = b"BEGIN fleetmem/1 %d\nM %d %d 0 0\nK 0 %b\n" % (
            request_id,
            _MEM_TOTAL_KIB,
            available_kib,
            self._boot_id,
        )
        return b"%b%b\nEND %d 0 %d\n" % (head, b"\n".join(self._rows), request_id, len(self._rows))

    @property
    def rows(self) -> Sequence[bytes]:
        """Its processes, as protocol 1 tells of them; one that did not change is the very same object."""
        return self._rows

    @property
    def memory_kib(self) -> tuple[int, int]:
        """MemTotal and MemAvailable."""
        return _MEM_TOTAL_KIB, self._available_kib

    @property
    def boot_id(self) -> bytes:
        """Of the host."""
        return self._boot_id

    def ps(self) -> bytes:
        """Returns what `ps -eo pid=,rss=,vsz=,pmem=,comm=` prints, after the processes have gone on a little."""
        self.go_on()
        return b"".join(map(_ps_line, self._rows))

    @property
    def _available_kib(self) -> int:
        return _MEM_TOTAL_KIB // 2 + self._state % 100_000

    @property
    def available_bytes(self) -> int:
        """MemAvailable in the last frame; another one in nearly each."""
        return self._available_kib * 1024

    def sums(self) -> Sums:
        """Returns what the processes of the last frame add up to."""
        columns = [row.split(b" ", 5) for row in self._rows]
        rss_kib, vsz_kib = sum([int(row[4]) for row in columns]), sum([int(row[3]) for row in columns])
        return Sums(len(columns), rss_kib * 1024, vsz_kib * 1024)

    def go_on(self) -> None:
        """Changes as many rows as are due: neighbours, from a place on that moves about."""
        self._due += self._churn * len(self._rows)
        changes = min(int(self._due), len(self._rows))
        self._due -= changes
        self._state = _mixed(self._state, changes)
        first = self._state
        for place in range(first, first + changes):
            index = place % len(self._rows)
            self._rows[index] = self._changed(index, self._rows[index])

    def _changed(self, index: int, row: bytes) -> bytes:
        _p, pid, uid, vsz, rss, peak, _anon, _swap, name = row.split(b" ", 8)
        rss_kib, kind = int(rss), index % _KINDS
        if kind == _COMES_AND_GOES:
            self._next_pid += 1
            return _row(self._next_pid, int(uid), int(vsz), 1024 + self._state % 4096, 0, name)
        if kind == _LEAKS:
            rss_kib += _LEAK_KIB
        else:
            step = (self._state >> index % 16) % _STEP_KIB + 1
            rss_kib += step if self._state >> index & 1 else -step
        if not 0 < rss_kib < _MOST_RSS_KIB:
            rss_kib = 1024 + index
        return _row(int(pid), int(uid), int(vsz), rss_kib, int(peak), name)


@cache
def _first_rows(processes: int) -> Sequence[bytes]:
    return tuple(
        _row(
            _FIRST_PID + index,
            index % 3 * 1000,
            200_000 + 40 * index,
            4096 + 52 * index,
            0,
            _NAMES[index % len(_NAMES)],
        )
        for index in range(processes)
    )


def _ps_line(row: bytes) -> bytes:
    _p, pid, _uid, vsz, rss, _peak, _anon, _swap, name = row.split(b" ", 8)
    return b"%7b %5b %6b %4.1f %b\n" % (pid, rss, vsz, int(rss) / _MEM_TOTAL_KIB * 100, name)


def _row(pid: int, uid: int, vsz_kib: int, rss_kib: int, peak_kib: int, name: bytes) -> bytes:
    peak_kib = max(peak_kib, rss_kib)
    return b"P %d %d %d %d %d %d 0 %b" % (pid, uid, max(vsz_kib, rss_kib), rss_kib, peak_kib, rss_kib * 3 // 4, name)


def _mixed(state: int, number: int) -> int:
    """Returns 64 bits that look random: splitmix64's mixing step, by Steele, Lea and Flood (2014)."""
    mask = (1 << 64) - 1
    mixed = (state * 0x9E3779B97F4A7C15 + number + 1) * 0xBF58476D1CE4E5B9 & mask
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & mask
    return mixed ^ mixed >> 31
