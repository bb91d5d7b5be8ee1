"""Every panel of every dashboard, asked of a real Graphite and a real Prometheus with the data of a lab in them."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from fleetmem.dashboards import DashboardSet, GrafanaSource
from fleetmem.lab.directory import Directory
from fleetmem.lab.state import State, read_state
from fleetmem.lab.workload import WORKLOADS
from fleetmem.model import PROCESS_MEASURES

from .documents import blocks
from .grafana import (
    TIMED_OUT,
    Answer,
    DataSource,
    GraphiteWeb,
    Json,
    OpenDashboard,
    PrometheusServer,
    fill,
    folded,
    panels,
    read_set,
)
from .receivers import Prometheus
from .servers import REPOSITORY, TOOLS, Cli, free_port, missing, started, wait_for

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
PAGES = ["fleet", "host", "process", "collector"]
AWAY = "127.0.1.99"
"""A host that is not there."""

_ENOUGH_POINTS = 5
_SECONDS = 60.0
_PANEL_SECONDS = 15.0  # a machine with other work may have nothing newer than three steps for a moment


@dataclass(frozen=True)
class Show:
    """A lab with fleetmem at work on it.

    Attributes:
        state: of the lab.
        prometheus: scrapes the collectors.
        folder: of the lab, and of dashboards written for it.
    """

    state: State
    prometheus: Prometheus
    folder: Path

    def source(self, kind: GrafanaSource, range_seconds: int = 60) -> DataSource:
        """Returns a data source, asked for so long up to now."""
        if kind is GrafanaSource.GRAPHITE:
            return GraphiteWeb(self.graphite_port, range_seconds)
        return PrometheusServer(self.prometheus.port, range_seconds)

    @property
    def graphite_port(self) -> int:
        """Where graphite-web is."""
        assert self.state.graphite_port
        return self.state.graphite_port


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Show]:
    """Two hosts, sampled by collectors of every level of detail, with StatsD in between and without."""
    home = tmp_path_factory.mktemp("home")
    cli = Cli(home)
    folder = home / "lab"
    folder.mkdir()
    if not (Directory(TOOLS).venv / "bin" / "carbon-cache.py").is_file():
        missing("Graphite")
    (folder / "graphite-venv").symlink_to(Directory(TOOLS).venv)
    with ExitStack() as stack:
        stack.callback(cli, "lab", "down", "--dir", folder)
        up = cli("lab", "up", "--dir", folder, "--hosts", 2, "--interval", 1)
        assert up.status == 0, up.stderr
        state = read_state(folder / "state.json")
        assert state
        carbon = next(member.address for member in state.members if member.role == "carbon")
        ports = [free_port() for _ in range(4)]
        statsd = ("-c", folder / "fleetmem.toml")
        direct = ("-F", folder / "ssh_config", "-k", folder / "key", "-p", state.port, "-i", f"@{folder}/hosts.txt")
        known = {"FLEETMEM_SSH__KNOWN_HOSTS": str(folder / "known_hosts")}
        more = folder / "more.toml"
        measures = [*PROCESS_MEASURES, "anon_bytes", "swap_bytes"]
        more.write_text((folder / "fleetmem.toml").read_text() + f"\n[shape]\nmeasures = {measures}\n")
        for arguments in (
            (*statsd, "--prometheus", ports[0]),
            (*statsd, "--prefix", "commands", "--detail", "command", "--prometheus", ports[1]),
            ("-c", more, "--prefix", "both.levels", "--detail", "process,command", "--prometheus", ports[2]),
            (*direct, "-i", AWAY, "--interval", 1, "--prefix", "direct", "--graphite", carbon),
            (*statsd, "--prefix", "few", "--detail", "process,command", "--top", 2, "--prometheus", ports[3]),
        ):
            stack.enter_context(cli.run(*arguments, "--protocol", 2, **known))  # which tells all that is shown
        prometheus = stack.enter_context(started(Prometheus(home / "prom", *(f"127.0.0.1:{port}" for port in ports))))
        show = Show(state, prometheus, folder)
        wait_for("all have sent enough", lambda: _has_enough(show), _SECONDS)
        yield show


def _has_enough(show: Show) -> bool:
    source = show.source(GrafanaSource.GRAPHITE)
    heads = ["stats.gauges.fleetmem", "stats.gauges.commands", "stats.gauges.both.levels", "direct", "stats.gauges.few"]
    targets = [f"{head}.collector.*.hosts_up" for head in heads]
    answers = [*source.ask([{"target": target} for target in targets])]
    scraped = show.prometheus.query('count_over_time({__name__=~".+_collector_hosts_up"}[1m])')
    counts = [len(answer.known) for series in answers for answer in series] + [sample.value for sample in scraped]
    return len(counts) == len(heads) + 4 and min(counts) >= _ENOUGH_POINTS


SETS = {
    "as delivered": DashboardSet(GrafanaSource.GRAPHITE, "fleetmem"),
    "by command": DashboardSet(GrafanaSource.GRAPHITE, "commands"),
    "both levels": DashboardSet(GrafanaSource.GRAPHITE, "both.levels"),
    "without StatsD": DashboardSet(GrafanaSource.GRAPHITE, "direct", ""),
    "Prometheus": DashboardSet(GrafanaSource.PROMETHEUS, "fleetmem"),
    "Prometheus by command": DashboardSet(GrafanaSource.PROMETHEUS, "commands"),
    "Prometheus, both levels": DashboardSet(GrafanaSource.PROMETHEUS, "both.levels"),
}
_FEW = {
    "few in Graphite": DashboardSet(GrafanaSource.GRAPHITE, "few"),
    "few in Prometheus": DashboardSet(GrafanaSource.PROMETHEUS, "few"),
}
"""Most processes are in `other`."""

_BY_COMMAND = {"by command", "both levels", "Prometheus by command", "Prometheus, both levels"}


def _dashboard(name: str, page: str) -> Json:
    if name == "as delivered":
        return read_set(REPOSITORY / "deploy" / "grafana" / "graphite")[f"{page}.json"]
    dashboard: Json = json.loads((SETS | _FEW)[name].texts()[f"{page}.json"])
    return dashboard


def _open(show: Show, name: str, page: str, **chosen: str) -> OpenDashboard:
    return OpenDashboard(_dashboard(name, page), show.source((SETS | _FEW)[name].source), chosen)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("page", PAGES)
def test_every_query_of_every_panel_has_data(show: Show, name: str, page: str) -> None:
    """Opened as it is delivered, a dashboard has no empty panel, and where one value is shown, there is a newest."""
    assert_full(_open(show, name, page))


def assert_full(opened: OpenDashboard) -> None:
    """Fails the test where a query of a dashboard has no data, or a number, bar or row no newest value."""
    values = opened.values()
    for panel in panels(opened.dashboard):
        wait_for(panel["title"], partial(_is_full, opened, panel, values), _PANEL_SECONDS)


def _is_full(opened: OpenDashboard, panel: Json, values: dict[str, str]) -> bool:
    queries = opened.ask(panel, values)
    assert len(queries) == len(panel["targets"])
    is_line = panel["type"] == "timeseries"
    return all(
        any(answer.known if is_line else answer.values[-1] is not None for answer in answers) for answers in queries
    )


_LINK = re.compile(r'"/d/([^?]+)[?]([^"]+)"')
_CHOICE = re.compile(r"var-(\w+)=(\$\{(?:__data\.fields\.(\w+))?[^}]*\})")


def _follow(show: Show, name: str, opened: OpenDashboard, title: str) -> OpenDashboard:
    """Returns the dashboard that a click leads to: on the first series, or row, of a panel."""
    panel = opened.panel(title)
    url = _LINK.search(json.dumps(panel["fieldConfig"]))
    assert url, title
    first = next(answer for answer in opened.ask(panel)[0] if answer.known)
    values = opened.values() | {"__field": first.name}
    row = _row(panel, first)
    chosen = {
        variable: row[column] if column else fill(template, values)
        for variable, template, column in _CHOICE.findall(url[2])
    }
    page = next(page for page in PAGES if _dashboard(name, page)["uid"] == url[1])
    return _open(show, name, page, **chosen)


def _row(panel: Json, answer: Answer) -> dict[str, str]:
    """Returns the keys of a table's row, by their columns, as its transformations make them of a series."""
    if panel["type"] != "table":
        return {}
    if answer.labels:
        renamed = panel["transformations"][-1]["options"]["renameByName"]
        return {renamed[label]: value for label, value in answer.labels.items() if label in renamed}
    for transformation in panel["transformations"]:
        if transformation["id"] == "extractFields":
            match = re.fullmatch(transformation["options"]["regExp"][1:-1].replace("(?<", "(?P<"), answer.name)
            assert match, answer.name
            return match.groupdict()
    return {"Host": answer.name}


