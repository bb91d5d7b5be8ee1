"""The demo on the screen: what grows in the lab, with its history from Graphite, drawn again each interval."""

import asyncio
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

from fleetmem.cli.check import print_verdict
from fleetmem.cli.live_page import LivePage
from fleetmem.cli.messages import report
from fleetmem.cli.screen import Screen, Style, screen_of
from fleetmem.cli.tables import NO_NAME, Column, Totals, foot_lines, layout, print_lines
from fleetmem.cli.wrapping import width_of, wrap
from fleetmem.daemon import Daemon
from fleetmem.errors import LabError
from fleetmem.lab.demo import GROWTH_SECONDS, Row, Watch, build_recording_fleet, fetch_histories
from fleetmem.lab.local import Lab
from fleetmem.lab.readback import GRAPHITE_PREFIX, Verdict, verify
from fleetmem.lab.render import GraphiteRender
from fleetmem.lab.sparkline import ASCII, BLOCKS, sparkline
from fleetmem.runtime.event_loop import run_async
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.safe_text import printable
from fleetmem.units import format_share, format_size

_CHECK_SECONDS = 0.5
_FLUSH_SLACK_SECONDS = 10.0
_ROWS = 20
_FEWEST_ROWS = 3
_LINES_AT_END = 12
_LEAK_BYTES = 1024**2
"""What grows by more stands out."""

_POINTS = 30
_HISTORY_COLUMNS = 72
"""With fewer columns there is no history: names and pids come first."""

_WIDE_COLUMNS, _FEWER_POINTS = 110, 12


class Demo:
    """The demo on a lab that is up.

    Raises:
        LabError: it has no Graphite.
    """

    def __init__(self, lab: Lab) -> None:
        if lab.state.graphite_url is None:
            raise LabError("the demo needs Graphite")
        self._lab = lab
        self._graphite = GraphiteRender(lab.state.graphite_url)
        self._fleet, self._transport = build_recording_fleet(lab.directory, lab.state)
        self._watch = Watch(self._fleet)
        self._histories: dict[str, list[float]] = {}

    def run(self, seconds: float | None) -> Verdict:
        """Samples, checks and shows what came of it."""
        interval_seconds = self._lab.state.interval_seconds
        end = "Ctrl-C ends the demo" if seconds is None else f"the demo ends after {seconds:g} s"
        report(f"{len(self._fleet.hosts)} hosts, a sample every {interval_seconds} s; {end}")
        self._print_urls()
        run_async(self._sample(seconds, end))
        with ended_by_sigterm():  # the event loop took its handlers away
            self._lab.check()
            verdict = self._verify()
            self._fetch_histories()
        screen = screen_of(sys.stdout)
        print_lines(self._lines(screen, _LINES_AT_END), sys.stdout)
        self._print_urls()
        print_verdict(verdict, self._transport.datagrams_total)
        return verdict

    async def _sample(self, seconds: float | None, end: str) -> None:
        daemon = Daemon(self._fleet, lambda: self._fleet.settings, self._watch.add)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, daemon.stop)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._show(end)), group.create_task(self._stop_without_lab(daemon))]
            await daemon.run()
            for task in tasks:
                task.cancel()

    async def _stop_without_lab(self, daemon: Daemon) -> None:
        """Ends the sampling when a part of the lab has ended; which one is reported after that."""
        while self._lab.is_whole:  # noqa: ASYNC110 - processes end, no event of ours tells
            await asyncio.sleep(_CHECK_SECONDS)
        daemon.stop()

    async def _show(self, end: str) -> None:
        """Shows what grows, with new points from Graphite each interval, and at once after a resize; on a terminal."""
        if not screen_of(sys.stdout).can_redraw:
            return
        loop, resized, page = asyncio.get_running_loop(), asyncio.Event(), LivePage(sys.stdout)
        loop.add_signal_handler(signal.SIGWINCH, resized.set)
        try:
            while True:
                await asyncio.to_thread(self._fetch_histories)
                self._draw(page, end)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._lab.state.interval_seconds / 2):
                        while await resized.wait():
                            resized.clear()
                            self._draw(page, end)
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)
            page.clear()

    def _draw(self, page: LivePage, end: str) -> None:
        screen = screen_of(sys.stdout)
        below = wrap(f"Graphite {self._graphite.url}/, {end}.", screen.columns)
        page.draw([*self._lines(screen, len(below)), *below], screen)

    def _fetch_histories(self) -> None:
        try:
            seconds = float(_POINTS * self._lab.state.interval_seconds)
            self._histories = fetch_histories(self._graphite, self._watch.fastest_growing(_ROWS), seconds)
        except LabError:  # a picture without history; the check at the end says what is wrong
            self._histories = {}

    def _verify(self) -> Verdict:
        report("waiting for StatsD's next flush, then reading every series back from Graphite")
        seconds = 2 * self._lab.state.interval_seconds + _FLUSH_SLACK_SECONDS
        return verify(self._transport.sent, self._graphite.fetch, seconds)

    def _print_urls(self) -> None:
        leaky = f"{GRAPHITE_PREFIX}{self._fleet.names.prefix}.process.*.leaky.*.rss_bytes"
        picture = f"a picture    {self._graphite.image_url(leaky)}"
        print(f"Graphite     {self._graphite.url}/")
        if width_of(picture) <= screen_of(sys.stdout).columns:
            print(picture)

    def _lines(self, screen: Screen, lines_below: int) -> list[str]:
        """Returns head, table and totals; as many rows as leave room for what stands below."""
        head = f"{self._watch.hosts_answering} of {len(self._fleet.hosts)} hosts answer. Fastest growing processes:"
        lines = [screen.paint(line, Style.STRONG) for line in wrap(head, screen.columns)]
        for failure in self._watch.failures:
            lines += wrap(printable(f"{failure.host.name}: {failure.message}"), screen.columns)
        totals = Totals()
        for sample in self._watch.samples:
            totals.add(sample, sample.shaped.processes)
        totals.total_bytes = 0  # of this machine, and once for each host
        foot = foot_lines([], totals, screen)
        room = (screen.rows or sys.maxsize) - len(lines) - len(foot) - lines_below - 1
        rows = self._watch.fastest_growing(max(_FEWEST_ROWS, min(_ROWS, room)))
        seconds = _POINTS * self._lab.state.interval_seconds
        table = growth_lines(rows, self._histories, seconds, screen)
        return [*lines, *table, *foot_lines([row.process for row in rows], totals, screen)]


