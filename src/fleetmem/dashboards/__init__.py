"""Grafana's dashboards: fleet, host, process, collector, for Graphite and for Prometheus. Pure.

The files beside this one are templates. `tools/dashboards` writes them; here prefix and data source are put in.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any

from fleetmem.errors import UsageError
from fleetmem.sinks.naming import NameTable, check_prefix

STATSD_PREFIX = "stats.gauges."
"""What StatsD puts before the names of gauges."""

_MAX_UID_BYTES = 40
_STATSD_PREFIX = re.compile(r"([A-Za-z0-9_-]+\.)*")
_MARK = re.compile(r"@(prefix|path|metric|uid|node)(?::(\w+))?@")


class GrafanaSource(StrEnum):
    """Kinds of data sources, as Grafana calls them."""

    GRAPHITE = "graphite"
    PROMETHEUS = "prometheus"


class Page(StrEnum):
    """The dashboards."""

    FLEET = "fleet"
    HOST = "host"
    PROCESS = "process"
    COLLECTOR = "collector"


@dataclass(frozen=True, slots=True)
class DashboardSet:
    """The dashboards for one prefix and one data source. Sets that differ in these live in one Grafana.

    Attributes:
        source: the kind of the data source.
        prefix: of metric names.
        statsd_prefix: what StatsD puts before names, with a dot at its end; empty where no StatsD is in between.
        datasource_uid: the data source that is chosen first, empty for Grafana's default one of this kind.
    """

    source: GrafanaSource
    prefix: str = "fleetmem"
    statsd_prefix: str = STATSD_PREFIX
    datasource_uid: str = ""

    def texts(self) -> dict[str, str]:
        """Returns the dashboards by the names of their files.

        Raises:
            ValueError: the prefix is none.
        """
        check_prefix(self.prefix)
        folder = files(__name__) / str(self.source)
        templates = {f"{page}.json": (folder / f"{page}.json").read_text(encoding="utf-8") for page in Page}
        return {name: self._choose(_MARK.sub(self._fill, template)) for name, template in templates.items()}

    def uid(self, page: Page) -> str:
        """Returns a dashboard's identity, which links refer to: at most 40 characters."""
        end = f"-{self.source}-{page}"
        start = self.prefix.replace(".", "-")
        if len(start + end) > _MAX_UID_BYTES:
            start = NameTable(_MAX_UID_BYTES - len(end)).name(self.prefix)  # cut, with a hash
        return start + end

    def _fill(self, mark: re.Match[str]) -> str:
        path = f"{self.statsd_prefix}{self.prefix}"
        match mark[1]:
            case "prefix":
                return self.prefix
            case "path":
                return path
            case "metric":  # dots are no part of Prometheus's names
                return self.prefix.replace(".", "_")
            case "uid":
                return self.uid(Page(mark[2]))
            case _:  # a component of a path in Graphite, counted behind the prefix
                return str(path.count(".") + 1 + int(mark[2]))

    def _choose(self, dashboard: str) -> str:
        if not self.datasource_uid:
            return dashboard
        parsed = json.loads(dashboard)
        parsed["templating"]["list"][0]["current"] = {"text": self.datasource_uid, "value": self.datasource_uid}
        return text(parsed)


def text(dashboard: dict[str, Any]) -> str:
    """Returns a dashboard as it stands in its file."""
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def check_statsd_prefix(given: str) -> str:
    """Returns what StatsD puts before names, with a dot at its end; empty where no StatsD is in between.

    Raises:
        UsageError: no path begins so.
    """
    prefix = f"{given.rstrip('.')}." if given else ""
    if not _STATSD_PREFIX.fullmatch(prefix):
        raise UsageError(f"StatsD prefix {given!r}: expected parts joined by dots, as in {STATSD_PREFIX}")
    return prefix
