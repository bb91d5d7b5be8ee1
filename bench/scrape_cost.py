"""What a scrape by Prometheus costs: how long it takes, and how late the event loop gets while one is answered.

    .venv/bin/python bench/scrape_cost.py

The client is a process of its own. The event loop does nothing but look how late it is, every millisecond; where the
machine's other work makes it late, the row without scrapes shows that.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from statistics import median

import uvloop
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fleetmem.model import Detail, Host, HostMemory, ProcessMemory, Sample, Shaped
from fleetmem.sinks.pages.metrics_page import PrometheusSink

_PROCESSES_PER_HOST = 150
_SCRAPES = 10
_TICK_SECONDS = 0.001

_CLIENT = """
import sys, time, urllib.request
for _ in range(int(sys.argv[2])):
    begun = time.perf_counter()
    request = urllib.request.Request(sys.argv[1], headers={"Accept-Encoding": sys.argv[3]})
    size = len(urllib.request.urlopen(request).read())
    print(time.perf_counter() - begun, size)
"""


def samples(processes: int) -> Iterator[Sample]:
    """Yields hosts with so many processes in all."""
    for number in range(processes // _PROCESSES_PER_HOST):
        rows = tuple(
            ProcessMemory(pid * 31, 0, f"command{pid % 40}", pid * 4096, pid * 90_000, 0.5, None, None, None)
            for pid in range(1, _PROCESSES_PER_HOST + 1)
        )
        memory = HostMemory(2**33, 2**32, 2**30, 2**30, 0, "boot")
        shaped = Shaped(memory, len(rows), frozenset([Detail.PROCESS]), rows, (), None, None, {})
        host = Host(f"web{number:04}.example.com", f"10.0.{number // 250}.{number % 250}")
        yield Sample(host, 1_700_000_000.0, 0.05, 15_000, shaped, slot_unix_seconds=1_700_000_000.0)


class _Plain(Collector):
    """The same processes by prometheus_client alone, for comparison."""

    def __init__(self, processes: int) -> None:
        self._samples = list(samples(processes))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yields the families of processes."""
        for measure in ("rss_bytes", "vsz_bytes", "mem_percent"):
            family = GaugeMetricFamily(f"fleetmem_process_{measure}", "x", labels=["host", "command", "pid"])
            for sample in self._samples:
                for row in sample.shaped.processes:
                    family.add_metric([sample.host.name, row.command, str(row.pid)], getattr(row, measure))
            yield family


async def delays_ms(stop: asyncio.Event) -> list[float]:
    """Returns how late the event loop was, each time."""
    late = []
    while not stop.is_set():
        due = time.perf_counter() + _TICK_SECONDS
        await asyncio.sleep(_TICK_SECONDS)
        late.append((time.perf_counter() - due) * 1000)
    return late


def _report(name: str, late_ms: list[float], seconds: str) -> None:
    late_ms.sort()
    p50, p99 = median(late_ms), late_ms[int(len(late_ms) * 0.99)]
    print(f"  {name:<28} {seconds:<34} loop late: median {p50:.2f} ms, p99 {p99:.2f} ms, most {late_ms[-1]:.2f} ms")


async def _watch_scrapes(sink: PrometheusSink, encoding: str) -> None:
    stop = asyncio.Event()
    ticking = asyncio.create_task(delays_ms(stop))
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CLIENT, sink.address, str(_SCRAPES), encoding, stdout=subprocess.PIPE
    )
    output, _ = await client.communicate()
    stop.set()
    lines = [line.split() for line in output.splitlines()]
    middle = median(float(line[0]) for line in lines)
    _report(f"scrapes, {encoding}", await ticking, f"{middle * 1000:6.1f} ms, {int(lines[0][1]):>9} bytes")


async def _watch_thread(name: str, processes: int) -> None:
    registry = CollectorRegistry()
    registry.register(_Plain(processes))
    stop = asyncio.Event()
    ticking = asyncio.create_task(delays_ms(stop))
    begun = time.perf_counter()
    for _ in range(3):
        await asyncio.to_thread(partial(generate_latest, registry))
    seconds = (time.perf_counter() - begun) / 3
    stop.set()
    _report(name, await ticking, f"{seconds * 1000:6.1f} ms, not sent")


async def measure(processes: int) -> None:
    """Prints the cost for a fleet with so many processes."""
    sink = PrometheusSink("127.0.0.1", 0, "fleetmem")
    sink.listen()
    for sample in samples(processes):
        sink.put(sample)
    print(f"{processes} processes, {sink.stats().series} series")
    running = asyncio.create_task(sink.run())
    stop = asyncio.Event()
    ticking = asyncio.create_task(delays_ms(stop))
    await asyncio.sleep(1)
    stop.set()
    _report("no scrape", await ticking, "")
    await _watch_scrapes(sink, "identity")
    await _watch_scrapes(sink, "gzip")
    running.cancel()
    await sink.close()
    await _watch_thread("prometheus_client alone", processes)


if __name__ == "__main__":
    for count in (7_500, 25_000, 75_000):
        uvloop.run(measure(count))
