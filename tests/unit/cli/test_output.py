import csv
import errno
import io
import json
import re
import sys
import threading
from pathlib import Path
from typing import TextIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.cli import output
from fleetmem.cli.output import (
    BackgroundWriter,
    JsonLinesWriter,
    OutputFormat,
    make_record_writer,
    make_writer,
    open_output,
)
from fleetmem.errors import Kind, SinkError, Stage
from fleetmem.model import Detail, Outcome, ProcessMemory
from fleetmem.shape.limits import Limits
from fleetmem.sinks.records import RecordFormat, to_json
from unit.builders import command_names, failure, process, sample

_HOSTILE = "\x1b[31m\nevil\r\x9b\u202e\udce9,\"'=1"


@pytest.fixture(autouse=True)
def _has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the screen of the tests is."""
    monkeypatch.delenv("COLUMNS", raising=False)


def _written(format_: OutputFormat, *outcomes: Outcome, rows: int = 20) -> str:
    file = io.StringIO(newline="")
    writer = make_writer(format_, file, rows)
    for outcome in outcomes:
        writer.write(outcome)
    writer.finish()
    return file.getvalue()


def _csv(*outcomes: Outcome) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(_written(OutputFormat.CSV, *outcomes), newline="")))


def test_json_of_a_sample() -> None:
    """The promised shape: host, memory and processes in bytes; what is unknown is left out."""
    (line,) = _written(OutputFormat.JSONL, sample(process(7, "nginx", 4096, 8192))).splitlines()
    assert json.loads(line) == {
        "host": "web01",
        "address": "10.0.0.1",
        "taken_unix_seconds": 1_700_000_000.25,
        "slot_unix_seconds": 1_700_000_000.125,
        "ok": True,
        "collect_seconds": 0.125,
        "memory": {
            "total_bytes": 8589934592,
            "available_bytes": 3221225472,
            "swap_total_bytes": 1073741824,
            "swap_free_bytes": 1048576,
            "oom_kills_total": 2,
            "boot_id": "boot",
        },
        "process_count": 1,
        "processes": [
            {
                "pid": 7,
                "uid": 0,
                "command": "nginx",
                "rss_bytes": 4096,
                "vsz_bytes": 8192,
                "mem_percent": 0.000048,
                "peak_rss_bytes": 4096,
                "swap_bytes": 0,
            }
        ],
    }


def test_json_of_failure() -> None:
    """A failed host has its line too: stage, kind and message."""
    (line,) = _written(OutputFormat.JSONL, failure(Kind.AUTH_FAILED, "no", Stage.LOGIN)).splitlines()
    assert json.loads(line) == {
        "host": "web01",
        "address": "10.0.0.1",
        "taken_unix_seconds": 1_700_000_000.25,
        "slot_unix_seconds": 1_700_000_000.125,
        "ok": False,
        "error": {"stage": "login", "kind": "auth_failed", "message": "no"},
    }


def test_json_by_command_with_other() -> None:
    """By command there are `commands` in place of `processes`, and `other` for what was left out."""
    limits = Limits(Detail.COMMAND, top=1)
    data = to_json(sample(process(1, "a", 10, 20), process(2, "b", 30, 40), limits=limits))
    assert data["commands"] == [
        {"command": "b", "procs": 1, "rss_bytes": 30, "vsz_bytes": 40, "mem_percent": pytest.approx(0, abs=1e-6)}
    ]
    assert data["other"]["rss_bytes"] == 10
    assert data["process_count"] == 2
    assert "processes" not in data
    assert "other" not in to_json(sample())


def test_json_of_both_levels() -> None:
    """Each level has its rows and its rest; what was left out is counted by process."""
    limits = Limits(frozenset(Detail), top=1)
    data = to_json(sample(process(1, "a", 10), process(2, "b", 30), process(3, "b", 5), limits=limits))
    assert [row["pid"] for row in data["processes"]] == [2]
    assert [row["rss_bytes"] for row in data["commands"]] == [35]
    assert (data["other"]["rss_bytes"], data["other_commands"]["rss_bytes"]) == (15, 10)
    assert json.loads(json.dumps(data))["left_out"] == {"top": 2}


def test_one_json_document() -> None:
    """An array of what JSON lines have; an array without anything where there is nothing."""
    outcomes = sample(process(7)), failure(), sample()
    lines = _written(OutputFormat.JSONL, *outcomes).splitlines()
    assert json.loads(_written(OutputFormat.JSON, *outcomes)) == list(map(json.loads, lines))
    assert _written(OutputFormat.JSON) == "[]\n"


def test_a_json_document_is_whole_when_it_is_written_in_the_background() -> None:
    """What is flushed in between ends nothing."""
    file = io.StringIO()
    writer = BackgroundWriter(make_writer(OutputFormat.JSON, file))
    for _ in range(3):
        writer.write(failure())
        wait_until_written = threading.Event()
        wait_until_written.wait(0.01)
    writer.finish()
    assert len(json.loads(file.getvalue())) == 3


@given(command_names())
def test_a_json_line_is_one_line_of_ascii_and_keeps_the_name(command: str) -> None:
    """Whatever a process is called: one line that any reader takes, and the name can be had back."""
    text = _written(OutputFormat.JSONL, sample(process(1, command)))
    assert text.isascii()
    assert text.count("\n") == 1
    assert json.loads(text)["processes"][0]["command"] == command


def test_csv_of_a_sample() -> None:
    """A row per process and one for `other`; empty where the kernel has no value."""
    first, other = _csv(sample(process(7, "a b", 4096), process(8, "b", 1), limits=Limits(top=1)))
    assert (first["host"], first["command"], first["pid"], first["rss_bytes"]) == ("web01", "a b", "7", "4096")
    assert (first["procs"], first["anon_bytes"], first["error_kind"]) == ("1", "", "")
    assert first["taken_unix_seconds"] == "1700000000.250"
    assert (other["command"], other["pid"], other["procs"], other["rss_bytes"]) == ("other", "", "1", "1")
    assert (first["detail"], other["detail"]) == ("process", "process")


def test_csv_by_command() -> None:
    """Commands have `procs` and no pid."""
    (row,) = _csv(sample(process(1), process(2), limits=Limits(Detail.COMMAND)))
    assert (row["command"], row["procs"], row["pid"], row["uid"]) == ("nginx", "2", "", "")
    assert row["detail"] == "command"


def test_csv_of_both_levels() -> None:
    """Which level a row is of stands in it: by each of them the host's memory can be added up once."""
    limits = Limits(frozenset(Detail), top=1)
    rows = _csv(sample(process(1, "a", 10), process(2, "b", 30), process(3, "b", 5), limits=limits))
    shown = [(row["detail"], row["command"], row["procs"], row["rss_bytes"]) for row in rows]
    assert shown == [
        ("process", "b", "1", "30"),
        ("process", "other", "2", "15"),
        ("command", "b", "2", "35"),
        ("command", "other", "1", "10"),
    ]


