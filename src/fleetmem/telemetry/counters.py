"""The collector's own counters, each declared once: name, kind, unit and meaning.

Prometheus' HELP and TYPE, the tables of docs/reference/metrics.md (`make docs-tables`), the dashboards' list of names
and the tests follow from it. A name and its kind are an API; `SelfStats` refuses to ship a name that is not here.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fleetmem.errors import Kind
from fleetmem.model import CounterKind, DeclaredCounter, LabelledName, LeftOut


def _gauge(name: str, unit: str, meaning: str, page: str = "") -> DeclaredCounter:
    return DeclaredCounter(name, CounterKind.GAUGE, unit, meaning, page)


def _counter(name: str, unit: str, meaning: str, page: str = "") -> DeclaredCounter:
    return DeclaredCounter(name, CounterKind.COUNTER, unit, meaning, page)


_FAILED_BECAUSE: Mapping[Kind, str] = {
    Kind.UNRESOLVABLE: "their names do not resolve",
    Kind.UNREACHABLE: "there is no route, or the port is closed",
    Kind.CONNECT_TIMEOUT: "no TCP connection was made in time",
    Kind.HOST_KEY_UNKNOWN: "their host keys are not in known_hosts, and may not be added",
    Kind.HOST_KEY_CHANGED: "their host keys are not the known ones",
    Kind.AUTH_FAILED: "they accepted no key",
    Kind.AGENT_UNAVAILABLE: "the ssh agent on the collector's machine did not answer",
    Kind.LOGIN_TIMEOUT: "they were connected, but not logged in in time",
    Kind.COMMAND_TIMEOUT: "the probe did not answer in time",
    Kind.COMMAND_MISSING: "they lack a program that the probe needs",
    Kind.COMMAND_FAILED: "the probe, or a program that it needs, failed",
    Kind.SUDO_REFUSED: "sudo wants a password, or refuses",
    Kind.BAD_FRAME: "the answer was incomplete, or no frame",
    Kind.DISCONNECTED: "the connection broke",
    Kind.INTERNAL: "fleetmem has a bug; the log has one traceback for each host and type",
}

_LEFT_OUT_BECAUSE: Mapping[LeftOut, str] = {
    LeftOut.EXCLUDED: "a pattern excludes them",
    LeftOut.SMALL: "they are smaller than min_rss",
    LeftOut.TOP: "they are not among the top",
    LeftOut.BUDGET: "the series budget is used up",
}


def _by_name(declared: Iterable[DeclaredCounter]) -> Mapping[str, DeclaredCounter]:
    return MappingProxyType({counter.name: counter for counter in declared})


COLLECTOR_COUNTERS = _by_name(
    [
        _gauge("hosts_up", "hosts", "Hosts that answered."),
        _gauge("hosts_failed", "hosts", "Hosts that did not answer."),
        *(
            _gauge(f"hosts_failed_{kind}", "hosts", f"Hosts that failed because {_FAILED_BECAUSE[kind]}.")._replace(
                labelled=LabelledName("hosts_failed", "kind", kind)
            )
            for kind in Kind
        ),
        _gauge("processes", "processes", "Rows in all samples, before any limit."),
        *(
            _gauge(
                f"processes_{reason}", "processes", f"Processes without own series because {_LEFT_OUT_BECAUSE[reason]}."
            )
            for reason in LeftOut
        ),
        _gauge("received_bytes", "bytes", "Size of all frames, before encryption."),
        _gauge("cycle_seconds", "seconds", "Time from the begin of the interval to its last outcome."),
        _gauge("host_p50_seconds", "seconds", "Median of the time that hosts took to answer or to fail."),
        _gauge("host_p99_seconds", "seconds", "99th percentile of the time that hosts took to answer or to fail."),
        _gauge("host_highest_seconds", "seconds", "Time that the slowest host took to answer or to fail."),
        _gauge("late_p50_seconds", "seconds", "Median of how long after its slot a sample was begun."),
        _gauge("late_p99_seconds", "seconds", "99th percentile of how long after its slot a sample was begun."),
        _gauge("late_highest_seconds", "seconds", "How long after its slot the latest sample was begun."),
        _counter(
            "slots_total",
            "slots",
            "Slots of hosts that are settled: the outcomes and the missed slots add up to them exactly.",
        ),
        _counter(
            "cycles_missed_total",
            "slots",
            "Slots without an outcome: the sample before was not over, the sample hung, its worker was down, "
            "the machine slept.",
        ),
        _counter(
            "frames_resynced_total",
            "frames",
            "Frames that did not lead to the sums that the host told; everything was asked for again.",
        ),
        _counter("handshakes_total", "attempts", "Connections that were tried."),
        _counter("reconnects_total", "attempts", "Connections that were tried to hosts that had been tried before."),
        _counter(
            "logins_withheld_total",
            "logins",
            "Logins that were not tried because many hosts had refused the same user and keys, and none accepted them.",
            "ssh.md",
        ),
        _counter(
            "outcomes_dropped_total",
            "outcomes",
            "Outcomes that workers could not hand to the sinks of the main process because too many waited.",
            "../how-to/scaling.md",
        ),
        _counter(
            "bugs_total",
            "bugs",
            "Bugs in fleetmem or in a plug-in: of a host, whose outcome is then internal, of a sink, or of a report.",
        ),
        _gauge(
            "config_last_reload_successful",
            "1 or 0",
            "Whether the configuration that was read last was taken: at the start, or with SIGHUP.",
        ),
        _gauge(
            "config_last_reload_success_timestamp_seconds",
            "seconds",
            "When a configuration was taken last, in seconds since 1970.",
        ),
        _gauge("workers", "processes", "Processes that sample: 1 without --workers."),
        _counter("workers_restarted_total", "restarts", "Workers that died and were started again."),
        _gauge(
            "names_kept_apart",
            "names",
            "Hosts and commands with a hash in their name, as two would share it otherwise.",
        ),
        _gauge("inventory_hosts", "hosts", "Hosts that the inventories name, after --limit."),
        _counter(
            "inventory_failures_total",
            "readings",
            "Readings of an inventory that failed or came back all but empty; its hosts stay.",
        ),
        _gauge(
            "inventory_stale",
            "inventories",
            "Inventories whose last reading failed: their hosts are those of an earlier one.",
        ),
        _gauge(
            "inventory_entries_left_out",
            "entries",
            "Inventory entries that name no host or contradict each other; fleetmem hosts prints each with its place.",
        ),
        _counter("cpu_seconds_total", "seconds", "User and system time of the collector's processes (Linux only)."),
        _gauge("rss_bytes", "bytes", "Resident memory of the collector's processes (Linux only)."),
        _gauge(
            "open_files",
            "files",
            "Open file descriptors of the collector's processes; a connection is one (Linux only).",
        ),
        _gauge("threads", "threads", "Threads of the collector's processes (Linux only)."),
        _gauge(
            "tasks",
            "tasks",
            "Tasks of the event loops: one per host that is being sampled, one or two per connection (Linux only).",
        ),
    ]
)
"""Of the collector itself, by name, in the order in which they are sent."""

SINK_COUNTERS = _by_name(
    [
        _counter("points_sent_total", "points", "Points that were delivered, as far as the protocol tells."),
        _counter(
            "points_dropped_full_total", "points", "Oldest points, dropped to stay in the bounds of queue or spool."
        ),
        _counter(
            "points_dropped_late_total",
            "points",
            "Points given up: not delivered in the time that makes sense for the protocol, or too old for the spool.",
        ),
        _counter("retries_total", "deliveries", "Deliveries that were tried again after a failure."),
        _counter("sent_bytes_total", "bytes", "Payload that was sent, without headers of UDP or TCP."),
        _counter("datagrams_sent_total", "datagrams", "Datagrams that were handed to the kernel."),
        _counter("series_retired_total", "series", "Series that have ended, each counted once."),
        _gauge("series", "series", "Series that live now."),
        _gauge("queue_points", "points", "Points that wait in memory."),
        _gauge("queue_bytes", "bytes", "Size of the points that wait in memory."),
        _gauge("queue_age_seconds", "seconds", "How long the oldest point in memory has waited."),
        _gauge("spool_points", "points", "Points that wait on disk."),
        _gauge("spool_bytes", "bytes", "Size of the points that wait on disk, text only."),
        _gauge("spool_age_seconds", "seconds", "How long ago the oldest point on disk was taken."),
        _gauge("failing", "1 or 0", "Whether the backend is away."),
    ]
)
"""Counters of each sink: the fields of `SinkStats`."""

ALL_COUNTERS: Mapping[str, DeclaredCounter] = MappingProxyType({**COLLECTOR_COUNTERS, **SINK_COUNTERS})
"""Both: no name is in both, as Prometheus has one family for each."""


def markdown_table(declared: Mapping[str, DeclaredCounter]) -> str:
    """Returns the table of docs/reference/metrics.md, without a line break at its end."""
    lines = ["| measure | unit | kind | meaning |", "|---|---|---|---|"]
    for name, unit, kind, meaning, page in (
        (each.name, each.unit, each.kind, each.meaning, each.page) for each in declared.values()
    ):
        link = f" ([{page.rpartition('/')[2]}]({page}))" if page else ""
        lines.append(f"| `{name}` | {unit} | {kind} | {meaning.removesuffix('.')}{link} |")
    return "\n".join(lines)
