"""`fleetmem lab`: hosts, StatsD and Graphite on this machine, to try fleetmem on."""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.check import check
from fleetmem.cli.demo import Demo, ended_by_sigterm
from fleetmem.cli.help_page import HelpfulCommand, HelpfulGroup
from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.messages import print_message, report
from fleetmem.errors import LabError, UsageError
from fleetmem.lab.addresses import MAX_HOSTS
from fleetmem.lab.directory import DEFAULT_DIRECTORY, Directory
from fleetmem.lab.local import Lab, LocalLabPlan, take_down
from fleetmem.lab.process import Limit
from fleetmem.lab.state import State, read_state
from fleetmem.runtime.exit_status import ExitStatus

_CHECK_SECONDS = 0.5
_DEMO_SECONDS = 30.0
_MAX_HOURS = 4  # with fleetmem at work all the time: some 20,000 series of dead processes in Graphite, 500 MB
_SECONDS_PER_HOUR = 3600

app = typer.Typer(
    cls=HelpfulGroup, no_args_is_help=True, help="Run hosts, StatsD and Graphite on this machine, to try fleetmem."
)
app.command(cls=HelpfulCommand)(check)

Dir = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder for keys, configuration and logs.")]
Hosts = Annotated[
    int, typer.Option("--hosts", min=1, max=MAX_HOSTS, metavar="NUMBER", help=f"Number of hosts, 1 to {MAX_HOSTS}.")
]
Interval = Annotated[
    int,
    typer.Option("--interval", min=1, max=600, metavar="SECONDS", help="StatsD's flush interval and Graphite's step."),
]
MaxHours = Annotated[
    int, typer.Option("--max-hours", min=1, max=1000, metavar="HOURS", help="Stop the lab after this time.")
]


@app.command(cls=HelpfulCommand)
def up(
    path: Dir = DEFAULT_DIRECTORY,
    hosts: Hosts = 5,
    interval: Interval = 2,
    max_hours: MaxHours = _MAX_HOURS,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in the foreground; Ctrl-C stops the lab.", show_default=False)
    ] = False,
    hosts_only: Annotated[
        bool, typer.Option("--hosts-only", help="Start no StatsD and no Graphite.", show_default=False)
    ] = False,
) -> None:
    """Start the lab in the background and print how to use it.

    Example:
      fleetmem lab up --hosts 10
    """
    limit = Limit(max_hours * _SECONDS_PER_HOUR, os.getpid() if foreground else None)
    lab = Lab(Directory(path), LocalLabPlan(hosts, interval, limit, hosts_only), report)
    with told_clearly():
        if foreground:
            _stay(lab, path)
        else:
            lab.start()
            print(_how_to_use(lab.directory, lab.state, path))


@app.command(cls=HelpfulCommand)
def down(path: Dir = DEFAULT_DIRECTORY) -> None:
    """Stop the lab and everything that it started."""
    directory = Directory(path)
    with told_clearly():
        was_there = take_down(directory)
    print(f"lab in {directory.path} stopped" if was_there else f"no lab runs in {directory.path}")


@app.command(cls=HelpfulCommand)
def status(path: Dir = DEFAULT_DIRECTORY) -> None:
    """Show which parts of the lab run. Exit status: 0 all of them, 1 otherwise."""
    directory = Directory(path)
    with told_clearly():
        state = read_state(directory.state)
    if state is None:
        print(f"no lab runs in {directory.path}")
        raise typer.Exit(ExitStatus.FAILED)
    for member in state.members:
        word = "running" if member.is_running else "ENDED"
        print(f"{member.role:<10} {word:<8} pid {member.identity.pid:<8} {member.address}")
    print(_how_to_use(directory, state, path))
    if not all(member.is_running for member in state.members):
        raise typer.Exit(ExitStatus.FAILED)


