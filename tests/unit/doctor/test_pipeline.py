"""Canaries, as they are sent and looked for; `tests/integration` sends them to real servers."""

import time

import pytest

from fleetmem.doctor.management import StatsdConfig
from fleetmem.doctor.pipeline import Canary, _bursts, _shortest_seconds
from fleetmem.sinks import formats
from fleetmem.telemetry.selfstats import collector_id

CONFIG = StatsdConfig(10.0, True, 3, "x.g.", ".eu", "")


def test_a_canary_says_when_it_was_sent() -> None:
    """In milliseconds: two values tell how long it is between two flushes."""
    before = time.time() * 1000
    canary = Canary("p", "statsd", formats.statsd_plain, None)
    name, _, rest = canary.line().decode().partition(":")
    value = float(rest.removesuffix("|g\n"))
    assert name == canary.name == f"p.doctor.{collector_id()}.statsd"
    assert before - 1 <= value <= time.time() * 1000
    assert canary.is_of_now(value)
    assert not canary.is_of_now(before - 1000)
    assert not canary.is_of_now(None)


def test_a_canary_for_carbon() -> None:
    """With its time."""
    canary = Canary("p", "graphite", formats.carbon_plain, None)
    name, value, seconds = canary.line().decode().split()
    assert name == canary.name
    assert int(value) // 1000 == int(seconds)


def test_where_a_canary_is_looked_for() -> None:
    """Where StatsD says that it is, or in all usual places."""
    assert Canary("p", "s", formats.statsd_plain, CONFIG).targets == [f"x.g.p.doctor.{collector_id()}.s.eu"]
    targets = Canary("p", "s", formats.statsd_plain, None).targets
    assert targets[0] == f"stats.gauges.p.doctor.{collector_id()}.s"
    assert f"p.doctor.{collector_id()}.s" in targets


def test_new_series_are_counted_by_burst() -> None:
    """Other names do not count."""
    names = ["p.doctor.o.new_1.s000", "p.doctor.o.new_1.s001", "p.doctor.o.new_2.s000", "p.doctor.o.statsd", "new_3"]
    assert _bursts(names) == {1: 2, 2: 1}


@pytest.mark.parametrize(
    ("sent_ms", "seconds"),
    [
        ([0, 10_050, 19_980], 10),
        ([0, 950, 2_050], 1),
        ([0, 2_000, 3_000], 1),
        ([0, 2_500, 5_000], 2.5),
        ([0, 100, 200], 0.1),
    ],
)
def test_how_long_it_is_between_flushes(sent_ms: list[float], seconds: float) -> None:
    """Whole seconds where it is about that; of two flushes in one step the first is lost."""
    assert _shortest_seconds(sent_ms) == seconds
