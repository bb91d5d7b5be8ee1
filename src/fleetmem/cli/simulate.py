"""`fleetmem lab simulate`: any number of hosts in one process, to see how fleetmem does with them."""

import asyncio
import shlex
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.help_page import HelpfulCommand
from fleetmem.cli.lab import MaxHours, app, told_clearly
from fleetmem.errors import UsageError
from fleetmem.lab.directory import Directory
from fleetmem.lab.simulated_host import Fault, SimulationPlan
from fleetmem.lab.simulator import MAX_HOSTS, Simulator
from fleetmem.runtime.event_loop import raise_file_limit, run_async
from fleetmem.runtime.garbage import keep_collections_short

DEFAULT_DIRECTORY = Path("~/.cache/fleetmem/simulated")

_MAX_HOURS = 4
_MAX_PROCESSES = 20_000
_SECONDS_PER_HOUR = 3600
_REPORT_SECONDS = 10.0


def _share(what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        min=0, max=1, metavar="SHARE", help=f"Share of the hosts that {what}, 0 to 1."
    )
    return option


@app.command(cls=HelpfulCommand)
def simulate(
    path: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Folder for keys, hosts file and configuration.")
    ] = (DEFAULT_DIRECTORY),
    hosts: Annotated[
        int, typer.Option("--hosts", min=1, max=MAX_HOSTS, metavar="NUMBER", help="Number of hosts.")
    ] = 1000,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=_MAX_PROCESSES, metavar="NUMBER", help="Processes of each host.")
    ] = 150,
    churn: Annotated[
        float,
        typer.Option(
            "--churn",
            min=0,
            max=1,
            metavar="SHARE",
            help="Share of the processes that change with each sample, 0 to 1.",
        ),
    ] = 0.1,
    seed: Annotated[
        int, typer.Option("--seed", min=0, metavar="NUMBER", help="The same seed makes the same fleet.")
    ] = 1,
    slow: Annotated[float, _share("answer after 2 s")] = 0,
    silent: Annotated[float, _share("never answer")] = 0,
    refusing: Annotated[float, _share("refuse connections")] = 0,
    dropping: Annotated[float, _share("drop the connection in the middle of every fourth answer")] = 0,
    flooding: Annotated[float, _share("send rows without end")] = 0,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="PORT", help="TCP port; 0 takes a free one.")
    ] = 0,
    max_hours: MaxHours = _MAX_HOURS,
) -> None:
    """Simulate a fleet on loopback addresses until Ctrl-C: real SSH, made-up processes.

    Example:
      # 10,000 hosts; 50 never answer, 50 drop connections
      fleetmem lab simulate --hosts 10000 --silent 0.005 --dropping 0.005
    """
    faults = {
        Fault.SLOW: slow,
        Fault.SILENT: silent,
        Fault.REFUSING: refusing,
        Fault.DROPPING: dropping,
        Fault.FLOODING: flooding,
    }
    if sum(faults.values()) > 1:
        raise UsageError("a host has one fault at most: their shares are more than 1 together")
    fits = raise_file_limit(hosts, hosts)
    if fits < hosts:
        raise UsageError(f"{hosts} hosts need as many open files, {fits} are allowed; see `ulimit -Hn`")
    simulator = Simulator(Directory(path), SimulationPlan(hosts, processes, churn, seed, faults), port)
    with told_clearly():
        run_async(_serve(simulator, path, max_hours * _SECONDS_PER_HOUR))


async def _serve(simulator: Simulator, path: Path, seconds: int) -> None:
    """Answers until SIGTERM, Ctrl-C or that many seconds have passed; says how it goes."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    keep_collections_short()
    async with simulator:
        print(_how_to_use(simulator, path), flush=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                reports = group.create_task(_report(simulator))
                await stopping.wait()
                reports.cancel()
        print(_counts(simulator), flush=True)


async def _report(simulator: Simulator) -> None:
    while True:
        before = simulator.frames_total
        await asyncio.sleep(_REPORT_SECONDS)
        rate = (simulator.frames_total - before) / _REPORT_SECONDS
        print(f"{rate:.0f} frames a second, {_counts(simulator)}", flush=True)


def _counts(simulator: Simulator) -> str:
    return (
        f"{simulator.connections} hosts connected, {simulator.logins_total} logins, "
        f"{simulator.doubles_total} requests while the one before was at work, "
        f"{simulator.crowds_total} connections beside another one"
    )


def _how_to_use(simulator: Simulator, path: Path) -> str:
    directory = Directory(path)
    config = shlex.quote(str(directory.config))
    return "\n".join(
        [
            f"hosts          {simulator.hosts}, port {simulator.port}",
            f"hosts file     {directory.hosts_file}",
            f"key            {directory.key}",
            f"configuration  {directory.config}",
            "",
            "Once; every interval, to a StatsD server:",
            f"    fleetmem collect -c {config}",
            f"    fleetmem run -c {config} -g HOST",
            "Ctrl-C ends it",
        ]
    )
