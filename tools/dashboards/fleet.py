"""The fleet: is something wrong, and on which host."""

from dashboards import graphite, promql
from dashboards.biggest import biggest
from dashboards.context import SERIES_NAME, Link, cell
from dashboards.grafana import Dashboard, Row, Variable
from dashboards.graphite import Paths
from dashboards.notes import COARSE, GROWTH, HIGHEST, IN_USE, SHARED_PAGES
from dashboards.panels import (
    ANY_IS_BAD,
    FULL,
    UP,
    BarGauge,
    Calc,
    Column,
    Panel,
    PromQuery,
    Queries,
    Stat,
    Table,
    TimeSeries,
    Unit,
)
from dashboards.promql import AT_END, HOSTS, NAMED, Metrics
from fleetmem.dashboards import Page

_HOSTS = "$hosts"  # in paths
_TOP = 10
_ROWS = 50
_KEYS = ["host", "command", "pid"]

_TO_HOST = Link(Page.HOST, {"host": SERIES_NAME})
_TO_HOST_OF_ROW = Link(Page.HOST, {"host": cell("Host")})
_TO_PROCESS = Link(Page.PROCESS, {"host": cell("Host"), "command": cell("Command"), "pid": cell("Pid")})


def fleet(paths: Paths, metrics: Metrics) -> Dashboard:
    """Returns the dashboard of all hosts."""
    hosts = Variable("hosts", paths.path("host", "*"), f"label_values({metrics.select('up')}, host)", has_all=True)
    return Dashboard(
        Page.FLEET,
        "Memory of all hosts: what is down, what is full, what grows.",
        [hosts],
        [
            Row("The fleet now", _now(paths, metrics)),
            Row("The fleet over time", _over_time(paths, metrics)),
            Row("What grows", _growing(paths, metrics)),
            Row("Hosts", _hosts(paths, metrics)),
            Row("Commands and processes", _commands(paths, metrics)),
        ],
    )


def _now(paths: Paths, metrics: Metrics) -> list[Panel]:
    return [
        Stat(
            title="Hosts that answer",
            description="Hosts that answered in the last cycle.",
            queries=_sum(paths.sum("up", _HOSTS), metrics.sum("up", HOSTS)),
        ),
        Stat(
            title="Hosts down",
            description="Hosts that did not answer in the last cycle. The list is below, under Hosts.",
            queries=_sum(_down(paths), f"sum(1 - {metrics.select('up', HOSTS)})"),
            thresholds=ANY_IS_BAD,
        ),
        Stat(
            title="Memory in use",
            description=IN_USE,
            queries=_sum(
                graphite.less_than(100, _available_percent(paths)),
                f"100 - 100 * {metrics.sum('host_mem_available_bytes', HOSTS)} / {_total(metrics)}",
            ),
            unit=Unit.PERCENT,
            thresholds=FULL,
        ),
        Stat(
            title="Memory available",
            description="What can be had without swapping, all hosts together.",
            queries=_sum(paths.sum("mem_available_bytes", _HOSTS), metrics.sum("host_mem_available_bytes", HOSTS)),
            unit=Unit.BYTES,
        ),
        Stat(
            title="Swap in use",
            description="All hosts together. Little is normal; what grows is not.",
            queries=_sum(
                graphite.difference(paths.sum("swap_total_bytes", _HOSTS), paths.sum("swap_free_bytes", _HOSTS)),
                f"{metrics.sum('host_swap_total_bytes', HOSTS)} - {metrics.sum('host_swap_free_bytes', HOSTS)}",
            ),
            unit=Unit.BYTES,
        ),
        Stat(
            title="Processes",
            description="Of all hosts, before any limit of fleetmem.",
            queries=_sum(paths.sum("processes", _HOSTS), metrics.sum("host_processes", HOSTS)),
        ),
    ]


def _over_time(paths: Paths, metrics: Metrics) -> list[Panel]:
    total, available = paths.sum("mem_total_bytes", _HOSTS), paths.sum("mem_available_bytes", _HOSTS)
    in_use = f"{_total(metrics)} - {metrics.sum('host_mem_available_bytes', HOSTS)}"
    return [
        TimeSeries(
            title="Memory of the fleet",
            description=IN_USE,
            queries=Queries(
                [
                    graphite.named(graphite.peaks(graphite.difference(total, available)), "in use"),
                    graphite.named(total, "total"),
                ],
                [PromQuery(in_use, "in use"), PromQuery(_total(metrics), "total")],
            ),
            unit=Unit.BYTES,
            outlines=["total"],
        ),
        TimeSeries(
            title="Hosts",
            description="Hosts that answered, and hosts that did not. A gap is time in which fleetmem itself was away.",
            queries=Queries(
                [graphite.named(paths.sum("up", _HOSTS), "answer"), graphite.named(_down(paths), "down")],
                [
                    PromQuery(metrics.sum("up", HOSTS), "answer"),
                    PromQuery(f"sum(1 - {metrics.select('up', HOSTS)})", "down"),
                ],
            ),
            is_stacked=True,
        ),
    ]