def growth_lines(
    rows: Sequence[Row], histories: Mapping[str, Sequence[float]], seconds: int, screen: Screen
) -> list[str]:
    """Returns processes with their growth and, where there is room, with their history in Graphite and its scale.

    Args:
        rows: the fastest growing first.
        histories: RSS in bytes, by series.
        seconds: which the history is of.
        screen: where it is shown.
    """
    columns = [
        Column("HOST", is_name=True),
        Column("PID"),
        Column("COMMAND", is_name=True),
        Column("RSS"),
        Column(f"+{GROWTH_SECONDS:.0f} s"),
        Column("MEM%", rank=2),
        Column("VSZ", rank=3),
    ]
    for row in rows:
        process = row.process
        cells = (
            printable(row.host),
            str(process.pid),
            printable(process.command or NO_NAME),
            format_size(process.rss_bytes),
            f"+{format_size(row.grown_bytes)}" if row.grown_bytes else "0",
            format_share(process.mem_percent),
            format_size(process.vsz_bytes),
        )
        for column, cell in zip(columns, cells, strict=True):
            column.cells.append(cell)
    if screen.columns >= _HISTORY_COLUMNS:
        points = _POINTS if screen.columns >= _WIDE_COLUMNS else _FEWER_POINTS
        span_seconds = seconds * points // _POINTS
        title = f"IN GRAPHITE, LAST {span_seconds} s"
        cells_of_histories = _histories(rows, histories, points, screen)
        columns.append(Column(title, rank=1, cells=cells_of_histories))
    header, *lines = layout(columns, screen)
    return [header, *(_marked(line, row, screen) for line, row in zip(lines, rows, strict=True))]


def _marked(line: str, row: Row, screen: Screen) -> str:
    return screen.paint(line, Style.WARNING) if row.grown_bytes >= _LEAK_BYTES else line


def _histories(rows: Sequence[Row], histories: Mapping[str, Sequence[float]], points: int, screen: Screen) -> list[str]:
    """Returns sparklines, each with its lowest and highest value behind it."""
    levels = BLOCKS if screen.is_unicode else ASCII
    values = [histories.get(row.series, ())[-points:] for row in rows]
    scales = [_scale(each) if each else "" for each in values]
    width = max(map(width_of, scales), default=0)
    return [
        f"{sparkline(each, points, levels):>{points}} {scale:<{width}}"
        for each, scale in zip(values, scales, strict=True)
    ]


def _scale(values: Sequence[float]) -> str:
    """Returns the lowest and the highest value of a sparkline."""
    low, high = format_size(min(values)), format_size(max(values))
    return low if low == high else f"{low} to {high}"


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM an exception, so that the lab is stopped on the way out."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(ExitStatus.TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
