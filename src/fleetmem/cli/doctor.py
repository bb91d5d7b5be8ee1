"""`fleetmem doctor`: what is wrong, or will be, and how to mend it."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.messages import print_message
from fleetmem.cli.options import DOCTOR_FLAGS, Given, ask_passphrase, with_settings_and
from fleetmem.cli.output import OutputFormat, open_output
from fleetmem.errors import UsageError
from fleetmem.runtime.event_loop import raise_file_limit, run_async
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.wiring.fleet import build_fleet


@with_settings_and(DOCTOR_FLAGS)
def doctor(
    given: Given,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write findings there. (default stdout)", show_default=False)
    ] = None,
    format_: Annotated[OutputFormat, typer.Option("--format", help="table or jsonl.")] = OutputFormat.TABLE,
) -> None:
    """Check hosts, this machine and the pipeline before trouble starts; say how to mend each finding.

    Give it the flags of `run`. Each host is logged in to and sampled, as `run` would. A gauge is sent to StatsD and
    carbon and, with --graphite-url, read back from Graphite: flush interval, gauges that stick, retention, limit of new
    files. That leaves some series <prefix>.doctor.* there.

    Exit status: 0 all is well, or only notes; 1 warnings, or something is wrong with a host or this machine; 2 usage or
    configuration; 3 no host can be sampled; 4 the pipeline is broken. docs/reference/doctor.md has every check.

    Examples:
      fleetmem doctor -i @hosts.txt

      fleetmem doctor -c fleetmem.toml -g statsd.example.com --graphite-url http://graphite.example.com

      fleetmem doctor -c fleetmem.toml --format jsonl | jq 'select(.severity == "problem")'
    """
    if format_ is OutputFormat.CSV:
        raise UsageError("doctor writes a table or jsonl")
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