@pytest.mark.parametrize("name", ["as delivered", "by command", "Prometheus", "Prometheus by command"])
def test_clicks_lead_from_the_fleet_to_a_process(show: Show, name: str) -> None:
    """From a bar, a line or a row of a table one gets to what it is about, and finds data there."""
    fleet = _open(show, name, "fleet")
    host = _follow(show, name, fleet, "Biggest hosts")
    first = host.values()["host"]
    assert first.replace(".", "_") in {"127_0_1_1", "127_0_1_2"}
    process = _follow(show, name, host, "Biggest processes")
    assert process.values()["host"] == first
    pid = process.chosen["pid"]
    assert pid == "*" if name.endswith("by command") else pid.isdigit()
    sibling = _follow(show, name, process, "Hosts")
    assert sibling.values()["command"] == process.values()["command"]
    for opened in (host, process, sibling, _follow(show, name, fleet, "Biggest processes")):
        assert_full(opened)


def _newest(opened: OpenDashboard, title: str) -> dict[str, float]:
    """Returns the newest values of a panel's series that have not ended, by their names."""
    panel = opened.panel(title)

    def ask() -> dict[str, float]:
        answers = [answer for answers in opened.ask(panel) for answer in answers]
        assert len({answer.name for answer in answers}) == len(answers)
        return {answer.name: answer.values[-1] for answer in answers if answer.values[-1] is not None}

    return wait_for(title, ask, _PANEL_SECONDS)


