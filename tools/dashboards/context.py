"""What all dashboards of one set share, and how they lead to each other. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetmem.dashboards import GrafanaSource, Page

Json = dict[str, Any]

PREFIX_MARK = "@prefix@"
"""Stands for fleetmem's prefix of metric names."""


@dataclass(frozen=True, slots=True)
class Context:
    """What all dashboards of one set have in common. Where a name depends on the prefix, a mark stands for it.

    Attributes:
        source: the kind of the data source.
    """

    source: GrafanaSource

    @property
    def datasource(self) -> Json:
        """The reference to the data source: the one that is chosen on top of the dashboard."""
        return {"type": str(self.source), "uid": "${datasource}"}

    @property
    def tags(self) -> list[str]:
        """By these the dashboards of a set find each other."""
        return [PREFIX_MARK, str(self.source)]

    def uid(self, page: Page) -> str:
        """Returns the mark of a dashboard's identity, which links refer to."""
        return f"@uid:{page}@"

    def title(self, page: Page) -> str:
        """Returns a title that no other set has."""
        kind = "" if self.source is GrafanaSource.GRAPHITE else f" ({self.source.capitalize()})"
        return f"{PREFIX_MARK}: {page.capitalize()}{kind}"


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
