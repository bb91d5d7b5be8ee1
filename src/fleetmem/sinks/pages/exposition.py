r"""Prometheus's text format: what is known of a host to samples of metric families. Pure.

prometheus_client writes a sample in 5 us, all of it under the interpreter's lock: 0.12 s for 7,500 processes, in which
the event loop waits again and again. The many samples of hosts are written here in a twentieth of that, host by host.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from fleetmem.errors import Kind
from fleetmem.model import (
    MORE_MEASURES,
    CommandMemory,
    CounterKind,
    Host,
    ProcessMemory,
    Sample,
    Shaped,
    measures_of_sum,
)
from fleetmem.sinks.measures import known_measures, value_of
from fleetmem.sinks.naming import tag_key
from fleetmem.sinks.series import RETIRE_AFTER_FAILURES
from fleetmem.units import format_number

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

OTHER = "other"
r"""Label value `command` of what was left out. A process that calls itself so is `\x6fther`."""

_PROCESS_FAMILIES = {
    "process_rss_bytes": "Resident set size of a process, shared pages included.",
    "process_vsz_bytes": "Virtual size of a process.",
    "process_mem_ratio": "Resident set size of a process by total memory of its host.",
    "process_peak_rss_bytes": "Highest resident set size of a process so far.",
    "process_anon_bytes": "Anonymous resident memory of a process: heap and stacks, no files.",
    "process_swap_bytes": "Swapped-out memory of a process.",
}
_COMMAND_FAMILIES = {
    "command_rss_bytes": "Resident set sizes of all processes of a command; shared pages count more than once.",
    "command_vsz_bytes": "Virtual sizes of all processes of a command.",
    "command_mem_ratio": "Resident set sizes of all processes of a command by total memory of their host.",
    "command_anon_bytes": "Anonymous resident memory of all processes of a command.",
    "command_swap_bytes": "Swapped-out memory of all processes of a command.",
    "command_procs": "Processes of a command.",
}
_HOST_FAMILIES = {
    "up": "Whether the host answered when it was last asked.",
    "host_failure": "Why the host did not answer when it was last asked; a host that answers has none.",
    "host_sample_unix_seconds": "When the sample that is shown was taken; of a host that is away, the last one.",
    "host_mem_total_bytes": "MemTotal.",
    "host_mem_available_bytes": "MemAvailable.",
    "host_swap_total_bytes": "SwapTotal.",
    "host_swap_free_bytes": "SwapFree.",
    "host_processes": "Processes in the sample, before any limit.",
    "host_collect_seconds": "From asking, and connecting where needed, to the parsed answer.",
    "host_oom_kills_total": "Processes that the kernel has killed for memory since boot.",
    "host_memory_pressure_some_seconds_total": "Time in which a process waited for memory, since boot.",
    "host_memory_pressure_full_seconds_total": "Time in which all processes with work waited for memory, since boot.",
    "host_hugetlb_bytes": "Memory that is set aside for huge pages.",
}
FAMILIES = {**_HOST_FAMILIES, **_COMMAND_FAMILIES, **_PROCESS_FAMILIES}
"""Names without the prefix, and what they mean. Those that end in `_total` are counters, all others gauges."""

_RATIOS = {"mem_percent": "mem_ratio"}
"""Measures whose base unit is another one here."""

COLLECTOR_FAMILY = "collector_"
"""What comes before the measures of the collector, of its sinks, too."""

_SURROGATE_OR_BACKSLASH = re.compile(r"[\\\ud800-\udfff]")
_LABELS_REMEMBERED = 20_000


class HostState(NamedTuple):
    """What is known of a host. Never changes: a thread that writes it sees all of one outcome, or all of the next.

    Attributes:
        sample: the last good one; None where there is none, or it is too old to be shown.
        sample_unix_seconds: when the last good one was taken, also when it is shown no more.
        failures: cycles without an answer since then.
        kind: of the last of these failures.
    """

    sample: Sample | None = None
    sample_unix_seconds: float | None = None
    failures: int = 0
    kind: Kind | None = None

    def after(self, sample: Sample) -> "HostState":
        """Returns what is known after a good outcome."""
        return HostState(sample, sample.taken_unix_seconds)

    def after_failure(self, kind: Kind) -> "HostState":
        """Returns what is known after a bad one: the third in a row ends what the host's last sample showed."""
        failures = self.failures + 1
        sample = self.sample if failures < RETIRE_AFTER_FAILURES else None
        return HostState(sample, self.sample_unix_seconds, failures, kind)

    @property
    def series(self) -> int:
        """Samples that it is written as."""
        count = 1 + (self.sample_unix_seconds is not None) + (self.kind is not None)
        if self.sample:
            shaped = self.sample.shaped
            count += sum(value is not None for value in _sample_values(self.sample).values())
            measures = known_measures(shaped)
            of_sum = len(measures_of_sum(measures))
            count += len(shaped.processes) * len(measures) + bool(shaped.other_processes) * (of_sum - 1)
            count += (len(shaped.commands) + bool(shaped.other_commands)) * of_sum
        return count


def metric_name(prefix: str, family: str) -> str:
    """Returns the whole name of a family; dots of the prefix become `_`."""
    return f"{prefix.replace('.', '_')}_{family}"


def label_value(original: str) -> str:
    r"""Returns a name as a label shows it: as it is, where it is UTF-8 without a backslash.

    Else backslashes are doubled and the other bytes are `\xNN`: valid, and never the same for two names.
    """
    return _SURROGATE_OR_BACKSLASH.sub(lambda match: _escape(match[0]), original)


