"""`make bench-peers`: fleetmem beside what people use instead, cold and warm, in one run.

    program ──SSH──> delay_proxy.py ──> hosts of measured_fleet.py     or  ──SSH──> simulated_hosts.py
    measured_client.py  bytes           CPU

The programs are in peer_programs.py, what is measured in peer_figures.py. Every program has each size in turn. A cold
cycle is a command from its start until it and what it left behind have ended, with no host key known. A warm cycle is
the difference of two runs, one with a few cycles more than the other, divided by the cycles. A run in which a host is
missing is no figure. With `--simulated` there may be thousands of hosts, and clients alone are measured, those that
write JSON lines. Exit status 1 when fleetmem takes as much CPU as a peer or more, here or on the hosts.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from itertools import groupby, product
from math import nan
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from compiled import compile_fleetmem
from delay_proxy import DelayProxy
from measured_client import Job, measure
from measured_fleet import MeasuredFleet
from peer_figures import Cost, Figure, Size, comparisons, is_ahead_everywhere, markdown, missing
from peer_programs import PROGRAMS, Gathered, Program, Task
from report import surroundings
from simulated_hosts import SimulatedHosts, Way

_ROWS_PER_SECOND = 25_000
_SIMULATED_ROWS_PER_SECOND = 100_000
_LEAST_INTERVAL_SECONDS = 0.1
"""What `run` is given to do, by its interval: the others have no pause between cycles, so it has none that it can do
without, where hosts, client and proxy share the cores of one machine; simulated hosts take less of them."""

_HOSTS_FOR_ALL_CYCLES = 50
_ERRORS_SHOWN = 200


class Failed(Exception):  # noqa: N818 - an outcome that is told, not a fault of the program
    """A program did not do what it was to do; says what."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run took, with all of its cycles; the wall time of each command."""

    walls_seconds: list[float]
    client_cpu_seconds: float
    host_cpu_seconds: float
    memory_bytes: int
    wire_bytes: float
    gathered: Gathered


class Place(NamedTuple):
    """Where programs run."""

    fleet: MeasuredFleet | SimulatedHosts
    proxy: DelayProxy | Way
    size: Size
    limit_seconds: float

    @property
    def interval_seconds(self) -> float:
        """What `run` is given."""
        rate = _SIMULATED_ROWS_PER_SECOND if isinstance(self.fleet, SimulatedHosts) else _ROWS_PER_SECOND
        return max(_LEAST_INTERVAL_SECONDS, self.size.hosts * self.size.processes / rate)

    def passed_bytes(self) -> float:
        """Returns what went over the wire so far, NaN where that is not known."""
        return self.proxy.passed().total_bytes if isinstance(self.proxy, DelayProxy) else nan


def measure_program(program: Program, place: Place) -> Figure:
    """Measures a program, cold and warm."""
    cold = warm = None
    try:
        single = run(program, place, 1)
        cold = _cold(single, place.size)
        few, more = cycles(program, place.size.hosts)
        fewer = single if few == 1 else run(program, place, few)
        warm = _warm(fewer, run(program, place, more), place.size)
    except Failed as failure:
        return Figure(program.name, place.size, cold, warm, str(failure))
    return Figure(program.name, place.size, cold, warm)


def cycles(program: Program, hosts: int) -> tuple[int, int]:
    """Returns the cycles of the two runs: fewer more ones where each has many hosts."""
    few, more = program.cycles
    return few, few + max(program.least_more_cycles, round((more - few) * min(1, _HOSTS_FOR_ALL_CYCLES / hosts)))


def _cold(single: Run, size: Size) -> Cost:
    return Cost(
        single.walls_seconds[0],
        single.client_cpu_seconds,
        single.host_cpu_seconds,
        single.memory_bytes,
        single.wire_bytes,
        single.gathered.rows / size.hosts,
    )


def _warm(few: Run, more: Run, size: Size) -> Cost:
    """Returns the cost of a cycle: what the run with more cycles took on top, divided."""
    samples = more.gathered.samples - few.gathered.samples
    if samples < size.hosts:
        raise Failed(f"{samples} samples more of {size.hosts} hosts")
    count = samples / size.hosts
    return Cost(
        _warm_wall_seconds(few, more, size.hosts),
        (more.client_cpu_seconds - few.client_cpu_seconds) / count,
        (more.host_cpu_seconds - few.host_cpu_seconds) / count,
        more.memory_bytes,
        (more.wire_bytes - few.wire_bytes) / count,
        (more.gathered.rows - few.gathered.rows) / samples,
    )


