"""Logs on stderr: text for people, JSON lines for machines. Every line has a timestamp."""

import json
import logging
import sys
from datetime import UTC, datetime
from enum import IntEnum, StrEnum

from fleetmem.safe_text import printable, redact


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


def set_up(verbosity: Verbosity, format_: LogFormat) -> None:
    """Sends the logs of fleetmem, and with `-vv` those of asyncssh, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ is LogFormat.JSON else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fleetmem").setLevel(verbosity)
    logging.getLogger("asyncssh").setLevel(logging.DEBUG if verbosity is Verbosity.SSH else logging.CRITICAL)
