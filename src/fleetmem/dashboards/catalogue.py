"""The dashboards of a set, as files."""

import json

from fleetmem.dashboards.collector import collector
from fleetmem.dashboards.context import Context, Json
from fleetmem.dashboards.fleet import fleet
from fleetmem.dashboards.graphite import STATSD_PREFIX, Paths
from fleetmem.dashboards.host import host
from fleetmem.dashboards.process import process
from fleetmem.dashboards.promql import Metrics

_BUILDERS = (fleet, host, process, collector)


def dashboards(context: Context, statsd_prefix: str = STATSD_PREFIX) -> dict[str, Json]:
    """Returns the dashboards by the names of their files.

    Args:
        context: of the set.
        statsd_prefix: what StatsD puts before names, with a dot at its end; empty where no StatsD is in between.

    Raises:
        ValueError: the prefix is none.
    """
    paths, metrics = Paths(context.prefix, statsd_prefix), Metrics(context.prefix)
    built = [build(paths, metrics) for build in _BUILDERS]
    return {f"{dashboard.page}.json": dashboard.to_json(context) for dashboard in built}


def text(dashboard: Json) -> str:
    """Returns a dashboard as it stands in its file."""
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"