def _warm_wall_seconds(few: Run, more: Run, hosts: int) -> float:
    """Returns that of a cycle; of fleetmem, which spreads its hosts over the interval, the slowest answer in it."""
    if len(more.walls_seconds) > 1:  # a command for each cycle
        return median(more.walls_seconds[1:])
    answers = more.gathered.answers_seconds
    if answers:
        starts = range(2 * hosts, len(answers) - hosts + 1, hosts)  # the first two cycles have logins beside them
        return median(max(answers[start : start + hosts]) for start in starts)
    return (more.walls_seconds[0] - few.walls_seconds[0]) / (more.gathered.samples - few.gathered.samples) * hosts


def run(program: Program, place: Place, count: int) -> Run:
    """Runs a program once, for so many cycles.

    Raises:
        Failed: it took too long, failed, or did not sample every host.
    """
    fleet, size = place.fleet, place.size
    with tempfile.TemporaryDirectory(prefix="fm-") as folder:  # short: sockets are in it
        where = (fleet.hosts, place.proxy.port, fleet.user, fleet.key, Path(folder))
        task = Task(*where, count, place.interval_seconds)
        errors = task.folder / "errors"
        commands, files = program.commands(task), (str(task.output), str(errors))
        stop_at_lines = program.stop_at_lines(task)
        job = Job(commands, program.environment(task), *files, place.limit_seconds, stop_at_lines)
        passed_before = place.passed_bytes()
        fleet.start()
        cost = measure(job)
        host_cpu_seconds = fleet.stop()
        wire_bytes = place.passed_bytes() - passed_before
        said = errors.read_text(encoding="utf-8", errors="replace").strip()[-_ERRORS_SHOWN:]
        if len(cost.statuses) < len(job.commands):
            raise Failed(f"not within {place.limit_seconds:g} s")
        if any(cost.statuses):
            raise Failed(f"exit status {max(cost.statuses)}: {said}")
        gathered = program.gathered(task)
    if gathered.samples < size.hosts * count:
        raise Failed(f"{gathered.samples} samples of {size.hosts} hosts in {count} cycles: {said}")
    return Run(cost.wall_seconds, cost.cpu_seconds, host_cpu_seconds, cost.memory_bytes, wire_bytes, gathered)


def middle(figures: list[Figure]) -> Figure:
    """Returns the medians of several measurements of one program at one size; of what failed, the first reason."""
    problem = next((figure.problem for figure in figures if figure.problem), "")
    cold, warm = (
        _middle_cost([cost for figure in figures if (cost := figure.part(part))]) for part in ("cold", "warm")
    )
    return Figure(figures[0].program, figures[0].size, cold, warm, problem)


def _middle_cost(costs: list[Cost]) -> Cost | None:
    fields = [asdict(cost) for cost in costs]
    return Cost(**{key: median(each[key] for each in fields) for key in fields[0]}) if fields else None


def measure_all(
    programs: list[Program],
    sizes: list[Size],
    repetitions: int,
    limit_seconds: float,
    make_fleet: type[MeasuredFleet] | type[SimulatedHosts] = MeasuredFleet,
) -> Iterator[Figure]:
    """Yields every program at every size; hosts stay as they are from one round trip to the next."""
    for (hosts, processes), group in groupby(sizes, key=lambda size: (size.hosts, size.processes)):
        with make_fleet(hosts, processes) as fleet:
            for size in group:
                with fleet.proxy(size.round_trip_ms) as proxy:
                    place = Place(fleet, proxy, size, limit_seconds)
                    with suppress(Failed):  # no figure: the first one to come finds all caches cold
                        run(programs[0], place, 1)
                    for program in programs:
                        say(f"{size}: {program.name}")
                        yield middle([measure_program(program, place) for _ in range(repetitions)])


