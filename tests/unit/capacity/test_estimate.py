"""Figures of a fleet that is not there, beside what was measured on fleets that are."""

import re
from pathlib import Path
from typing import Any

import pytest

from fleetmem.capacity.estimate import Capacity, Machines, estimate
from fleetmem.capacity.load import example_load
from fleetmem.capacity.schemas import parse_schemas
from fleetmem.config import load
from fleetmem.model import Measure

BENCHMARKS = Path(__file__).parents[3] / "docs" / "reference" / "benchmarks.md"
MACHINES = Machines(1, 2000, 2_000_000)
SERIES_OF_A_HOST = 8  # with protocol 1
NOBODY: dict[str, Any] = {"statsd": {"server": ["127.0.0.1"]}}


def plan(
    hosts: int, processes: int, flags: dict[str, Any], commands: int = 75, machines: Machines = MACHINES
) -> Capacity:
    """Returns the plan of a fleet."""
    settings = load(None, flags)
    schemas = parse_schemas([r"\.process\.=10s:6h,60s:3d", "10s:6h,60s:7d,10m:1y"])
    made, _one = example_load(settings, schemas, hosts, processes, commands)
    return estimate(made, settings, schemas, machines)


def figures(capacity: Capacity, section: str) -> dict[str, Any]:
    """Returns the figures of a section by their keys."""
    return next({each.key: each.value for each in part.figures} for part in capacity.sections if part.key == section)


@pytest.mark.parametrize(
    ("shape", "series"),
    [
        ({}, 150 * 3),
        ({"detail": ["command"]}, 75 * 4),
        ({"detail": ["process", "command"]}, 150 * 3 + 75 * 4),
        ({"top": 20}, 20 * 3 + 4),
        ({"detail": ["command"], "top": 20}, 20 * 4 + 4),
        ({"max_series_per_host": 100}, 28 * 3 + 4),
        ({"measures": ["rss_bytes"]}, 150),
        ({"measures": [*Measure]}, 150 * 6),
        ({"measures": [*Measure], "detail": ["process", "command"], "top": 20}, 20 * 6 + 6 + 20 * 6 + 6),
        (
            {"measures": ["rss_bytes", "vsz_bytes", "peak_rss_bytes", "anon_bytes"], "max_series_per_host": 99},
            21 * 4 + 4,
        ),
    ],
)
def test_series(shape: dict[str, Any], series: int) -> None:
    """As the shaper and the encoder make them; those beyond `top` or the budget are one `other`."""
    assert figures(plan(3000, 150, NOBODY | {"shape": shape}), "fleet")["series"] == 3000 * (series + SERIES_OF_A_HOST)


def test_disk_is_counted_rule_by_rule() -> None:
    """Series of processes are short, the host's own long."""
    graphite = figures(plan(10, 150, NOBODY), "graphite")
    assert graphite["disk_bytes"] == 10 * (450 * 77_800 + SERIES_OF_A_HOST * 777_652)
    assert (graphite["files_of_schema_1"], graphite["files_of_schema_2"]) == (4500, 80)


def test_two_ways_to_graphite_store_twice() -> None:
    """By StatsD and directly a series has two names; it is said."""
    twice = plan(10, 150, NOBODY | {"graphite": {"server": "127.0.0.1"}})
    assert figures(twice, "graphite")["files"] == 2 * 4580
    assert any("stores each series twice" in warning for warning in twice.warnings)


@pytest.mark.parametrize(
    ("flags", "sections"),
    [
        ({}, {"statsd", "graphite"}),
        (NOBODY, {"statsd", "graphite"}),
        ({"graphite": {"server": "127.0.0.1"}}, {"graphite"}),
        ({"prometheus": {"listen": "9700"}}, {"prometheus"}),
        ({"file": {"path": "/tmp/memory.jsonl"}}, {"file"}),
    ],
)
def test_what_is_configured_is_counted(flags: dict[str, Any], sections: set[str]) -> None:
    """Nothing else; without any output it is StatsD and the Graphite behind it."""
    found = {section.key for section in plan(10, 10, flags).sections}
    assert found - {"fleet", "collector", "host"} == sections


def test_carbon_is_full_or_near_it() -> None:
    """Nobody is warned of half of it; the end is that of the page in the documents."""
    assert not plan(300, 150, NOBODY).warnings
    assert "near its end" in plan(590, 150, NOBODY).warnings[0]
    full = plan(620, 150, NOBODY)
    assert "is full" in full.warnings[0]
    assert round(figures(full, "graphite")["series_that_fit"]) == 273_019
    direct = plan(620, 150, {"graphite": {"server": "127.0.0.1"}})
    assert round(figures(direct, "graphite")["series_that_fit"]) == 282_843


def test_a_large_fleet_needs_workers() -> None:
    """One process is a core at most."""
    many = plan(25_000, 150, NOBODY)
    assert any("--workers 2" in warning for warning in many.warnings)
    assert not any("--workers" in warning for warning in plan(25_000, 150, NOBODY, machines=Machines(2, 1, 1)).warnings)


def test_cpu_and_memory_are_those_of_the_curves() -> None:
    """For each measured fleet: within a fifth, and 0.02 of a core where it is nearly nothing."""
    rows = re.findall(
        r"^\| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \| (\d+) \|$", BENCHMARKS.read_text(), re.MULTILINE
    )
    assert len(rows) >= 10
    for hosts, processes, interval, cores, megabytes in rows:
        flags = NOBODY | {"run": {"interval_seconds": float(interval)}}
        collector = figures(plan(int(hosts.replace(",", "")), int(processes.replace(",", "")), flags), "collector")
        assert collector["cpu_cores"] == pytest.approx(float(cores), rel=0.2, abs=0.02)
        assert collector["memory_bytes"] == pytest.approx(float(megabytes) * 1e6, rel=0.25)


@pytest.mark.parametrize(
    ("flags", "interval_seconds", "low", "high"),
    [
        ({}, 10, 5600, 5800),
        ({"protocol": 2, "kind": "ps"}, 10, 5600, 5800),
        ({"protocol": 2}, 1, 800, 920),
        ({"protocol": 2}, 10, 1100, 1200),  # one answer in 30 has everything
        ({"protocol": 2}, 300, 9400, 9500),  # each has
    ],
)
def test_bytes_of_an_answer(flags: dict[str, Any], interval_seconds: float, low: float, high: float) -> None:
    """All processes each time, or those that changed; all of them every few minutes, whatever the interval."""
    settings = NOBODY | {"probe": flags, "run": {"interval_seconds": interval_seconds}}
    made = plan(10, 150, settings)
    assert low < figures(made, "host")["bytes_per_sample"] < high
    received = figures(made, "collector")["received_bytes_per_second"]
    assert received == pytest.approx(figures(made, "host")["bytes_per_sample"] * 10 / interval_seconds)


def test_protocol_2_tells_more_of_a_host() -> None:
    """Pressure and huge pages: three series more."""
    newer = plan(10, 150, NOBODY | {"probe": {"protocol": 2}})
    assert figures(newer, "fleet")["series"] == figures(plan(10, 150, NOBODY), "fleet")["series"] + 30
