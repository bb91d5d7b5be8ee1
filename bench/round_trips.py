"""`make bench-round-trips`: a cold `fleetmem collect` of 50 hosts that are 50 ms away, and how much of it is distance.

    counted     round trips of a connection up to the first frame, by a proxy (delay_proxy.py), one host after the other
    wall        of the command, from its start to its end, against the least that SSH needs: LEAST round trips
    distance    wall at 50 and at 200 ms less the same at 0 ms: what is left of it on a client and hosts fast enough

The hosts are one sshd on this machine (measured_host.py) behind the proxy, so that the processors of 50 hosts are those
of the client: most of the wall time is theirs. The bound is on the wall time all the same; the other lines say what
it consists of. Without a sink, whose pace is a matter of its own (decision 0004). The baseline has the same proxy.
Exit status 1 when a bound is missed.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from compare import Cost, Line, print_table, run, say
from compiled import compile_fleetmem
from datagram_counter import DatagramCounter
from delay_proxy import DelayProxy
from measured_host import MeasuredHost
from report import surroundings

LEAST = 5
"""TCP; versions; key exchange; service, login and channel; command and frame (decision 0009)."""

MOST = 1.5

_HERE = Path(__file__).parent
_HOSTS = [f"127.0.1.{number}" for number in range(1, 51)]
_IDLE_PROCESSES = 80  # and five for each connection, of which not all are there at once
_NEAR_MS, _FAR_MS = 50, 200
_REPETITIONS = 5
_PATIENCE = ("--connect-timeout", "60", "--command-timeout", "60")  # one machine's processors are those of all hosts


class Commands:
    """Runs both sides.

    Args:
        folder: for what is written.
        host: is all hosts.
        statsd_port: where the baseline sends to.
    """

    def __init__(self, folder: Path, host: MeasuredHost, statsd_port: int) -> None:
        self._folder = folder
        self._host = host
        self._statsd_port = statsd_port
        home = folder / "home"
        home.mkdir()
        self._environment = {**os.environ, "HOME": str(home)}

    def fleetmem(self, port: int, hosts: list[str], *options: str, command: Sequence[str] = ("collect",)) -> Cost:
        """Runs a command of fleetmem that knows no host key from the time before."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        environment = {**self._environment, "FLEETMEM_SSH__KNOWN_HOSTS": str(folder / "known_hosts")}
        words = [sys.executable, "-m", "fleetmem", *command, "-i", ",".join(hosts), "-p", str(port)]
        return run([*words, "-u", self._host.user, "-k", str(self._host.key), *options], environment)

    def collect(self, port: int) -> Cost:
        """Collects once from all hosts."""
        return self.fleetmem(port, _HOSTS, "-o", os.devnull, *_PATIENCE)

    def baseline(self, port: int, hosts: list[str]) -> Cost:
        """Runs the baseline once."""
        command = [sys.executable, str(_HERE / "baseline.py"), "--hosts", ",".join(hosts), "--user", self._host.user]
        command += ["--key", str(self._host.key), "--port", str(port), "--statsd", f"127.0.0.1:{self._statsd_port}"]
        return run(command, self._environment)


def counted(commands: Commands, target: int) -> list[Line]:
    """Counts the round trips of one connection after the other, which no other work delays."""
    with DelayProxy([target], _FAR_MS) as proxy:  # so far that each answer is there before something else arrives
        commands.fleetmem(proxy.port, _HOSTS[:3], "-s", "-o", os.devnull, *_PATIENCE)
        ours = [float(count) for count in proxy.passed().round_trips]
        commands.baseline(proxy.port, _HOSTS[:1])
        theirs = [float(proxy.passed().round_trips[-1])]
    return [
        Line("round trips, first host", ours[:1], [LEAST], "the least", most_ratio=MOST),
        Line("round trips, further hosts", ours[1:], [LEAST] * 2, "the least", most_ratio=MOST),
        Line("round trips, further hosts", ours[1:2], theirs, "paramiko"),
    ]


def timed(commands: Commands, target: int) -> list[Line]:
    """Times cold runs, near and far in turn."""
    starts, ours, near, far = _Runs(), _Runs(), _Runs(), _Runs()
    their_here, theirs = _Runs(), _Runs()
    with DelayProxy([target], 0) as here, DelayProxy([target], _NEAR_MS) as there, DelayProxy([target], _FAR_MS) as off:
        for repetition in range(_REPETITIONS):
            say(f"{len(_HOSTS)} cold hosts, {repetition + 1} of {_REPETITIONS}")
            starts.add(commands.fleetmem(here.port, _HOSTS, command=("config", "check")))
            ours.add(commands.collect(here.port))
            near.add(commands.collect(there.port))
            theirs.add(commands.baseline(there.port, _HOSTS))
            their_here.add(commands.baseline(here.port, _HOSTS))
            far.add(commands.collect(off.port))
    what = f"{len(_HOSTS)} cold hosts, {_NEAR_MS} ms"
    return [
        Line(f"{what}, wall, s", near.walls(), _least(_NEAR_MS), f"{LEAST} round trips", most_ratio=MOST),
        Line(f"{what}, wall, s", near.walls(), theirs.walls(), "paramiko, Pool, ps aux"),
        Line(f"{what}, client CPU, s", near.cpus(), theirs.cpus(), "paramiko, Pool, ps aux"),
        Line("  of it the program's start, s", starts.walls(), [], ""),
        Line("  the same at 0 ms, wall, s", ours.walls(), [], ""),
        Line("  the difference, s", near.longer_than(ours), _least(_NEAR_MS), f"{LEAST} round trips"),
        Line("  the baseline's, s", theirs.longer_than(their_here), _least(_NEAR_MS), f"{LEAST} round trips"),
        Line(f"  likewise at {_FAR_MS} ms, s", far.longer_than(ours), _least(_FAR_MS), f"{LEAST} round trips"),
    ]


class _Runs:
    """What one command cost, time and again."""

    def __init__(self) -> None:
        self._costs: list[Cost] = []

    def add(self, cost: Cost) -> None:
        """Takes one more."""
        self._costs.append(cost)

    def walls(self) -> list[float]:
        """Returns their wall times in seconds."""
        return [cost.wall_seconds for cost in self._costs]

    def cpus(self) -> list[float]:
        """Returns their CPU in seconds."""
        return [cost.cpu_seconds for cost in self._costs]

    def longer_than(self, others: "_Runs") -> list[float]:
        """Returns by how many seconds of wall time each was longer than the median of others."""
        return [wall - median(others.walls()) for wall in self.walls()]


def _least(round_trip_ms: float) -> list[float]:
    return [LEAST * round_trip_ms / 1000] * _REPETITIONS


def main() -> int:
    """Measures, prints, and returns the exit status."""
    compile_fleetmem()
    measurements: list[Callable[[Commands, int], list[Line]]] = [counted, timed]
    with tempfile.TemporaryDirectory(prefix="fleetmem-bench-") as folder:
        (Path(folder) / "host").mkdir()
        counter = DatagramCounter()
        with MeasuredHost(Path(folder) / "host", _IDLE_PROCESSES) as host:
            host.start()
            commands = Commands(Path(folder), host, counter.port)
            lines = [line for measure in measurements for line in measure(commands, host.port)]
            host.stop()
        counter.close()
    print_table(lines)
    print(f"\n{surroundings()}\nagain: make bench-round-trips, or python bench/round_trips.py")
    return 0 if all(line.is_ok for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
