"""`fleetmem lab check`: whether what fleetmem sends arrives in Graphite, for the lab and for any other place."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fleetmem import config
from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.messages import report
from fleetmem.cli.options import ask_passphrase
from fleetmem.daemon import Daemon
from fleetmem.errors import LabError
from fleetmem.lab.readback import RecordingTransport, Verdict, record, verify
from fleetmem.lab.render import GraphiteRender
from fleetmem.model import Failure, Outcome, Sample
from fleetmem.runtime.event_loop import raise_file_limit, run_async
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.wiring.fleet import FleetParts, build_fleet

_MISMATCHES_SHOWN = 5
_FLUSH_SLACK_SECONDS = 10.0
_POLL_SECONDS = 2.0


def check(
    config_file: Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="fleetmem's configuration.")],
    url: Annotated[str, typer.Option("--graphite-url", metavar="URL", help="Address of graphite-web.")],
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", help="Graphite's certificate, if it is self-signed."),
    ] = None,
    cycles: Annotated[
        int, typer.Option("--cycles", min=1, max=1000, metavar="NUMBER", help="Samples of each host.")
    ] = 3,
    wait_seconds: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="Wait this long for Graphite to answer.")
    ] = 60,
) -> None:
    """Sample a fleet for some cycles and check that Graphite has every series that was sent.

    Exit status: 0 every host answered and Graphite has every series with its last value, 1 otherwise.

    Example:
      fleetmem lab check -c ~/.cache/fleetmem/lab/fleetmem.toml --graphite-url http://127.0.0.1:8080
    """
    set_up(Verbosity.WARNINGS, LogFormat.TEXT)
    fleet = build_fleet(config.load(config_file, {}), ask_passphrase)
    raise_file_limit(len(fleet.hosts), fleet.files)
    transport = record(fleet)
    graphite = GraphiteRender(url, certificate)
    try:
        _wait_for(graphite, wait_seconds)
        problems = [*_collect(config_file), *_run(fleet, cycles)]
        verdict = _read_back(fleet, transport, graphite)
    except LabError as error:
        print(f"fleetmem lab check: {error}", file=sys.stderr)
        raise typer.Exit(ExitStatus.FAILED) from error
    print_verdict(verdict, transport.datagrams_total)
    for problem in problems:
        print(f"    {problem}")
    is_good = verdict.is_good and not problems
    print("PASSED" if is_good else "FAILED")
    if not is_good:
        raise typer.Exit(ExitStatus.FAILED)


def print_verdict(verdict: Verdict, datagrams: int) -> None:
    """Prints what became of the series sent, with examples of those that were not found."""
    report(f"{verdict} ({datagrams} datagrams)")
    for mismatch in verdict.mismatches[:_MISMATCHES_SHOWN]:
        found = "nothing" if mismatch.found is None else f"{mismatch.found:g}"
        print(f"    {mismatch.name}: sent {mismatch.sent}, found {found}")


def _wait_for(graphite: GraphiteRender, seconds: float) -> None:
    report(f"waiting for Graphite at {graphite.url}, up to {seconds:g} s")
    deadline = time.monotonic() + seconds
    while not graphite.is_ready():
        if time.monotonic() > deadline:
            graphite.fetch(["fleetmem"], time.time())  # raises, and says why
            return
        time.sleep(_POLL_SECONDS)


def _collect(config_file: Path) -> list[str]:
    """Runs `fleetmem collect` as a person does; returns what is wrong."""
    report("fleetmem collect")
    command = [sys.executable, "-P", "-m", "fleetmem", "collect", "-c", str(config_file)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=os.environ, check=False)
    return [f"fleetmem collect ended with status {done.returncode}"] if done.returncode else []


def _run(fleet: FleetParts, cycles: int) -> list[str]:
    """Runs the daemon of `fleetmem run` until each host was sampled as many times; returns what is wrong."""
    interval = fleet.settings.run.interval_seconds
    report(f"fleetmem run, {cycles} cycles of {len(fleet.hosts)} hosts, {interval:g} s each")
    watch = _Cycles(len(fleet.hosts), cycles)
    daemon = Daemon(fleet, lambda: fleet.settings, watch.add)
    watch.on_end = daemon.stop
    run_async(_until_ended(daemon, (cycles + 1) * interval))
    return watch.problems()


async def _until_ended(daemon: Daemon, seconds: float) -> None:
    asyncio.get_running_loop().call_later(seconds, daemon.stop)  # a host that hangs must not hold it up for ever
    await daemon.run()


class _Cycles:
    """Counts the outcomes of each host, and says when all have had enough."""

    def __init__(self, hosts: int, cycles: int) -> None:
        self.on_end: Callable[[], None] = lambda: None
        self._hosts = hosts
        self._cycles = cycles
        self._outcomes: Counter[str] = Counter()
        self._samples: Counter[str] = Counter()
        self._failures: dict[str, Failure] = {}

    def add(self, outcome: Outcome) -> None:
        """Takes the outcome of a host."""
        name = outcome.host.name
        self._outcomes[name] += 1
        if isinstance(outcome, Sample):
            self._samples[name] += 1
        else:
            self._failures[name] = outcome
        is_last = self._outcomes[name] == self._cycles
        if is_last and sum(count >= self._cycles for count in self._outcomes.values()) == self._hosts:
            self.on_end()

    def problems(self) -> list[str]:
        """Returns a line for each host that did not answer as often as it was asked."""
        failed = [f"{name}: {failure.kind}: {failure.message}" for name, failure in self._failures.items()]
        slow = [
            f"{name}: only {count} of {self._cycles} cycles"
            for name, count in self._samples.items()
            if count < self._cycles and name not in self._failures
        ]
        silent = self._hosts - len(self._outcomes)
        return [*failed, *slow, *([f"{silent} hosts gave no outcome at all"] if silent else [])]


def _read_back(fleet: FleetParts, transport: RecordingTransport, graphite: GraphiteRender) -> Verdict:
    interval = fleet.settings.run.interval_seconds
    report("waiting for StatsD's next flush, then reading every series back from Graphite")
    ahead_seconds = graphite.clock_ahead_seconds()
    if ahead_seconds:
        report(f"note: Graphite's clock is {ahead_seconds:+.0f} s from this one")
    return verify(transport.sent, graphite.fetch, 2 * interval + _FLUSH_SLACK_SECONDS, ahead_seconds)
