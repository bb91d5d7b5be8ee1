"""Outcomes as JSON, JSON lines, CSV and a table."""

import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from heapq import nlargest
from pathlib import Path
from typing import Protocol, TextIO

from fleetmem.cli.screen import Screen, screen_of
from fleetmem.cli.surroundings import forget_stdout
from fleetmem.cli.tables import Totals, biggest_lines, print_lines
from fleetmem.errors import SinkError, reason_of
from fleetmem.model import CommandMemory, Detail, Outcome, ProcessMemory, Sample
from fleetmem.runtime.side_thread import start_thread
from fleetmem.sinks.records import CSV_COLUMNS, RecordFormat, csv_header, csv_rows, outcome_line, rows_of
from fleetmem.telemetry.bugs import Bugs

_ROWS = 20
"""Rows of a table where no terminal limits them."""

_FEWEST_ROWS = 5
_FOOT_COLUMNS, _FOOT_LINES = 150, 3


class OutputFormat(StrEnum):
    """How `collect` writes data."""

    TABLE = "table"
    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"


class ListFormat(StrEnum):
    """How commands write that list something other than outcomes."""

    TABLE = "table"
    JSONL = "jsonl"


class OutcomeWriter(Protocol):
    """Writes outcomes as they come."""

    def write(self, outcome: Outcome) -> None:
        """Writes one outcome, or keeps it."""

    def flush(self) -> None:
        """Lets the reader have what is written."""

    def finish(self) -> None:
        """Writes what needs all of them, and flushes."""


class JsonLinesWriter:
    """One JSON object per host."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, outcome: Outcome) -> None:
        """Writes a line."""
        self._file.write(outcome_line(outcome))

    def flush(self) -> None:
        """Flushes."""
        self._file.flush()

    finish = flush


class JsonWriter:
    """One JSON document: an array with the same object per host as a JSON line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._before = "[\n"

    def write(self, outcome: Outcome) -> None:
        """Writes an element of the array."""
        self._file.write(self._before + outcome_line(outcome).rstrip("\n"))
        self._before = ",\n"

    def flush(self) -> None:
        """Flushes."""
        self._file.flush()

    def finish(self) -> None:
        """Ends the array."""
        self._file.write("[]\n" if self._before == "[\n" else "\n]\n")
        self._file.flush()


