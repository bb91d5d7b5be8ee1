"""`fleetmem lab`: hosts, StatsD and Graphite on this machine, to try fleetmem on."""

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fleetmem.cli.check import check, print_verdict
from fleetmem.cli.help_page import HelpfulCommand, HelpfulGroup
from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.messages import print_message
from fleetmem.cli.tables import NO_NAME, plain
from fleetmem.daemon import Daemon
from fleetmem.errors import LabError, UsageError
from fleetmem.lab.addresses import MAX_HOSTS
from fleetmem.lab.demo import Row, Watch, build_recording_fleet, fetch_histories
from fleetmem.lab.directory import DEFAULT_DIRECTORY, Directory
from fleetmem.lab.local import Lab, LocalLabPlan, take_down
from fleetmem.lab.process import Limit
from fleetmem.lab.readback import GRAPHITE_PREFIX, Verdict, verify
from fleetmem.lab.render import GraphiteRender
from fleetmem.lab.sparkline import ASCII, BLOCKS, sparkline
from fleetmem.lab.state import State, read_state
from fleetmem.runtime.event_loop import run_async
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.units import format_share, format_size

_CHECK_SECONDS = 0.5
_DEMO_SECONDS = 30.0
_FLUSH_SLACK_SECONDS = 10.0
_LINES_AROUND_ROWS = 4
_MAX_HOURS = 4  # with fleetmem at work all the time: some 20,000 series of dead processes in Graphite, 500 MB
_ROWS = 20
_SPARKLINE_COLUMNS = 30
_PIPE_COLUMNS = 120
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
    lab = Lab(Directory(path), LocalLabPlan(hosts, interval, limit, hosts_only), _report)
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
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_COLUMNS)
    limit = Limit(_MAX_HOURS * _SECONDS_PER_HOUR, os.getpid())
    lab = Lab(Directory(path), LocalLabPlan(hosts, interval, limit), _report)
    with told_clearly(), _ended_by_sigterm(), lab:
        verdict = _Demo(lab, console).run(seconds)
    _report("lab stopped; `fleetmem lab up` starts one that stays")
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


class _Demo:
    """The demo on a lab that is up."""

    def __init__(self, lab: Lab, console: Console) -> None:
        if lab.state.graphite_url is None:
            raise LabError("the demo needs Graphite")
        self._lab = lab
        self._console = console
        self._graphite = GraphiteRender(lab.state.graphite_url)
        self._fleet, self._transport = build_recording_fleet(lab.directory, lab.state)
        self._watch = Watch(self._fleet)
        self._histories: dict[str, list[float]] = {}

    def run(self, seconds: float | None) -> Verdict:
        """Samples, checks and shows what came of it."""
        end = "Ctrl-C ends it" if seconds is None else f"it ends after {seconds:g} s"
        _report(f"sampling {len(self._fleet.hosts)} hosts every {self._lab.state.interval_seconds} s; {end}")
        self._print_urls()
        run_async(self._sample(seconds))
        with _ended_by_sigterm():  # the event loop took its handlers away
            self._lab.check()
            verdict = self._verify()
            self._fetch_histories()
        self._console.print(self._table(_ROWS))
        self._print_urls()
        print_verdict(verdict, self._transport.datagrams_total)
        return verdict

    async def _sample(self, seconds: float | None) -> None:
        daemon = Daemon(self._fleet, lambda: self._fleet.settings, self._watch.add)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, daemon.stop)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._show()), group.create_task(self._stop_without_lab(daemon))]
            await daemon.run()
            for task in tasks:
                task.cancel()

    async def _stop_without_lab(self, daemon: Daemon) -> None:
        """Ends the sampling when a part of the lab has ended; which one is printed after that."""
        while self._lab.is_whole:  # noqa: ASYNC110 - processes end, no event of ours tells
            await asyncio.sleep(_CHECK_SECONDS)
        daemon.stop()

    async def _show(self) -> None:
        """Shows the biggest processes, with a new look at Graphite each interval; on a terminal only."""
        if not self._console.is_terminal:
            return
        rows = max(1, min(_ROWS, self._console.height - _LINES_AROUND_ROWS))
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._console.show_cursor(True)  # a second Ctrl-C leaves no time to bring it back
            while True:
                await asyncio.to_thread(self._fetch_histories)
                live.update(self._table(rows), refresh=True)
                await asyncio.sleep(self._lab.state.interval_seconds / 2)

    def _fetch_histories(self) -> None:
        try:
            seconds = float(_SPARKLINE_COLUMNS * self._lab.state.interval_seconds)
            self._histories = fetch_histories(self._graphite, self._watch.biggest(_ROWS), seconds)
        except LabError:  # a picture without history; the check at the end says what is wrong
            self._histories = {}

    def _verify(self) -> Verdict:
        interval_seconds = self._lab.state.interval_seconds
        _report("waiting for StatsD's next flush, then reading every series back from Graphite")
        seconds = 2 * interval_seconds + _FLUSH_SLACK_SECONDS
        return verify(self._transport.sent, self._graphite.fetch, seconds)

    def _print_urls(self) -> None:
        print(f"Graphite     {self._graphite.url}/")
        leaky = f"{GRAPHITE_PREFIX}{self._fleet.names.prefix}.process.*.leaky.*.rss_bytes"
        print(f"a picture    {self._graphite.image_url(leaky)}")

    def _table(self, rows: int) -> Group:
        head = f"{self._watch.hosts_answering} of {len(self._fleet.hosts)} hosts answer"
        lines = [Text(head, style="bold")]
        lines += [plain(f"{failure.host.name}: {failure.message}") for failure in self._watch.failures]
        levels = ASCII if self._console.options.ascii_only else BLOCKS
        return Group(*lines, _biggest_table(self._watch.biggest(rows), self._histories, levels))


def _biggest_table(rows: list[Row], histories: dict[str, list[float]], levels: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("HOST")
    table.add_column("PID", justify="right")
    table.add_column("COMMAND")
    for name in ("RSS", "VSZ", "MEM%"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("RSS IN GRAPHITE", justify="right", no_wrap=True, min_width=_SPARKLINE_COLUMNS)
    for row in rows:
        process = row.process
        sizes = (
            format_size(process.rss_bytes),
            format_size(process.vsz_bytes),
            format_share(process.mem_percent),
        )
        line = sparkline(histories.get(row.series, []), _SPARKLINE_COLUMNS, levels)
        table.add_row(plain(row.host), str(process.pid), plain(process.command or NO_NAME), *sizes, line)
    return table


def _report(text: str) -> None:
    print(text, flush=True)


@contextmanager
def told_clearly() -> Iterator[None]:
    """Ends the command with one clear message when the lab does not work."""
    try:
        yield
    except LabError as error:
        print_message(f"fleetmem lab: {error}")
        raise typer.Exit(ExitStatus.FAILED) from error


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM an exception, so that the lab is stopped on the way out."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(ExitStatus.TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stay(lab: Lab, path: Path) -> None:
    """Keeps a lab up until Ctrl-C or SIGTERM."""
    with _ended_by_sigterm(), lab, suppress(KeyboardInterrupt):
        print(_how_to_use(lab.directory, lab.state, path))
        _report("\nCtrl-C stops the lab")
        while True:
            lab.check()
            time.sleep(_CHECK_SECONDS)
    _report("lab stopped")


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
