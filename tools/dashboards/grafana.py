"""Dashboards, as Grafana's JSON has them: panels on a grid, and choices on top. Pure.

The classic model, which every Grafana reads and newer ones turn into theirs: grafana.com/docs, "Dashboard JSON model".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dashboards.context import PREFIX_MARK, Context, Json
from dashboards.panels import Panel
from fleetmem.dashboards import GrafanaSource, Page

SCHEMA_VERSION = 42
COLUMNS = 24
"""Of the grid."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below a heading, from left to right, in as many lines as they need.

    Folded ones, which ask nothing until somebody opens the row, are for what not everybody has.
    """

    title: str
    panels: Sequence[Panel]
    is_folded: bool = False

    def to_json(self, context: Context, first_id: int, y: int) -> list[Json]:
        """Returns the heading and the panels from line `y` of the grid on; folded ones are in their heading."""
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        heading = {"id": first_id, "type": "row", "title": self.title, "collapsed": self.is_folded, "gridPos": place}
        placed = self._placed(y + 1)
        panels = [
            panel.to_json(context, panel_id, x, line) for panel_id, (panel, x, line) in enumerate(placed, first_id + 1)
        ]
        return [{**heading, "panels": panels}] if self.is_folded else [{**heading, "panels": []}, *panels]

    def _placed(self, y: int) -> Iterator[tuple[Panel, int, int]]:
        x = line_height = 0
        for panel in self.panels:
            if x + panel.width > COLUMNS:
                x, y, line_height = 0, y + line_height, 0
            yield panel, x, y
            x += panel.width
            line_height = max(line_height, panel.height)


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice on top of the dashboard: values that the data source knows.

    Attributes:
        name: in queries, after a `$`.
        graphite: a path, whose last components are the values.
        prometheus: a label, and the series that have it.
        has_all: whether several can be chosen, and all of them, which is what is chosen first.
    """

    name: str
    graphite: str
    prometheus: str
    has_all: bool = False

    def to_json(self, context: Context) -> Json:
        """Returns the variable, without a value: Grafana takes the first one there is."""
        query: str | Json = self.graphite
        all_value = "*"
        if context.source is GrafanaSource.PROMETHEUS:
            query = {"qryType": 1, "query": self.prometheus, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
            all_value = ".*"
        everything: Json = {"current": {}}
        if self.has_all:
            everything = {"allValue": all_value, "current": {"text": ["All"], "value": ["$__all"]}}
        return {
            "type": "query",
            "name": self.name,
            "label": self.name.capitalize(),
            "datasource": context.datasource,
            "query": query,
            "refresh": 2,  # when the time range changes, and at first
            "sort": 7,  # as people count: web2 before web10
            "multi": self.has_all,
            "includeAll": self.has_all,
            "options": [],
            "hide": 0,
            **everything,
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard."""

    page: Page
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]

    def to_json(self, context: Context) -> Json:
        """Returns it for one kind of data source."""
        # Graphite's newest points are not all there for a moment.
        delay = {"nowDelay": "10s"} if context.source is GrafanaSource.GRAPHITE else {}
        return {
            "uid": context.uid(self.page),
            "title": context.title(self.page),
            "description": self.description,
            "tags": context.tags,
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,  # one crosshair in all panels
            "time": {"from": "now-1h", "to": "now"},
            "timepicker": delay,
            "timezone": "browser",
            "refresh": "1m",
            "links": [_navigation(context)],
            "annotations": {"list": []},
            "templating": {"list": [_datasource(context), *(each.to_json(context) for each in self.variables)]},
            "panels": self._panels(context),
        }

    def _panels(self, context: Context) -> list[Json]:
        panels: list[Json] = []
        for row in self.rows:
            y = max((panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels), default=0)
            first_id = sum(1 + len(panel.get("panels", ())) for panel in panels) + 1
            panels += row.to_json(context, first_id, y)
        return panels


def _datasource(context: Context) -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": str(context.source),
        "current": {},
        "options": [],
        "regex": "",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
    }


def _navigation(context: Context) -> Json:
    """Returns links to the other dashboards of the set, which keep time and choices."""
    return {
        "type": "dashboards",
        "title": PREFIX_MARK,
        "tags": context.tags,
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }
