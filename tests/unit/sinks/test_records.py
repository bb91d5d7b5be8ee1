import csv
import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.model import CollectorStats, Counter, Detail, Host, Outcome, ProcessMemory
from fleetmem.shape.limits import Limits
from fleetmem.sinks import records
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.records import RecordEncoding, RecordFormat
from fleetmem.sinks.series import Text
from unit.builders import WEB, all_limits, command_names, failure, process, processes, sample

NAMES = FleetNames("fleetmem", [WEB.name])
STATS = CollectorStats(
    "ops1",
    1_700_000_000.1234,
    (Counter("", "hosts_up", 3), Counter("", "cycle_seconds", 0.123456789), Counter("statsd", "points_sent_total", 12)),
)


def update(format_: RecordFormat, outcome: Outcome) -> tuple[str, int]:
    """Returns the text of an outcome, and how many records it says that it holds."""
    text = RecordEncoding(format_).host(NAMES, WEB).update(outcome)
    assert not text.ended
    return text.text.decode("utf-8"), text.points


def rows(text: str) -> list[dict[str, str]]:
    """Returns the rows of a file with this text."""
    header = RecordEncoding(RecordFormat.CSV).header.decode("ascii")
    return list(csv.DictReader(io.StringIO(header + text, newline="")))


@pytest.mark.parametrize("outcome", [sample(process(1), process(2)), sample(), failure()])
def test_a_json_record_is_the_line_that_collect_prints(outcome: Outcome) -> None:
    """One line per host and cycle, as the contract has it."""
    text, count = update(RecordFormat.JSONL, outcome)
    assert (text, count) == (records.json_line(records.to_json(outcome)), 1)
    assert json.loads(text)["host"] == "web01"


@given(processes(), st.none() | st.integers(0, 2**40), all_limits())
def test_a_line_is_what_json_makes_of_it(rows: tuple[ProcessMemory, ...], anon: int | None, limits: Limits) -> None:
    """Whatever the names are, whatever the kernel does not say, at every level of detail."""
    outcome = sample(*[row._replace(anon_bytes=anon) for row in rows], limits=limits)
    assert records.outcome_line(outcome) == records.json_line(records.to_json(outcome))


def test_csv_records_are_rows_of_collect_with_room_for_counters() -> None:
    """The columns of `collect --format csv` come first and mean the same."""
    outcome = sample(process(7, "nginx", 4096), process(8, "b", 1), limits=Limits(top=1))
    text, count = update(RecordFormat.CSV, outcome)
    shown = csv.DictReader(io.StringIO(records.csv_header(records.CSV_COLUMNS) + records.csv_rows(outcome)))
    assert [{name: row[name] for name in records.CSV_COLUMNS} for row in rows(text)] == list(shown)
    assert count == len(rows(text)) == 2
    assert rows(text)[0]["measure"] == ""


def test_a_failed_host_is_a_csv_row() -> None:
    """With its error, and without numbers."""
    text, count = update(RecordFormat.CSV, failure())
    (row,) = rows(text)
    assert (row["host"], row["error_kind"], row["rss_bytes"], count) == ("web01", "unreachable", "", 1)


def test_a_host_without_processes_has_no_csv_row() -> None:
    """No row is no record: nothing is counted as sent."""
    assert update(RecordFormat.CSV, sample()) == ("", 0)


@given(processes(), st.sampled_from(RecordFormat))
def test_records_are_whole_lines(found: tuple[ProcessMemory, ...], format_: RecordFormat) -> None:
    """Whatever processes are called: as many lines as records, and the numbers come back."""
    text, count = update(format_, sample(*found))
    assert text.count("\n") == count
    assert not text or text.endswith("\n")
    if format_ is RecordFormat.JSONL:
        told = [(row["pid"], row["rss_bytes"]) for row in json.loads(text)["processes"]]
    else:
        told = [(int(row["pid"]), int(row["rss_bytes"])) for row in rows(text)]
    assert told == [(row.pid, row.rss_bytes) for row in found]


@given(command_names())
def test_a_host_of_any_name_is_written(name: str) -> None:
    """A name that no encoding takes must not stop the collection."""
    outcome = sample(process(1), host=Host(name, name))
    text = RecordEncoding(RecordFormat.CSV).host(NAMES, outcome.host).update(outcome).text
    assert text.decode("utf-8")


def test_stats_as_json() -> None:
    """One object per interval; a sink's counters begin with its name."""
    text = RecordEncoding(RecordFormat.JSONL).stats(NAMES, STATS)
    assert text.points == text.text.count(b"\n") == 1
    assert json.loads(text.text) == {
        "collector": "ops1",
        "taken_unix_seconds": 1_700_000_000.123,
        "counters": {"hosts_up": 3, "cycle_seconds": 0.123457, "statsd.points_sent_total": 12},
    }


def test_stats_as_csv() -> None:
    """A row per counter, in columns of their own."""
    text = RecordEncoding(RecordFormat.CSV).stats(NAMES, STATS)
    found = [(row["collector"], row["host"], row["measure"], row["value"]) for row in rows(text.text.decode())]
    assert found == [
        ("ops1", "", "hosts_up", "3"),
        ("ops1", "", "cycle_seconds", "0.123457"),
        ("ops1", "", "statsd.points_sent_total", "12"),
    ]
    assert rows(text.text.decode())[0]["taken_unix_seconds"] == "1700000000.123"
    assert text.points == 3


def test_count_is_of_the_last_sample() -> None:
    """Rows that live: those of the last sample, none of a host that failed."""
    host = RecordEncoding(RecordFormat.JSONL).host(NAMES, WEB)
    host.update(sample(process(1), process(2, "b"), limits=Limits(Detail.COMMAND, top=1)))
    assert host.count == 2
    host.update(failure())
    assert host.count == 0


def test_records_end_nothing_and_outlive_a_change_of_names() -> None:
    """A record speaks of its own time only, and holds no metric names."""
    encoding = RecordEncoding(RecordFormat.JSONL)
    assert encoding.host(NAMES, WEB).retire() == Text(b"", 0)
    assert encoding.is_same_host(NAMES, FleetNames("other", [WEB.name]), WEB)
    assert encoding.at is None
    assert encoding.header == b""


@pytest.mark.parametrize("make", [sample, failure])
def test_groups_and_labels_come_along(make: Callable[..., Outcome]) -> None:
    """In JSON, where the inventory has any; a host without them has no such keys."""
    host = Host("web01", "10.0.0.1", groups=frozenset({"web", "eu"}), labels={"env": "prod"})
    record = json.loads(update(RecordFormat.JSONL, make(host=host))[0])
    assert record["groups"] == ["eu", "web"]
    assert record["labels"] == {"env": "prod"}
    assert not {"groups", "labels"} & json.loads(update(RecordFormat.JSONL, make())[0]).keys()
