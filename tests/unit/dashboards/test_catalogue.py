"""What is on the dashboards: names that sinks give, variables that are there, and JSON that Grafana takes."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.catalogue import templates
from dashboards.graphite import Paths
from dashboards.promql import Metrics
from fleetmem.dashboards import DashboardSet, GrafanaSource, Page
from fleetmem.model import (
    HOST_MEASURES,
    PROCESS_MEASURES,
    CollectorStats,
    Counter,
    Detail,
    Measure,
    MemoryPressure,
)
from fleetmem.shape.limits import Limits
from fleetmem.sinks.formats import carbon_plain
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.pages.exposition import FAMILIES, metric_name
from fleetmem.sinks.series import Retire, SeriesEncoding
from fleetmem.telemetry.counters import ALL_COUNTERS, COLLECTOR_COUNTERS, SINK_COUNTERS
from integration.grafana import folded, panels, read_set, variables
from unit.builders import MEMORY, WEB, process, sample

REPOSITORY = Path(__file__).parents[3]
DELIVERED = REPOSITORY / "deploy" / "grafana"
CARRIED = REPOSITORY / "src" / "fleetmem" / "dashboards"
Json = dict[str, Any]

# Grafana's own: "Global variables", and what links may refer to.
BUILT_IN = {"__all", "__range", "__interval", "__rate_interval", "__url_time_range", "__field", "__data"}

_PATH_PART = r"(?:[\w$*]|\{[\w,]+\})+"

SETS = {
    "graphite": DashboardSet(GrafanaSource.GRAPHITE),
    "graphite without StatsD": DashboardSet(GrafanaSource.GRAPHITE, "prod.mem", ""),
    "prometheus": DashboardSet(GrafanaSource.PROMETHEUS),
    "prometheus, dotted": DashboardSet(GrafanaSource.PROMETHEUS, "prod.mem"),
}


@cache
def _texts_of(name: str) -> dict[str, str]:
    return SETS[name].texts()


def build(name: str) -> dict[str, Json]:
    """Returns a set as it is in files."""
    return {page: json.loads(each) for page, each in _texts_of(name).items()}


ALL = [(name, page) for name in SETS for page in build(name)]
every_dashboard = pytest.mark.parametrize(("name", "page"), ALL)


def texts(thing: Any) -> Iterator[str]:
    """Yields every text in JSON."""
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from texts(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from texts(value)


def emitted(prefix: str) -> set[str]:
    """Returns the names that a sink for Graphite gives of a host that tells everything, with something left out."""
    names = FleetNames(prefix, [WEB.name])
    encoding = SeriesEncoding(carbon_plain, Retire.NONE)
    rows = [each._replace(anon_bytes=1) for each in (process(1), process(2, "sh"))]
    memory = replace(MEMORY, hugetlb_bytes=0, pressure=MemoryPressure(1.5, 0.5, 0.25, 0.0))
    outcome = sample(*rows, limits=Limits(frozenset(Detail), top=1, measures=tuple(Measure)), memory=memory)
    own = tuple(Counter("", measure, 0.0) for measure in COLLECTOR_COUNTERS)
    sink = tuple(Counter("statsd", measure, 0.0) for measure in SINK_COUNTERS)
    stats = encoding.stats(names, CollectorStats("ops1", 0.0, own + sink))
    lines = encoding.host(names, WEB).update(outcome).text + stats.text
    return {line.split()[0].decode() for line in lines.splitlines()}


def patterns(path: str) -> Iterator[str]:
    """Yields regular expressions for a path of Graphite: one per alternative in braces, variables as wild cards."""
    braces = re.search(r"\{([\w,]+)\}", path)
    if braces:
        for each in braces[1].split(","):
            yield from patterns(path[: braces.start()] + each + path[braces.end() :])
    else:
        yield re.escape(re.sub(r"\$\w+", "*", path)).replace(r"\*", r"[A-Za-z0-9_]+")


def paths(target: str, head: str) -> list[str]:
    """Returns the paths in a target."""
    return re.findall(rf"{re.escape(head)}(?:\.{_PATH_PART})+", target)


@pytest.mark.parametrize("name", ["graphite", "graphite without StatsD"])
def test_every_path_is_one_that_a_sink_gives(name: str) -> None:
    """Each path in each query of Graphite, and each alternative in it, matches a name that is sent."""
    made = SETS[name]
    names = {f"{made.statsd_prefix}{each}" for each in emitted(made.prefix)}
    found = 0
    for dashboard in build(name).values():
        for panel in (*panels(dashboard), *folded(dashboard)):
            for target in panel["targets"]:
                asked = paths(target["target"], f"{made.statsd_prefix}{made.prefix}")
                assert asked, target
                found += len(asked)
                for pattern in (pattern for path in asked for pattern in patterns(path)):
                    assert any(re.fullmatch(pattern, each) for each in names), pattern
    assert found > 50


@pytest.mark.parametrize("name", ["graphite", "graphite without StatsD"])
def test_every_choice_is_a_part_of_a_name(name: str) -> None:
    """The paths that variables are filled from are the beginnings of names that are sent."""
    made = SETS[name]
    names = {f"{made.statsd_prefix}{each}" for each in emitted(made.prefix)}
    for dashboard in build(name).values():
        for variable in dashboard["templating"]["list"][1:]:
            for pattern in patterns(variable["query"]):
                assert any(re.match(rf"{pattern}\.", each) for each in names), pattern


@pytest.mark.parametrize("name", ["prometheus", "prometheus, dotted"])
def test_every_metric_is_one_that_is_exposed(name: str) -> None:
    """Each name in each query of Prometheus is that of a family, or the beginning of those of a family of names."""
    prefix = SETS[name].prefix
    own = {f"collector_{measure}" for measure in ALL_COUNTERS}
    names = {metric_name(prefix, family) for family in own | FAMILIES.keys()}
    for dashboard in build(name).values():
        every = (*panels(dashboard), *folded(dashboard))
        asked = [target["expr"] for panel in every for target in panel["targets"]]
        asked += [variable["query"]["query"] for variable in dashboard["templating"]["list"][1:]]
        for expression in asked:
            found = re.findall(r"\b(?:fleetmem|prod_mem)_\w+(?:\(\.\+\))?", expression)
            assert found, expression
            for each in found:
                assert any(re.fullmatch(each, known) for known in names), each


def test_an_unknown_measure_is_refused() -> None:
    """A measure that is called otherwise one day is no query without data, but an error here."""
    with pytest.raises(ValueError, match="rss"):
        Paths().by(["host"], "rss", "*")
    with pytest.raises(ValueError, match="host_memory"):
        Metrics().select("host_memory")


def test_every_measure_of_hosts_and_processes_is_shown() -> None:
    """What is sent of hosts and processes is to be seen somewhere."""
    shown = "".join(texts([list(panels(dashboard)) for dashboard in build("graphite").values()]))
    for measure in (*HOST_MEASURES, *PROCESS_MEASURES):
        assert f".{measure}" in shown, measure


@pytest.mark.parametrize("name", ["graphite", "prometheus"])
def test_what_is_missed_dropped_or_broken_is_shown(name: str) -> None:
    """The collector's dashboard shows slots, what became of them, points that were dropped, bugs, and lost step."""
    shown = "".join(texts(list(panels(build(name)["collector.json"]))))
    measures = (
        "slots_total",
        "cycles_missed_total",
        "points_dropped_full_total",
        "bugs_total",
        "frames_resynced_total",
    )
    for measure in measures:
        assert measure in shown, measure


