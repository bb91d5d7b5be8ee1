"""`fleetmem dashboards`: Grafana's dashboards, as files."""

from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.output import print_data
from fleetmem.dashboards import STATSD_PREFIX, DashboardSet, GrafanaSource, check_statsd_prefix
from fleetmem.errors import UsageError, reason_of
from fleetmem.safe_text import printable
from fleetmem.sinks.naming import check_prefix


def dashboards(
    folder: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Write to this folder; create it if it is missing.")
    ],
    datasource: Annotated[
        GrafanaSource, typer.Option("--datasource", metavar="graphite|prometheus", help="Where Grafana reads from.")
    ] = GrafanaSource.GRAPHITE,
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="PREFIX", help="First part of metric names, as fleetmem sends them.")
    ] = "fleetmem",
    statsd_prefix: Annotated[
        str | None,
        typer.Option(
            "--statsd-prefix",
            metavar="PREFIX",
            help="What StatsD puts in front of names; '' when fleetmem sends to Graphite itself.",
            show_default=STATSD_PREFIX,
        ),
    ] = None,
    datasource_uid: Annotated[
        str,
        typer.Option(
            "--datasource-uid",
            metavar="UID",
            help="Data source that the dashboards select first.",
            show_default="Grafana's default one",
        ),
    ] = "",
) -> None:
    """Write Grafana dashboards for fleet, host, process and collector. Existing files are replaced.

    Examples:
      fleetmem dashboards -o dashboards
      fleetmem dashboards --datasource prometheus -o dashboards
    """
    if statsd_prefix is not None and datasource is not GrafanaSource.GRAPHITE:
        raise UsageError(f"--statsd-prefix: there is none in {datasource}; leave it out")
    behind = STATSD_PREFIX if statsd_prefix is None else check_statsd_prefix(statsd_prefix)
    made = DashboardSet(datasource, _checked(prefix), behind, datasource_uid)
    written = [folder / name for name in _write(folder, made.texts())]
    print_data("".join(f"{printable(str(path))}\n" for path in written))


def _checked(prefix: str) -> str:
    try:
        return check_prefix(prefix)
    except ValueError as error:
        raise UsageError(f"--prefix: {error}") from error


def _write(folder: Path, built: dict[str, str]) -> list[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in built.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: {reason_of(error)}") from error
    return list(built)
