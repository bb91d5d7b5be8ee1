import io
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from fleetmem.cli import logs
from fleetmem.cli.logs import (
    BackgroundHandler,
    JsonFormatter,
    LogfmtFormatter,
    LogFormat,
    TerminalFormatter,
    TextFormatter,
    Verbosity,
    is_journal,
    set_up,
)
from fleetmem.cli.screen import Screen

_HOSTILE = "\x1b[2J\nfake line\udce9"


def _record(message: str = "no login within %d s", facts: Mapping[str, object] | None = None) -> logging.LogRecord:
    arguments = (5,) if "%d" in message else ()
    record = logging.LogRecord("fleetmem.x", logging.WARNING, "x.py", 1, message, arguments, None)
    record.created = 1_769_860_800.25
    vars(record).update(facts or {})
    return record


def _with_exception(record: logging.LogRecord) -> logging.LogRecord:
    try:
        raise KeyError("bug")
    except KeyError:
        record.exc_info = sys.exc_info()
    return record


def test_text() -> None:
    """Time in UTC, level, message, then the facts."""
    text = TextFormatter().format(_record(facts={"host": "web01", "kind": "login_timeout"}))
    assert text == "2026-01-31T12:00:00.250Z WARNING no login within 5 s host=web01 kind=login_timeout"


def test_a_terminal_has_lines_that_end_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are as long as the terminal is wide when they are written; a pipe has one line a record."""
    sizes = iter([Screen(60, 24), Screen(200, 24)])
    monkeypatch.setattr(logs, "screen_of", lambda _stream: next(sizes))
    formatter, record = TerminalFormatter(io.StringIO()), _record(facts={"host": "web01.eu-west-1.compute.internal"})
    assert formatter.format(record).split("\n") == [
        "2026-01-31T12:00:00.250Z WARNING no login within 5 s",
        "    host=web01.eu-west-1.compute.internal",
    ]
    assert formatter.format(record) == TextFormatter().format(record)


def test_text_is_one_line_that_is_safe() -> None:
    """What a host says cannot steer a terminal or fake a line."""
    text = TextFormatter().format(_record(_HOSTILE, {"host": _HOSTILE}))
    assert text.isprintable()
    assert text.count(r"\x1b[2J\x0afake line\xe9") == 2


def test_json() -> None:
    """One object a line: time, level, logger, message, and each fact under its name."""
    line = JsonFormatter().format(_record(facts={"host": "web01", "seconds": 1.5, "path": ValueError("x")}))
    assert json.loads(line) == {
        "time": "2026-01-31T12:00:00.250Z",
        "level": "warning",
        "logger": "fleetmem.x",
        "message": "no login within 5 s",
        "host": "web01",
        "seconds": 1.5,
        "path": "x",
    }


def test_json_is_one_line_of_ascii() -> None:
    """Control characters are escaped as JSON does, so that they come back whole."""
    line = JsonFormatter().format(_record(_HOSTILE))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["message"] == _HOSTILE


def test_a_bug_has_its_traceback() -> None:
    """An exception is written out, in JSON within the line."""
    assert TextFormatter().format(_with_exception(_record())).endswith("KeyError: 'bug'")
    line = JsonFormatter().format(_with_exception(_record()))
    assert "\n" not in line
    assert "KeyError: 'bug'" in json.loads(line)["exception"]


@pytest.mark.parametrize(
    ("verbose", "is_quiet", "verbosity"),
    [
        (0, False, Verbosity.NORMAL),
        (1, False, Verbosity.VERBOSE),
        (2, False, Verbosity.SSH),
        (9, False, Verbosity.SSH),
        (0, True, Verbosity.QUIET),
        (2, True, Verbosity.QUIET),
    ],
)
def test_verbosity(verbose: int, is_quiet: bool, verbosity: Verbosity) -> None:
    """-v shows more, -vv SSH too, and -q wins."""
    assert Verbosity.of(verbose, is_quiet=is_quiet) is verbosity


@pytest.mark.parametrize("verbosity", list(Verbosity))
def test_set_up(verbosity: Verbosity, capsys: pytest.CaptureFixture[str]) -> None:
    """Logs go to stderr from their level on; asyncssh's only with -vv, those of others from warnings on."""
    set_up(verbosity, LogFormat.TEXT)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("fleetmem.x").log(level, "ours %s", logging.getLevelName(level))
    logging.getLogger("asyncssh").debug("ssh")
    logging.getLogger("other").info("other")
    logging.getLogger("other").warning("others warn")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count(" ours ") == {40: 1, 30: 2, 20: 3, 10: 4, 1: 4}[verbosity]
    assert ("ssh" in captured.err) == (verbosity is Verbosity.SSH)
    assert "others warn" in captured.err
    assert " other\n" not in captured.err


