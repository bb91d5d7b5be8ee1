"""The collector itself: does it reach its hosts in time, and do its sinks take what it sends."""

from dataclasses import replace

from dashboards import graphite, promql
from dashboards.grafana import COLUMNS, Dashboard, Row, Variable
from dashboards.graphite import Paths, fresh, named, named_by
from dashboards.panels import (
    ANY_IS_BAD,
    FAILING,
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
from dashboards.promql import Metrics
from fleetmem.dashboards import Page
from fleetmem.model import LeftOut

_FAILED = "hosts_failed_"
_DROPPED = ("points_dropped_full_total", "points_dropped_late_total")
_SPREAD = ("p50", "p99", "highest")
_TALL, _LOW = 9, 7


def collector(paths: Paths, metrics: Metrics) -> Dashboard:
    """Returns the dashboard of a collector."""
    label = f"label_values({metrics.select('collector_hosts_up')}, collector)"
    return Dashboard(
        Page.COLLECTOR,
        "fleetmem itself: whether it reaches its hosts in time, and whether its sinks take what it sends.",
        [Variable("collector", paths.path("collector", "*"), label)],
        [
            Row("$collector now", _now(paths, metrics)),
            Row("Hosts and cycles", _cycles(paths, metrics)),
            Row("Sinks", _sinks(paths, metrics)),
        ],
    )


def _now(paths: Paths, metrics: Metrics) -> list[Panel]:
    dropped = " + ".join(promql.grown(metrics.collector(measure)) for measure in _DROPPED)
    stats = [
        Stat(
            title="Hosts that answer",
            description="In the last interval.",
            queries=_own(paths, metrics, "hosts_up"),
        ),
        Stat(
            title="Hosts that failed",
            description="In the last interval. What is wrong with them is below.",
            queries=_own(paths, metrics, "hosts_failed"),
            thresholds=ANY_IS_BAD,
        ),
        Stat(
            title="Time of a cycle",
            description="From the begin of an interval to its last outcome. It should be below the interval.",
            queries=_own(paths, metrics, "cycle_seconds"),
            unit=Unit.SECONDS,
        ),
        Stat(
            title="Slots",
            description="In this time range: slots of hosts that are settled, by an outcome or as missed.",
            queries=_grown(paths, metrics, "slots_total"),
        ),
        Stat(
            title="Slots missed",
            description="In this time range: slots of hosts that were skipped, as the sample before was not over.",
            queries=_grown(paths, metrics, "cycles_missed_total"),
            thresholds=ANY_IS_BAD,
        ),
        Stat(
            title="Points dropped",
            description="In this time range, by all sinks: what a backend did not take in time.",
            queries=Queries(
                [fresh(graphite.total(graphite.grown(paths.sink(*_DROPPED))))],
                [PromQuery(dropped)],
            ),
            thresholds=ANY_IS_BAD,
        ),
        Stat(
            title="Stale inventories",
            description="Inventories that could not be read the last time; their hosts are those of an earlier one.",
            queries=_own(paths, metrics, "inventory_stale"),
            thresholds=ANY_IS_BAD,
        ),
        Stat(
            title="Bugs",
            description="In this time range: bugs in fleetmem or in a plug-in. The log has a traceback of each kind.",
            queries=_grown(paths, metrics, "bugs_total"),
            thresholds=ANY_IS_BAD,
        ),
    ]
    return [replace(stat, width=COLUMNS // len(stats)) for stat in stats]


def _cycles(paths: Paths, metrics: Metrics) -> list[Panel]:
    measure_node = paths.measure_node("collector")
    failed = graphite.Expression(f"{paths.path('collector', '$collector')}.{_FAILED}*")
    return [
        TimeSeries(
            title="Failed hosts, by kind",
            description="Failures of each interval. The kinds are those of fleetmem's output and log.",
            queries=Queries(
                [graphite.call("aliasSub", named_by(failed, measure_node), f"^{_FAILED}", "")],
                [PromQuery(f"sum by (kind) ({metrics.collector('hosts_failed')})", "{{kind}}")],
            ),
            height=_TALL,
            is_stacked=True,
        ),
        TimeSeries(
            title="Time to answer",
            description="Of hosts, failed ones included, and of the whole cycle.",
            queries=_lines(paths, metrics, {**_spread("host"), "cycle": "cycle_seconds"}),
            unit=Unit.SECONDS,
            height=_TALL,
        ),
        TimeSeries(
            title="Lateness",
            description="How long after its slot a sample was begun: it grows where this machine is too slow.",
            queries=_lines(paths, metrics, _spread("late")),
            unit=Unit.SECONDS,
            height=_LOW,
            width=6,
        ),
        TimeSeries(
            title="Connections",
            description="Connections tried, and those of them to hosts that had been tried before.",
            queries=_rates(paths, metrics, {"tried": "handshakes_total", "again": "reconnects_total"}),
            unit=Unit.PER_SECOND,
            height=_LOW,
            width=6,
        ),
        TimeSeries(
            title="Frames that did not add up",
            description="A host's rows and sums were not those it said; all of them were asked for again at once.",
            queries=_rates(paths, metrics, {"asked again": "frames_resynced_total"}),
            unit=Unit.PER_SECOND,
            height=_LOW,
            width=6,
        ),
        TimeSeries(
            title="Processes without series of their own",
            description="By reason: excluded by a pattern, too small, not among the top, no room in the budget.",
            queries=_lines(paths, metrics, {str(reason): f"processes_{reason}" for reason in LeftOut}),
            height=_LOW,
            width=6,
        ),
    ]


def _sinks(paths: Paths, metrics: Metrics) -> list[Panel]:
    return [
        Table(
            title="Sinks",
            description="Whether the backend is away.",
            queries=_by_sink(paths, metrics, "failing"),
            width=6,
            keys=["Sink"],
            columns=[Column("State", Calc.LAST)],
            words=FAILING,
        ),
        TimeSeries(
            title="Points sent",
            description="Delivered, as far as the protocol tells: UDP tells nothing.",
            queries=_sink_rates(paths, metrics, "points_sent_total"),
            unit=Unit.PER_SECOND,
            width=9,
        ),
        TimeSeries(
            title="Points dropped",
            description="For want of room (full), or as they were too old (late).",
            queries=Queries(
                [named_by(graphite.per_second(paths.sink(*_DROPPED)), *_sink_nodes(paths), *_measure_nodes(paths))],
                [
                    PromQuery(promql.per_second(metrics.collector(measure), "sink"), f"{{{{sink}}}}.{measure}")
                    for measure in _DROPPED
                ],
            ),
            unit=Unit.PER_SECOND,
            width=9,
        ),
        TimeSeries(
            title="Age of the queue",
            description="How long the oldest point in memory has waited. It grows while a backend is away.",
            queries=_by_sink(paths, metrics, "queue_age_seconds"),
            unit=Unit.SECONDS,
            height=_LOW,
            width=8,
        ),
        TimeSeries(
            title="Queue in memory",
            description="Points that wait in memory, in bytes.",
            queries=_by_sink(paths, metrics, "queue_bytes"),
            unit=Unit.BYTES,
            height=_LOW,
            width=8,
        ),
        TimeSeries(
            title="Spool on disk",
            description="Points that wait on disk until carbon is back, in bytes.",
            queries=_by_sink(paths, metrics, "spool_bytes"),
            unit=Unit.BYTES,
            height=_LOW,
            width=8,
        ),
        TimeSeries(
            title="Series",
            description="That live now. Each is a file in Graphite, and new pids make new ones.",
            queries=_by_sink(paths, metrics, "series"),
            height=_LOW,
            width=8,
        ),
        TimeSeries(
            title="Bytes sent",
            description="Without the headers of UDP or TCP.",
            queries=_sink_rates(paths, metrics, "sent_bytes_total"),
            unit=Unit.BYTES_PER_SECOND,
            height=_LOW,
            width=8,
        ),
        TimeSeries(
            title="Retries",
            description="Deliveries that were tried again after a failure.",
            queries=_sink_rates(paths, metrics, "retries_total"),
            unit=Unit.PER_SECOND,
            height=_LOW,
            width=8,
        ),
    ]


def _own(paths: Paths, metrics: Metrics, measure: str) -> Queries:
    return Queries([fresh(paths.collector(measure))], [PromQuery(f"sum({metrics.collector(measure)})")])


def _grown(paths: Paths, metrics: Metrics, total: str) -> Queries:
    """Returns by how much a total of the collector has grown in the time range."""
    return Queries(
        [fresh(graphite.grown(paths.collector(total)))],
        [PromQuery(promql.grown(metrics.collector(total)))],
    )


def _spread(what: str) -> dict[str, str]:
    return {part: f"{what}_{part}_seconds" for part in _SPREAD}


def _lines(paths: Paths, metrics: Metrics, measures: dict[str, str]) -> Queries:
    """Returns measures of the collector, each under its name here."""
    return Queries(
        [named(paths.collector(measure), name) for name, measure in measures.items()],
        [PromQuery(f"sum({metrics.collector(measure)})", name) for name, measure in measures.items()],
    )


def _rates(paths: Paths, metrics: Metrics, totals: dict[str, str]) -> Queries:
    return Queries(
        [named(graphite.per_second(paths.collector(total)), name) for name, total in totals.items()],
        [PromQuery(promql.per_second(metrics.collector(total), "collector"), name) for name, total in totals.items()],
    )


def _by_sink(paths: Paths, metrics: Metrics, measure: str) -> Queries:
    return Queries(
        [named_by(fresh(paths.sink(measure)), *_sink_nodes(paths))],
        [PromQuery(f"sum by (sink) ({metrics.collector(measure)})", "{{sink}}")],
    )


def _sink_rates(paths: Paths, metrics: Metrics, total: str) -> Queries:
    return Queries(
        [named_by(graphite.per_second(paths.sink(total)), *_sink_nodes(paths))],
        [PromQuery(promql.per_second(metrics.collector(total), "sink"), "{{sink}}")],
    )


def _sink_nodes(paths: Paths) -> list[graphite.Expression]:
    return [paths.node("sink", "collector")]


def _measure_nodes(paths: Paths) -> list[graphite.Expression]:
    return [paths.measure_node("sink")]
