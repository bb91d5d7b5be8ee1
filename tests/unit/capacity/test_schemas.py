import pytest

from fleetmem.capacity.schemas import CARBON_DEFAULT, parse_schemas, schema_of
from fleetmem.sinks.whisper import parse_retention


def test_the_first_pattern_that_is_found_counts() -> None:
    """As in storage-schemas.conf; what none matches is kept as carbon does by itself."""
    schemas = parse_schemas([r"\.process\.=10s:1d", r"^stats\.=10s:2d"])
    names = ["stats.gauges.fleetmem.process.a.b.1.rss_bytes", "stats.gauges.fleetmem.host.a.up", "fleetmem.host.a.up"]
    places = [schema_of(name, schemas) for name in names]
    assert places == [0, 1, 2]
    assert schemas[2].retention == parse_retention(CARBON_DEFAULT)


def test_a_pattern_may_hold_an_equals_sign() -> None:
    """The retention is what follows the last one."""
    (schema, _default) = parse_schemas(["host=(a|b)=10s:6h,60s:7d"])
    assert (schema.pattern.pattern, schema.text) == ("host=(a|b)", "10s:6h,60s:7d")


@pytest.mark.parametrize(("text", "message"), [("(=10s:6h", "no regular expression"), ("a=10s", "STEP:PERIOD")])
def test_what_carbon_would_not_take(text: str, message: str) -> None:
    """It is said which part is wrong."""
    with pytest.raises(ValueError, match=message):
        parse_schemas([text])
