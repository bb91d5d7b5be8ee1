"""`fleetmem plan`: what `run` would send, and what that would cost, without sending anything."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fleetmem.capacity.estimate import Machines, estimate
from fleetmem.capacity.load import example_load
from fleetmem.capacity.schemas import DEFAULT_SCHEMAS, Schema, parse_schemas
from fleetmem.cli.collect import Tally
from fleetmem.cli.dry_run import DryRun
from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.options import RUN_FLAGS, Given, ask_passphrase, with_settings_and
from fleetmem.cli.output import open_output
from fleetmem.cli.plan_output import PlanFormat, write_plan
from fleetmem.config import AUTO, Settings
from fleetmem.errors import UsageError
from fleetmem.runtime.cpus import worker_count
from fleetmem.runtime.event_loop import raise_file_limit, run_async
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.wiring.fleet import build_fleet

_PROCESSES = 150
_UPDATES_PER_SECOND, _CACHE_POINTS = 2000, 2_000_000  # as in deploy/graphite/carbon.conf


class PlanOptions:
    """What `plan` can be asked beside the configuration; `run --dry-run` has the defaults."""

    def __init__(
        self,
        retentions: Sequence[str] = (),
        processes: int | None = None,
        commands: int | None = None,
        updates_per_second: int = _UPDATES_PER_SECOND,
        cache_points: int = _CACHE_POINTS,
        format_: PlanFormat = PlanFormat.TABLE,
    ) -> None:
        self.retentions = retentions
        self.processes = processes
        self.commands = commands
        self.updates_per_second = updates_per_second
        self.cache_points = cache_points
        self.format = format_

    def schemas(self) -> list[Schema]:
        """Returns what Graphite keeps.

        Raises:
            UsageError: carbon would not take it.
        """
        try:
            return parse_schemas(self.retentions or DEFAULT_SCHEMAS)
        except ValueError as error:
            raise UsageError(f"--retention: {error}") from error

    def machines(self, settings: Settings, hosts: int) -> Machines:
        """Returns what the plan is made for."""
        wanted = settings.run.workers
        workers = worker_count(hosts) if wanted == AUTO else int(wanted)
        return Machines(workers, self.updates_per_second, self.cache_points)


@with_settings_and(RUN_FLAGS)
def plan(
    given: Given,
    retention: Annotated[
        list[str] | None,
        typer.Option(
            "--retention",
            help="What Graphite keeps, as in storage-schemas.conf; the first pattern that matches counts. Repeatable.",
            metavar="[PATTERN=]STEP:PERIOD,...",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            min=1,
            max=100_000,
            help=f"Processes of each host, with a number of hosts. (default {_PROCESSES})",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    commands: Annotated[
        int | None,
        typer.Option(
            "--commands",
            min=1,
            max=100_000,
            help="Different names that these have. (default half of the processes)",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    carbon_updates: Annotated[
        int, typer.Option("--carbon-updates", min=1, help="carbon's MAX_UPDATES_PER_SECOND.", metavar="N")
    ] = _UPDATES_PER_SECOND,
    carbon_cache: Annotated[
        int, typer.Option("--carbon-cache", min=1, help="carbon's MAX_CACHE_SIZE, in points.", metavar="N")
    ] = _CACHE_POINTS,
    format_: Annotated[
        PlanFormat, typer.Option("--format", help="How the plan is printed.", metavar="table|json", show_default=False)
    ] = PlanFormat.TABLE,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Write the lines that StatsD would get to this file; `-` is stdout.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print what `run` would send, store and cost, without sending anything.

    It samples every host three times. With a number for --hosts it asks nobody and computes from measured figures.
    It takes the options of `run`, so you can compare settings before you use them.

    Examples:
      fleetmem plan -i @hosts.txt
      # one series per command instead of per process
      fleetmem plan -i @hosts.txt --detail command --retention 10s:6h,60s:7d,10m:1y
      # a fleet that is not there yet
      fleetmem plan --hosts 3000 --processes 150 --retention '.process.=10s:1d,1m:30d' --retention 10s:6h,60s:1y
    """
    set_up(Verbosity.WARNINGS if given.verbosity is Verbosity.NORMAL else given.verbosity, LogFormat.TEXT)
    options = PlanOptions(retention or (), processes, commands, carbon_updates, carbon_cache, format_)
    make_plan(given, options, output)


