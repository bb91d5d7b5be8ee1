"""One host: what takes its memory."""

from dashboards import graphite, promql
from dashboards.biggest import biggest
from dashboards.context import Link, cell
from dashboards.grafana import Dashboard, Row, Variable
from dashboards.graphite import Paths, fresh, named
from dashboards.notes import COARSE, GROWTH, HIGHEST, IN_USE, PROTOCOL_2, SHARED_PAGES, SINCE_BOOT
from dashboards.panels import FULL, UP, Panel, PromQuery, Queries, Stat, TimeSeries, Unit
from dashboards.promql import HOST, Metrics
from fleetmem.dashboards import Page

_HOST = "$host"  # in paths
_LAYERS = 12
_LOW = 7
_TOP = 10
_ROWS = 30
_TO_PROCESS = Link(Page.PROCESS, {"host": "${host:percentencode}", "command": cell("Command"), "pid": cell("Pid")})


def host_variable(paths: Paths, metrics: Metrics) -> Variable:
    """Returns the choice of a host."""
    return Variable("host", paths.path("host", "*"), f"label_values({metrics.select('up')}, host)")


def host(paths: Paths, metrics: Metrics) -> Dashboard:
    """Returns the dashboard of a host."""
    return Dashboard(
        Page.HOST,
        "Memory of one host, and the commands and processes that take it.",
        [host_variable(paths, metrics)],
        [
            Row("$host now", _now(paths, metrics)),
            Row("Memory", _memory(paths, metrics)),
            Row("Processes", _processes(paths, metrics)),
            Row("How it answers", _answers(paths, metrics)),
        ],
    )


def _now(paths: Paths, metrics: Metrics) -> list[Panel]:
    return [
        Stat(
            title="Answers",
            description="Whether it answered in the last cycle. After three without an answer the rest has no data.",
            queries=_value(paths, metrics, "up", "up"),
            words=UP,
        ),
        Stat(
            title="Memory in use",
            description=IN_USE,
            queries=Queries([paths.in_use_percent(_HOST)], [PromQuery(metrics.in_use_percent(HOST))]),
            unit=Unit.PERCENT,
            thresholds=FULL,
        ),
        Stat(
            title="Memory available",
            description="What can be had without swapping (MemAvailable).",
            queries=_value(paths, metrics, "mem_available_bytes"),
            unit=Unit.BYTES,
        ),
        Stat(
            title="Memory in all",
            description="MemTotal.",
            queries=_value(paths, metrics, "mem_total_bytes"),
            unit=Unit.BYTES,
        ),
        Stat(
            title="Swap in use",
            description="Little is normal; what grows is not.",
            queries=Queries([_swap_in_use(paths)], [PromQuery(_prometheus_swap_in_use(metrics))]),
            unit=Unit.BYTES,
        ),
        Stat(
            title="Processes",
            description="Before any limit of fleetmem.",
            queries=_value(paths, metrics, "processes"),
        ),
    ]


def _memory(paths: Paths, metrics: Metrics) -> list[Panel]:
    by_command = paths.by(["command"], "rss_bytes", _HOST)
    layers = graphite.call("highestMax", by_command, _LAYERS)
    rest = graphite.difference(graphite.total(by_command), graphite.total(layers))
    total = paths.host("mem_total_bytes", _HOST)
    commands = metrics.by(["command"], "rss_bytes", HOST)
    top = promql.highest(commands, _LAYERS)
    prometheus_total = metrics.sum("host_mem_total_bytes", HOST)
    return [
        TimeSeries(
            title="Memory by command",
            description=f"The {_LAYERS} biggest commands, and all others together. {SHARED_PAGES}",
            queries=Queries(
                [
                    graphite.peaks(layers),
                    named(graphite.peaks(rest), "all others"),
                ],
                [
                    PromQuery(top, "{{command}}"),
                    PromQuery(f"sum({commands}) - sum({top})", "all others"),
                ],
            ),
            unit=Unit.BYTES,
            width=24,
            height=12,
            is_stacked=True,
        ),
        TimeSeries(
            title="Memory of the host",
            description=f"As the kernel counts it: shared pages once. {IN_USE}",
            queries=Queries(
                [named(graphite.peaks(paths.in_use(_HOST)), "in use"), named(fresh(total), "total")],
                [PromQuery(metrics.in_use(HOST), "in use"), PromQuery(prometheus_total, "total")],
            ),
            unit=Unit.BYTES,
            outlines=["total"],
        ),
        TimeSeries(
            title="Swap",
            description="Swapped-out memory, and the space for it.",
            queries=Queries(
                [
                    named(graphite.peaks(_swap_in_use(paths)), "in use"),
                    named(fresh(paths.host("swap_total_bytes", _HOST)), "total"),
                ],
                [
                    PromQuery(_prometheus_swap_in_use(metrics), "in use"),
                    PromQuery(metrics.sum("host_swap_total_bytes", HOST), "total"),
                ],
            ),
            unit=Unit.BYTES,
            outlines=["total"],
        ),
        *_shortage(paths, metrics),
    ]