def command_label(command: str) -> str:
    """Returns the label value of a real command, which is never that of what was left out."""
    return r"\x6fther" if command == OTHER else label_value(command)


def _escape(character: str) -> str:
    if character == "\\":
        return "\\\\"
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def quoted(value: str) -> str:
    """Returns a label value as the format wants it between quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@lru_cache(_LABELS_REMEMBERED)
def _quoted_command(command: str) -> str:
    return quoted(command_label(command))


class Exposition:
    """Writes hosts in the text format.

    Args:
        prefix: of metric names; dots become `_`.
        tags: labels of hosts in the inventory that their samples have, too.
    """

    def __init__(self, prefix: str, tags: Sequence[str] = ()) -> None:
        self.prefix = prefix
        self._tags = [(tag, tag_key(tag)) for tag in tags]
        self._names = {family: metric_name(prefix, family) for family in FAMILIES}

    def header(self, family: str) -> bytes:
        """Returns what comes before the samples of a family."""
        name = self._names[family]
        kind = CounterKind.COUNTER if family.endswith("_total") else CounterKind.GAUGE
        return f"# HELP {name} {FAMILIES[family]}\n# TYPE {name} {kind}\n".encode()

    def host(self, host: Host, state: HostState) -> dict[str, bytes]:
        """Returns the samples of a host, by family."""
        told = {"host": host.name} | {key: host.labels[tag] for tag, key in self._tags if host.labels.get(tag)}
        label = "{" + ",".join(f'{key}="{quoted(label_value(value))}"' for key, value in told.items())
        texts = self._host_lines(label, state)
        if state.kind:
            texts["host_failure"] = f'{self._names["host_failure"]}{label},kind="{state.kind}"}} 1\n'
        if state.sample:
            shaped = state.sample.shaped
            measures = known_measures(shaped)
            texts |= self._process_lines(label, shaped, measures) | self._command_lines(label, shaped, measures)
        return {family: text.encode() for family, text in texts.items() if text}

    def _host_lines(self, label: str, state: HostState) -> dict[str, str]:
        values: dict[str, float | None] = {
            "up": int(state.failures == 0),
            "host_sample_unix_seconds": state.sample_unix_seconds,
        }
        if state.sample:
            values |= _sample_values(state.sample)
        return {
            family: f"{self._names[family]}{label}}} {format_number(value)}\n"
            for family, value in values.items()
            if value is not None
        }

    def _process_lines(self, label: str, shaped: Shaped, measures: Sequence[str]) -> dict[str, str]:
        rows: list[tuple[str, ProcessMemory | CommandMemory]] = [
            (f'{label},command="{_quoted_command(row.command)}",pid="{row.pid}"}} ', row) for row in shaped.processes
        ]
        if shaped.other_processes:
            rows.append((f'{label},command="{OTHER}",pid="0"}} ', shaped.other_processes))
        return self._memory_lines("process", measures, rows)

    def _command_lines(self, label: str, shaped: Shaped, measures: Sequence[str]) -> dict[str, str]:
        rows = [(f'{label},command="{_quoted_command(row.command)}"}} ', row) for row in shaped.commands]
        if shaped.other_commands:
            rows.append((f'{label},command="{OTHER}"}} ', shaped.other_commands))
        procs = self._names["command_procs"]
        counts = {"command_procs": "".join([f"{procs}{labels}{row.procs}\n" for labels, row in rows])}
        return self._memory_lines("command", measures_of_sum(measures)[:-1], rows) | counts

    def _memory_lines(
        self, level: str, measures: Sequence[str], rows: Sequence[tuple[str, ProcessMemory | CommandMemory]]
    ) -> dict[str, str]:
        texts: dict[str, str] = {}
        for measure in measures:
            family = f"{level}_{_RATIOS.get(measure, measure)}"
            name = self._names[family]
            if measure in _RATIOS:
                lines = [
                    f"{name}{labels}{row.mem_percent / 100:.8f}\n"
                    for labels, row in rows
                    if row.mem_percent is not None
                ]
            elif measure in MORE_MEASURES:
                values = [(labels, value_of(row, measure)) for labels, row in rows]
                lines = [f"{name}{labels}{value}\n" for labels, value in values if value is not None]
            elif measure == "rss_bytes":  # without a look-up by name: there are thousands
                lines = [f"{name}{labels}{row.rss_bytes}\n" for labels, row in rows]
            else:
                lines = [f"{name}{labels}{row.vsz_bytes}\n" for labels, row in rows]
            texts[family] = "".join(lines)
        return texts


def _sample_values(sample: Sample) -> dict[str, float | None]:
    memory = sample.shaped.memory
    return {
        "host_mem_total_bytes": memory.total_bytes,
        "host_mem_available_bytes": memory.available_bytes,
        "host_swap_total_bytes": memory.swap_total_bytes,
        "host_swap_free_bytes": memory.swap_free_bytes,
        "host_processes": sample.shaped.process_count,
        "host_collect_seconds": sample.collect_seconds,
        "host_oom_kills_total": memory.oom_kills_total,
        "host_memory_pressure_some_seconds_total": memory.pressure and memory.pressure.some_seconds_total,
        "host_memory_pressure_full_seconds_total": memory.pressure and memory.pressure.full_seconds_total,
        "host_hugetlb_bytes": memory.hugetlb_bytes,
    }