def test_set_up_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With the JSON format every line is an object, and setting up twice does not write twice."""
    set_up(Verbosity.NORMAL, LogFormat.JSON)
    set_up(Verbosity.NORMAL, LogFormat.JSON)
    logging.getLogger("fleetmem").info("hello", extra={"host": "web01"})
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["host"] == "web01"


def _fill(descriptor: int) -> None:
    os.set_blocking(descriptor, False)
    with suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x" * 4096)
    os.set_blocking(descriptor, True)


def _read(descriptor: int, end: str) -> str:
    data = b""
    while not data.decode().endswith(end):
        data += os.read(descriptor, 100_000)
    return data.decode().lstrip("x")


def test_a_log_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who logs does not wait; what has no room is counted, and told when somebody reads again."""
    monkeypatch.setattr(logs, "_MAX_WAITING_CHARACTERS", 100)
    monkeypatch.setattr(logs, "_FLUSH_SECONDS", 0.05)
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading):
        _fill(writing)
        handler = BackgroundHandler(stream)
        for number in range(30):
            handler.emit(_record(f"line {number}"))
        handler.flush()
        said = ""
        while "missing" not in said:
            said += _read(reading, "\n")
        handler.emit(_record("again"))
        said += _read(reading, "again\n")
    missing = re.search(r"(\d+) log lines are missing here: nobody has read the log\n", said)
    assert missing
    assert int(missing[1]) + said.count("line ") == 30
    assert said.startswith("line 0\n")