def _shortage(paths: Paths, metrics: Metrics) -> list[Panel]:
    """Returns what tells that there is too little memory, and huge pages, which take it from all others."""
    pressure = {part: f"memory_pressure_{part}_seconds_total" for part in ("some", "full")}
    kills = "oom_kills_total"
    return [
        TimeSeries(
            title="Memory pressure",
            description=(
                "Share of the time in which one process at least waited for memory (some), or all with work (full): "
                f"the kernel's PSI. {PROTOCOL_2} {SINCE_BOOT}"
            ),
            queries=Queries(
                [
                    named(graphite.percent_of_time(paths.host(measure, _HOST)), part)
                    for part, measure in pressure.items()
                ],
                [
                    PromQuery(promql.percent_of_time(metrics.select(f"host_{measure}", HOST)), part)
                    for part, measure in pressure.items()
                ],
            ),
            unit=Unit.PERCENT,
            width=8,
            height=_LOW,
        ),
        TimeSeries(
            title="OOM kills",
            description=f"Processes that the kernel killed for memory shortly before each point. {SINCE_BOOT}",
            queries=Queries(
                [named(graphite.grown_by_step(paths.host(kills, _HOST)), "killed")],
                [PromQuery(promql.grown_by_step(metrics.select(f"host_{kills}", HOST)), "killed")],
            ),
            width=8,
            height=_LOW,
        ),
        TimeSeries(
            title="Huge pages",
            description=f"Memory that is set aside for huge pages: used or not, and in no process' RSS. {PROTOCOL_2}",
            queries=_value(paths, metrics, "hugetlb_bytes", legend="huge pages"),
            unit=Unit.BYTES,
            width=8,
            height=_LOW,
        ),
    ]


def _processes(paths: Paths, metrics: Metrics) -> list[Panel]:
    keys = ["command", "pid"]
    each, in_prometheus = paths.each(keys, "rss_bytes", _HOST), metrics.each(keys, "rss_bytes", HOST)
    growth = paths.each(keys, "rss_bytes", _HOST, shape=graphite.growth)
    grown, grown_at_end = (
        metrics.each(keys, "rss_bytes", HOST, view=view) for view in (promql.growth, promql.growth_at_end)
    )
    return [
        biggest(
            "Biggest processes",
            f"{COARSE} {SHARED_PAGES}",
            ["Command", "Pid"],
            each,
            in_prometheus,
            rows=_ROWS,
            link=_TO_PROCESS,
        ),
        TimeSeries(
            title="Fastest growing processes",
            description=f"{GROWTH} {COARSE}",
            queries=Queries(
                [graphite.highest_now(growth, _TOP)],
                [PromQuery(promql.highest_at_end(grown, grown_at_end, _TOP), "{{command}}.{{pid}}")],
            ),
            unit=Unit.BYTES,
            height=12,
        ),
        TimeSeries(
            title="Biggest processes over time",
            description=f"Also those that have ended. {HIGHEST} {COARSE}",
            queries=Queries(
                [graphite.highest(each, _LAYERS)],
                [PromQuery(promql.highest(in_prometheus, _LAYERS), "{{command}}.{{pid}}")],
            ),
            unit=Unit.BYTES,
            width=24,
            height=11,
        ),
    ]


def _answers(paths: Paths, metrics: Metrics) -> list[Panel]:
    return [
        TimeSeries(
            title="Number of processes",
            description="Before any limit of fleetmem.",
            queries=_value(paths, metrics, "processes", legend="processes"),
            height=_LOW,
        ),
        TimeSeries(
            title="Time to answer",
            description="From asking, and connecting where needed, to the parsed answer.",
            queries=_value(paths, metrics, "collect_seconds", legend="seconds"),
            unit=Unit.SECONDS,
            height=_LOW,
        ),
    ]


def _value(paths: Paths, metrics: Metrics, measure: str, family: str = "", legend: str = "") -> Queries:
    """Returns one of the host's own measures."""
    series = fresh(paths.host(measure, _HOST))
    in_prometheus = metrics.sum(family or f"host_{measure}", HOST)
    return Queries([named(series, legend) if legend else series], [PromQuery(in_prometheus, legend)])


def _swap_in_use(paths: Paths) -> graphite.Expression:
    return graphite.difference(*(fresh(paths.host(f"swap_{what}_bytes", _HOST)) for what in ("total", "free")))


def _prometheus_swap_in_use(metrics: Metrics) -> str:
    return f"{metrics.sum('host_swap_total_bytes', HOST)} - {metrics.sum('host_swap_free_bytes', HOST)}"