class CsvWriter:
    """One row per process or command; one row with `error_kind` for a host that failed.

    With both levels a host's memory is there twice, once with the one and once with the other `detail`.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        if not (file.seekable() and file.tell()):  # one that is appended to has its header
            self._file.write(csv_header(CSV_COLUMNS))

    def write(self, outcome: Outcome) -> None:
        """Writes the rows of a host."""
        self._file.write(csv_rows(outcome))

    def flush(self) -> None:
        """Flushes."""
        self._file.flush()

    finish = flush


class TableWriter:
    """The biggest processes of the fleet, largest RSS first; commands where that is all there is: nothing counts twice.

    Keeps no more rows than it may show.

    Args:
        file: where it goes.
        rows: how many; None for what fits the terminal, 20 where there is none.

    Attributes:
        lines_below: lines that the terminal is to have room for below the table.
    """

    def __init__(self, file: TextIO, rows: int | None = None) -> None:
        self.lines_below = 0
        self._file = file
        self._rows = rows
        self._most = rows or max(_ROWS, screen_of(file).rows or 0)
        self._biggest: list[tuple[str, ProcessMemory | CommandMemory]] = []
        self._totals = Totals()

    def write(self, outcome: Outcome) -> None:
        """Takes the processes of a host."""
        if isinstance(outcome, Sample):
            details = outcome.shaped.details
            rows = list(rows_of(outcome, Detail.PROCESS if Detail.PROCESS in details else Detail.COMMAND))
            self._totals.add(outcome, rows)
            candidates = [*self._biggest, *((outcome.host.name, row) for row in rows)]
            self._biggest = nlargest(self._most, candidates, key=lambda candidate: candidate[1].rss_bytes)

    def flush(self) -> None:
        """Does nothing: the table comes last."""

    def finish(self) -> None:
        """Prints the table."""
        if self._biggest:
            print_lines(self._lines(screen_of(self._file)), self._file)

    def _lines(self, screen: Screen) -> list[str]:
        shown = self._biggest
        if self._rows is None:
            shown = shown[: _room(screen, self.lines_below)]
        return biggest_lines(shown, self._totals, screen)


def _room(screen: Screen, lines_below: int) -> int:
    """Returns how many rows fit, with a header, a foot of up to three lines, and a prompt."""
    if screen.rows is None:
        return _ROWS
    foot = 1 if screen.columns >= _FOOT_COLUMNS else _FOOT_LINES
    return max(_FEWEST_ROWS, screen.rows - 2 - foot - lines_below)


class BackgroundWriter:
    """Writes in a thread of its own: a reader that stalls (`| less`, a full pipe) must not delay the hosts.

    Args:
        writer: does the writing, and is flushed whenever nothing waits.
        max_waiting: outcomes that may wait for it; what comes on top is lost and counted. 0 is no limit.
        bugs: counts what goes wrong by a fault of ours.

    Attributes:
        lost: outcomes that were not written.

    Raises:
        SinkError: no thread can be started.
    """

    def __init__(self, writer: OutcomeWriter, max_waiting: int = 0, bugs: Bugs | None = None) -> None:
        self.lost = 0
        self.bugs = bugs or Bugs()
        self._writer = writer
        self._problem: OSError | None = None
        self._waiting: queue.Queue[Outcome | None] = queue.Queue(max_waiting)
        try:
            self._thread = start_thread(self._run, "output")
        except OSError as error:
            raise SinkError(f"output: {error}") from error

    def write(self, outcome: Outcome) -> None:
        """Takes an outcome; returns at once."""
        try:
            self._waiting.put_nowait(outcome)
        except queue.Full:
            self.lost += 1

    def flush(self) -> None:
        """Does nothing: its thread flushes whenever nothing waits."""

    def _run(self) -> None:
        while (outcome := self._waiting.get()) is not None:
            try:
                self._writer.write(outcome)
                if self._waiting.empty():
                    self._writer.flush()
            except OSError as error:
                self.lost += 1
                self._problem = self._problem or error
            except Exception as bug:  # noqa: BLE001 - one outcome is not written, the others are
                self.lost += 1
                self.bugs.note("output", bug)

    def finish(self) -> None:
        """Waits until all is written.

        Raises:
            OSError: writing failed.
        """
        self._waiting.put(None)
        self._thread.join()
        if self._problem:
            raise self._problem
        self._writer.finish()

    def is_stalled(self, seconds: float) -> bool:
        """Whether it is still not done after waiting that long. Then nobody else may touch the file: it is locked."""
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(seconds)
        if not self._thread.is_alive():
            return False
        self.lost += self._waiting.qsize()
        return True


def make_writer(format_: OutputFormat, file: TextIO, rows: int | None = None) -> OutcomeWriter:
    """Returns the writer for a format; `rows` are those of a table."""
    match format_:
        case OutputFormat.TABLE:
            return TableWriter(file, rows)
        case OutputFormat.JSONL:
            return JsonLinesWriter(file)
        case OutputFormat.JSON:
            return JsonWriter(file)
        case OutputFormat.CSV:
            return CsvWriter(file)


def make_record_writer(format_: RecordFormat, file: TextIO) -> OutcomeWriter:
    """Returns the writer for a format of files that are appended to."""
    return CsvWriter(file) if format_ is RecordFormat.CSV else JsonLinesWriter(file)


def print_data(text: str) -> None:
    """Prints to stdout.

    Raises:
        SinkError: it cannot be written, the disk is full.
    """
    with open_output(None) as file:
        file.write(text)


@contextmanager
def open_output(path: Path | None, *, is_appending: bool = False) -> Iterator[TextIO]:
    """Opens where data goes: a file, which is emptied first unless it is to append, or stdout for None and `-`.

    Raises:
        SinkError: the file cannot be written, or the disk is full.
    """
    if path is None or str(path) == "-":
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:  # `fleetmem collect | head`
            raise
        except OSError as error:
            forget_stdout()
            raise SinkError(f"output: {reason_of(error)}") from error
        return
    try:
        with path.open("a" if is_appending else "w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise SinkError(f"output {path}: {reason_of(error)}") from error
