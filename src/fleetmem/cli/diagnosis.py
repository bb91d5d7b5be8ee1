"""What `fleetmem doctor` asks, with its progress on stderr."""

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetmem.cli.progress import progress_bars
from fleetmem.config import Settings
from fleetmem.connect.choice import fault_of_asyncssh
from fleetmem.connect.ssh_settings import JumpSpec
from fleetmem.connect.target import Access
from fleetmem.doctor.examiner import Examiner, access_of
from fleetmem.doctor.findings import Finding, exit_status
from fleetmem.doctor.hosts import Examination, ExamLimits, judge_hosts
from fleetmem.doctor.machine import Machine, Overruled, judge_machine, look_at
from fleetmem.doctor.page_access import judge_page, look_at_page
from fleetmem.doctor.pipeline import Pipeline
from fleetmem.doctor.verdicts import PipelineAnswers, judge_pipeline
from fleetmem.inventory.listing import LoginPart
from fleetmem.model import Detail, Host
from fleetmem.runtime.event_loop import FILES_FOR_OURSELVES, file_limit
from fleetmem.sinks.graphite_web import GraphiteWeb
from fleetmem.wiring.fleet import FleetParts
from fleetmem.wiring.outputs import spool_file

_WEB_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What came of it: the findings, and how many hosts can be sampled."""

    findings: list[Finding]
    answered: int

    @property
    def exit_status(self) -> int:
        """What the command ends with."""
        return exit_status(self.findings, has_answer=self.answered > 0)


async def diagnose(fleet: FleetParts, settings: Settings, at_once: int, *, is_quiet: bool) -> Diagnosis:
    """Asks hosts and pipeline side by side, shows how far that is, and judges the answers.

    Args:
        fleet: hosts, and how they are reached; its sinks are not used.
        settings: the configuration, with sinks.
        at_once: hosts at the same time.
        is_quiet: whether nothing is shown.
    """
    examinations, answers = await _ask(fleet, settings, at_once, is_quiet=is_quiet)
    findings = judge_hosts(examinations, _limits(fleet))
    findings += judge_machine(_machine(fleet, settings))
    findings += judge_page(look_at_page(settings.prometheus), time.time())
    findings += judge_pipeline(answers, _series(settings, examinations))
    return Diagnosis(findings, sum(each.kind is not None for each in examinations))


async def _ask(
    fleet: FleetParts, settings: Settings, at_once: int, *, is_quiet: bool
) -> tuple[list[Examination], PipelineAnswers]:
    with progress_bars(is_quiet=is_quiet) as progress:
        hosts = progress.add_task("hosts", total=len(fleet.hosts), text="")
        servers = progress.add_task("pipeline", total=1, text="")
        pipeline = Pipeline(settings, _web(settings), lambda text: progress.update(servers, text=text))
        try:
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(pipeline.check())
                answering.add_done_callback(lambda _task: progress.update(servers, advance=1, text=""))
                asking = group.create_task(_examine(fleet, at_once, lambda: progress.advance(hosts)))
        finally:
            await fleet.reach.close()
    return asking.result(), answering.result()


async def _examine(fleet: FleetParts, at_once: int, on_done: Callable[[], None]) -> list[Examination]:
    """Examines all hosts, so many at once."""
    slots = asyncio.Semaphore(at_once)

    async def visit(host: Host) -> Examination:
        probe = fleet.by_host[host].probe
        examiner = Examiner(
            fleet.make_link,
            lambda host: access_of(host, fleet.reach, runs_by_sudo=probe.sudo, protocol=probe.protocol),
            probe.kind,
            probe.processes,
            probe.protocol,
        )
        async with slots:
            examination = await examiner.examine(host)
            on_done()
            return examination

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(visit(host)) for host in fleet.hosts]
    return [task.result() for task in tasks]


def _web(settings: Settings) -> GraphiteWeb | None:
    return GraphiteWeb(settings.doctor.graphite_url, _WEB_SECONDS) if settings.doctor.graphite_url else None


def _limits(fleet: FleetParts) -> ExamLimits:
    access = _usual_access(fleet)
    interval_seconds = fleet.settings.run.interval_seconds
    measures = fleet.settings.shape.measure_names()
    return ExamLimits(interval_seconds, access.command_timeout_seconds, access.login_timeout_seconds, measures)


def _usual_access(fleet: FleetParts) -> Access:
    """Returns how most hosts are logged in to."""
    return Counter(target.access for target in fleet.targets.values()).most_common(1)[0][0]


def _machine(fleet: FleetParts, settings: Settings) -> Machine:
    spool = spool_file(settings.graphite) if settings.graphite.server else None
    trust = _usual_access(fleet).trust
    others = settings.graphite.server, settings.prometheus.listen, settings.file.path
    return Machine(
        left_out=fleet.inventory.left_out,
        overruled=tuple(_overruled(fleet)),
        hosts=len(fleet.hosts),
        files_allowed=file_limit(),
        files_needed=fleet.files + FILES_FOR_OURSELVES,
        policy=trust.policy,
        known_hosts=look_at(trust.paths[0] if trust.paths else Path(os.devnull)),
        spool=look_at(spool) if spool else None,
        spool_max_bytes=settings.graphite.spool_max_size,
        sinks=len(settings.statsd.servers()) + sum(other is not None for other in others) + len(settings.sinks),
        plugins=tuple(settings.sinks),
        asyncssh_fault=fault_of_asyncssh(),
    )


def _overruled(fleet: FleetParts) -> Iterator[Overruled]:
    """Yields what inventories say of logins where flags or configuration say something else.

    Hosts that are typed are no part of it: `-i ops@web01` is as much of a decision as `-u` is.
    """
    typed = fleet.inventory.typed
    found: dict[LoginPart, list[tuple[str, str]]] = {}
    for host in fleet.hosts:
        ssh = fleet.by_host[host].ssh
        said = {
            LoginPart.USER: (host.user or "", ssh.user or ""),
            LoginPart.KEY: (", ".join(host.key_paths), ", ".join(map(str, ssh.key_paths))),
            LoginPart.JUMP: (host.jump or "", _written(ssh.jumps)),
        }
        for login, (says, wanted) in said.items():
            if says and wanted and says != wanted and host.name not in typed:
                found.setdefault(login, []).append((says, wanted))
    for login, pairs in found.items():
        yield Overruled(login, len(pairs), *pairs[0])


def _written(jumps: tuple[JumpSpec, ...] | None) -> str:
    return "" if jumps is None else ",".join(map(str, jumps)) or "none"


def _series(settings: Settings, examinations: Sequence[Examination]) -> int:
    """Returns how many series the fleet begins with, about: 0 where its processes have none of their own."""
    if Detail.PROCESS not in settings.shape.detail:
        return 0
    most = settings.shape.top or sys.maxsize
    return sum(min(each.processes, most) for each in examinations) * len(settings.shape.measure_names())
