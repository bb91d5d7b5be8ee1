"""`fleetmem collect`: one cycle over all hosts."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.failures import failure_lines
from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.messages import messages_screen, print_message
from fleetmem.cli.options import Given, ask_passphrase, with_settings
from fleetmem.cli.output import BackgroundWriter, OutcomeWriter, OutputFormat, TableWriter, make_writer, open_output
from fleetmem.cli.progress import progress_bars
from fleetmem.cli.screen import Screen
from fleetmem.cli.tables import print_lines
from fleetmem.cli.wrapping import width_of
from fleetmem.errors import SinkError, UsageError
from fleetmem.model import Failure, Host, Outcome, Sample
from fleetmem.runtime.event_loop import raise_file_limit, run_async
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.sampling.once import sample_once
from fleetmem.shape.limits import TopBy
from fleetmem.units import format_size
from fleetmem.wiring.fleet import FleetParts, build_fleet

_WRITE_SECONDS = 0.2


@with_settings
def collect(
    given: Given,
    single: Annotated[
        bool, typer.Option("-s", "--single", help="Sample one host at a time.", show_default=False)
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write to this file. (default stdout)", metavar="FILE", show_default=False),
    ] = None,
    format_: Annotated[
        OutputFormat | None,
        typer.Option(
            "--format",
            help="table for people; jsonl: one JSON object a host; json: all of them in one array; csv: one row a "
            "process. (default table; jsonl with -o)",
            metavar="FORMAT",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            min=1,
            help="Rows of the table. (default what fits the terminal; 20 in a pipe)",
            metavar="N",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Sample every host once: print the biggest processes, and send all of them to StatsD or Graphite.

    Exit status:
      0 every host answered
      1 some hosts failed
      2 usage or configuration
      3 no host answered
      4 an output failed
      70 a bug in fleetmem

    If several apply, 70 wins over 4, and 4 over 1 and 3.

    Examples:
      # the biggest processes of fifty hosts
      fleetmem collect -i 'web[01-50].example.com'
      # send every process to StatsD on 10.0.0.9
      fleetmem collect -u ubuntu -k key.pem -i 10.0.0.1,10.0.0.2 -g 10.0.0.9
      # keep the data in a file
      fleetmem collect -i @hosts.txt --format jsonl -o memory.jsonl
    """
    set_up(Verbosity.WARNINGS if given.verbosity is Verbosity.NORMAL else given.verbosity, LogFormat.TEXT)
    if given.flags.get("shape", {}).get("top_by") == TopBy.GROWTH:  # a configuration may be one for `run`, too
        raise UsageError("--top-by growth needs `run`: one sample shows no growth; use rss or swap")
    fleet = build_fleet(given.settings.for_one_cycle(), ask_passphrase)
    at_once = 1 if single else raise_file_limit(len(fleet.hosts), fleet.files, "{fits} hosts at a time")
    format_ = format_ or (OutputFormat.JSONL if output else OutputFormat.TABLE)
    tally = Tally(len(fleet.hosts))
    with open_output(output) as file:
        writer = make_writer(format_, file, rows)
        if format_ is not OutputFormat.TABLE:
            writer = BackgroundWriter(writer, bugs=fleet.collector.bugs)
        try:
            collecting = _collect(fleet, at_once, tally, writer, is_quiet=given.verbosity is Verbosity.QUIET)
            problems = run_async(collecting)
            if isinstance(writer, TableWriter) and given.verbosity is not Verbosity.QUIET:
                writer.lines_below = tally.lines(fleet)
            writer.finish()
        except KeyboardInterrupt:
            print_message(f"\nfleetmem: interrupted, {tally.done} of {tally.hosts} hosts done")
            if isinstance(writer, BackgroundWriter):
                if writer.is_stalled(_WRITE_SECONDS):
                    os._exit(ExitStatus.INTERRUPTED)
                writer.finish()  # what is there is a whole document
            raise typer.Exit(ExitStatus.INTERRUPTED) from None
    # That nobody answered is an error, and a table has no failures; JSON lines and CSV do.
    is_silent = not tally.samples and format_ is OutputFormat.TABLE
    if given.verbosity is not Verbosity.QUIET or is_silent:
        tally.print_failures()
    if given.verbosity is not Verbosity.QUIET:
        print_message(tally.summary(fleet))
    if bugs := fleet.collector.bugs.total:
        print_message(f"fleetmem: {bugs} bugs in fleetmem; the log has a traceback of each: please report it")
        raise typer.Exit(ExitStatus.INTERNAL)
    if problems:
        raise SinkError("\n".join(map(str, problems)))
    if tally.failures:
        raise typer.Exit(ExitStatus.FAILED if tally.samples else ExitStatus.NONE_ANSWERED)


class Tally:
    """What a cycle came to."""

    def __init__(self, hosts: int) -> None:
        self.hosts = hosts
        self.started = 0
        self.samples = 0
        self.processes = 0
        self.received_bytes = 0
        self.failures: list[Failure] = []
        self._begun_at = time.monotonic()

    @property
    def done(self) -> int:
        """Hosts that have their outcome."""
        return self.samples + len(self.failures)

    def add(self, outcome: Outcome) -> None:
        """Counts an outcome."""
        if isinstance(outcome, Sample):
            self.samples += 1
            self.processes += outcome.shaped.process_count
            self.received_bytes += outcome.received_bytes
        else:
            self.failures.append(outcome)

    def failure_lines(self, screen: Screen) -> list[str]:
        """Returns what failed, with what to do about it; equal failures are folded."""
        return failure_lines(self.failures, self.hosts, screen)

    def print_failures(self) -> None:
        """Prints what failed on stderr."""
        print_lines(self.failure_lines(messages_screen()), sys.stderr)

    def summary(self, fleet: FleetParts) -> str:
        """Returns one line: hosts, processes, bytes, points, datagrams, seconds."""
        parts = [
            f"{self.samples:,} of {self.hosts:,} hosts answered",
            f"{self.processes:,} processes",
            f"{format_size(self.received_bytes)} received",
        ]
        for sink in fleet.collector.sinks:
            stats = sink.stats()
            datagrams = f" in {stats.datagrams_sent_total:,} datagrams" if stats.datagrams_sent_total else ""
            lost = f", {stats.points_dropped_total:,} NOT delivered" if stats.points_dropped_total else ""
            parts.append(f"{stats.points_sent_total:,} points{datagrams} to {sink.address}{lost}")
        parts.append(f"{time.monotonic() - self._begun_at:.1f} s")
        return ", ".join(parts)

    def lines(self, fleet: FleetParts) -> int:
        """Returns how many lines of the terminal failures and summary take; 0 where they go elsewhere."""
        screen = messages_screen()
        if screen.rows is None:
            return 0
        return len(self.failure_lines(screen)) + -(-width_of(self.summary(fleet)) // screen.columns)


async def _collect(
    fleet: FleetParts, at_once: int, tally: Tally, writer: OutcomeWriter, *, is_quiet: bool
) -> list[SinkError]:
    """Runs the cycle; returns what went wrong with the sinks."""
    with progress_bars(is_quiet=is_quiet) as progress:
        task = progress.add_task("hosts", total=tally.hosts, text="")

        def show() -> None:
            text = f"{len(tally.failures)} failed, {tally.started - tally.done} in flight"
            progress.update(task, completed=tally.done, text=text)

        def on_start(_host: Host) -> None:
            tally.started += 1
            show()

        def on_outcome(outcome: Outcome) -> None:
            tally.add(outcome)
            writer.write(outcome)
            show()

        return await sample_once(fleet, at_once, on_start, on_outcome)
