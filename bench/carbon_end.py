"""Where carbon ends: how many series fill a real carbon's cache, beside what the arithmetic says.

Carbon writes so many series a second, each with all of its points that wait. The more series there are, the longer
each waits, and the more points are in the cache: see docs/explanation/where-carbon-ends.md. This starts a carbon-cache
for each number of series, scaled down so that its disk and its CPU are idle, and asks it how many points wait.

    python bench/carbon_end.py                       3 minutes: 20 updates a second, a cache of 20,000 points
    python bench/carbon_end.py --arrival burst       all points of a step at once, as behind a StatsD
"""

import argparse
import pickle
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen
from typing import NamedTuple

from fleetmem.capacity.carbon import Arrival, CarbonLimits, points_waiting, series_that_fit
from fleetmem.lab.directory import Directory
from fleetmem.lab.graphite import GraphiteServers, StorageRules

_CARBON = """\
[cache]
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = {updates}
MAX_CACHE_SIZE = {cache}
USE_FLOW_CONTROL = True
CACHE_WRITE_STRATEGY = sorted
CARBON_METRIC_INTERVAL = 0
ENABLE_TAGS = False
LOG_CREATES = False
LOG_UPDATES = False
LOG_CACHE_HITS = False
LOG_CACHE_QUEUE_SORTS = False
"""
_SCHEMAS = "[all]\npattern = .*\nretentions = {step}s:1h\n"
_AGGREGATION = "[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = max\n"
_FULL = "MetricCache is full"
_START_SECONDS = 20.0
_PASSES = 2.5
_LOOKS_PER_STEP = 4
_OFF = 0.1
_BUNCHES_PER_SECOND = 20


class Setting(NamedTuple):
    """What a carbon is tried with.

    Attributes:
        limits: its own.
        series: how many it gets points of.
        arrival: how the points of a step come.
    """

    limits: CarbonLimits
    series: int
    arrival: Arrival

    @property
    def seconds(self) -> float:
        """How long it is tried: the cache is at its highest after the first pass over all series."""
        return _PASSES * self.series / self.limits.updates_per_second + 2 * self.limits.step_seconds


class Result(NamedTuple):
    """What came of it.

    Attributes:
        setting: what was tried.
        highest_points: that waited at any moment.
        full_seconds: after the first point, when the cache was full; None where it never was.
    """

    setting: Setting
    highest_points: int
    full_seconds: float | None