@pytest.mark.parametrize("name", SETS)
def test_numbers_are_those_of_the_hosts(show: Show, name: str) -> None:
    """What is known of the lab is what the dashboards show, at every level of detail and from every data source."""
    fleet, host = _open(show, name, "fleet"), _open(show, name, "host")
    (up,), (down,) = _newest(fleet, "Hosts that answer").values(), _newest(fleet, "Hosts down").values()
    assert (up, down) == (2, name == "without StatsD")
    commands = _newest(fleet, "Biggest commands")
    assert 2 * 20 * MIB < commands["steady"] < 2 * 60 * MIB
    grown = _newest(fleet, "Fastest growing commands")
    if show.state.is_isolated and name not in _BY_COMMAND:  # where a command grows with each process that it has more
        assert max(grown, key=lambda command: grown[command]) == "leaky"
    assert grown.get("steady", 0) < MIB < grown["leaky"]
    (process,) = _newest(_open(show, name, "process", command="steady"), "Memory").values()
    assert process == pytest.approx(commands["steady"] / 2, rel=0.1)
    assert _newest(host, "Memory by command")["steady"] == process
    (percent,) = _newest(_open(show, name, "process", command="steady"), "Share of the host").values()
    (total,) = _newest(host, "Memory in all").values()
    assert percent == pytest.approx(100 * process / total, rel=0.01)


_GROWING = "Fastest growing processes"
_DOCUMENT = REPOSITORY / "docs" / "how-to" / "dashboards.md"


@pytest.mark.parametrize("name", ["as delivered", "without StatsD", "Prometheus"])
def test_the_process_that_grew_most_is_the_leak(show: Show, name: str) -> None:
    """The panel answers with host, command and pid; where hosts show only what is theirs, the leak is the first."""
    fleet = _open(show, name, "fleet")

    def first() -> str:
        grown = {
            key: value for key, value in _newest(fleet, _GROWING).items() if show.state.is_isolated or "leaky" in key
        }
        highest = max(grown, key=lambda each: grown[each])
        return highest if ".leaky." in highest and grown[highest] > MIB else ""

    assert re.fullmatch(r"127[._]0[._]1[._][12]\.leaky\.[0-9]+", wait_for("a leak", first, _SECONDS))


@pytest.mark.parametrize("seconds", [60, pytest.param(300, marks=pytest.mark.long)])
def test_the_documents_alone_find_the_leak(show: Show, seconds: int) -> None:
    """Which process grew most in the last five minutes, on the whole fleet? Four ways, each copied as it stands.

    The commands are those of the page, the panels those that are delivered. The window is what the page says, or a
    minute in its place.
    """
    counted = f'count_over_time(fleetmem_process_rss_bytes{{command="leaky"}}[{seconds}s])'
    wait_for("as long", lambda: [each for each in show.prometheus.query(counted) if each.value > 0.95 * seconds], 400)
    for way in (_by_promql, _by_curl, _by_panel("as delivered"), _by_panel("Prometheus")):
        wait_for("the leak is first", partial(_is_leak_first, show, way, seconds), _SECONDS)


Way = Callable[[Show, int], list[str]]
"""Returns processes as `host.command.pid`, the one that grew most first."""


def _is_leak_first(show: Show, way: Way, seconds: int) -> bool:
    processes = way(show, seconds)
    if not show.state.is_isolated:  # the processes of the whole machine are there, too
        processes = [each for each in processes if each.split(".")[-2].replace("_", "-") in WORKLOADS]
    return bool(processes) and re.fullmatch(r"127[._]0[._]1[._][12]\.leaky\.[0-9]+", processes[0]) is not None