@app.command(cls=HelpfulCommand)
def demo(path: Dir = DEFAULT_DIRECTORY, hosts: Hosts = 5, interval: Interval = 2) -> None:
    """Start a lab, watch its processes grow, and check that Graphite has everything that was sent. Then stop it.

    On a terminal, Ctrl-C ends the demo. In a pipe it ends after 30 s. Set DEMO_SECONDS to choose another time.

    Exit status: 0 Graphite has every series with its last value, 1 otherwise.

    Example:
      DEMO_SECONDS=20 fleetmem lab demo
    """
    seconds = _demo_seconds()
    set_up(Verbosity.QUIET, LogFormat.TEXT)
    limit = Limit(_MAX_HOURS * _SECONDS_PER_HOUR, os.getpid())
    lab = Lab(Directory(path), LocalLabPlan(hosts, interval, limit), report)
    with told_clearly(), ended_by_sigterm(), lab:
        verdict = Demo(lab).run(seconds)
    report("lab stopped; `fleetmem lab up` starts one that stays")
    if not verdict.is_good:
        raise typer.Exit(ExitStatus.FAILED)


def _demo_seconds() -> float | None:
    """Returns how long the demo runs; None for until Ctrl-C."""
    text = os.environ.get("DEMO_SECONDS")
    if not text:
        return None if sys.stdout.isatty() else _DEMO_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < _MAX_HOURS * _SECONDS_PER_HOUR:
        raise UsageError(f"DEMO_SECONDS={text}: expected seconds, as in DEMO_SECONDS=30")
    return seconds


@contextmanager
def told_clearly() -> Iterator[None]:
    """Ends the command with one clear message when the lab does not work."""
    try:
        yield
    except LabError as error:
        print_message(f"fleetmem lab: {error}")
        raise typer.Exit(ExitStatus.FAILED) from error


def _stay(lab: Lab, path: Path) -> None:
    """Keeps a lab up until Ctrl-C or SIGTERM."""
    with ended_by_sigterm(), lab, suppress(KeyboardInterrupt):
        print(_how_to_use(lab.directory, lab.state, path))
        report("\nCtrl-C stops the lab")
        while True:
            lab.check()
            time.sleep(_CHECK_SECONDS)
    report("lab stopped")


def _how_to_use(directory: Directory, state: State, path: Path) -> str:
    """Returns what a person needs to use a lab."""
    hosts = _hosts_argument(state)
    flags = ["-k", str(directory.key), *(["-p", str(state.port)] if state.port else []), "-i", hosts]
    if state.statsd_port:
        flags += ["-g", f"127.0.0.1:{state.statsd_port}"]
    environment = f"FLEETMEM_SSH__KNOWN_HOSTS={shlex.quote(str(directory.known_hosts))}"
    config = shlex.quote(str(directory.config))
    lines = [
        "",
        f"hosts          {hosts}" + (f", port {state.port}" if state.port else ""),
        f"hosts file     {directory.hosts_file}",
        f"key            {directory.key}",
        f"configuration  {directory.config}",
    ]
    if state.statsd_port:
        lines.append(f"StatsD         127.0.0.1:{state.statsd_port}, flushes every {state.interval_seconds} s")
    if state.graphite_url:
        lines.append(f"Graphite       {state.graphite_url}/")
    if not state.is_isolated:
        lines.append("note           no PID namespaces here: every host shows all processes of this machine")
    run = f"    fleetmem run -c {config}" if state.statsd_port else f"    fleetmem run -c {config} -o -"
    lines += [
        "",
        "Once, with the lab's configuration; the same with flags; then every interval:",
        f"    fleetmem collect -c {config}",
        f"    {environment} fleetmem collect {shlex.join(flags)}",
        run,
        "A look at a host, and the end:",
        f"    ssh -F {shlex.quote(str(directory.ssh_config))} {state.hosts[0].partition(':')[0]} ps ax",
        f"    fleetmem lab down --dir {shlex.quote(str(path))}",
    ]
    return "\n".join(lines)


def _hosts_argument(state: State) -> str:
    """Returns the hosts as short as `-i` takes them."""
    if state.port is None or len(state.hosts) == 1:
        return ",".join(state.hosts)
    return f"127.0.1.[1-{len(state.hosts)}]"
