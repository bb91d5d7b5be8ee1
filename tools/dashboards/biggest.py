"""The tables of what takes most memory."""

from collections.abc import Sequence

from dashboards import graphite, promql
from dashboards.context import Link
from dashboards.panels import Calc, Column, PromQuery, Queries, Table, Unit

_COLUMNS = (Column("Memory", Calc.LAST), Column("Peak", Calc.MAX), Column("Change", Calc.CHANGE))


def biggest(
    title: str,
    description: str,
    keys: Sequence[str],
    series: graphite.Expression,
    expression: str,
    *,
    rows: int,
    link: Link,
    width: int = 12,
) -> Table:
    """Returns a table of memory now, at its peak, and of its change in the time range.

    Args:
        title: of the table.
        description: of its rows.
        keys: what tells the rows from each other.
        series: in Graphite, named by the keys.
        expression: in Prometheus, with the keys as labels.
        rows: how many there are at most: those that are biggest in the end.
        link: of each row.
        width: in columns of the grid.
    """
    columns = "Memory now, at its highest, and at the right edge of the time range less at the left one."
    return Table(
        title=title,
        description=f"{description} {columns}",
        queries=Queries(
            [graphite.rows(series, rows)],
            [PromQuery(column) for column in promql.rows(expression, rows)],
        ),
        unit=Unit.BYTES,
        width=width,
        height=12,
        link=link,
        keys=keys,
        columns=_COLUMNS,
    )
