"""What the main process does for its sinks: CPU of one outcome for each, and memory of a host for the Prometheus page.

    python bench/sink_costs.py                 half a minute; 150 processes, 10 % of the rows change
    python bench/sink_costs.py --processes 1000

CPU of this process (time.process_time), the median over many outcomes. `fleetmem plan` counts with these figures.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

from fleetmem.lab.simulated_host import SimulatedHost, SimulationPlan
from fleetmem.model import Host, Sample
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import ProbeKind
from fleetmem.shape.limits import Limits
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.formats import carbon_plain, statsd_plain, with_time
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.pages.exposition import Exposition, HostState
from fleetmem.sinks.records import csv_rows, outcome_line
from fleetmem.sinks.series import Retire, SeriesEncoding

_OUTCOMES = 200
_CHURN = 0.1
_HOSTS = 50


def outcomes(processes: int, number: int, name: str = "web0001") -> Iterator[Sample]:
    """Yields so many samples of one simulated host, one after the other."""
    host = Host(name, "10.0.0.1")
    simulated = SimulatedHost(SimulationPlan(1, processes, _CHURN, 1, {}), 0)
    parser, shaper = SnapshotParser(ProbeKind.STATUS), Shaper(host, Limits())
    for request_id in range(number):
        shaped = shaper.shape(parser.parse(simulated.frame(request_id)), float(request_id))
        yield Sample(host, float(request_id), 0.01, 5000, shaped, slot_unix_seconds=float(request_id))


def costs_ms(processes: int) -> dict[str, float]:
    """Returns the CPU of an outcome in ms, by sink."""
    names = FleetNames("fleetmem", ["web0001"])
    host = Host("web0001", "10.0.0.1")
    statsd, graphite = (
        SeriesEncoding(format_, Retire.NONE, with_time).host(names, host) for format_ in (statsd_plain, carbon_plain)
    )
    page = Exposition("fleetmem")
    sinks: dict[str, Callable[[Sample], object]] = {
        "statsd": lambda sample: statsd.update(sample).text,
        "graphite": lambda sample: with_time(graphite.update(sample).text, 1_700_000_000),
        "jsonl": outcome_line,
        "csv": csv_rows,
        "prometheus": lambda sample: page.host(host, HostState().after(sample)),
    }
    found: dict[str, float] = {}
    for name, write in sinks.items():
        laps = [_cpu_ms(partial(write, sample)) for sample in outcomes(processes, _OUTCOMES)]
        found[name] = median(laps[1:])
    return found


def _cpu_ms(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1000


def page_bytes(processes: int) -> float:
    """Returns what a host takes in memory so that the page can show its last sample."""
    tracemalloc.start()
    before, _peak = tracemalloc.get_traced_memory()
    kept = []
    for number in range(_HOSTS):
        *_first, sample = outcomes(processes, 2, f"web{number:04}")
        Exposition("fleetmem").host(sample.host, HostState().after(sample))
        kept.append(HostState().after(sample))
    after, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(kept)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=150)
    processes = parser.parse_args().processes
    for name, cost_ms in costs_ms(processes).items():
        print(f"{name:<12}{cost_ms:8.3f} ms an outcome, {cost_ms * 1000 / processes:6.2f} us a process")
    print(f"{'prometheus':<12}{page_bytes(processes) / processes:8.0f} bytes of memory a process")


if __name__ == "__main__":
    main()
