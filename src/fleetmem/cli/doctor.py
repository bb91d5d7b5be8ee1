"""`fleetmem doctor`: what is wrong, or will be, and how to mend it."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.text import Text

from fleetmem.build import Fleet, build_fleet
from fleetmem.build_sinks import spool_file
from fleetmem.cli.event_loop import FILES_FOR_OURSELVES, file_limit, raise_file_limit, run_async
from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.messages import print_message
from fleetmem.cli.options import DOCTOR_FLAGS, Given, ask_passphrase, with_settings_and
from fleetmem.cli.output import OutputFormat, open_output
from fleetmem.cli.progress import progress_bars
from fleetmem.config import Settings
from fleetmem.doctor.examiner import Examiner, access_of
from fleetmem.doctor.findings import Finding, Group, Severity, exit_status, fold
from fleetmem.doctor.hosts import Examination, Limits, judge_hosts
from fleetmem.doctor.machine import Machine, judge_machine, look_at
from fleetmem.doctor.pipeline import Pipeline
from fleetmem.doctor.verdicts import PipelineAnswers, judge_pipeline
from fleetmem.errors import UsageError
from fleetmem.graphite_web import GraphiteWeb
from fleetmem.model import PROCESS_MEASURES, Detail, Host
from fleetmem.safe_text import printable, redact

EXIT_INTERRUPTED = 130

_NAMED = 5
_STYLES = {Severity.PROBLEM: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan", Severity.OK: "green"}
_WEB_SECONDS = 5.0


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
    configuration; 3 no host can be sampled; 4 the pipeline is broken. docs/doctor.md has every check.

    Examples:
      fleetmem doctor -i @hosts.txt

      fleetmem doctor -c fleetmem.toml -g statsd.example.com --graphite-url http://graphite.example.com

      fleetmem doctor -c fleetmem.toml --format jsonl | jq 'select(.severity == "problem")'
    """
    if format_ is OutputFormat.CSV:
        raise UsageError("doctor writes a table or jsonl")
    begun = time.monotonic()
    set_up(Verbosity.WARNINGS if given.verbosity is Verbosity.NORMAL else given.verbosity, LogFormat.TEXT)
    settings = given.settings
    fleet = build_fleet(settings.for_one_cycle().without_sinks(), ask_passphrase)
    at_once = raise_file_limit(len(fleet.hosts))
    try:
        checking = _check(fleet, settings, at_once, is_quiet=given.verbosity is Verbosity.QUIET)
        examinations, answers = run_async(checking)
    except KeyboardInterrupt:
        print_message("\nfleetmem: interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    findings = judge_hosts(examinations, _limits(settings))
    findings += judge_machine(_machine(fleet, settings))
    findings += judge_pipeline(answers, _series(settings, examinations))
    with open_output(output) as file:
        _write(findings, file, format_)
    answered = sum(each.kind is not None for each in examinations)
    if given.verbosity is not Verbosity.QUIET:
        seconds = time.monotonic() - begun
        print_message(f"{_count(findings)}; {answered} of {len(examinations)} hosts can be sampled; {seconds:.1f} s")
    status = exit_status(findings, has_answer=answered > 0)
    if status:
        raise typer.Exit(status)


async def _check(
    fleet: Fleet, settings: Settings, at_once: int, *, is_quiet: bool
) -> tuple[list[Examination], PipelineAnswers]:
    """Asks hosts and pipeline, side by side."""
    with progress_bars(is_quiet=is_quiet) as progress:
        hosts = progress.add_task("hosts", total=len(fleet.hosts), text="")
        servers = progress.add_task("pipeline", total=1, text="")
        pipeline = Pipeline(settings, _web(settings), lambda text: progress.update(servers, text=text))
        try:
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(pipeline.check())
                answering.add_done_callback(lambda _task: progress.update(servers, advance=1, text=""))
                asking = group.create_task(_examine(fleet, settings, at_once, lambda: progress.advance(hosts)))
        finally:
            await fleet.reach.close()
    return asking.result(), answering.result()


async def _examine(fleet: Fleet, settings: Settings, at_once: int, on_done: Callable[[], None]) -> list[Examination]:
    """Examines all hosts, so many at once."""
    examiner = Examiner(
        fleet.make_link,
        lambda host: access_of(host, fleet.reach, runs_by_sudo=settings.probe.sudo),
        settings.probe.kind,
        settings.probe.processes,
    )
    slots = asyncio.Semaphore(at_once)

    async def visit(host: Host) -> Examination:
        async with slots:
            examination = await examiner.examine(host)
            on_done()
            return examination

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(visit(host)) for host in fleet.hosts]
    return [task.result() for task in tasks]


