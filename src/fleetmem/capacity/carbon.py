"""Where carbon ends: how many points wait in its cache. Pure.

Carbon writes `updates_per_second` series each second, those that wait longest first, each with all of its points. So
one pass over S series takes S / updates seconds. Just before its turn a series has S / updates / step points waiting,
just after it none: half of that on average.

    points that wait = S * S / (2 * updates * step)

Where all points of a step arrive at once, half of them wait on top of that: S / 2. `bench/carbon_end.py` measures it.
"""

from enum import StrEnum
from math import sqrt
from typing import NamedTuple


class Arrival(StrEnum):
    """How the points of a step reach carbon."""

    SPREAD = "spread"
    """fleetmem sends each host at its own moment of the interval."""
    BURST = "burst"
    """StatsD sends all at its flush."""


class CarbonLimits(NamedTuple):
    """What bounds a carbon-cache.

    Attributes:
        updates_per_second: MAX_UPDATES_PER_SECOND, or what its disk manages.
        cache_points: MAX_CACHE_SIZE.
        step_seconds: between two points of a series.
    """

    updates_per_second: float
    cache_points: float
    step_seconds: float


def points_waiting(limits: CarbonLimits, series: float, arrival: Arrival) -> float:
    """Returns how many points wait at the highest; never fewer than one pass finds."""
    a_pass = series * series / (2 * limits.updates_per_second * limits.step_seconds)
    return a_pass + (series / 2 if arrival is Arrival.BURST else 0)


def series_that_fit(limits: CarbonLimits, arrival: Arrival) -> float:
    """Returns how many series fill the cache: where `points_waiting` is its size."""
    in_a_step = limits.updates_per_second * limits.step_seconds  # series written in one
    extra = in_a_step / 2 if arrival is Arrival.BURST else 0
    return sqrt(extra * extra + 2 * in_a_step * limits.cache_points) - extra


def updates_needed(limits: CarbonLimits, series: float, arrival: Arrival) -> float | None:
    """Returns how many updates a second keep the cache from filling up; None where no number does."""
    room = limits.cache_points - (series / 2 if arrival is Arrival.BURST else 0)
    return series * series / (2 * room * limits.step_seconds) if room > 0 else None
