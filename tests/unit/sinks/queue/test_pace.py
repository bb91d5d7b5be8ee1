import bisect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.sinks.queue.pace import (
    BURST_DATAGRAMS,
    CATCH_UP_SECONDS,
    LARGE_BACKLOG_DATAGRAMS,
    STEADY_DATAGRAMS_PER_SECOND,
    Pace,
)

pytestmark = pytest.mark.slow

_WINDOW_SECONDS = 0.2
_BUFFER_DATAGRAMS = 92  # of 1432 bytes, in a Linux socket with the default receive buffer


def _send_times(count: int, backlog: int, start_seconds: float = 1000.0) -> list[float]:
    """Returns when datagrams leave, with a clock that does just what it is told."""
    pace, now_seconds, times = Pace(start_seconds), start_seconds, []
    for _ in range(count):
        now_seconds += pace.wait_seconds(now_seconds, backlog)
        times.append(now_seconds)
    return times


def _most_in_a_window(times: list[float]) -> int:
    most, first = 0, 0
    for place, at_seconds in enumerate(times):
        while at_seconds - times[first] > _WINDOW_SECONDS:
            first += 1
        most = max(most, place - first + 1)
    return most


def test_a_burst_leaves_at_once() -> None:
    """What fits a burst is not delayed; the next one is."""
    pace = Pace(0.0)
    assert [pace.wait_seconds(0.0, 0) for _ in range(BURST_DATAGRAMS)] == [0.0] * BURST_DATAGRAMS
    assert pace.wait_seconds(0.0, 0) > 0


@pytest.mark.parametrize("backlog", [0, 1, 1000])
def test_a_small_backlog_never_fills_the_buffer(backlog: int) -> None:
    """No 200 ms hold more than a receive buffer does, from the first datagram on."""
    assert _most_in_a_window(_send_times(2000, backlog)) <= _BUFFER_DATAGRAMS


@given(st.lists(st.floats(0, 2), max_size=60), st.integers(1, 60))
def test_pauses_never_make_room_for_more(pauses_seconds: list[float], count: int) -> None:
    """However senders come and go, no 200 ms hold more than a receive buffer does."""
    pace, now_seconds, times = Pace(0.0), 0.0, []
    for pause_seconds in pauses_seconds:
        now_seconds += pause_seconds
        for _ in range(count):
            now_seconds += pace.wait_seconds(now_seconds, count)
            times.append(now_seconds)
    assert _most_in_a_window(times) <= _BUFFER_DATAGRAMS