def _web(settings: Settings) -> GraphiteWeb | None:
    return GraphiteWeb(settings.doctor.graphite_url, _WEB_SECONDS) if settings.doctor.graphite_url else None


def _limits(settings: Settings) -> Limits:
    ssh = settings.ssh
    return Limits(settings.run.interval_seconds, ssh.command_timeout_seconds, ssh.login_timeout_seconds)


def _machine(fleet: Fleet, settings: Settings) -> Machine:
    spool = spool_file(settings.graphite) if settings.graphite.server else None
    others = settings.graphite.server, settings.prometheus.listen, settings.file.path
    return Machine(
        hosts=len(fleet.hosts),
        files_allowed=file_limit(),
        files_needed=len(fleet.hosts) + FILES_FOR_OURSELVES,
        policy=settings.ssh.host_keys,
        known_hosts=look_at(settings.ssh.known_hosts.expanduser()),
        spool=look_at(spool) if spool else None,
        spool_max_bytes=settings.graphite.spool_max_size,
        sinks=len(settings.statsd.servers()) + sum(other is not None for other in others),
    )


def _series(settings: Settings, examinations: Sequence[Examination]) -> int:
    """Returns how many series the fleet begins with, about: 0 where its processes have none of their own."""
    if Detail.PROCESS not in settings.shape.detail:
        return 0
    most = settings.shape.top or sys.maxsize
    return sum(min(each.processes, most) for each in examinations) * len(PROCESS_MEASURES)


# --- output ----------------------------------------------------------------------------------------------------------


def _write(findings: Sequence[Finding], file: TextIO, format_: OutputFormat) -> None:
    if format_ is OutputFormat.JSONL:
        file.writelines(f"{json.dumps(_to_json(finding))}\n" for finding in findings)
        return
    console = Console(file=file, soft_wrap=True, highlight=False)  # commands are to be copied whole
    for group in fold(findings):
        for line in _lines(group):
            console.print(line)


def _to_json(finding: Finding) -> dict[str, object]:
    """Returns a finding as JSON: a contract, see docs/doctor.md."""
    return {
        "check": finding.check,
        "severity": finding.severity,
        "subject": finding.subject,
        "what": redact(finding.what),
        "why": finding.why,
        "mend": redact(finding.mend),
        "value": finding.value,
        "unit": finding.unit,
    }


def _lines(group: Group) -> list[Text]:
    """Returns what is shown of equal findings: in one line what is well, otherwise with reason and mend."""
    first = group.first
    style = _STYLES[first.severity]
    head = Text.assemble((f"{first.severity:<9}", style), (f"{_who(group)}: ", "bold"), _what(group))
    if first.severity is Severity.OK:
        return [head]
    lines = [head, Text(f"         why   {_shown(first.why)}"), Text(f"         mend  {_shown(first.mend)}")]
    if len({finding.mend for finding in group.findings}) > 1:
        lines.append(Text("               likewise for the others; --format jsonl has each"))
    return lines


def _who(group: Group) -> str:
    names = group.subjects
    if len(names) == 1:
        return _shown(names[0])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    listed = f"{_shown(', '.join(names[:_NAMED]))}{more}"
    if group.first.check.area != "host":
        return listed
    return f"{len(names)} hosts" if group.first.severity is Severity.OK else f"{len(names)} hosts ({listed})"


def _what(group: Group) -> str:
    what, numbers = group.first.what, _range(group.values, group.first.unit)
    return _shown(what) if numbers.removeprefix(": ") in what else f"{_shown(what)}{numbers}"


def _range(values: Sequence[float], unit: str) -> str:
    """Returns numbers in short: `: 1.5 ms`, or `: 1.5 to 20 ms, median 3`."""
    if not values:
        return ""
    if values[0] == values[-1]:
        return f": {values[0]:g} {unit}"
    return f": {values[0]:g} to {values[-1]:g} {unit}, median {median(values):.3g}"


def _shown(text: str) -> str:
    return printable(redact(text))


def _count(findings: Sequence[Finding]) -> str:
    """Returns `1 problem, 2 warnings, 3 notes`."""
    counts = Counter(finding.severity for finding in findings)
    words = [Severity.PROBLEM, Severity.WARNING, Severity.NOTE]
    return ", ".join(f"{counts[word]} {word}{'' if counts[word] == 1 else 's'}" for word in words)
