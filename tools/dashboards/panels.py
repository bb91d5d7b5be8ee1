"""Panels, as Grafana's JSON has them: what they ask, and how they show it. Pure.

Options and transformations are those of Grafana 12.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple

from dashboards.context import Context, Json, Link
from fleetmem.dashboards import GrafanaSource

_JOIN_GAPS_UP_TO_MS = 60_000


class Unit(StrEnum):
    """Units, as Grafana calls them."""

    BYTES = "bytes"  # with binary prefixes
    BYTES_PER_SECOND = "binBps"
    PERCENT = "percent"  # 0 to 100
    NUMBER = "short"
    PER_SECOND = "cps"
    SECONDS = "s"


class Calc(StrEnum):
    """What becomes of a series where one value is shown. `LAST` is none when the series has ended."""

    LAST = "last"
    MAX = "max"
    CHANGE = "diff"


_COLUMN_NAMES = {Calc.LAST: "Last", Calc.MAX: "Max", Calc.CHANGE: "Difference"}
"""What the transformation `reduce` calls its columns."""


class PromQuery(NamedTuple):
    """A PromQL expression and what its series are called: text with `{{label}}`."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Queries:
    """What a panel asks, of either kind of data source."""

    graphite: Sequence[str]
    prometheus: Sequence[PromQuery]

    def to_json(self, context: Context, answers: "Answers") -> list[Json]:
        """Returns the queries of a panel, called A, B, ..."""
        if context.source is GrafanaSource.GRAPHITE:
            targets: list[Json] = [{"target": target, "textEditor": True} for target in self.graphite]
        else:
            targets = [
                {
                    "expr": query.expression,
                    "legendFormat": query.legend,
                    "editorMode": "code",
                    "format": answers.format,
                    "instant": answers.is_newest_only,
                    "range": not answers.is_newest_only,
                }
                for query in self.prometheus
            ]
        return [
            {"refId": ref_id(number), "datasource": context.datasource, **target}
            for number, target in enumerate(targets)
        ]


class Answers(NamedTuple):
    """How Prometheus is to answer. Graphite has one way only."""

    format: str = "time_series"
    is_newest_only: bool = False


def ref_id(number: int) -> str:
    """Returns what the query of this number, from 0, is called in its panel."""
    return chr(ord("A") + number)


@dataclass(frozen=True)
class Thresholds:
    """Green at first, then other colours from these values on."""

    steps: Sequence[tuple[float, str]] = ()

    def to_json(self) -> Json:
        """Returns them in absolute values."""
        steps: list[Json] = [{"color": "green", "value": None}]
        steps += [{"color": color, "value": value} for value, color in self.steps]
        return {"mode": "absolute", "steps": steps}


FULL = Thresholds([(80, "orange"), (90, "red")])
"""For percent of memory in use."""

ANY_IS_BAD = Thresholds([(1, "red")])
"""For numbers that are 0 on a good day."""


@dataclass(frozen=True)
class Words:
    """Words in place of numbers, each with its colour."""

    by_value: Mapping[int, tuple[str, str]]

    def to_json(self) -> list[Json]:
        """Returns value mappings."""
        options = {
            str(value): {"text": text, "color": color, "index": index}
            for index, (value, (text, color)) in enumerate(self.by_value.items())
        }
        return [{"type": "value", "options": options}]


UP = Words({1: ("up", "green"), 0: ("down", "red")})
FAILING = Words({0: ("well", "green"), 1: ("failing", "red")})


@dataclass(frozen=True, kw_only=True)
class Panel(ABC):
    """One panel.

    Attributes:
        title: what it shows.
        description: how to read it.
        queries: what it asks.
        unit: of its values.
        width: in columns of the grid.
        height: in units of the grid, 30 pixels each.
        link: where a click leads.
        thresholds: colours of values.
        words: in place of values.
    """

    kind: ClassVar[str]
    answers: ClassVar[Answers] = Answers()

    title: str
    description: str
    queries: Queries
    unit: Unit = Unit.NUMBER
    width: int = 12
    height: int = 9
    link: Link | None = None
    thresholds: Thresholds = Thresholds()
    words: Words | None = None

    def to_json(self, context: Context, panel_id: int, x: int, y: int) -> Json:
        """Returns the panel at a place of the grid."""
        return {
            "id": panel_id,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "datasource": context.datasource,
            "targets": self.queries.to_json(context, self.answers),
            "transformations": self._transformations(context.source),
            "fieldConfig": {"defaults": self._defaults(context), "overrides": self._overrides(context)},
            "options": self._options(),
        }

    def _transformations(self, _source: GrafanaSource) -> list[Json]:
        return []

    def _defaults(self, context: Context) -> Json:
        defaults: Json = {"unit": str(self.unit), "noValue": "no data", "thresholds": self.thresholds.to_json()}
        if self.unit is Unit.PERCENT:
            defaults["min"] = 0
        if self.words:
            defaults["mappings"] = self.words.to_json()
        if self.link:
            defaults["links"] = [self.link.to_json(context)]
        return defaults

    def _overrides(self, _context: Context) -> list[Json]:
        return []

    @abstractmethod
    def _options(self) -> Json:
        """Returns what only this kind of panel has."""


