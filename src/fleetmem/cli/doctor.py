"""`fleetmem doctor`: checks everything and prints a fix for each problem."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.messages import print_message
from fleetmem.cli.options import DOCTOR_FLAGS, Given, ask_passphrase, with_settings_and
from fleetmem.cli.output import ListFormat, open_output
from fleetmem.runtime.event_loop import raise_file_limit, run_async
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.wiring.fleet import build_fleet


@with_settings_and(DOCTOR_FLAGS)
def doctor(
    given: Given,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write to this file. (default stdout)", metavar="FILE", show_default=False),
    ] = None,
    format_: Annotated[
        ListFormat, typer.Option("--format", help="table for people, jsonl for machines.", metavar="table|jsonl")
    ] = ListFormat.TABLE,
) -> None:
    """Check the hosts, this machine and the pipeline, and print a fix for each problem.

    Give it the flags of `run`. The doctor logs in to every host and samples it, as `run` would. It sends a gauge to
    StatsD and carbon; with --graphite-url it reads the gauge back. It checks the flush interval, gauges that stick,
    the retention and the limit of new files. A few series <prefix>.doctor.* stay in Graphite.

    Exit status:
      0 all is well, or only notes
      1 warnings, or a problem on a host or this machine
      2 usage or configuration
      3 no host can be sampled
      4 the pipeline is broken

    docs/reference/doctor.md describes every check.

    Examples:
      # hosts only
      fleetmem doctor -i @hosts.txt
      # the whole way into Graphite
      fleetmem doctor -c fleetmem.toml --graphite-url http://graphite.example.com
      # only what must be fixed
      fleetmem doctor -c fleetmem.toml --format jsonl | jq 'select(.severity == "problem")'
    """
    # Here: what the doctor knows is a twentieth of a start without it.
    from fleetmem.cli.diagnosis import diagnose
    from fleetmem.cli.findings_output import count, write

    begun = time.monotonic()
    set_up(Verbosity.WARNINGS if given.verbosity is Verbosity.NORMAL else given.verbosity, LogFormat.TEXT)
    fleet = build_fleet(given.settings.for_one_cycle().without_sinks(), ask_passphrase)
    at_once = raise_file_limit(len(fleet.hosts), fleet.files)
    try:
        diagnosing = diagnose(fleet, given.settings, at_once, is_quiet=given.verbosity is Verbosity.QUIET)
        diagnosis = run_async(diagnosing)
    except KeyboardInterrupt:
        print_message("\nfleetmem: interrupted")
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    with open_output(output) as file:
        write(diagnosis.findings, file, format_)
    if given.verbosity is not Verbosity.QUIET:
        answered = f"{diagnosis.answered} of {len(fleet.hosts)} hosts can be sampled"
        print_message(f"{count(diagnosis.findings)}; {answered}; {time.monotonic() - begun:.1f} s")
    if status := diagnosis.exit_status:
        raise typer.Exit(status)