@pytest.mark.parametrize("name", ["graphite", "prometheus"])
def test_totals_of_hosts_are_shown_as_what_they_grow_by(name: str) -> None:
    """A total since boot says nothing on a graph: pressure is a rate, kills are an increase."""
    shown = [target for panel in panels(build(name)["host.json"]) for target in panel["targets"]]
    of_totals = [query for query in (each.get("target") or each["expr"] for each in shown) if "_total" in query]
    of_totals = [query for query in of_totals if "mem_total" not in query and "swap_total" not in query]
    assert len(of_totals) == 3
    for query in of_totals:
        assert re.search(r"perSecond|nonNegativeDerivative|rate\(|increase\(", query), query


def unknown_variables(dashboard: Json) -> set[str]:
    """Returns the variables that are used in a dashboard and not there."""
    known = {variable["name"] for variable in dashboard["templating"]["list"]} | BUILT_IN
    return {name for each in texts(dashboard) for name in variables(each)} - known


@every_dashboard
def test_variables_are_there(name: str, page: str) -> None:
    """Every variable in a query, a title or a link is one of the dashboard, or one of Grafana's."""
    dashboard = build(name)[page]
    assert unknown_variables(dashboard) == set()
    dashboard["panels"][1]["targets"][0]["target"] = "sumSeries(fleetmem.host.$hots.up)"
    assert unknown_variables(dashboard) == {"hots"}


@every_dashboard
def test_variables_ask_for_those_before_them_only(name: str, page: str) -> None:
    """Grafana fills them in their order."""
    known: set[str] = set()
    for variable in build(name)[page]["templating"]["list"]:
        assert variables(json.dumps(variable["query"])) <= known
        known.add(variable["name"])


@every_dashboard
def test_links_lead_to_dashboards_of_the_set(name: str, page: str) -> None:
    """A link names a dashboard that is there, and sets variables which that one has."""
    built = build(name)
    by_uid = {dashboard["uid"]: dashboard for dashboard in built.values()}
    urls = [each for each in texts(built[page]) if each.startswith("/d/")]
    for url in urls:
        uid, _mark, query = url.removeprefix("/d/").partition("?")
        there = {variable["name"] for variable in by_uid[uid]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) <= there
        assert query.endswith("&${datasource:queryparam}&${__url_time_range}")
    assert bool(urls) == (page != "collector.json")


