"""What all dashboards of one set share, and how they lead to each other. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fleetmem.sinks.naming import NameTable

_MAX_UID_BYTES = 40

Json = dict[str, Any]


class Source(StrEnum):
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
class Context:
    """What all dashboards of one set have in common.

    Attributes:
        source: the kind of the data source.
        prefix: of metric names; a part of titles and uids, so that sets with different ones live in one Grafana.
        datasource_uid: the data source that is chosen first, empty for Grafana's default one of this kind.
    """

    source: Source
    prefix: str
    datasource_uid: str = ""

    @property
    def datasource(self) -> Json:
        """The reference to the data source: the one that is chosen on top of the dashboard."""
        return {"type": str(self.source), "uid": "${datasource}"}

    @property
    def tags(self) -> list[str]:
        """By these the dashboards of a set find each other."""
        return [self.prefix, str(self.source)]

    def uid(self, page: Page) -> str:
        """Returns a dashboard's identity, which links refer to: at most 40 characters."""
        end = f"-{self.source}-{page}"
        start = self.prefix.replace(".", "-")
        if len(start + end) > _MAX_UID_BYTES:
            start = NameTable(_MAX_UID_BYTES - len(end)).name(self.prefix)  # cut, with a hash
        return start + end

    def title(self, page: Page) -> str:
        """Returns a title that no other set has."""
        kind = "" if self.source is Source.GRAPHITE else f" ({self.source.capitalize()})"
        return f"{self.prefix}: {page.capitalize()}{kind}"


@dataclass(frozen=True, slots=True)
class Link:
    """A way to another dashboard of the set, with the same time and data source.

    Attributes:
        page: where to.
        variables: what is chosen there: variables and their values, as Grafana's templates.
    """

    page: Page
    variables: Mapping[str, str]

    def to_json(self, context: Context) -> Json:
        """Returns a data link."""
        chosen = [f"var-{name}={template}" for name, template in self.variables.items()]
        query = "&".join([*chosen, "${datasource:queryparam}", "${__url_time_range}"])
        return {"title": f"Show this {self.page}", "url": f"/d/{context.uid(self.page)}?{query}"}


SERIES_NAME = "${__field.displayName:percentencode}"
"""In links: what the series is called."""


def cell(column: str) -> str:
    """Returns, for links, what stands in a column of the same row."""
    return f"${{__data.fields.{column}:percentencode}}"
