"""Logs on stderr: text for people, JSON lines for machines. Every line has a timestamp."""

import json
import logging
import os
import queue
import select
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import TextIO

from fleetmem.runtime.side_thread import start_thread
from fleetmem.safe_text import printable, redact

_MAX_WAITING_CHARACTERS = 1024**2
_FLUSH_SECONDS = 0.5
_FLUSH_STEP_SECONDS = 0.005


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class Verbosity(IntEnum):
    """How much goes to stderr, as a logging level."""

    QUIET = logging.ERROR
    WARNINGS = logging.WARNING
    NORMAL = logging.INFO
    VERBOSE = logging.DEBUG
    SSH = 1

    @classmethod
    def of(cls, verbose: int, *, is_quiet: bool) -> "Verbosity":
        """Returns what `-q`, `-v` and `-vv` ask for."""
        if is_quiet:
            return cls.QUIET
        return (cls.NORMAL, cls.VERBOSE, cls.SSH)[min(verbose, 2)]


_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _facts(record: logging.LogRecord) -> dict[str, object]:
    """Returns what was passed as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z WARNING no login within 5 s host=web01 kind=login_timeout`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line."""
        facts = "".join(f" {key}={printable(redact(str(value)))}" for key, value in _facts(record).items())
        text = f"{_time(record)} {record.levelname:<7} {printable(redact(record.getMessage()))}{facts}"
        return f"{text}\n{redact(self.formatException(record.exc_info))}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the facts beside it."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line."""
        line = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        line["message"] = redact(record.getMessage())
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        facts = {key: redact(value) if isinstance(value, str) else value for key, value in _facts(record).items()}
        return json.dumps(line | facts, default=lambda value: redact(str(value)))


class BackgroundHandler(logging.Handler):
    """Writes to a stream in a thread of its own: a pipe that nobody reads, or a disk that hangs, holds up no host.

    What waits is bounded. What does not fit is dropped and counted, and the log says so as soon as it is written again.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._waiting_characters = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a line; returns at once."""
        try:
            line = f"{self.format(record)}\n"
        except Exception:  # noqa: BLE001 - as the standard library's handlers: a line that cannot be made
            self.handleError(record)
            return
        if self._waiting_characters + len(line) > _MAX_WAITING_CHARACTERS:
            self._dropped += 1
            return
        self._waiting_characters += len(line)
        self._waiting.put(line)
        self._begin()

    def flush(self) -> None:
        """Waits until all is written, for a moment: what hangs is left."""
        deadline = time.monotonic() + _FLUSH_SECONDS
        while self._waiting_characters and self._begin() and time.monotonic() < deadline:
            time.sleep(_FLUSH_STEP_SECONDS)

    def _begin(self) -> bool:
        """Starts the thread where there is none; without one, writes here what can be written without a wait."""
        if self._thread is None:
            try:
                self._thread = start_thread(self._run, "log")
            except OSError:
                while not self._waiting.empty() and _takes_more(self._stream):
                    self._write(self._waiting.get())
                return False
        return True

    def _run(self) -> None:
        while True:
            self._write(self._waiting.get())

    def _write(self, line: str) -> None:
        dropped, self._dropped = self._dropped, 0
        try:
            with suppress(OSError, ValueError):  # a full disk; a stream that is closed
                if dropped:
                    _write_to(self._stream, f"{dropped} log lines are missing here: nobody has read the log\n")
                _write_to(self._stream, line)
        finally:
            self._waiting_characters -= len(line)


def _write_to(stream: TextIO, text: str) -> None:
    """Writes past the stream's own buffer: a thread that hangs in it would keep the interpreter from its end."""
    try:
        descriptor = stream.fileno()
    except OSError:  # no file of the system's
        stream.write(text)
        return
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data:
        data = data[os.write(descriptor, data) :]


def _takes_more(stream: TextIO) -> bool:
    """Whether a short line can be written without a wait."""
    try:
        poll = select.poll()
        poll.register(stream, select.POLLOUT)
        return any(event & select.POLLOUT for _descriptor, event in poll.poll(0))
    except (OSError, ValueError):  # no file of the system's
        return True


def set_up(verbosity: Verbosity, format_: LogFormat, *, in_background: bool = False) -> None:
    """Sends the logs of fleetmem, and with `-vv` those of asyncssh, to stderr.

    Args:
        verbosity: how much of them.
        format_: how lines look.
        in_background: nothing waits for the lines to be written.
    """
    handler = BackgroundHandler(sys.stderr) if in_background else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ is LogFormat.JSON else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fleetmem").setLevel(verbosity)
    logging.getLogger("asyncssh").setLevel(logging.DEBUG if verbosity is Verbosity.SSH else logging.CRITICAL)