def test_csv_of_failure() -> None:
    """A failed host is a row with its error, and no numbers that look like zero."""
    (row,) = _csv(failure(Kind.UNREACHABLE, "no route"))
    assert row["detail"] == ""
    assert (row["error_kind"], row["error_message"], row["rss_bytes"]) == ("unreachable", "no route", "")


def test_csv_has_a_header_without_hosts() -> None:
    """An empty table still says what its columns are."""
    assert _written(OutputFormat.CSV).startswith("taken_unix_seconds,host,address,command,procs,pid,uid,rss_bytes,")


@pytest.mark.parametrize("format_", list(OutputFormat))
@pytest.mark.parametrize("outcome", [sample(process(1, _HOSTILE)), failure(message=_HOSTILE)], ids=["name", "message"])
def test_nothing_hostile_reaches_the_terminal(format_: OutputFormat, outcome: Outcome) -> None:
    """A process or a host that means harm cannot move the cursor, change colours or begin a line of its own."""
    text = _written(format_, outcome)
    assert all(line.isprintable() for line in re.split("\r?\n", text))
    text.encode("utf-8")  # no half of a character: stdout would refuse it
    assert "\nevil" not in text


def test_table() -> None:
    """The biggest of the fleet, largest first, no more rows than asked for; sizes for people."""
    text = _written(
        OutputFormat.TABLE,
        sample(process(1, "small", 1024), process(2, "big", 3 * 1024**2, 5 * 1024**3)),
        failure(),
        sample(process(3, "", 2 * 1024**2)),
        rows=2,
    )
    header, first, second, foot = text.splitlines()
    assert header.split() == ["HOST", "PID", "USER", "COMMAND", "RSS", "SWAP", "PEAK", "ANON", "VSZ", "MEM%"]
    assert first.split("  ")[0] == "web01"
    assert re.split(r" {2,}", first)[1:] == [
        *("2", "root", "big"), *("3.0 MiB", "0 B", "3.0 MiB", "-", "5.0 GiB", "0.04"),
    ]  # fmt: skip
    assert re.split(r" {2,}", second)[1:4] == ["3", "root", "(no name)"]
    assert foot == (
        "2 of 3 processes on 2 hosts: 5.0 MiB of 5.0 MiB RSS (shared pages count in each process). "
        "Memory in use: 10 GiB of 16 GiB."
    )