@every_dashboard
def test_the_data_source_is_the_one_that_is_chosen(name: str, page: str) -> None:
    """Panels, queries and variables refer to the variable, so that import and provisioning work without an edit."""
    dashboard = build(name)[page]
    kind = SETS[name].source
    chooser, *others = dashboard["templating"]["list"]
    assert (chooser["type"], chooser["query"], chooser["current"]) == ("datasource", kind, {})
    asking = [*panels(dashboard), *others]
    asking += [target for panel in panels(dashboard) for target in panel["targets"]]
    for each in asking:
        assert each["datasource"] == {"type": kind, "uid": "${datasource}"}


def test_a_data_source_can_be_given() -> None:
    """Then it is the one that the dashboards show at first."""
    for each in map(json.loads, DashboardSet(GrafanaSource.GRAPHITE, datasource_uid="P1").texts().values()):
        assert each["templating"]["list"][0]["current"] == {"text": "P1", "value": "P1"}


@every_dashboard
def test_panels_lie_on_the_grid(name: str, page: str) -> None:
    """No two panels share a place or an id, none leaves the 24 columns, no line has a hole at its end."""
    dashboard = build(name)[page]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert cells
        assert not cells & taken, panel["title"]
        taken |= cells
    lines = max(y for _x, y in taken) + 1
    assert len(taken) == 24 * lines
    assert sorted(panel["id"] for panel in dashboard["panels"]) == [*range(1, len(dashboard["panels"]) + 1)]


@every_dashboard
def test_panels_are_explained_and_asked_one_by_one(name: str, page: str) -> None:
    """Each has a kind that is not deprecated, a title, a description and queries with names of their own."""
    for panel in panels(build(name)[page]):
        assert panel["type"] in {"timeseries", "table", "bargauge", "stat"}
        assert panel["title"]
        assert len(panel["description"]) > 5
        names = [target["refId"] for target in panel["targets"]]
        assert names == sorted(set(names))
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_sums_of_memory_are_explained() -> None:
    """Where memory of processes is added up, it is said that shared pages count more than once."""
    for dashboard in build("graphite").values():
        for panel in panels(dashboard):
            asked = json.dumps(panel["targets"])
            if "rss_bytes" in asked and panel["title"] in {"Biggest commands", "Memory by command", "Memory"}:
                assert "share" in panel["description"], panel["title"]


def lost(wanted: Any, found: Any, where: str = "") -> Iterator[str]:
    """Yields where JSON has something that the other does not have, or has otherwise."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            if key in found:
                yield from lost(value, found[key], f"{where}.{key}")
            else:
                yield f"{where}.{key}"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from lost(one, other, f"{where}[{number}]")
    elif wanted != found:
        yield f"{where}: {wanted!r} is {found!r}"


def through_grafanas_types(dashboard: Json) -> Json:
    """Returns a dashboard as Grafana's own types, generated from its schema, read and write it."""
    register_default_plugins()
    read: Json = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    return read


@every_dashboard
def test_grafanas_schema_knows_every_key(name: str, page: str) -> None:
    """Nothing is lost on the way through the types of Grafana's schema, for panels and queries of each kind."""
    dashboard = build(name)[page]
    assert list(lost(dashboard, through_grafanas_types(dashboard))) == []


def test_a_key_that_the_schema_does_not_know_is_seen() -> None:
    """The test before can fail: a typo does not pass."""
    dashboard = build("graphite")["fleet.json"]
    panel = next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries")
    panel["options"]["legend"]["displaymode"] = "table"
    panel["fieldConfig"]["defaults"]["custom"]["spanNull"] = True
    assert len(list(lost(dashboard, through_grafanas_types(dashboard)))) == 2


def test_sets_live_in_one_grafana() -> None:
    """Sets with other prefixes or other data sources have other uids, of 40 characters at most, and other titles."""
    prefixes = ["fleetmem", "prod.mem", "prod_mem", "p" * 39 + "1", "p" * 39 + "2"]
    sets = [DashboardSet(source, prefix) for source in GrafanaSource for prefix in prefixes]
    uids = [each.uid(page) for each in sets for page in Page]
    assert len({*uids}) == len(uids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{8,40}", uid) for uid in uids)
    titles = [json.loads(text)["title"] for each in sets for text in each.texts().values()]
    assert len({*titles}) == len(titles)


@pytest.mark.parametrize("source", GrafanaSource)
def test_what_is_delivered_is_what_the_generator_writes(source: GrafanaSource) -> None:
    """The templates in the package and deploy/grafana are up to date; `make dashboards` writes them."""
    for name, text in templates(source).items():
        assert (CARRIED / source / name).read_text(encoding="utf-8") == text
        assert (DELIVERED / source / name).read_text(encoding="utf-8") == _texts_of(str(source))[name]
    assert read_set(DELIVERED / source).keys() == build(str(source)).keys()


@every_dashboard
def test_no_mark_is_left(name: str, page: str) -> None:
    """Each mark of the template has become a name or a number."""
    assert not re.search(r"@\w+(:\w+)?@", _texts_of(name)[page])
