"""What Grafana does with a dashboard: fills its variables from the data source, and asks what its panels ask.

Names and rules are those of its documentation ("Variable syntax", "Global variables") and of the HTTP APIs asked.
"""

import http.client
import json
import re
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

Json = dict[str, Any]
Values = list[float | None]

_VARIABLE = re.compile(r"\$(?!\d)(\w+)|\$\{(\w+)(?:\.[^:}]+)?(?::\w+)?\}")
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")
_SECONDS = 30.0
TIMED_OUT = "Timed out after"
"""graphite-web says so of its own limits."""

_RANGE_SECONDS = 60
_BUILT_IN = {"__interval": "1s", "__rate_interval": "10s"}


@dataclass(frozen=True)
class Answer:
    """A series as a panel gets it.

    Attributes:
        name: what the data source, or the legend, calls it.
        labels: Prometheus's.
        values: one per step, oldest first.
    """

    name: str
    labels: dict[str, str]
    values: Values

    @property
    def known(self) -> list[float]:
        """The values that are there."""
        return [value for value in self.values if value is not None]


class DataSource(Protocol):
    """What Grafana can ask, for the time range that is chosen on top."""

    @property
    def range_seconds(self) -> int:
        """The time range, up to now."""

    def choices(self, query: Any) -> list[str]:
        """Returns the values that a variable's query has."""

    def escape(self, value: str) -> str:
        """Returns a value of a variable that may have several, as it stands in a query."""

    def ask(self, targets: Sequence[Json]) -> list[list[Answer]]:
        """Returns the series of each query of a panel."""


def get(port: int, path: str, **arguments: Any) -> Any:
    """Returns the JSON that a server of this machine answers; fails the test when it answers with an error.

    graphite-web gives up after seconds of its own (3 to find, 6 to fetch): where others use the machine, it is asked
    again.
    """
    end = time.monotonic() + 2 * _SECONDS
    while True:
        status, text = _get(port, f"{path}?{urllib.parse.urlencode(arguments, doseq=True)}")
        if status == http.HTTPStatus.OK:
            return json.loads(text)
        assert TIMED_OUT in text, f"{arguments}: {status} {text[-2000:]}"
        assert time.monotonic() < end, f"{arguments}: {status} {text[-2000:]}"


def _get(port: int, target: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@dataclass(frozen=True)
class GraphiteWeb:
    """graphite-web at a port of this machine."""

    port: int
    range_seconds: int = _RANGE_SECONDS

    def choices(self, query: Any) -> list[str]:
        """Returns the last components of the paths that match, as they come."""
        found = get(self.port, "/metrics/find", query=query, format="treejson")
        return list(dict.fromkeys(node["text"] for node in found))

    def escape(self, value: str) -> str:
        """Returns it as it is: there are no characters in names that Graphite would take for others."""
        return value

    def ask(self, targets: Sequence[Json]) -> list[list[Answer]]:
        """Renders each query by itself, so that each can be told from the others."""
        return [self._render(target["target"]) for target in targets]

    def _render(self, target: str) -> list[Answer]:
        found = get(
            self.port, "/render", target=target, **{"from": f"-{self.range_seconds}s"}, format="json", noCache=1
        )
        return [Answer(each["target"], {}, [value for value, _at in each["datapoints"]]) for each in found]


@dataclass(frozen=True)
class PrometheusServer:
    """Prometheus at a port of this machine."""

    port: int
    range_seconds: int = _RANGE_SECONDS

    def choices(self, query: Any) -> list[str]:
        """Returns the values of a label."""
        match = _LABEL_VALUES.fullmatch(query["query"])
        assert match, query
        return list(get(self.port, f"/api/v1/label/{match[2]}/values", **{"match[]": match[1]})["data"])

    def escape(self, value: str) -> str:
        """Returns it as a regular expression for itself, in a quoted text."""
        return re.sub(r"[$^*{}\[\]+?.()|\\]", r"\\\\\g<0>", value)

    def ask(self, targets: Sequence[Json]) -> list[list[Answer]]:
        """Asks for a range, or for the newest values where a panel wants those only."""
        return [self._query(target) for target in targets]

    def _query(self, target: Json) -> list[Answer]:
        end = int(time.time())
        if target["instant"]:
            found = get(self.port, "/api/v1/query", query=target["expr"])["data"]["result"]
            return [self._answer(target, each["metric"], [float(each["value"][1])]) for each in found]
        begin = end - self.range_seconds
        span = {"start": begin, "end": end, "step": 1}
        found = get(self.port, "/api/v1/query_range", query=target["expr"], **span)["data"]["result"]
        steps = range(begin, end + 1)
        series = [(each["metric"], {int(at): float(value) for at, value in each["values"]}) for each in found]
        return [self._answer(target, labels, [values.get(at) for at in steps]) for labels, values in series]

    @staticmethod
    def _answer(target: Json, labels: dict[str, str], values: Values) -> Answer:
        return Answer(_legend(target["legendFormat"], labels), labels, values)


def _legend(format_: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), format_)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Returns text with the values of its variables.

    Raises:
        KeyError: there is no such variable.
    """
    return _VARIABLE.sub(lambda match: {**_BUILT_IN, **values}[match[1] or match[2]], text)


def variables(text: str) -> set[str]:
    """Returns the variables in a text."""
    return {plain or braced for plain, braced in _VARIABLE.findall(text)}


def _fill_all(thing: Any, values: Mapping[str, str]) -> Any:
    if isinstance(thing, str):
        return fill(thing, values)
    if isinstance(thing, dict):
        return {key: _fill_all(value, values) for key, value in thing.items()}
    return thing


def read_set(folder: Path) -> dict[str, Json]:
    """Returns the dashboards in a folder, by the names of their files."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


def panels(dashboard: Json) -> Iterator[Json]:
    """Yields the panels that ask something when the dashboard is opened."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def folded(dashboard: Json) -> Iterator[Json]:
    """Yields those that ask when somebody opens their row."""
    return (panel for row in dashboard["panels"] for panel in row.get("panels", ()))


@dataclass(frozen=True)
class OpenDashboard:
    """A dashboard that somebody looks at.

    Attributes:
        dashboard: as in its file.
        source: the data source.
        chosen: what is in the address of the page: values of variables.
    """

    dashboard: Json
    source: DataSource
    chosen: Mapping[str, str]

    def values(self) -> dict[str, str]:
        """Returns the values of all variables: what is chosen, else all, else the first that there is."""
        values: dict[str, str] = {"datasource": "chosen-by-hand", "__range": f"{self.source.range_seconds}s"}
        for variable in self.dashboard["templating"]["list"][1:]:
            name = variable["name"]
            if name in self.chosen:
                has_several = variable["includeAll"]
                values[name] = self.source.escape(self.chosen[name]) if has_several else self.chosen[name]
            elif variable["includeAll"]:
                values[name] = variable["allValue"]
            else:
                values[name] = next(iter(self.source.choices(_fill_all(variable["query"], values))), "")
        return values

    def panel(self, title: str) -> Json:
        """Returns the first panel of this title."""
        every = chain(panels(self.dashboard), folded(self.dashboard))
        return next(panel for panel in every if panel["title"] == title)

    def ask(self, panel: Json, values: Mapping[str, str] | None = None) -> list[list[Answer]]:
        """Returns the series of each query of a panel."""
        known = self.values() if values is None else values
        return self.source.ask([_fill_all(target, known) for target in panel["targets"]])
