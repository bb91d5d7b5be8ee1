"""`fleetmem plan`: what `run` would send, and what that would cost, without sending anything."""

from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.collect import Tally
from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.options import RUN_FLAGS, Given, ask_passphrase, with_settings_and
from fleetmem.cli.output import open_output
from fleetmem.errors import UsageError
from fleetmem.runtime.event_loop import raise_file_limit, run_async
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.sinks.whisper import parse_retention
from fleetmem.wiring.fleet import build_fleet

DEFAULT_RETENTION = "10s:6h,60s:7d,10m:1y"


@with_settings_and(RUN_FLAGS)
def plan(
    given: Given,
    retention: Annotated[
        str,
        typer.Option("--retention", help="What Graphite keeps, as in storage-schemas.conf.", metavar="STEP:PERIOD,..."),
    ] = DEFAULT_RETENTION,
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
    """Sample every host three times and print what `run` would send and store, without sending anything.

    It takes the options of `run`, so you can compare settings before you use them.

    Examples:
      fleetmem plan -i @hosts.txt
      # one series per command instead of per process
      fleetmem plan -i @hosts.txt --detail command --retention 10s:6h,60s:7d,10m:1y
    """
    set_up(Verbosity.WARNINGS if given.verbosity is Verbosity.NORMAL else given.verbosity, LogFormat.TEXT)
    plan_fleet(given, retention, output)


def plan_fleet(given: Given, retention: str, output: Path | None) -> None:
    """Samples the fleet, prints the plan, and the lines into `output`.

    Raises:
        UsageError: the retention is none that carbon takes.
    """
    # Imported here: rich is a twentieth of a start that prints no table.
    from rich.console import Console

    from fleetmem.cli.dry_run import DryRun

    try:
        kept = parse_retention(retention)
    except ValueError as error:
        raise UsageError(f"--retention: {error}") from error
    dry = DryRun(build_fleet(given.settings.without_sinks(), ask_passphrase), kept, [*given.settings.sinks])
    try:
        run_async(dry.run(raise_file_limit(len(dry.fleet.hosts), dry.fleet.files)))
    except KeyboardInterrupt:
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    if output:
        with open_output(output) as file:
            dry.write_lines(file)
    tally = Tally(len(dry.fleet.hosts))
    for failure in dry.failures:
        tally.add(failure)
    if str(output) == "-":
        dry.print_report(Console(stderr=True))
    else:
        with open_output(None) as stdout:
            dry.print_report(Console(file=stdout))
    tally.print_failures()
    if dry.fleet.collector.bugs.total:
        raise typer.Exit(ExitStatus.INTERNAL)
    if dry.failures:
        raise typer.Exit(ExitStatus.FAILED if dry.series else ExitStatus.NONE_ANSWERED)
