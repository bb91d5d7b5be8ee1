from hypothesis import given
from hypothesis import strategies as st

from fleetmem.sinks.queue.backlog import Backlog, Bounds, Item


def _item(number: int, points: int = 1, size_bytes: int = 10) -> Item:
    return Item(b"%0*d" % (size_bytes, number), points, float(number))


def _numbers(backlog: Backlog) -> list[int]:
    taken = [item for _at, item in backlog.take(10**9)] if backlog else []
    return [int(item.text) for item in taken]


def test_first_in_first_out() -> None:
    """Items come out in their order, as many as fit, at least one."""
    backlog = Backlog(Bounds())
    for number in range(5):
        assert backlog.put(_item(number), float(number)) == 0
    assert [item.unix_seconds for _at, item in backlog.take(25)] == [0, 1]
    assert [item.unix_seconds for _at, item in backlog.take(1)] == [2]
    assert (backlog.points, backlog.text_bytes) == (2, 20)
    assert _numbers(backlog) == [3, 4]
    assert not backlog


def test_put_back() -> None:
    """What could not be sent is the first again, with the age it had."""
    backlog = Backlog(Bounds())
    for number in range(3):
        backlog.put(_item(number), float(number))
    backlog.put_back(backlog.take(20))
    assert backlog.age_seconds(10.0) == 10.0
    assert _numbers(backlog) == [0, 1, 2]


def test_expire() -> None:
    """What was put at a time or before goes; the age is that of the oldest left."""
    backlog = Backlog(Bounds())
    for number in range(4):
        backlog.put(_item(number, points=2), float(number))
    assert backlog.expire(1.0) == 4
    assert backlog.age_seconds(5.0) == 3.0
    assert backlog.expire(9.0) == 4
    assert (backlog.points, backlog.text_bytes, backlog.age_seconds(5.0)) == (0, 0, 0.0)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), max_size=60),
    st.integers(1, 30),
    st.integers(1, 200),
)
def test_bounds_hold_and_nothing_vanishes(items: list[tuple[int, int]], max_points: int, max_bytes: int) -> None:
    """Whatever is put: never more than the bounds, the newest stay, and every point is there or counted."""
    backlog = Backlog(Bounds(max_points, max_bytes))
    dropped = 0
    for number, (points, size_bytes) in enumerate(items):
        dropped += backlog.put(_item(number, points, size_bytes), 0.0)
        assert backlog.points <= max_points
        assert backlog.text_bytes <= max_bytes
    assert dropped + backlog.points == sum(points for points, _size in items)
    left = [int(item.unix_seconds) for _at, item in backlog.take(10**9)] if backlog else []
    assert left == list(range(len(items)))[len(items) - len(left) :]