def test_a_log_on_a_full_disk() -> None:
    """It is lost, and nothing else is."""
    with Path("/dev/full").open("w") as stream:
        handler = BackgroundHandler(stream)
        handler.emit(_record("x"))
        handler.flush()
        handler.emit(_record("y"))
        handler.flush()
        assert not handler._waiting_characters
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@pytest.mark.usefixtures("no_threads")
def test_a_log_without_a_thread(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written at once where that takes no wait, else later."""
    handler = BackgroundHandler(sys.stderr)
    handler.emit(_record("first"))
    assert capsys.readouterr().err == "first\n"
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading):
        _fill(writing)
        handler = BackgroundHandler(stream)
        handler.emit(_record("first"))
        os.set_blocking(reading, False)
        with suppress(BlockingIOError):
            while os.read(reading, 65_536):
                pass
        handler.emit(_record("second"))
        assert os.read(reading, 1000).decode().split() == ["first", "second"]


def _logfmt_fields(line: str) -> dict[str, str]:
    """Returns the fields of a line of logfmt, as its readers split it: an unquoted value ends at a space."""
    fields = {}
    for match in re.finditer(r'(?:^| )([^ ="]+)=("(?:[^"\\]|\\.)*"|[^ ="]+)', line):
        fields[match[1]] = json.loads(match[2]) if match[2].startswith('"') else match[2]
    rebuilt = re.sub(r'(?:^| )[^ ="]+=("(?:[^"\\]|\\.)*"|[^ ="]+)', "", line)
    assert not rebuilt
    return fields


def test_logfmt() -> None:
    """The fields of JSON, in quotes where they are not plain; numbers and what is not known as JSON writes them."""
    facts = {"host": "web01", "seconds": 1.5, "pid": None, "path": ValueError("x"), "is_new": True, "hosts": [1, 2]}
    assert LogfmtFormatter().format(_record(facts=facts)) == (
        "time=2026-01-31T12:00:00.250Z level=warning logger=fleetmem.x "
        'message="no login within 5 s" host=web01 seconds=1.5 pid=null path=x is_new=true hosts="[1, 2]"'
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        'a"b',
        r"a\b",
        "a=b",
        "x level=error",
        "a\nlevel=error",
        "\x1b[2J",
        "\u202eabc",
        "\u2028",
        "é",
        "\x7f",
        "😀",
    ],
)
def test_logfmt_comes_back_whole(text: str) -> None:
    """Nothing that a host says adds a field or a line, or steers a terminal."""
    line = LogfmtFormatter().format(_record("%s", {"host": text, "pl ug=in\n": "x"}) if text else _record(text))
    fields = _logfmt_fields(line)
    assert line.isprintable()
    assert fields["level"] == "warning"
    assert fields.get("host", "") == text
    assert (fields.get("pl_ug_in_") == "x") is bool(text)


def test_logfmt_of_bytes_that_are_no_text() -> None:
    """They are escaped, each by its number."""
    assert LogfmtFormatter().format(_record(_HOSTILE)).endswith(r'message="\u001b[2J\nfake line\udce9"')


@pytest.mark.parametrize("format_", list(LogFormat))
def test_priorities_in_the_journal(format_: LogFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line begins with its priority, those of a traceback too, where stderr is the journal; else none does."""
    path = tmp_path / "journal"
    for is_ours in (True, False):
        with path.open("w") as stream:
            about = os.fstat(stream.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino + (not is_ours)}")
            monkeypatch.setattr(sys, "stderr", stream)
            set_up(Verbosity.VERBOSE, format_)
            logger = logging.getLogger("fleetmem.x")
            for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
                logger.log(level, "<0>%d", level)
            logger.handle(_with_exception(_record("<0>bug")))
        lines = path.read_text().splitlines()
        found = [line[:3] if re.match("<[0-7]>[^<]", line) else "" for line in lines]
        if is_ours:
            assert found[:5] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
            assert set(found[5:]) == {"<4>"}
        else:
            assert not any(found)


def test_a_traceback_steers_no_terminal() -> None:
    """What is in the message of an exception is shown as text."""
    try:
        raise ValueError(_HOSTILE)
    except ValueError:
        record = _record()
        record.exc_info = sys.exc_info()
    text = TextFormatter().format(record)
    assert all(line.isprintable() for line in text.split("\n"))


def test_a_closed_stderr_is_no_journal() -> None:
    """Nor is one that is no file."""
    with Path(os.devnull).open("w") as stream:
        pass
    assert not is_journal(stream, "1:2")
    assert not is_journal(io.StringIO(), "1:2")


@pytest.mark.parametrize("format_", [JsonFormatter, LogfmtFormatter])
def test_what_is_missing_is_a_line_of_the_format(
    format_: type[logging.Formatter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that reads the log can read that, too."""
    monkeypatch.setattr(logs, "_MAX_WAITING_CHARACTERS", 1)
    stream = io.StringIO()
    handler = BackgroundHandler(stream)
    handler.setFormatter(format_())
    handler.emit(_record("lost"))
    monkeypatch.setattr(logs, "_MAX_WAITING_CHARACTERS", 1000)
    handler.emit(_record("kept"))
    handler.flush()
    missing, kept = stream.getvalue().splitlines()
    assert "1 log lines are missing here" in missing
    assert ("message" in missing, "level" in missing, "kept" in kept) == (True, True, True)
