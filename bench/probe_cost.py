"""What a sample costs a host with protocol 1 and with protocol 2: both scripts, over the same processes, in turn.

The processes are shells that wait. Before each sample some of them end, as many new ones start, and some others grow.
CPU is the kernel's own sum in ns of all that runs for a probe, taken while all of it waits. The answer is the median of
the ratios of samples that follow each other, so that what else the machine does is in both.
"""

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path

from fleetmem.probe.script import _compact
from subreaper import NAMESPACE, can_have_own_pids

_SHARE_NEW = 0.01
_SHARE_GROWN = 0.1
_GROWS = "while read -r text; do kept=$kept$text; done"
_TEXT = b"x" * 8000 + b"\n"
_ENDS = re.compile(rb"^(END|AGAIN) .*\n\Z", re.MULTILINE)


class _Fleet:
    """Processes that wait."""

    def __init__(self, count: int) -> None:
        self._waiting = [self._start() for _ in range(count)]
        self._place = 0

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", _GROWS], stdin=subprocess.PIPE, bufsize=0)

    def change(self) -> None:
        """Ends some, starts as many, and lets others grow."""
        count = len(self._waiting)
        for _ in range(round(count * _SHARE_NEW)):
            self._end(self._waiting.pop(0))
            self._waiting.append(self._start())
        for _ in range(round(count * _SHARE_GROWN)):
            self._place = (self._place + 1) % count
            stdin = self._waiting[self._place].stdin
            assert stdin
            stdin.write(_TEXT)
        time.sleep(0.02)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        process.stdin.close()
        process.wait()

    def end(self) -> None:
        """Ends all of them."""
        for process in self._waiting:
            self._end(process)


class _Probe:
    """A probe that runs."""

    def __init__(self, protocol: int, shell: list[str], tools: Path) -> None:
        self._protocol = protocol
        self._id = 0
        name = "probe.sh" if protocol == 1 else "probe2.sh"
        self._process = subprocess.Popen(
            [*shell, "-c", _compact(files("fleetmem.probe").joinpath(name).read_text(encoding="utf-8"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": f"{tools}:{os.environ['PATH']}"},
            bufsize=0,
        )

    def sample_cpu_ms(self) -> float:
        """Returns the CPU of one sample."""
        before = self._cpu_ms()
        while not self._ask().startswith(b"END"):
            before = self._cpu_ms()
        return self._cpu_ms() - before

    def _ask(self) -> bytes:
        assert self._process.stdin
        assert self._process.stdout
        base = f" {self._id}" if self._protocol != 1 else ""
        self._id += 1
        self._process.stdin.write(f"sample {self._id} status user{base}\n".encode())
        answer = b""
        while not (found := _ENDS.search(answer)):
            answer += self._process.stdout.read(1 << 16)
        return found[0]

    def _cpu_ms(self) -> float:
        pids = [self._process.pid]
        for pid in pids:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())
        while any(_field(pid, "stat", 2) != "S" for pid in pids):
            time.sleep(0.002)
        return sum(int(_field(pid, "schedstat", 0)) for pid in pids) / 1e6

    def rss_kib(self) -> int:
        """Returns the memory of its awk."""
        pids = [self._process.pid]
        for pid in pids:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pids[-1]}/status").read_text(encoding="ascii"))[0])

    def end(self) -> None:
        """Ends it with its input."""
        self._process.communicate()


def _field(pid: int, name: str, place: int) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(encoding="ascii").replace("busybox sh", "sh").split()[place]


@contextmanager
def _both(shell: list[str], awk: str) -> Iterator[list[_Probe]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder, "awk").symlink_to(shutil.which(awk) or awk)
        probes = [_Probe(protocol, shell, Path(folder)) for protocol in (1, 2)]
        for probe in probes:
            stack.callback(probe.end)
        yield probes


def measure(count: int, awk: str, samples: int) -> tuple[float, float, float]:
    """Returns the CPU in ms of a sample with protocol 1 and with protocol 2, and the median of the ratios."""
    shell = ["busybox", "sh"] if awk == "busybox" else ["sh"]
    fleet = _Fleet(count)
    try:
        with _both(shell, awk) as probes:
            taken = [_turn(fleet, probes, number) for number in range(samples + 2)][2:]
            memory = " ".join(str(probe.rss_kib()) for probe in probes)
    finally:
        fleet.end()
    ratio = statistics.median(second / first for first, second in taken)
    print(
        f"{count:5} {awk:8} {statistics.median(first for first, _ in taken):7.2f} ms"
        f" {statistics.median(second for _, second in taken):7.2f} ms  {ratio:5.3f}  awk {memory} KiB",
        flush=True,
    )
    return taken[0][0], taken[0][1], ratio


def _turn(fleet: _Fleet, probes: list[_Probe], number: int) -> tuple[float, float]:
    fleet.change()
    order = probes if number % 2 else probes[::-1]
    taken = [probe.sample_cpu_ms() for probe in order]
    return (taken[0], taken[1]) if number % 2 else (taken[1], taken[0])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[150, 1000])
    parser.add_argument("--awk", nargs="+", default=["mawk", "gawk", "busybox"])
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside and can_have_own_pids():
        os.execvp(NAMESPACE[0], [*NAMESPACE, sys.executable, *sys.argv, "--inside"])  # noqa: S606 - itself again
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print("count awk      protocol 1 protocol 2  ratio")
    for count in given.processes:
        for awk in given.awk:
            if shutil.which(awk):
                measure(count, awk, given.samples)


if __name__ == "__main__":
    main()
