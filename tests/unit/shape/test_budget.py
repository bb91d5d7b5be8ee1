from hypothesis import given
from hypothesis import strategies as st

from fleetmem.model import Detail
from fleetmem.shape.budget import REMEMBER_SECONDS, HostBudget, SeriesPool, reserved_series


def test_reserved_series() -> None:
    """A host has eleven of its own, and four of `other` for each level."""
    assert reserved_series({Detail.PROCESS}) == 15
    assert reserved_series(set(Detail)) == 19


def test_a_pool_ends() -> None:
    """What does not fit is not taken, not even in part; what is given back can be taken again."""
    pool = SeriesPool(10)
    assert pool.take(7)
    assert not pool.take(4)
    assert pool.used == 7
    assert pool.take(3)
    pool.give_back(5)
    assert pool.used == 5


def test_tight_is_more_than_half() -> None:
    """Half is not tight, more is; a pool without limit never is."""
    pool, endless = SeriesPool(10), SeriesPool()
    pool.take(5)
    assert not pool.is_tight
    pool.take(1)
    assert pool.is_tight
    assert endless.take(10**9)
    assert not endless.is_tight


def test_hosts_share_a_fleet() -> None:
    """First come, first served; a host that is refused has taken nothing of its own budget either."""
    fleet = SeriesPool(10)
    one, two = HostBudget(8, fleet), HostBudget(8, fleet)
    assert one.take(8)
    assert not two.take(3)
    assert two.take(2)
    assert (one.used, two.used, fleet.used) == (8, 2, 10)
    assert two.is_tight
    one.close()
    one.close()
    assert (one.used, fleet.used) == (0, 2)
    assert not two.is_tight


def test_an_ended_series_counts_for_an_hour() -> None:
    """Its room is free an hour after its end, and no later than a minute after that."""
    fleet = SeriesPool()
    budget = HostBudget(10, fleet)
    budget.take(9)
    budget.end(3, 100.0)
    budget.end(3, 110.0)
    budget.forget_ended(110.0 + REMEMBER_SECONDS - 0.1)
    assert budget.used == 9
    budget.forget_ended(110.0 + REMEMBER_SECONDS + 60)
    assert budget.used == fleet.used == 3


def test_endless_endings_are_numbers() -> None:
    """A series that ends every second for two hours: a number is remembered for each minute of the last one."""
    budget = HostBudget(None, SeriesPool())
    for second in range(2 * REMEMBER_SECONDS):
        budget.forget_ended(second)
        budget.take(3)
        budget.end(3, second)
    assert len(budget.ended) <= REMEMBER_SECONDS / 60 + 2
    assert 3 * REMEMBER_SECONDS <= budget.used <= 3 * (REMEMBER_SECONDS + 60)


@given(st.lists(st.floats(0, 200), max_size=100))
def test_the_books_of_endings_are_right(steps: list[float]) -> None:
    """Whenever series end: each counts for an hour, and for no more than a minute longer."""
    budget, clock_seconds, ended_at = HostBudget(None, SeriesPool()), 0.0, list[float]()
    for step in steps:
        clock_seconds += step
        budget.forget_ended(clock_seconds)
        budget.take(3)
        budget.end(3, clock_seconds)
        ended_at.append(clock_seconds)
        least = sum(3 for at in ended_at if at + REMEMBER_SECONDS > clock_seconds)
        most = sum(3 for at in ended_at if at + REMEMBER_SECONDS + 60 > clock_seconds)
        assert least <= budget.used <= most