def _send_times_of_a_fleet(
    interval_seconds: float, datagrams_per_host: int, silence_seconds: float, cycles: int = 30, hosts: int = 50
) -> list[float]:
    """Returns when the datagrams of a fleet leave whose hosts are spread over the interval.

    In each third cycle none answers for a while, then all that should have.
    """
    answers = []
    for cycle in range(cycles):
        for host in range(hosts):
            place_seconds = interval_seconds * host / hosts
            if cycle % 3 == 0:
                place_seconds = max(place_seconds, silence_seconds)
            answers.append(cycle * interval_seconds + place_seconds)
    times: list[float] = []
    pace, now_seconds = Pace(0.0), 0.0
    while len(times) < len(answers) * datagrams_per_host:
        due = bisect.bisect_right(answers, now_seconds) * datagrams_per_host
        if due == len(times):
            now_seconds = answers[len(times) // datagrams_per_host]
            continue
        now_seconds += pace.wait_seconds(now_seconds, due - len(times))
        times.append(now_seconds)
    return times


@pytest.mark.parametrize("silence_seconds", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("interval_seconds", [10.0, 5.0, 4.0, 3.0])
def test_a_fleet_never_fills_the_buffer(interval_seconds: float, silence_seconds: float) -> None:
    """1,000 datagrams a cycle, spread or in lumps, first cycle or last: no 200 ms hold more than a buffer does."""
    times = _send_times_of_a_fleet(interval_seconds, 20, silence_seconds)
    assert _most_in_a_window(times) <= _BUFFER_DATAGRAMS
    assert times[-1] < 30 * interval_seconds + 1.0


def test_steady_pace() -> None:
    """In the long run it is the stated number a second."""
    times = _send_times(5000, 0)
    assert math.isclose((5000 - BURST_DATAGRAMS) / (times[-1] - times[0]), STEADY_DATAGRAMS_PER_SECOND, rel_tol=0.01)


def test_waits_are_few() -> None:
    """A wait is for a quarter of a burst: not one sleep per datagram."""
    times = _send_times(1000, 0)
    assert len(set(times)) <= 1000 / (BURST_DATAGRAMS / 4) + 1


@pytest.mark.parametrize("backlog", [1001, LARGE_BACKLOG_DATAGRAMS, 5000])
def test_a_large_backlog_sets_the_pace(backlog: int) -> None:
    """While a backlog stays, so much leaves that it would be gone in the stated time."""
    times = _send_times(backlog, backlog)
    assert times[-1] - times[0] <= CATCH_UP_SECONDS
    assert times[-1] - times[0] >= CATCH_UP_SECONDS * 0.9


def test_a_clock_that_stands_still_earns_nothing() -> None:
    """Tokens come with time alone."""
    pace = Pace(0.0)
    waits = [pace.wait_seconds(0.0, 0) for _ in range(BURST_DATAGRAMS + 5)]
    assert waits[BURST_DATAGRAMS:] == sorted(waits[BURST_DATAGRAMS:])
    assert waits[-1] > waits[BURST_DATAGRAMS]


def test_a_backlog_that_shrinks_is_still_cleared_in_time() -> None:
    """The rate stays as it was at the highest backlog: counted down as it drains, it takes no longer than promised."""
    pace, now = Pace(0.0), 0.0
    for left in range(10_000, 0, -1):
        now += pace.wait_seconds(now, left)
    assert now <= CATCH_UP_SECONDS * 1.05


@pytest.mark.slow
@pytest.mark.parametrize("load", [220.0, 400.0, 425.0, 430.0, 450.0, 4000.0])
def test_a_load_above_the_steady_pace_leaves_no_backlog_behind(load: float) -> None:
    """What comes in all the time goes out as fast: no lag that stays, and so nothing to lose at a stop."""
    pace, now, sent = Pace(0.0), 0.0, 0
    while now < 90:
        waiting = now * load - sent
        if waiting < 0.5:
            now = (sent + 1) / load
            continue
        now += pace.wait_seconds(now, waiting)
        sent += 1
    assert now * load - sent <= load / 4


def test_thousands_a_second_are_asked_for_together() -> None:
    """At a rate that no default buffer holds, a millisecond's worth at a time, at the same rate; below that, each."""
    pace = Pace(0.0)
    assert pace.at_once == 1
    now_seconds, sent = 0.0, 0
    while now_seconds < 3.0:
        count = pace.at_once
        now_seconds += pace.wait_seconds(now_seconds, LARGE_BACKLOG_DATAGRAMS, count)
        sent += count
    assert pace.at_once == 1
    while now_seconds < 6.0:
        count = pace.at_once
        now_seconds += pace.wait_seconds(now_seconds, LARGE_BACKLOG_DATAGRAMS + 10_000, count)
        sent += count
    assert pace.at_once == 10
    assert sent == pytest.approx(3 * LARGE_BACKLOG_DATAGRAMS / CATCH_UP_SECONDS + 3 * 10_000, rel=0.05)
    while now_seconds < 100.0:
        now_seconds += 0.1 + pace.wait_seconds(now_seconds + 0.1, 0)
    assert pace.at_once == 1


@pytest.mark.slow
def test_a_load_that_grows() -> None:
    """10,000 hosts log in for a minute: what waits meanwhile fits the queue (45,000), and then nothing does."""
    pace, now_seconds, sent = Pace(0.0), 0.0, 0
    waited: dict[int, float] = {}
    while now_seconds < 90:
        came = 20_000 * (now_seconds**2 / 120 if now_seconds < 60 else now_seconds - 30)
        waiting = came - sent
        waited[int(now_seconds)] = max(waiting, waited.get(int(now_seconds), 0))
        count = min(pace.at_once, int(waiting))
        if count < 1:
            now_seconds += 0.01
            continue
        now_seconds += pace.wait_seconds(now_seconds, waiting, count)
        sent += count
    assert max(waited.values()) < 30_000
    assert waited[89] < 20_000 / 10


@pytest.mark.parametrize("senders", [2, 3, 8])
@pytest.mark.parametrize("backlog", [0, 300])
def test_several_senders_keep_to_what_one_may(senders: int, backlog: int) -> None:
    """All of them at once, with what they have to send and the main process's own counters, fit one buffer."""
    times = [0.0, 10.0, 20.0] * 5  # the own counters
    for _sender in range(senders):
        pace, now_seconds = Pace(0.0, senders=senders), 0.0
        for _ in range(1000 // senders):
            now_seconds += pace.wait_seconds(now_seconds, backlog / senders)
            times.append(now_seconds)
    assert _most_in_a_window(sorted(times)) <= _BUFFER_DATAGRAMS
