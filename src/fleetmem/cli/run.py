"""`fleetmem run`: every interval, until stopped."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.options import RUN_FLAGS, Given, ask_passphrase, with_settings_and
from fleetmem.cli.output import BackgroundWriter, OutcomeWriter, make_record_writer, open_output
from fleetmem.cli.plan import PlanOptions, make_plan
from fleetmem.config import AUTO
from fleetmem.daemon import Daemon
from fleetmem.errors import UsageError, reason_of
from fleetmem.model import Outcome
from fleetmem.runtime.cpus import worker_count
from fleetmem.runtime.event_loop import raise_file_limit, run_async
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.runtime.garbage import keep_collections_short
from fleetmem.runtime.stop_watch import StopWatch
from fleetmem.runtime.systemd import ServiceManager
from fleetmem.sinks.records import RecordFormat
from fleetmem.wiring.fleet import build_fleet
from fleetmem.wiring.state_files import identity_of

log = logging.getLogger(__name__)

_MAX_WAITING = 10_000
_WRITE_SECONDS = 0.5


def _record_format(text: str) -> RecordFormat:
    """Returns the format of that name."""
    try:
        return RecordFormat(text)
    except ValueError:
        choices = " or ".join(RecordFormat)
        raise typer.BadParameter(f"{text!r}: run writes {choices}; for a table, use `fleetmem collect`") from None


@with_settings_and(RUN_FLAGS)
def run(
    given: Given,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            "--log-format", help="Log lines on stderr: text for people; json or logfmt for machines.", metavar="FORMAT"
        ),
    ] = LogFormat.TEXT,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Write every outcome to this file too; `-` is stdout.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[
        RecordFormat,
        typer.Option("--format", help="Format of -o.", metavar="jsonl|csv", parser=_record_format),
    ] = RecordFormat.JSONL,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing: the same as `fleetmem plan`.", show_default=False)
    ] = False,
    retention: Annotated[list[str] | None, typer.Option("--retention", hidden=True)] = None,
) -> None:
    """Sample every host each interval until you stop it with Ctrl-C or SIGTERM. SIGHUP reloads the configuration.

    Examples:
      # every 10 s, to StatsD
      fleetmem run -i @hosts.txt -g statsd.example.com --interval 10
      # no StatsD: Prometheus reads http://127.0.0.1:9700/metrics
      fleetmem run -i @hosts.txt --prometheus 9700
      # with everything in a file
      fleetmem run -c fleetmem.toml
    """
    verbosity = Verbosity.WARNINGS if is_dry and given.verbosity is Verbosity.NORMAL else given.verbosity
    set_up(verbosity, log_format, in_background=not is_dry)
    if is_dry:
        make_plan(given, PlanOptions(retention or ()), output)
        return
    stop_watch = StopWatch()
    with stop_watch.installed():
        _run(given, output, format_, stop_watch)


def _run(given: Given, output: Path | None, format_: RecordFormat, stop_watch: StopWatch) -> None:
    fleet = build_fleet(given.settings, ask_passphrase, identity=identity_of(given.config_path, given.settings))
    wanted = given.settings.run.workers
    workers = worker_count(len(fleet.hosts)) if wanted == AUTO else int(wanted)
    if workers == 1:  # else each of them raises its own
        raise_file_limit(len(fleet.hosts), fleet.files, "only {fits} hosts can be connected, the others will fail")
    keep_collections_short()
    if not fleet.collector.sinks and output is None:
        raise UsageError(
            "run would send nothing: give a StatsD server (-g HOST), --graphite HOST, --prometheus PORT "
            "or a file (-o FILE); `fleetmem plan` shows what would be sent"
        )
    manager = ServiceManager(os.environ)
    if output is None:
        daemon = Daemon(fleet, given.reload, manager=manager, workers=workers, stop_watch=stop_watch)
        del fleet  # the daemon's: it lets go of it when it takes another one
        run_async(daemon.run())
        return
    with open_output(output, is_appending=True) as file:  # what was written before a restart stays
        guard = _FullDiskGuard(make_record_writer(format_, file), output)
        writer = BackgroundWriter(guard, _MAX_WAITING, fleet.collector.bugs)
        daemon = Daemon(fleet, given.reload, writer.write, manager, workers, stop_watch=stop_watch)
        del fleet
        run_async(daemon.run())
        is_stalled = writer.is_stalled(_WRITE_SECONDS)
        if writer.lost or is_stalled:
            log.error("output: %d outcomes were not written: its reader has stalled", writer.lost)
        if is_stalled:
            logging.shutdown()
            os._exit(ExitStatus.SINK)


class _FullDiskGuard:
    """Keeps a file that cannot be written from stopping the collection: reports it once, and goes on."""

    def __init__(self, writer: OutcomeWriter, path: Path) -> None:
        self._writer = writer
        self._path = path
        self._lost = 0

    def write(self, outcome: Outcome) -> None:
        """Writes an outcome, or counts it as lost."""
        try:
            self._writer.write(outcome)
        except OSError as error:
            self._note(error)

    def flush(self) -> None:
        """Flushes."""
        try:
            self._writer.flush()
        except OSError as error:
            self._note(error)

    finish = flush

    def _note(self, error: OSError) -> None:
        if not self._lost:
            facts = {"path": str(self._path)}
            log.error("output is not written, collection goes on: %s", reason_of(error), extra=facts)
        self._lost += 1
