"""Which series Graphite keeps for how long: carbon's storage-schemas.conf, as options. Pure."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fleetmem.sinks.whisper import Retention, parse_retention

EVERYTHING = ".*"

DEFAULT_SCHEMAS = (r"\.process\.=10s:6h,60s:3d", "10s:6h,60s:7d,10m:1y")
"""Those of deploy/graphite/storage-schemas.conf: processes short, the rest long."""

CARBON_DEFAULT = "60s:7d"
"""What carbon does with a series that no schema matches (`defaultSchema` in its storage.py)."""


class Schema(NamedTuple):
    """One rule.

    Attributes:
        pattern: found anywhere in a series' name.
        text: the retention as it was written.
        retention: what it means.
    """

    pattern: re.Pattern[str]
    text: str
    retention: Retention


def parse_schemas(texts: Iterable[str]) -> list[Schema]:
    """Returns the rules of `PATTERN=10s:1d,1m:30d`, the first match wins; without a pattern a rule is for all.

    Raises:
        ValueError: a pattern is no regular expression, or a retention is none that carbon takes.
    """
    schemas = []
    for text in [*texts, CARBON_DEFAULT]:
        pattern, is_given, retention = text.rpartition("=")
        try:
            compiled = re.compile(pattern if is_given else EVERYTHING)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        schemas.append(Schema(compiled, retention, parse_retention(retention)))
    return schemas


def schema_of(name: str, schemas: Sequence[Schema]) -> int:
    """Returns the place of the rule that a series falls under."""
    return next(place for place, schema in enumerate(schemas) if schema.pattern.search(name))