class _Carbon:
    """A carbon-cache, and points sent to it."""

    def __init__(self, folder: Path, venv: Path, setting: Setting) -> None:
        directory = Directory(folder)
        directory.make()
        directory.venv = venv
        limits = setting.limits
        carbon = _CARBON.format(updates=limits.updates_per_second, cache=limits.cache_points)
        rules = StorageRules(carbon, _SCHEMAS.format(step=limits.step_seconds), _AGGREGATION)
        self._ports = [_free_port() for _ in range(4)]
        self._command = GraphiteServers(directory, rules, self._ports).carbon()
        self._log = folder / "carbon.log"
        self._setting = setting
        self._names = [f"bench.{number // 1000}.{number}" for number in range(setting.series)]
        self.result: Result | None = None

    def run(self) -> None:
        """Starts it, sends, looks, and ends it."""
        environment = {"PATH": "/usr/bin:/bin", **self._command.environment}
        with self._log.open("wb") as log, Popen(self._command.argv, env=environment, stdout=log, stderr=log) as process:
            try:
                with _connected(self._ports[0]) as lines, _connected(self._ports[2]) as queries:
                    self.result = self._try(lines, queries)
            finally:
                process.kill()

    def _try(self, lines: socket.socket, queries: socket.socket) -> Result:
        limits, begun, sent = self._setting.limits, time.monotonic(), 0
        looks = pause = 0.0
        highest, full_seconds = 0, None
        rate = self._setting.series / limits.step_seconds
        while (elapsed := time.monotonic() - begun) < self._setting.seconds and full_seconds is None:
            due = int(elapsed * rate) if self._setting.arrival is Arrival.SPREAD else self._due_in_bursts(elapsed)
            lines.sendall(b"".join(self._line(number) for number in range(sent, due)))
            sent = due
            if elapsed >= looks:
                highest = max(highest, self._waiting(queries))
                looks = elapsed + limits.step_seconds / _LOOKS_PER_STEP
                full_seconds = elapsed if _FULL in self._log.read_text(errors="replace") else None
            pause += 1 / _BUNCHES_PER_SECOND
            time.sleep(max(0.0, begun + pause - time.monotonic()))
        return Result(self._setting, highest, full_seconds)

    def _due_in_bursts(self, elapsed: float) -> int:
        return self._setting.series * (int(elapsed // self._setting.limits.step_seconds) + 1)

    def _line(self, number: int) -> bytes:
        step = int(time.time() // self._setting.limits.step_seconds) * self._setting.limits.step_seconds
        return b"%s 1 %d\n" % (self._names[number % len(self._names)].encode(), step)

    def _waiting(self, queries: socket.socket) -> int:
        question = pickle.dumps({"type": "cache-query-bulk", "metrics": self._names}, protocol=2)
        queries.sendall(struct.pack("!L", len(question)) + question)
        (size,) = struct.unpack("!L", _read(queries, 4))
        found = pickle.loads(_read(queries, size))["datapointsByMetric"]  # noqa: S301 - our own carbon's
        return sum(map(len, found.values()))


def _read(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionError("carbon has closed the connection")
        parts += part
    return bytes(parts)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _connected(port: int) -> socket.socket:
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def measure(settings: Sequence[Setting], venv: Path) -> list[Result]:
    """Returns what came of each, tried side by side.

    Args:
        settings: to try.
        venv: the virtual environment that has carbon.
    """
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carbon-"))) for _ in settings]
        carbons = [_Carbon(folder, venv, setting) for folder, setting in zip(folders, settings, strict=True)]
        threads = [threading.Thread(target=carbon.run) for carbon in carbons]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [carbon.result for carbon in carbons if carbon.result]


def is_as_computed(result: Result) -> bool:
    """Whether the cache was filled, or as full, as the arithmetic says: within a tenth."""
    setting = result.setting
    share = setting.series / series_that_fit(setting.limits, setting.arrival)
    if abs(share - 1) <= _OFF:
        return True  # too near to say
    if result.full_seconds is not None or share > 1:
        return result.full_seconds is not None and share > 1
    return abs(result.highest_points / points_waiting(setting.limits, setting.series, setting.arrival) - 1) <= _OFF


def main() -> None:
    """Measures, prints a table, and exits with 1 where the arithmetic is off by more than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20, help="MAX_UPDATES_PER_SECOND")
    parser.add_argument("--cache", type=int, default=20_000, help="MAX_CACHE_SIZE, in points")
    parser.add_argument("--step", type=int, default=1, help="seconds between two points of a series")
    parser.add_argument("--shares", default="0.6,0.85,0.95,1.05,1.15", help="of the series that fit, comma-separated")
    parser.add_argument("--arrival", type=Arrival, choices=list(Arrival), default=Arrival.SPREAD)
    parser.add_argument("--venv", type=Path, default=Path(".cache/tools/graphite-venv").absolute())
    given = parser.parse_args()
    limits = CarbonLimits(given.updates, given.cache, given.step)
    fit = series_that_fit(limits, given.arrival)
    settings = [Setting(limits, round(fit * float(share)), given.arrival) for share in given.shares.split(",")]
    print(f"{limits}: {fit:,.0f} series fit by the arithmetic, points arrive {given.arrival}")
    print(f"{'series':>8}{'of those that fit':>19}{'points, computed':>18}{'points, highest':>17}{'full after, s':>15}")
    results = measure(settings, given.venv)
    for result in results:
        computed = points_waiting(limits, result.setting.series, given.arrival)
        full = "-" if result.full_seconds is None else f"{result.full_seconds:.0f}"
        share = result.setting.series / fit
        print(f"{result.setting.series:>8,}{share:>19.2f}{computed:>18,.0f}{result.highest_points:>17,}{full:>15}")
    sys.exit(not all(map(is_as_computed, results)))


if __name__ == "__main__":
    main()
