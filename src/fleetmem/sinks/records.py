"""Outcomes, and the collector's own counters, as JSON lines and CSV rows. Pure.

`fleetmem collect` prints the same text that files hold; rows with the collector's counters are for files alone.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Any

from fleetmem.model import (
    CollectorStats,
    CommandMemory,
    Counter,
    Detail,
    Failure,
    Host,
    Outcome,
    ProcessMemory,
    Sample,
)
from fleetmem.safe_text import cell
from fleetmem.sinks.endings import Endings, Room
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.series import Text

_PROCESS_FIELDS = ProcessMemory._fields
_LATER_FIELDS = ("started_unix_seconds", "hugetlb_bytes")  # columns of CSV keep their places
_KNOWN_FIELDS = _PROCESS_FIELDS[: -len(_LATER_FIELDS)]
_PROCESS_TEMPLATE = "{" + ",".join(f'"{field}":%s' for field in _KNOWN_FIELDS) + "}"
_BEHIND_PROCESSES = ("commands", "other", "other_commands", "left_out")
_COMMANDS_REMEMBERED = 20_000
_NO_ROOM = Room(0)

CSV_COLUMNS = (
    "taken_unix_seconds",
    "host",
    "address",
    "command",
    "procs",
    *(field for field in _PROCESS_FIELDS if field not in ("command", *_LATER_FIELDS)),
    "error_kind",
    "error_message",
    "detail",
    "slot_unix_seconds",
    *_LATER_FIELDS,
)
"""Of outcomes."""

FILE_CSV_COLUMNS = (*CSV_COLUMNS, "collector", "measure", "value")
"""Of files, which hold the collector's own counters, too."""


class RecordFormat(StrEnum):
    """How records are written to files."""

    JSONL = "jsonl"
    CSV = "csv"


def to_json(outcome: Outcome, *, has_processes: bool = True) -> dict[str, Any]:
    """Returns an outcome as the JSON output has it; sizes in bytes, a key is left out where the kernel has no value."""
    head: dict[str, Any] = {
        "host": outcome.host.name,
        "address": outcome.host.address,
        "taken_unix_seconds": round(outcome.taken_unix_seconds, 3),
        "slot_unix_seconds": round(outcome.slot_unix_seconds, 3),
    }
    if outcome.host.groups:
        head["groups"] = sorted(outcome.host.groups)
    if outcome.host.labels:
        head["labels"] = dict(outcome.host.labels)
    if isinstance(outcome, Failure):
        error = {"stage": outcome.stage, "kind": outcome.kind, "message": outcome.message}
        return head | {"ok": False, "error": error}
    memory, shaped = outcome.shaped.memory, outcome.shaped
    data = head | {
        "ok": True,
        "collect_seconds": round(outcome.collect_seconds, 6),
        "memory": _without_none(
            total_bytes=memory.total_bytes,
            available_bytes=memory.available_bytes,
            swap_total_bytes=memory.swap_total_bytes,
            swap_free_bytes=memory.swap_free_bytes,
            oom_kills_total=memory.oom_kills_total,
            boot_id=memory.boot_id,
            hugetlb_bytes=memory.hugetlb_bytes,
            pressure=memory.pressure and memory.pressure._asdict(),
        ),
        "process_count": shaped.process_count,
    }
    if has_processes and Detail.PROCESS in shaped.details:
        data["processes"] = [_process(process) for process in shaped.processes]
    if Detail.COMMAND in shaped.details:
        data["commands"] = [_command(command) for command in shaped.commands]
    if shaped.other_processes:
        data["other"] = _command(shaped.other_processes)
    if shaped.other_commands:
        data["other_commands" if Detail.PROCESS in shaped.details else "other"] = _command(shaped.other_commands)
    if shaped.left_out:
        data["left_out"] = dict(shaped.left_out)
    return data


def outcome_line(outcome: Outcome) -> str:
    """Returns `to_json` of an outcome as one line of ASCII; rows of processes in less than half the time of `json`."""
    data = to_json(outcome, has_processes=False)
    if not isinstance(outcome, Sample) or Detail.PROCESS not in outcome.shaped.details:
        return json_line(data)
    rest = {key: data.pop(key) for key in _BEHIND_PROCESSES if key in data}
    rows = ",".join([_process_text(process) for process in outcome.shaped.processes])
    end = "," + json_line(rest)[1:] if rest else "}\n"
    return f'{json_line(data)[:-2]},"processes":[{rows}]{end}'


def stats_to_json(stats: CollectorStats) -> dict[str, Any]:
    """Returns the collector's own counters as files have them; those of a sink begin with its name and a dot."""
    return {
        "collector": stats.collector,
        "taken_unix_seconds": round(stats.taken_unix_seconds, 3),
        "counters": {_measure(counter): round(counter.value, 6) for counter in stats.counters},
    }


def json_line(record: dict[str, Any]) -> str:
    """Returns a record as one line of ASCII."""
    return json.dumps(record, separators=(",", ":")) + "\n"


def csv_header(columns: Iterable[str]) -> str:
    """Returns the line that begins every CSV file."""
    return _csv_lines([columns])


def csv_rows(outcome: Outcome, columns: Iterable[str] = CSV_COLUMNS) -> str:
    """Returns a row per process or command, or one with `error_kind` for a host that failed.

    With both levels a host's memory is there twice, once with the one and once with the other `detail`.
    """
    head = {
        "taken_unix_seconds": f"{outcome.taken_unix_seconds:.3f}",
        "host": cell(outcome.host.name),
        "address": cell(outcome.host.address),
        "slot_unix_seconds": f"{outcome.slot_unix_seconds:.3f}",
    }
    if isinstance(outcome, Failure):
        error = {"error_kind": outcome.kind, "error_message": cell(outcome.message)}
        return _csv_text([head | error], columns)
    rows = (head | _csv_values(row, detail) for detail in Detail for row in rows_of(outcome, detail))
    return _csv_text(rows, columns)


