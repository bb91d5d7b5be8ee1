import pytest

from fleetmem.capacity.carbon import Arrival, CarbonLimits, points_waiting, series_that_fit, updates_needed

DELIVERED = CarbonLimits(updates_per_second=2000, cache_points=2_000_000, step_seconds=10)


@pytest.mark.parametrize(("arrival", "series"), [(Arrival.SPREAD, 282_843), (Arrival.BURST, 273_019)])
def test_where_the_delivered_carbon_ends(arrival: Arrival, series: int) -> None:
    """The numbers that the documents have: 617 and 596 hosts with 458 series each."""
    fit = series_that_fit(DELIVERED, arrival)
    assert round(fit) == series
    assert points_waiting(DELIVERED, fit, arrival) == pytest.approx(DELIVERED.cache_points)
    assert updates_needed(DELIVERED, fit, arrival) == pytest.approx(DELIVERED.updates_per_second)


def test_twice_the_series_wait_four_times_as_long() -> None:
    """A pass takes twice as long, and twice as many series wait for it."""
    one, two = (points_waiting(DELIVERED, series, Arrival.SPREAD) for series in (100_000, 200_000))
    assert two == 4 * one


def test_no_number_of_updates_helps_a_cache_that_one_burst_fills() -> None:
    """Half of the series wait at the end of a burst, however fast carbon is."""
    assert updates_needed(DELIVERED, 4_000_001, Arrival.BURST) is None
    assert updates_needed(DELIVERED, 4_000_001, Arrival.SPREAD)