def _growing(paths: Paths, metrics: Metrics) -> list[Panel]:
    hosts, hosts_at_end = metrics.growth_in_use(HOSTS), metrics.growth_in_use(HOSTS, at=AT_END)
    commands, commands_at_end = (
        metrics.by(["command"], "rss_bytes", HOSTS, NAMED, view=view) for view in (promql.growth, promql.growth_at_end)
    )
    processes, processes_at_end = (
        metrics.each(_KEYS, "rss_bytes", HOSTS, view=view) for view in (promql.growth, promql.growth_at_end)
    )
    return [
        TimeSeries(
            title="Fastest growing hosts",
            description=f"Memory in use. {GROWTH}",
            queries=Queries(
                [graphite.highest_now(graphite.above_lowest(paths.in_use(_HOSTS)), _TOP)],
                [PromQuery(promql.highest_at_end(hosts, hosts_at_end, _TOP), "{{host}}")],
            ),
            unit=Unit.BYTES,
            width=8,
            height=12,
            link=_TO_HOST,
        ),
        TimeSeries(
            title="Fastest growing commands",
            description=f"Memory of all processes of a name, over all hosts. {GROWTH}",
            queries=Queries(
                [graphite.highest_now(paths.by(["command"], "rss_bytes", _HOSTS, shape=_growth_of_named), _TOP)],
                [PromQuery(promql.highest_at_end(commands, commands_at_end, _TOP), "{{command}}")],
            ),
            unit=Unit.BYTES,
            width=8,
            height=12,
        ),
        TimeSeries(
            title="Fastest growing processes",
            description=(
                "Memory of each process of the fleet, by host, command and pid. To see what grew most in the last five "
                "minutes, choose *Last 5 minutes* on top: the first line below the graph is the answer. "
                f"{GROWTH} {COARSE}"
            ),
            queries=Queries(
                [graphite.highest_now(paths.each(_KEYS, "rss_bytes", _HOSTS, shape=graphite.growth), _TOP)],
                [PromQuery(promql.highest_at_end(processes, processes_at_end, _TOP), "{{host}}.{{command}}.{{pid}}")],
            ),
            unit=Unit.BYTES,
            width=8,
            height=12,
        ),
    ]


def _growth_of_named(series: graphite.Expression) -> graphite.Expression:
    """Returns how series grow but for `other`, which grows when less is in the top."""
    return graphite.growth(graphite.without_other(series))


def _hosts(paths: Paths, metrics: Metrics) -> list[Panel]:
    in_use, percent = metrics.in_use(HOSTS), metrics.in_use_percent(HOSTS)
    up = f"sum by (host) ({metrics.select('up', HOSTS)})"
    return [
        BarGauge(
            title="Biggest hosts",
            description=f"Those with the most memory in use. {IN_USE}",
            queries=Queries(
                [graphite.highest_now(paths.in_use(_HOSTS), _TOP)],
                [PromQuery(promql.highest_now(in_use, _TOP), "{{host}}")],
            ),
            unit=Unit.BYTES,
            width=8,
            link=_TO_HOST,
        ),
        BarGauge(
            title="Fullest hosts",
            description=f"Those with the largest share of their memory in use. {IN_USE}",
            queries=Queries(
                [graphite.highest_now(paths.in_use_percent(_HOSTS), _TOP)],
                [PromQuery(promql.highest_now(percent, _TOP), "{{host}}")],
            ),
            unit=Unit.PERCENT,
            width=8,
            link=_TO_HOST,
            thresholds=FULL,
        ),
        Table(
            title="Hosts that are down, then the others",
            description=f"Whether they answered in the last cycle; {_ROWS} hosts at most.",
            queries=Queries(
                [
                    graphite.named_by(
                        graphite.lowest_now(paths.host("up", _HOSTS), _ROWS),
                        paths.node("host"),
                    )
                ],
                [PromQuery(f"bottomk({_ROWS}, {up})")],
            ),
            width=8,
            link=_TO_HOST_OF_ROW,
            keys=["Host"],
            columns=[Column("State", Calc.LAST)],
            is_ascending=True,
            words=UP,
        ),
        TimeSeries(
            title="Fullest hosts over time",
            description=f"Share of memory in use. {HIGHEST}",
            queries=Queries(
                [graphite.highest(paths.in_use_percent(_HOSTS), _TOP)],
                [PromQuery(promql.highest(percent, _TOP), "{{host}}")],
            ),
            unit=Unit.PERCENT,
            width=24,
            link=_TO_HOST,
        ),
    ]


def _commands(paths: Paths, metrics: Metrics) -> list[Panel]:
    by_command = paths.by(["command"], "rss_bytes", _HOSTS)
    commands = metrics.by(["command"], "rss_bytes", HOSTS)
    return [
        TimeSeries(
            title="Biggest commands",
            description=f"Memory of all processes of a name, over all hosts. {HIGHEST} {SHARED_PAGES}",
            queries=Queries(
                [graphite.highest(by_command, _TOP)],
                [PromQuery(promql.highest(commands, _TOP), "{{command}}")],
            ),
            unit=Unit.BYTES,
            width=24,
        ),
        biggest(
            "Biggest processes",
            f"{COARSE} {SHARED_PAGES}",
            ["Host", "Command", "Pid"],
            paths.each(_KEYS, "rss_bytes", _HOSTS, shape=graphite.current_of_many),
            metrics.each(_KEYS, "rss_bytes", HOSTS),
            rows=_ROWS,
            link=_TO_PROCESS,
            width=24,
        ),
    ]


def _sum(in_graphite: graphite.Expression, in_prometheus: str) -> Queries:
    return Queries([in_graphite], [PromQuery(in_prometheus)])


def _down(paths: Paths) -> graphite.Expression:
    """Returns how many hosts say 0; one that left the inventory says nothing, where zeros end as they should."""
    return graphite.total(graphite.less_than(1, graphite.fresh(paths.host("up", _HOSTS))))


def _available_percent(paths: Paths) -> graphite.Expression:
    available, total = (paths.sum(f"mem_{what}_bytes", _HOSTS) for what in ("available", "total"))
    return graphite.call("asPercent", available, total)


def _total(metrics: Metrics) -> str:
    return metrics.sum("host_mem_total_bytes", HOSTS)