def test_table_by_command_shows_how_many() -> None:
    """Where there is no pid the number of processes stands in parentheses."""
    text = _written(OutputFormat.TABLE, sample(process(1), process(2), limits=Limits(Detail.COMMAND)))
    assert "(2)" in text


def test_table_of_both_levels() -> None:
    """No memory is shown twice: with both levels the table is of processes."""
    limits = Limits(frozenset(Detail), top=1)
    text = _written(OutputFormat.TABLE, sample(process(1, "a"), process(2, "a"), process(3, "a"), limits=limits))
    rows = [line.split()[1:4] for line in text.splitlines()[1:-1]]
    assert rows == [["(2)", "-", "other"], ["1", "root", "a"]]


def test_table_without_rows() -> None:
    """When no host answered there is no empty table."""
    assert _written(OutputFormat.TABLE, failure()) == ""


def test_table_does_not_read_markup() -> None:
    """Brackets in a name are a name."""
    assert "[bold]x[/]" in _written(OutputFormat.TABLE, sample(process(1, "[bold]x[/]")))


_ROWS = st.lists(st.builds(process, st.integers(1, 99), command_names(), st.integers(0, 2**40)), max_size=8)


@given(st.lists(_ROWS, max_size=4), st.integers(1, 5))
def test_the_table_keeps_only_what_it_shows(samples: list[list[ProcessMemory]], rows: int) -> None:
    """Memory does not grow with the fleet, and the biggest are the biggest of all."""
    writer = output.TableWriter(io.StringIO(), rows)
    for processes in samples:
        writer.write(sample(*processes))
        assert len(writer._biggest) <= rows
    sizes = sorted((row.rss_bytes for processes in samples for row in processes), reverse=True)
    assert [row.rss_bytes for _, row in writer._biggest] == sizes[:rows]


@pytest.mark.parametrize("path", [None, Path("-")])
def test_open_output_is_stdout(path: Path | None, capsys: pytest.CaptureFixture[str]) -> None:
    """No file, or `-`, is stdout."""
    with open_output(path) as file:
        assert file is sys.stdout
        file.write("x")
    assert capsys.readouterr().out == "x"


def test_open_output_writes_a_file(tmp_path: Path) -> None:
    """A file is written as UTF-8, with line ends as they are."""
    with open_output(tmp_path / "out") as file:
        file.write("é\r\n")
    assert (tmp_path / "out").read_bytes() == "é\r\n".encode()


def test_open_output_that_cannot_be_written(tmp_path: Path) -> None:
    """The message names the file and the reason."""
    with pytest.raises(SinkError, match=r"output .*nowhere/out: no such file"), open_output(tmp_path / "nowhere/out"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk() -> None:
    """A disk that is full is an error of the output, not a traceback."""
    with pytest.raises(SinkError, match="output /dev/full: no space left"), open_output(Path("/dev/full")) as file:
        file.write("x")


class _Pipe:
    """A file whose reader has stalled until it is told to go on."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.text = ""

    def write(self, text: str) -> int:
        self.goes_on.wait(20)
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_a_stalled_reader_delays_nobody() -> None:
    """Outcomes are taken at once; what is over the limit is counted; all the rest is written when reading goes on."""
    pipe = _Pipe()
    writer = BackgroundWriter(JsonLinesWriter(cast("TextIO", pipe)), max_waiting=3)
    for _ in range(10):
        writer.write(failure())
    assert writer.is_stalled(0.01)
    lost = writer.lost
    assert lost >= 10 - 1 - 3
    pipe.goes_on.set()
    writer.finish()
    assert 3 <= pipe.text.count("\n") <= 10


class _FullDisk:
    """A file on a full disk."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_in_the_background() -> None:
    """The error of the thread that writes comes out where the end is waited for."""
    writer = BackgroundWriter(JsonLinesWriter(cast("TextIO", _FullDisk())))
    writer.write(failure())
    with pytest.raises(OSError, match="No space left"):
        writer.finish()
    assert writer.lost == 1


@pytest.mark.parametrize("format_", list(RecordFormat))
def test_what_was_written_before_stays(tmp_path: Path, format_: RecordFormat) -> None:
    """A file that is appended to keeps its lines, and a CSV has one header; otherwise it is written anew."""
    path = tmp_path / "output"

    def write(*, is_appending: bool) -> list[str]:
        with open_output(path, is_appending=is_appending) as file:
            make_record_writer(format_, file).write(failure())
        return path.read_text().splitlines()

    once = write(is_appending=True)
    assert write(is_appending=True) == [*once, once[-1]]
    assert write(is_appending=False) == once
