"""One command on one host, one of its processes or all: what it takes, and whether it does so elsewhere, too."""

from dashboards import graphite, promql
from dashboards.biggest import biggest
from dashboards.context import Link, cell
from dashboards.grafana import Dashboard, Row, Variable
from dashboards.graphite import Paths
from dashboards.host import host_variable
from dashboards.notes import HIGHEST, SHARED_PAGES
from dashboards.panels import FULL, Calc, Panel, PromQuery, Queries, Stat, TimeSeries, Unit
from dashboards.promql import COMMAND, HOST, PID, Metrics
from fleetmem.dashboards import Page

_HOST, _COMMAND, _PID = "$host", "$command", "$pid"  # in paths
_HOSTS_SHOWN = _PIDS_SHOWN = 20
_TO_SIBLING = Link(Page.PROCESS, {"host": cell("Host"), "command": "${command:percentencode}"})


def process(paths: Paths, metrics: Metrics) -> Dashboard:
    """Returns the dashboard of a command's processes."""
    variables = [
        host_variable(paths, metrics),
        Variable("command", paths.commands(_HOST), f"label_values({metrics.any_level('rss_bytes', HOST)}, command)"),
        Variable(
            "pid",
            paths.path("process", _HOST, _COMMAND, "*"),
            f"label_values({metrics.select('process_rss_bytes', HOST, COMMAND)}, pid)",
            has_all=True,
        ),
    ]
    return Dashboard(
        Page.PROCESS,
        "Memory of one command on one host, of one of its processes or all, and of the same command on other hosts.",
        variables,
        [
            Row("$command on $host now", _now(paths, metrics)),
            Row("Over time", _over_time(paths, metrics)),
            Row("$command on other hosts", _siblings(paths, metrics)),
            Row("Anonymous and swapped memory (shape.measures)", _more(paths, metrics), is_folded=True),
        ],
    )


def _now(paths: Paths, metrics: Metrics) -> list[Panel]:
    rss = _sum(paths, metrics, "rss_bytes")
    return [
        Stat(
            title="Memory",
            description=f"Of the processes that are chosen. {SHARED_PAGES}",
            queries=rss,
            unit=Unit.BYTES,
        ),
        Stat(
            title="Peak",
            description="The same at its highest point in this time range.",
            queries=rss,
            unit=Unit.BYTES,
            calc=Calc.MAX,
        ),
        Stat(
            title="Change",
            description="The same, at the right edge less at the left one.",
            queries=rss,
            unit=Unit.BYTES,
            calc=Calc.CHANGE,
        ),
        Stat(
            title="Share of the host",
            description=f"Memory of the processes that are chosen by total memory of the host. {SHARED_PAGES}",
            queries=_sum(paths, metrics, "mem_percent"),
            unit=Unit.PERCENT,
            thresholds=FULL,
        ),
        Stat(
            title="Virtual size",
            description="Address space. Much of it may never become memory: it tells little, until it grows and grows.",
            queries=_sum(paths, metrics, "vsz_bytes"),
            unit=Unit.BYTES,
        ),
        Stat(
            title="Processes",
            description="Of this command, whatever pid is chosen; those without series of their own left out.",
            queries=_count(paths, metrics),
        ),
    ]


def _over_time(paths: Paths, metrics: Metrics) -> list[Panel]:
    return [
        TimeSeries(
            title="Memory",
            description=f"By pid, {_PIDS_SHOWN} at most; peaks are kept. {HIGHEST} {SHARED_PAGES}",
            queries=_by_pid(paths, metrics, "rss_bytes"),
            unit=Unit.BYTES,
        ),
        TimeSeries(
            title="Virtual size",
            description=f"By pid. {HIGHEST}",
            queries=_by_pid(paths, metrics, "vsz_bytes"),
            unit=Unit.BYTES,
        ),
        TimeSeries(
            title="Share of the host's memory",
            description=f"By pid. {HIGHEST}",
            queries=_by_pid(paths, metrics, "mem_percent"),
            unit=Unit.PERCENT,
        ),
        TimeSeries(
            title="Number of processes",
            description="Of this command, whatever pid is chosen; those without series of their own left out.",
            queries=_count(paths, metrics),
        ),
    ]


def _more(paths: Paths, metrics: Metrics) -> list[Panel]:
    asked = "Only where `shape.measures` in fleetmem's configuration asks for it."
    return [
        TimeSeries(
            title="Anonymous memory",
            description=f"Heap and stacks in memory, without files, by pid. A leak is here. {HIGHEST} {asked}",
            queries=_by_pid(paths, metrics, "anon_bytes"),
            unit=Unit.BYTES,
        ),
        TimeSeries(
            title="Swapped-out memory",
            description=f"By pid. {HIGHEST} {asked}",
            queries=_by_pid(paths, metrics, "swap_bytes"),
            unit=Unit.BYTES,
        ),
    ]


def _siblings(paths: Paths, metrics: Metrics) -> list[Panel]:
    by_host = paths.by(["host"], "rss_bytes", "*", _COMMAND)
    hosts = metrics.by(["host"], "rss_bytes", COMMAND)
    description = f"All processes of this command, host by host: is this host the only one? {HIGHEST}"
    return [
        TimeSeries(
            title="Memory by host",
            description=description,
            queries=Queries(
                [graphite.highest(by_host, _HOSTS_SHOWN)],
                [PromQuery(promql.highest(hosts, _HOSTS_SHOWN), "{{host}}")],
            ),
            unit=Unit.BYTES,
            height=12,
        ),
        biggest("Hosts", description, ["Host"], by_host, hosts, rows=_HOSTS_SHOWN, link=_TO_SIBLING),
    ]


def _by_pid(paths: Paths, metrics: Metrics, measure: str) -> Queries:
    series = paths.each(["pid"], measure, _HOST, _COMMAND, _PID)
    in_prometheus = promql.highest(_each(metrics, measure), _PIDS_SHOWN)
    return Queries([graphite.highest(series, _PIDS_SHOWN)], [PromQuery(in_prometheus, "{{pid}}")])


def _sum(paths: Paths, metrics: Metrics, measure: str) -> Queries:
    series = paths.each(["pid"], measure, _HOST, _COMMAND, _PID)
    return Queries([graphite.peaks(graphite.total(series))], [PromQuery(f"sum({_each(metrics, measure)})")])


def _each(metrics: Metrics, measure: str) -> str:
    """Returns a measure of each process that is chosen; Prometheus has ratios in place of percent."""
    if measure == "mem_percent":
        return f"100 * {metrics.each(['pid'], 'mem_ratio', HOST, COMMAND, pid=PID)}"
    return metrics.each(["pid"], measure, HOST, COMMAND, pid=PID)


def _count(paths: Paths, metrics: Metrics) -> Queries:
    series = graphite.named(paths.processes(_HOST, _COMMAND), "processes")
    return Queries([series], [PromQuery(metrics.processes(HOST, COMMAND), "processes")])
