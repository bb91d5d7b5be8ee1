import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.connect import rate_limit
from fleetmem.connect.rate_limit import RateLimit


def _passes(monkeypatch: pytest.MonkeyPatch, turns: RateLimit, arrivals: list[float]) -> list[float]:
    """Returns when those who arrive at these times pass, in seconds, by a clock that jumps to whoever waits."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        passes[-1] += seconds

    class Time:
        monotonic: Callable[[], float] = staticmethod(lambda: now)

    class Asyncio:
        pass

    Asyncio.sleep = staticmethod(sleep)  # type: ignore[attr-defined]
    monkeypatch.setattr(rate_limit, "time", Time)
    monkeypatch.setattr(rate_limit, "asyncio", Asyncio)
    passes: list[float] = []
    for arrival in arrivals:
        now = arrival
        passes.append(arrival)
        asyncio.run(turns.wait())
    return passes


def test_so_many_at_once_then_at_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pass at once, the others ten a second."""
    passes = _passes(monkeypatch, RateLimit(10, 4), [100.0] * 7)
    assert passes == pytest.approx([100.0] * 4 + [100.1, 100.2, 100.3])


def test_a_pause_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """After half a second without anybody, all may pass at once again."""
    passes = _passes(monkeypatch, RateLimit(10, 4), [100.0] * 4 + [101.0] * 5)
    assert passes == pytest.approx([100.0] * 4 + [101.0] * 4 + [101.1])


def test_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 lets everybody pass."""
    assert _passes(monkeypatch, RateLimit(0, 1), [5.0] * 50) == [5.0] * 50


@given(st.integers(1, 50), st.integers(1, 20), st.lists(st.floats(0, 3), min_size=1, max_size=40))
def test_never_more_than_that(per_second: int, at_once: int, gaps: list[float]) -> None:
    """In no stretch of time do more pass than fit in it, and nobody waits who need not."""
    arrivals = [100.0 + sum(gaps[:number]) / 10 for number in range(len(gaps))]
    with pytest.MonkeyPatch.context() as patch:
        passes = _passes(patch, RateLimit(per_second, at_once), arrivals)
    for first in range(len(passes)):
        for last in range(first, len(passes)):
            assert last - first + 1 <= at_once + (passes[last] - passes[first]) * per_second + 1 + 1e-6
    assert all(passed - arrived < 1e-9 for passed, arrived in list(zip(passes, arrivals, strict=True))[:at_once])