def _override(name: str, **properties: Any) -> Json:
    """Returns what is different for one series or column."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def _one_value(calc: Calc) -> Json:
    return {"calcs": [str(calc)], "fields": "", "values": False}


@dataclass(frozen=True, kw_only=True)
class TimeSeries(Panel):
    """Lines over time.

    Attributes:
        is_stacked: whether they are areas on top of each other.
        outlines: names of series that are lines of their own, beside such areas or filled ones.
    """

    kind = "timeseries"

    is_stacked: bool = False
    outlines: Sequence[str] = ()

    def _defaults(self, context: Context) -> Json:
        custom = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 60 if self.is_stacked else 10,
            "showPoints": "auto",  # what lived for one sample only is a point
            "spanNulls": _JOIN_GAPS_UP_TO_MS,
            "stacking": {"mode": "normal" if self.is_stacked else "none", "group": "A"},
        }
        defaults = super()._defaults(context)
        return defaults | {"color": {"mode": "palette-classic"}, "min": 0, "custom": custom}

    def _overrides(self, context: Context) -> list[Json]:
        line = {"custom__fillOpacity": 0, "custom__lineWidth": 2, "custom__stacking": {"mode": "none", "group": "B"}}
        return [_override(name, **line) for name in self.outlines]

    def _options(self) -> Json:
        return {
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
                "sortBy": "Last *",
                "sortDesc": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True, kw_only=True)
class Stat(Panel):
    """One number.

    Attributes:
        calc: which of the series' values.
    """

    kind = "stat"

    width: int = 4
    height: int = 4
    calc: Calc = Calc.LAST

    def _options(self) -> Json:
        return {
            "reduceOptions": _one_value(self.calc),
            "colorMode": "value",
            "graphMode": "none" if self.words else "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "value",
        }


@dataclass(frozen=True, kw_only=True)
class BarGauge(Panel):
    """A bar per series, in their order."""

    kind = "bargauge"
    answers = Answers(is_newest_only=True)

    def _defaults(self, context: Context) -> Json:
        # Without a display name, a bar that is the only one has none.
        defaults = super()._defaults(context)
        color = {"mode": "thresholds" if self.thresholds.steps else "continuous-BlPu"}
        maximum = {"max": 100} if self.unit is Unit.PERCENT else {}
        return defaults | {"displayName": "${__field.displayName}", "color": color, "min": 0} | maximum

    def _options(self) -> Json:
        return {
            "reduceOptions": _one_value(Calc.LAST),
            "displayMode": "gradient",
            "orientation": "horizontal",
            "showUnfilled": True,
            "valueMode": "color",
        }


class Column(NamedTuple):
    """A column of numbers.

    Attributes:
        title: above it.
        calc: which of the series' values, where the data source is Graphite; for Prometheus each has its own query.
    """

    title: str
    calc: Calc


@dataclass(frozen=True, kw_only=True)
class Table(Panel):
    """A row per series, the one with the largest number in the first column of numbers on top.

    From Graphite comes one query, whose series are called by the keys, joined by dots; from Prometheus one query per
    column of numbers, whose series have the keys as labels.

    Attributes:
        keys: what tells the rows from each other; the labels in Prometheus are the same in lower case.
        columns: the numbers.
        is_ascending: whether the smallest one is on top instead.
    """

    kind = "table"
    answers = Answers("table", is_newest_only=True)

    keys: Sequence[str]
    columns: Sequence[Column]
    is_ascending: bool = False

    def _transformations(self, source: GrafanaSource) -> list[Json]:
        return self._rows_of_series() if source is GrafanaSource.GRAPHITE else self._joined_answers()

    def _rows_of_series(self) -> list[Json]:
        reducers = [str(column.calc) for column in self.columns]
        rows = {"id": "reduce", "options": {"mode": "seriesToRows", "reducers": reducers}}
        names = {_COLUMN_NAMES[column.calc]: column.title for column in self.columns}
        if len(self.keys) == 1:
            return [rows, self._organize({"Field": self.keys[0]} | names)]
        pattern = r"\.".join(f"(?<{key}>[^.]+)" for key in self.keys)
        options = {"source": "Field", "format": "regexp", "regExp": f"/^{pattern}$/", "replace": False}
        keys = {key: key for key in self.keys}
        return [rows, {"id": "extractFields", "options": options}, self._organize(keys | names, hidden=["Field"])]

    def _joined_answers(self) -> list[Json]:
        labels = {key.lower(): key for key in self.keys}
        if len(self.columns) == 1:
            return [self._organize(labels | {"Value": self.columns[0].title}, hidden=["Time"])]
        values = {f"Value #{ref_id(number)}": column.title for number, column in enumerate(self.columns)}
        return [{"id": "merge", "options": {}}, self._organize(labels | values, hidden=["Time"])]

    def _organize(self, titles: Mapping[str, str], hidden: Sequence[str] = ()) -> Json:
        options = {
            "renameByName": titles,
            "indexByName": {name: index for index, name in enumerate(titles)},
            "excludeByName": dict.fromkeys(hidden, True),
        }
        return {"id": "organize", "options": options}

    def _defaults(self, context: Context) -> Json:
        defaults = super()._defaults(context)
        defaults.pop("links", None)
        custom = {"align": "auto", "filterable": True}
        return defaults | {"color": {"mode": "thresholds"}, "noValue": "-", "custom": custom}

    def _overrides(self, context: Context) -> list[Json]:
        links = {"links": [self.link.to_json(context)]} if self.link else {}
        names = [_override(key, unit="string", **links) for key in self.keys]
        if not self.words:
            return names
        text = {"type": "color-text"}
        return [*names, *(_override(column.title, custom__cellOptions=text) for column in self.columns)]

    def _options(self) -> Json:
        first = self.columns[0].title
        return {
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [{"displayName": first, "desc": not self.is_ascending}],
        }
