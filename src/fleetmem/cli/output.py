"""Outcomes as JSON lines, CSV and a table."""

import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from heapq import nlargest
from pathlib import Path
from typing import Protocol, TextIO

from fleetmem.cli.surroundings import forget_stdout
from fleetmem.errors import SinkError, reason_of
from fleetmem.model import CommandMemory, Detail, Outcome, ProcessMemory, Sample
from fleetmem.runtime.side_thread import start_thread
from fleetmem.sinks.records import CSV_COLUMNS, csv_header, csv_rows, outcome_line, rows_of
from fleetmem.telemetry.bugs import Bugs


class OutputFormat(StrEnum):
    """How data is written."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


class OutcomeWriter(Protocol):
    """Writes outcomes as they come."""

    def write(self, outcome: Outcome) -> None:
        """Takes one outcome."""

    def finish(self) -> None:
        """Writes what needed all of them."""


class JsonLinesWriter:
    """One JSON object per host."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, outcome: Outcome) -> None:
        """Writes a line."""
        self._file.write(outcome_line(outcome))

    def finish(self) -> None:
        """Flushes."""
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

    def finish(self) -> None:
        """Flushes."""
        self._file.flush()


class TableWriter:
    """The biggest processes of the fleet, largest RSS first; commands where that is all there is: nothing counts twice.

    Keeps no more rows than it shows.
    """

    def __init__(self, file: TextIO, rows: int) -> None:
        self._file = file
        self._rows = rows
        self._biggest: list[tuple[str, ProcessMemory | CommandMemory]] = []

    def write(self, outcome: Outcome) -> None:
        """Takes the processes of a host."""
        if isinstance(outcome, Sample):
            details = outcome.shaped.details
            finest = Detail.PROCESS if Detail.PROCESS in details else Detail.COMMAND
            candidates = [*self._biggest, *((outcome.host.name, row) for row in rows_of(outcome, finest))]
            self._biggest = nlargest(self._rows, candidates, key=lambda candidate: candidate[1].rss_bytes)

    def finish(self) -> None:
        """Prints the table."""
        if self._biggest:
            # Imported here: rich is a twentieth of a start that prints no table.
            from fleetmem.cli.tables import print_biggest

            print_biggest(self._biggest, self._file)


class BackgroundWriter:
    """Writes in a thread of its own: a reader that stalls (`| less`, a full pipe) must not delay the hosts.

    Args:
        writer: does the writing, and is finished whenever nothing waits.
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

    def _run(self) -> None:
        while (outcome := self._waiting.get()) is not None:
            try:
                self._writer.write(outcome)
                if self._waiting.empty():
                    self._writer.finish()
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


def make_writer(format_: OutputFormat, file: TextIO, rows: int) -> OutcomeWriter:
    """Returns the writer for a format."""
    match format_:
        case OutputFormat.TABLE:
            return TableWriter(file, rows)
        case OutputFormat.JSONL:
            return JsonLinesWriter(file)
        case OutputFormat.CSV:
            return CsvWriter(file)


def print_data(text: str) -> None:
    """Prints to stdout.

    Raises:
        SinkError: it cannot be written, the disk is full.
    """
    with open_output(None) as file:
        file.write(text)


@contextmanager
def open_output(path: Path | None, *, is_appending: bool = False) -> Iterator[TextIO]:
    """Opens where data goes: a file, which is written anew unless told to append, or stdout for None and `-`.

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
