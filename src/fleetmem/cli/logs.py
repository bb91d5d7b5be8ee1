"""Logs on stderr: text for people, JSON lines and logfmt for machines. Every line has a timestamp.

systemd's journal also gets the priority of each line, as `<N>` in front of it, which it takes off (sd-daemon(3)).
"""

import json
import logging
import os
import queue
import re
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import TextIO

from fleetmem.cli.screen import screen_of
from fleetmem.cli.wrapping import width_of, wrap
from fleetmem.runtime.side_thread import start_thread
from fleetmem.safe_text import printable, redact

_MAX_WAITING_CHARACTERS = 1024**2
_FLUSH_SECONDS = 0.5
_FLUSH_STEP_SECONDS = 0.005
_INDENT = "    "
"""Of lines that go on, on a terminal."""


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"
    LOGFMT = "logfmt"


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


_PLAIN_VALUE = re.compile(r"[\w.:/@+,-]+", re.ASCII)
_NO_KEY = re.compile(r"[^\w.-]", re.ASCII)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z WARNING no login within 5 s host=web01 kind=login_timeout`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line."""
        facts = "".join(f" {key}={printable(redact(str(value)))}" for key, value in _facts(record).items())
        text = f"{_time(record)} {record.levelname:<7} {printable(redact(record.getMessage()))}{facts}"
        if not record.exc_info:
            return text
        trace = redact(self.formatException(record.exc_info)).split("\n")
        return "\n".join([text, *map(printable, trace)])


class TerminalFormatter(TextFormatter):
    """The same on a terminal: long lines end between words, and go on below the message.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def format(self, record: logging.LogRecord) -> str:
        """Returns its lines; a traceback is left as it is."""
        line, *trace = super().format(record).split("\n")
        columns = screen_of(self._stream).columns  # now: it may have another size than before
        if width_of(line) > columns:
            line = "\n".join(wrap(line, columns, rest=_INDENT))
        return "\n".join([line, *trace])


class FieldsFormatter(logging.Formatter):
    """The base of formats for machines: time, level, logger, message, exception, and the facts beside them."""

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """Returns the fields of a line, without secrets."""
        fields: dict[str, object] = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        fields["message"] = redact(record.getMessage())
        if record.exc_info:
            fields["exception"] = redact(self.formatException(record.exc_info))
        facts = {key: redact(value) if isinstance(value, str) else value for key, value in _facts(record).items()}
        return fields | facts


class JsonFormatter(FieldsFormatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line."""
        return _json(self.fields(record))


class LogfmtFormatter(FieldsFormatter):
    """`time=2026-01-31T12:00:00.000Z level=warning message="no login within 5 s" host=web01`.

    What is not plain stands in quotes, with JSON's escapes, as readers of logfmt undo them. So no text can add a field
    or a line, or steer a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line."""
        return " ".join(f"{_NO_KEY.sub('_', key)}={_logfmt_value(value)}" for key, value in self.fields(record).items())


def _json(value: object) -> str:
    return json.dumps(value, default=lambda other: redact(str(other)))


def _logfmt_value(value: object) -> str:
    text = value if isinstance(value, str) else _json(value).removeprefix('"').removesuffix('"')
    return text if _PLAIN_VALUE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    """Returns a JSON string: what is printable as it is, the rest escaped."""
    return "".join(
        character if character.isprintable() else _json(character)[1:-1]
        for character in json.dumps(text, ensure_ascii=False)
    )


class JournalFormatter(logging.Formatter):
    """Another format with the priority in front of each line, as systemd's journal reads it (sd-daemon(3)).

    Args:
        inner: the format.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Returns its lines."""
        prefix = f"<{_priority(record.levelno)}>"
        return "\n".join(prefix + line for line in self._inner.format(record).split("\n"))


def _priority(level: int) -> int:
    """Returns the priority of syslog(3): 2 critical, 3 error, 4 warning, 6 info, 7 debug."""
    levels = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((priority for least, priority in levels if level >= least), 7)


def is_journal(stream: TextIO, journal_stream: str | None) -> bool:
    """Returns whether a stream is systemd's journal.

    Args:
        stream: stderr.
        journal_stream: `$JOURNAL_STREAM`, device and inode of what systemd has connected. A program that inherits the
            variable may have another stderr.
    """
    try:
        about = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file of the system's; closed
        return False
    return journal_stream == f"{about.st_dev}:{about.st_ino}"


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
                    _write_to(self._stream, f"{self.format(_missing(dropped))}\n")
                _write_to(self._stream, line)
        finally:
            self._waiting_characters -= len(line)


def _missing(lines: int) -> logging.LogRecord:
    message = f"{lines} log lines are missing here: nobody has read the log"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)


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


_FORMATTERS: dict[LogFormat, Callable[[], logging.Formatter]] = {
    LogFormat.TEXT: TextFormatter,
    LogFormat.JSON: JsonFormatter,
    LogFormat.LOGFMT: LogfmtFormatter,
}


def set_up(verbosity: Verbosity, format_: LogFormat, *, in_background: bool = False) -> None:
    """Sends the logs of fleetmem, and with `-vv` those of asyncssh, to stderr.

    Args:
        verbosity: how much of them.
        format_: how lines look.
        in_background: nothing waits for the lines to be written.
    """
    handler = BackgroundHandler(sys.stderr) if in_background else logging.StreamHandler(sys.stderr)
    is_seen = format_ is LogFormat.TEXT and screen_of(sys.stderr).rows is not None
    formatter = TerminalFormatter(sys.stderr) if is_seen else _FORMATTERS[format_]()
    is_for_journal = is_journal(sys.stderr, os.environ.get("JOURNAL_STREAM"))
    handler.setFormatter(JournalFormatter(formatter) if is_for_journal else formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fleetmem").setLevel(verbosity)
    logging.getLogger("asyncssh").setLevel(logging.DEBUG if verbosity is Verbosity.SSH else logging.CRITICAL)
