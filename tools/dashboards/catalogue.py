"""The templates of a set of dashboards, as files."""

from dashboards.collector import collector
from dashboards.context import Context
from dashboards.fleet import fleet
from dashboards.graphite import Paths
from dashboards.host import host
from dashboards.process import process
from dashboards.promql import Metrics
from fleetmem.dashboards import GrafanaSource, text

_BUILDERS = (fleet, host, process, collector)


def templates(source: GrafanaSource) -> dict[str, str]:
    """Returns the templates for a kind of data source, by the names of their files."""
    built = [build(Paths(), Metrics()) for build in _BUILDERS]
    return {f"{dashboard.page}.json": text(dashboard.to_json(Context(source))) for dashboard in built}