def stats_csv_rows(stats: CollectorStats) -> str:
    """Returns a row per counter, for files."""
    head = {"taken_unix_seconds": f"{stats.taken_unix_seconds:.3f}", "collector": stats.collector}
    rows = (head | {"measure": _measure(counter), "value": round(counter.value, 6)} for counter in stats.counters)
    return _csv_text(rows, FILE_CSV_COLUMNS)


def rows_of(sample: Sample, detail: Detail) -> Iterator[ProcessMemory | CommandMemory]:
    """Yields the rows of a level, what was left out at last; none where there is no such level."""
    shaped = sample.shaped
    yield from shaped.processes if detail is Detail.PROCESS else shaped.commands
    other = shaped.other_processes if detail is Detail.PROCESS else shaped.other_commands
    if other:
        yield other


class HostRecords:
    """The records of one host. Nothing has to be ended: a record speaks of its own time only.

    Args:
        format_: of the text.

    Attributes:
        count: rows of the last sample.
    """

    def __init__(self, format_: RecordFormat) -> None:
        self.count = 0
        self.endings = Endings(_NO_ROOM)
        self._format = format_

    def update(self, outcome: Outcome) -> Text:
        """Returns the records of an outcome."""
        self.count = 0
        if isinstance(outcome, Sample):
            self.count = sum(1 for detail in Detail for _row in rows_of(outcome, detail))
        if self._format is RecordFormat.JSONL:
            return _text(outcome_line(outcome), 1)
        return _text(csv_rows(outcome, FILE_CSV_COLUMNS), self.count if isinstance(outcome, Sample) else 1)

    def retire(self) -> Text:
        """Returns nothing."""
        return Text(b"", 0)

    def end_again(self, lost: bytes) -> None:
        """Does nothing: a record speaks of its own time only."""

    def recall(self, zeros: bytes) -> None:
        """Does nothing, for the same reason."""

    def lines(self) -> bytes:
        """Returns nothing."""
        return b""


class RecordEncoding:
    """Outcomes as records: a line of JSON per host, or a CSV row per process or command.

    Args:
        format_: which.

    Attributes:
        header: what every file begins with.
        at: see `Encoding`.
    """

    def __init__(self, format_: RecordFormat) -> None:
        self.header = csv_header(FILE_CSV_COLUMNS).encode("ascii") if format_ is RecordFormat.CSV else b""
        self._format = format_
        self.at: Callable[[bytes, float], bytes] | None = None  # a record has its time

    def host(self, names: FleetNames, host: Host) -> HostRecords:
        """Returns the records of one host."""
        del names, host  # records hold the names that hosts have, not those of metrics
        return HostRecords(self._format)

    def is_same_host(self, old: FleetNames, new: FleetNames, host: Host) -> bool:
        """Whether a host's records stay the same: always, as they hold no metric names."""
        del old, new, host
        return True

    def endings(self) -> Endings:
        """Returns a place for zeros, of which there are none."""
        return Endings(_NO_ROOM)

    def stats(self, names: FleetNames, stats: CollectorStats) -> Text:
        """Returns the collector's own counters as one JSON line, or a CSV row each."""
        del names
        if self._format is RecordFormat.JSONL:
            return _text(json_line(stats_to_json(stats)), 1)
        return _text(stats_csv_rows(stats), len(stats.counters))

    def end_stats(self, names: FleetNames, stats: CollectorStats) -> Text:
        """Returns nothing: a record speaks of its own time only."""
        del names, stats
        return Text(b"", 0)


def _text(text: str, records: int) -> Text:
    return Text(text.encode("utf-8", "backslashreplace"), records)


def _measure(counter: Counter) -> str:
    return f"{counter.sink}.{counter.measure}" if counter.sink else counter.measure


def _csv_values(row: ProcessMemory | CommandMemory, detail: Detail) -> dict[str, Any]:
    values = row._asdict() if isinstance(row, ProcessMemory) else _command(row)
    return values | {"command": cell(row.command), "procs": row.procs, "detail": detail}


def _csv_text(rows: Iterable[dict[str, Any]], columns: Iterable[str]) -> str:
    columns = tuple(columns)
    return _csv_lines([row.get(column) for column in columns] for row in rows)


def _csv_lines(lines: Iterable[Iterable[Any]]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(lines)  # None, where the kernel has no value, becomes nothing
    return file.getvalue()


def _process(process: ProcessMemory) -> dict[str, Any]:
    return {field: value for field, value in zip(_PROCESS_FIELDS, process, strict=True) if value is not None}


def _process_text(process: ProcessMemory) -> str:
    known = process[: -len(_LATER_FIELDS)]
    if None in known or process.hugetlb_bytes is not None:
        return json.dumps(_process(process), separators=(",", ":"))
    pid, uid, command, *sizes = known  # a float is written as `json` writes it
    text: str = _PROCESS_TEMPLATE % (pid, uid, _quoted(command), *sizes)
    if process.started_unix_seconds is None:
        return text
    return f'{text[:-1]},"started_unix_seconds":{process.started_unix_seconds}}}'


@lru_cache(_COMMANDS_REMEMBERED)
def _quoted(command: str) -> str:
    return json.dumps(command)


def _command(command: CommandMemory) -> dict[str, Any]:
    return _without_none(
        command=command.command,
        procs=command.procs,
        rss_bytes=command.rss_bytes,
        vsz_bytes=command.vsz_bytes,
        mem_percent=command.mem_percent,
        anon_bytes=command.anon_bytes,
        swap_bytes=command.swap_bytes,
    )


def _without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