def _by_promql(show: Show, seconds: int) -> list[str]:
    query = re.search(r"```promql\n(.+?)```", _DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert query
    assert "[5m]" in query[1]
    rows = show.prometheus.query(query[1].replace("[5m]", f"[{seconds}s]"))
    return [".".join(each.labels[label] for label in ("host", "command", "pid")) for each in rows]


def _by_curl(show: Show, seconds: int) -> list[str]:
    (block,) = (block.text for block in blocks("docs/how-to/dashboards.md") if "$GRAPHITE/render" in block.text)
    assert "from=-5min" in block
    command = block.replace("from=-5min", f"from=-{seconds}s")
    environment = {"PATH": os.environ["PATH"], "GRAPHITE": f"http://127.0.0.1:{show.graphite_port}"}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    return [] if TIMED_OUT in done.stdout else [series["target"] for series in json.loads(done.stdout)]


def _by_panel(name: str) -> Way:
    def ask(show: Show, seconds: int) -> list[str]:
        fleet = OpenDashboard(_dashboard(name, "fleet"), show.source(SETS[name].source, seconds), {})
        panel = fleet.panel(_GROWING)
        legend = panel["options"]["legend"]
        assert (legend["sortBy"], legend["sortDesc"]) == ("Last *", True)
        (answers,) = fleet.ask(panel)
        return [answer.name for answer in sorted(answers, key=lambda each: each.known[-1:], reverse=True)]

    return ask


@pytest.mark.parametrize("name", _FEW)
@pytest.mark.parametrize("page", ["fleet", "host"])
def test_other_is_no_process(show: Show, name: str, page: str) -> None:
    """What has no series of its own is neither a process that grows, nor one that is big."""
    opened = _open(show, name, page)
    for title in (_GROWING, "Biggest processes"):
        (queries, *_more) = opened.ask(opened.panel(title))
        rows = [answer.name if not answer.labels else ".".join(map(str, answer.labels.values())) for answer in queries]
        assert rows, title
        assert not any("other" in row.split(".") for row in rows), title
    assert "other" in _newest(_open(show, name, "host"), "Memory by command")


@pytest.mark.parametrize("name", ["both levels", "Prometheus, both levels"])
def test_measures_that_somebody_asked_for(show: Show, name: str) -> None:
    """The folded row shows them; a leak is anonymous memory."""
    opened = _open(show, name, "process", command="leaky")

    def is_shown() -> bool:
        rss, anon = (sum(_newest(opened, title).values()) for title in ("Memory", "Anonymous memory"))
        return 0.3 * rss < anon <= rss

    wait_for("anonymous memory", is_shown, _SECONDS)
    for panel in folded(opened.dashboard):
        assert len(opened.ask(panel)) == len(panel["targets"])


def test_some_hosts_of_the_fleet(show: Show) -> None:
    """The fleet can be looked at in part: hosts that are picked, which Grafana puts in braces, and a pattern typed."""
    for hosts, number in (("{127_0_1_1,127_0_1_2}", 2), ("127_0_1_2", 1), ("127_0_1_*", 2)):
        fleet = _open(show, "as delivered", "fleet", hosts=hosts)
        assert_full(fleet)
        assert [*_newest(fleet, "Hosts that answer").values()] == [number]
        assert len(_newest(fleet, "Biggest hosts")) == number


@pytest.mark.parametrize("name", SETS)
def test_the_rest_makes_layers_add_up(show: Show, name: str) -> None:
    """With fewer layers the others are in the rest: the sum is the same."""
    all_layers = _open(show, name, "host")
    two_layers = _open(show, name, "host")
    panel = two_layers.panel("Memory by command")
    panel["targets"] = json.loads(re.sub(r", 12\)|topk\(12,", _two, json.dumps(panel["targets"])))

    def is_same() -> bool:
        many, few = (_newest(opened, "Memory by command") for opened in (all_layers, two_layers))
        assert len(few) == 3 < len(many)
        return sum(few.values()) == pytest.approx(sum(many.values()), rel=0.01)

    wait_for("the same sum", is_same, _SECONDS)


def _two(match: re.Match[str]) -> str:
    return match[0].replace("12", "2")


def test_a_host_that_is_down_comes_first(show: Show) -> None:
    """The list of hosts begins with what is wrong."""
    fleet = _open(show, "without StatsD", "fleet")
    (answers,) = fleet.ask(fleet.panel("Hosts that are down, then the others"))
    assert answers[0].name == AWAY.replace(".", "_")
    assert [answer.values[-1] for answer in answers] == [0, 1, 1]