def say(text: str) -> None:
    """Tells on stderr what is going on."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def default_sizes(*, is_quick: bool) -> list[Size]:
    """Returns 50 hosts with 150 processes and no delay, and what each of the three is varied to."""
    if is_quick:
        return [Size(20, 50, 0), Size(20, 150, 0), Size(20, 150, 20)]
    few = [Size(50, 150, 0), Size(50, 150, 20), Size(50, 150, 100), Size(50, 50, 0), Size(50, 1000, 0)]
    return [Size(10, 150, 0), *few, Size(500, 150, 0)]


def installed(programs: Iterable[Program]) -> tuple[dict[str, str], list[str]]:
    """Returns the versions of those that are installed, and what is to be said of the others."""
    versions, problems = {}, []
    for program in programs:
        try:
            versions[program.name] = program.version()
        except (OSError, PackageNotFoundError) as error:
            problems.append(f"{program.name} is not installed, and so not measured: {error}")
    return versions, problems


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(program.name for program in PROGRAMS)
    parser.add_argument("--peers", metavar="NAMES", help=f"only those that begin like these, comma-separated: {names}")
    parser.add_argument("--hosts", type=_numbers, metavar="N,N")
    parser.add_argument("--processes", type=_numbers, metavar="N,N")
    parser.add_argument("--round-trips-ms", type=_numbers, metavar="N,N")
    parser.add_argument("--repetitions", type=int, default=1, help="of which the medians are shown")
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="for one run of a program")
    parser.add_argument("--simulated", action="store_true", help="hosts of `fleetmem lab simulate`")
    parser.add_argument("--quick", action="store_true", help="20 hosts: for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, for plots.py")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="measure nothing: the table of such a file, or of some sizes"
    )
    return parser.parse_args()


def _sizes(given: argparse.Namespace) -> list[Size]:
    if not (given.hosts or given.processes or given.round_trips_ms):
        return default_sizes(is_quick=given.quick)
    return [Size(*size) for size in product(given.hosts or [50], given.processes or [150], given.round_trips_ms or [0])]


def _chosen(figures: list[Figure], given: argparse.Namespace) -> list[Figure]:
    """Returns those of the sizes asked for; all where none is."""
    asked = (given.hosts, given.processes, given.round_trips_ms)
    return [
        figure
        for figure in figures
        if all(not values or value in values for values, value in zip(asked, figure.size, strict=True))
    ]


def save(path: Path, figures: list[Figure], notes: list[str]) -> None:
    """Writes figures and what they were measured with."""
    document = {"figures": [asdict(figure) for figure in figures], "notes": notes}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def load(path: Path) -> list[Figure]:
    """Reads figures back."""
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    return [_figure(figure) for figure in figures]


def _figure(values: dict[str, Any]) -> Figure:
    cold, warm = (Cost(**values[part]) if values[part] else None for part in ("cold", "warm"))
    return Figure(values["program"], Size(*values["size"]), cold, warm, values["problem"])


def print_report(figures: list[Figure], notes: list[str]) -> None:
    """Prints the table, what is missing, where fleetmem is behind, and the notes."""
    print(markdown(figures))
    behind = [comparison for comparison in comparisons(figures) if not comparison.is_ahead]
    print(f"\nfleetmem is behind {len(behind)} times in {len(comparisons(figures))} comparisons")
    for text in [*(f"behind: {comparison}" for comparison in behind), *missing(figures), *notes]:
        print(text)


def main() -> int:
    """Measures, prints, and returns the exit status."""
    given = _arguments()
    if given.markdown:
        print(markdown(_chosen(load(given.markdown), given)))
        return 0
    chosen = [
        program
        for program in PROGRAMS
        if program.name == "fleetmem" or not given.peers or program.name.startswith(tuple(given.peers.split(",")))
    ]
    if given.simulated:  # they have no pid 1, by which text is counted
        chosen = [program for program in chosen if program.writes_json]
    versions, notes = installed(chosen)
    chosen = [program for program in chosen if program.name in versions]
    again = f"again: python bench/peers.py {' '.join(sys.argv[1:])}"
    notes += [", ".join(dict.fromkeys(versions.values())), surroundings(), again]
    compile_fleetmem()
    figures: list[Figure] = []
    make_fleet = SimulatedHosts if given.simulated else MeasuredFleet
    for figure in measure_all(chosen, _sizes(given), given.repetitions, given.limit, make_fleet):
        figures.append(figure)
        if given.json:
            save(given.json, figures, notes)
    print_report(figures, notes)
    return 0 if is_ahead_everywhere(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