def make_plan(given: Given, options: PlanOptions, output: Path | None) -> None:
    """Prints the plan, and the lines of a cycle into `output`.

    Raises:
        UsageError: the retention is none that carbon takes, or options do not go together.
    """
    schemas = options.schemas()
    hosts = _number_of_hosts(given)
    if hosts is None and (options.processes or options.commands):
        raise UsageError("--processes and --commands go with a number of hosts, as in --hosts 3000")
    if hosts is None:
        _plan_fleet(given, options, schemas, output)
        return
    if output:
        raise UsageError("-o needs hosts to ask; with a number of hosts there are no lines to write")
    _plan_number(given.settings, options, schemas, hosts)


def _number_of_hosts(given: Given) -> int | None:
    """Returns N where the flags say `--hosts N`; None where they name hosts."""
    named = given.flags.get("inventory", {}).get("hosts", [])
    is_number = len(named) == 1 and named[0].isascii() and named[0].isdigit() and int(named[0]) > 0
    return int(named[0]) if is_number else None


def _plan_number(settings: Settings, options: PlanOptions, schemas: list[Schema], hosts: int) -> None:
    processes = options.processes or _PROCESSES
    commands = min(processes, options.commands or max(1, processes // 2))
    load, _one = example_load(settings, schemas, hosts, processes, commands)
    notes = [
        f"computed from measured figures (docs: how-to/capacity.md), with {commands} different commands a host, "
        "host names of 7 characters and command names of 12",
        *_notes(settings),
    ]
    shape = settings.shape
    if shape.min_rss or shape.groups or any(limits for limits in _name_limits(settings)):
        notes.append("min_rss, groups and filters are not counted: they need hosts to ask")
    capacity = estimate(load, settings, schemas, options.machines(settings, hosts))
    with open_output(None) as file:
        write_plan(capacity, (), notes, options.format, file)


def _name_limits(settings: Settings) -> tuple[tuple[str, ...], ...]:
    shape = settings.shape
    included = shape.include_commands, shape.include_users, shape.include_hosts
    return (*included, shape.exclude_commands, shape.exclude_users, shape.exclude_hosts)


def _notes(settings: Settings) -> list[str]:
    return [f"sinks.{name}, a plug-in, gets each outcome; its cost is not known here" for name in settings.sinks]


def _plan_fleet(given: Given, options: PlanOptions, schemas: list[Schema], output: Path | None) -> None:
    settings = given.settings
    dry = DryRun(build_fleet(settings.without_sinks(), ask_passphrase), settings)
    try:
        run_async(dry.run(raise_file_limit(len(dry.fleet.hosts), dry.fleet.files)))
    except KeyboardInterrupt:
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    if output:
        with open_output(output) as lines:
            dry.write_lines(lines)
    tally = Tally(len(dry.fleet.hosts))
    for failure in dry.failures:
        tally.add(failure)
    capacity = estimate(dry.load(schemas), settings, schemas, options.machines(settings, len(dry.loads)))
    rows = [(host.name, load, len(dry.new[host])) for host, load in dry.loads.items()]
    notes = [
        f"{len(rows)} of {len(dry.fleet.hosts)} hosts have answered; the others are in no figure",
        *_notes(settings),
    ]
    if str(output) == "-":
        write_plan(capacity, rows, notes, options.format, sys.stderr)
    else:
        with open_output(None) as file:
            write_plan(capacity, rows, notes, options.format, file)
    tally.print_failures()
    if dry.fleet.collector.bugs.total:
        raise typer.Exit(ExitStatus.INTERNAL)
    if dry.failures:
        raise typer.Exit(ExitStatus.FAILED if dry.loads else ExitStatus.NONE_ANSWERED)
