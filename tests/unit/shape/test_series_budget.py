"""What a budget does to the series of hosts over time."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.model import (
    COMMAND_MEASURES,
    PROCESS_MEASURES,
    Detail,
    Host,
    LeftOut,
    ProcessMemory,
    Shaped,
    Snapshot,
)
from fleetmem.shape.budget import REMEMBER_SECONDS, HostBudget, SeriesPool, reserved_series
from fleetmem.shape.limits import Limits, TopBy
from fleetmem.shape.shaper import Shaper
from unit.builders import MEMORY, WEB, process
from unit.shape.test_shaper import any_limits, assert_adds_up, snapshots

SERIES_PER_PROCESS, SERIES_PER_COMMAND = len(PROCESS_MEASURES), len(COMMAND_MEASURES)


class Storage:
    """Knows every series that it was ever given, and when last: what Graphite has files for."""

    def __init__(self) -> None:
        self._seen_at: dict[tuple[str | int, ...], float] = {}

    def add(self, shaped: Shaped, seconds: float, host: Host = WEB) -> None:
        """Takes a sample."""
        for process_ in shaped.processes:
            self._seen_at[host.name, process_.command, process_.pid] = seconds
        for command in shaped.commands:
            self._seen_at[host.name, command.command] = seconds

    def series(self, seconds: float, within_seconds: float = REMEMBER_SECONDS) -> int:
        """Returns how many series of rows had a point within the time before."""
        names = [name for name, seen_at in self._seen_at.items() if seen_at > seconds - within_seconds]
        return sum(SERIES_PER_PROCESS if len(name) == 3 else SERIES_PER_COMMAND for name in names)


class BudgetedHost:
    """A host with room for so many processes (or commands), sampled every ten seconds."""

    def __init__(
        self, room: int | None, limits: Limits | None = None, fleet: SeriesPool | None = None, host: Host = WEB
    ) -> None:
        self.budget = HostBudget(room, fleet or SeriesPool())
        self.shaper = Shaper(host, limits or Limits(), self.budget)
        self.storage = Storage()
        self.host = host
        self.seconds = 0.0

    def sample(self, rows: Iterable[ProcessMemory], seconds: float = 10.0) -> Shaped:
        """Takes the next sample."""
        self.seconds += seconds
        taken = Snapshot(MEMORY, tuple(rows))
        shaped = self.shaper.shape(taken, self.seconds)
        assert_adds_up(shaped, taken.processes)
        self.storage.add(shaped, self.seconds, self.host)
        return shaped

    def pids(self, *rows: ProcessMemory, seconds: float = 10.0) -> list[int]:
        """Takes the next sample; returns the pids that are kept."""
        return [row.pid for row in self.sample(rows, seconds).processes]


def _rows(*pids: int, rss_bytes: int = 100, command: str = "x") -> list[ProcessMemory]:
    return [process(pid, command, rss_bytes) for pid in pids]


def test_the_first_sample_takes_the_largest() -> None:
    """What fits, by size, in the order of the frame; the rest is in `other` and counted."""
    host = BudgetedHost(2 * SERIES_PER_PROCESS)
    shaped = host.sample([process(1, "a", 5), process(2, "b", 50), process(3, "c", 7), process(4, "d", 1)])
    assert [row.pid for row in shaped.processes] == [2, 3]
    assert shaped.left_out == {LeftOut.BUDGET: 2}


def test_a_budget_that_is_just_enough() -> None:
    """Every series of the budget can be had."""
    host = BudgetedHost(3 * SERIES_PER_PROCESS)
    assert host.pids(*_rows(1, 2, 3)) == [1, 2, 3]
    assert host.budget.used == 9


def test_other_measures_take_other_room() -> None:
    """A process has as many series as measures are asked for; a command those that add up, and `procs`."""
    measures = (*PROCESS_MEASURES, "peak_rss_bytes", "swap_bytes")
    host = BudgetedHost(2 * 5, Limits(measures=measures))
    assert host.pids(*_rows(1, 2, 3)) == [1, 2]
    assert host.budget.used == 10
    commands = BudgetedHost(2 * 5, Limits(Detail.COMMAND, measures=measures))
    assert len(commands.sample([process(1, "a"), process(2, "b"), process(3, "c")]).commands) == 2
    assert reserved_series([Detail.PROCESS], measures) == reserved_series([Detail.PROCESS]) + 1


def test_incumbents_keep_their_place() -> None:
    """Nothing that comes later takes the series of what is there, however large it is."""
    host = BudgetedHost(2 * SERIES_PER_PROCESS)
    assert host.pids(*_rows(1, 2)) == [1, 2]
    for _ in range(3):
        assert host.pids(*_rows(1, 2), *_rows(3, rss_bytes=10**9)) == [1, 2]


def test_up_to_half_newcomers_get_in_at_once() -> None:
    """While there is plenty nobody has to wait; then only those get in that outlive a sample, the largest first."""
    host = BudgetedHost(8 * SERIES_PER_PROCESS)
    assert host.pids(*_rows(1)) == [1]
    assert host.pids(*_rows(1, 2, 3, 4)) == [1, 2, 3, 4]
    assert host.pids(*_rows(1, 2, 3, 4, 5)) == [1, 2, 3, 4, 5]  # half was used, not more
    assert host.pids(*_rows(1, 2, 3, 4, 5, 6)) == [1, 2, 3, 4, 5]
    assert host.pids(*_rows(1, 2, 3, 4, 5, 6, 7)) == [1, 2, 3, 4, 5, 6]
    large = _rows(9, rss_bytes=500)
    host.pids(*_rows(1, 2, 3, 4, 5, 6), *_rows(7, 8), *large)
    assert host.pids(*_rows(1, 2, 3, 4, 5, 6), *_rows(7, 8), *large) == [1, 2, 3, 4, 5, 6, 7, 9]


def test_newcomers_beyond_half_come_largest_first() -> None:
    """When not all of them fit before it gets tight, the largest get in."""
    host = BudgetedHost(4 * SERIES_PER_PROCESS)
    assert host.pids(*_rows(1)) == [1]
    assert host.pids(*_rows(1, 2, 3), process(4, "y", 900), process(5, "y", 800)) == [1, 4, 5]


def test_a_reused_pid_has_to_wait_again() -> None:
    """At a tight budget a process that took over a pid is no settled one: it has not outlived a sample."""
    host = BudgetedHost(4 * SERIES_PER_PROCESS)
    assert host.pids(*_rows(1, 2, 3)) == [1, 2, 3]
    waiting = process(4, "y", 100)._replace(peak_rss_bytes=1000)
    host.pids(*_rows(1, 2, 3), waiting)
    reused = waiting._replace(peak_rss_bytes=100)
    assert host.pids(*_rows(1, 2, 3), reused) == [1, 2, 3]
    assert host.pids(*_rows(1, 2, 3), reused) == [1, 2, 3, 4]


def test_after_a_reboot_everybody_has_to_wait_again() -> None:
    """At a tight budget a process of another boot is no settled one, though pid and command were there before."""
    host = BudgetedHost(4 * SERIES_PER_PROCESS)
    host.pids(*_rows(1, 2, 3))
    host.pids(*_rows(1, 2, 3, 4))
    rebooted = Snapshot(replace(MEMORY, boot_id="next"), tuple(_rows(1, 2, 3, 4)))
    assert [len(host.shaper.shape(rebooted, 100.0).processes) for _ in range(2)] == [3, 4]


def test_an_ended_series_counts_for_an_hour() -> None:
    """A file stays: only an hour after its process there is room for another."""
    host = BudgetedHost(2 * SERIES_PER_PROCESS)
    host.pids(*_rows(1, 2))
    host.pids(*_rows(1))
    assert host.pids(*_rows(1, 3), seconds=1800) == [1]
    assert host.pids(*_rows(1, 3), seconds=1780) == [1]
    assert host.pids(*_rows(1, 3), seconds=100) == [1, 3]
    assert host.budget.used == 6


def test_a_change_of_name_is_a_new_series() -> None:
    """The same process under another name needs room of its own, and the old one counts on."""
    host = BudgetedHost(2 * SERIES_PER_PROCESS)
    assert host.pids(*_rows(1)) == [1]
    assert host.pids(*_rows(1, command="y")) == [1]
    assert host.budget.used == 6
    assert host.pids(*_rows(1, command="z")) == []


def test_a_series_that_comes_back_is_free() -> None:
    """What `top` leaves out for a while has its series still: it needs no room when it is back."""
    host = BudgetedHost(2 * SERIES_PER_PROCESS, Limits(top=1))
    assert host.pids(process(1, "a", 100), process(2, "b", 10)) == [1]
    for _ in range(3):
        assert host.pids(process(1, "a", 100), process(2, "b", 200)) == [2]
        assert host.pids(process(1, "a", 400), process(2, "b", 200)) == [1]
        assert host.budget.used == 6


def test_a_series_that_came_back_counts_on() -> None:
    """The hour of its first end means nothing once it is back."""
    host = BudgetedHost(4 * SERIES_PER_PROCESS, Limits(top=1))
    sizes = [100, 300, 100, 100, 100, 100, 100]
    kept = [host.pids(process(1, "a", 200), process(2, "b", size), seconds=900)[0] for size in sizes]
    assert kept == [1, 2, 1, 1, 1, 1, 1]
    assert host.budget.used == SERIES_PER_PROCESS


def test_what_top_left_out_an_hour_ago_has_no_place() -> None:
    """Alive or not, a series without a point for an hour counts no more."""
    host = BudgetedHost(4 * SERIES_PER_PROCESS, Limits(top=1))
    host.pids(process(1, "a", 100))
    assert host.pids(process(1, "a", 100), process(2, "b", 200)) == [2]
    assert host.budget.used == 6
    host.pids(process(1, "a", 100), process(2, "b", 200), seconds=REMEMBER_SECONDS)
    assert host.budget.used == 3


def test_one_without_room_takes_no_place_of_top() -> None:
    """`top` is filled with those that have series: a newcomer that gets none does not push one of them out."""
    host = BudgetedHost(2 * SERIES_PER_PROCESS, Limits(top=2))
    assert host.pids(*_rows(1, 2)) == [1, 2]
    shaped = host.sample([*_rows(1, 2), process(3, "big", 10**6), process(4, "tiny", 1)])
    assert [row.pid for row in shaped.processes] == [1, 2]
    assert shaped.left_out == {LeftOut.BUDGET: 1, LeftOut.TOP: 1}


def test_commands_come_first() -> None:
    """With both levels the commands get their series before the processes do."""
    host = BudgetedHost(2 * SERIES_PER_COMMAND + SERIES_PER_PROCESS, Limits(frozenset(Detail)))
    shaped = host.sample([process(1, "a", 10), process(2, "b", 20), process(3, "b", 30)])
    assert [row.command for row in shaped.commands] == ["a", "b"]
    assert [row.pid for row in shaped.processes] == [3]


def test_commands_that_come_and_go() -> None:
    """A command that runs now and then has one set of series, not one for each time."""
    host = BudgetedHost(6 * SERIES_PER_COMMAND, Limits(Detail.COMMAND))
    for turn in range(100):
        shaped = host.sample([process(1, "init"), process(100 + turn, f"job{turn % 3}")])
        assert len(shaped.commands) == 2
    assert host.budget.used == 4 * SERIES_PER_COMMAND
    assert host.sample([process(1, "init"), process(7, "new")]).left_out == {LeftOut.BUDGET: 1}
    later = host.sample([process(1, "init")], seconds=REMEMBER_SECONDS)
    assert len(later.commands) == 1
    assert host.budget.used == SERIES_PER_COMMAND


def test_growth_decides_among_newcomers() -> None:
    """With `top_by` growth it is growth that newcomers are admitted by."""
    host = BudgetedHost(2 * SERIES_PER_PROCESS, Limits(top=9, top_by=TopBy.GROWTH))
    host.pids(process(1, "a", 100))
    host.pids(process(1, "a", 100), process(2, "b", 900), process(3, "c", 10), seconds=1)
    fresh = BudgetedHost(4 * SERIES_PER_PROCESS, Limits(top=9, top_by=TopBy.GROWTH))
    assert fresh.pids(*_rows(1, 2, 3)) == [1, 2, 3]
    assert fresh.pids(*_rows(1, 2, 3), process(4, "b", 900), process(5, "c", 10)) == [1, 2, 3]
    assert sorted(fresh.pids(*_rows(1, 2, 3), process(4, "b", 900), process(5, "c", 99))) == [1, 2, 3, 5]


def test_a_fleet_shares() -> None:
    """Hosts take from one pool; what one gives back another one has."""
    fleet = SeriesPool(5 * SERIES_PER_PROCESS)
    one, two = (BudgetedHost(None, fleet=fleet, host=Host(name, name)) for name in ("one", "two"))
    assert one.pids(*_rows(1, 2, 3)) == [1, 2, 3]
    assert two.pids(*_rows(1, 2, 3)) == [1, 2]
    assert fleet.used == 15
    one.pids(*_rows(1))
    assert two.pids(*_rows(1, 2, 3)) == [1, 2]
    one.pids(*_rows(1), seconds=REMEMBER_SECONDS + 60)
    assert two.pids(*_rows(1, 2, 3)) == [1, 2, 3]
    one.shaper.close()
    assert fleet.used == 9
    two.shaper.close()
    two.shaper.close()
    assert fleet.used == 0


def test_a_fleet_that_shrinks() -> None:
    """After a reload with less room nobody loses series, and nobody gets new ones until there is room again."""
    fleet = SeriesPool(5 * SERIES_PER_PROCESS)
    host = BudgetedHost(None, fleet=fleet)
    host.pids(*_rows(1, 2, 3))
    fleet.room = SERIES_PER_PROCESS
    assert host.pids(*_rows(1, 2, 3)) == [1, 2, 3]
    assert host.pids(*_rows(1, 2, 4)) == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("interval_seconds", "lifetime_seconds"), [(1, 0.1), (1, 1), (10, 1), (10, 15), (10, 60)])
@pytest.mark.parametrize(("detail", "top"), [(Detail.PROCESS, None), (Detail.PROCESS, 200), (frozenset(Detail), None)])
def test_a_storm(
    interval_seconds: int, lifetime_seconds: float, detail: Detail | frozenset[Detail], top: int | None
) -> None:
    """A host that starts 1,000 processes a second for a minute, each with a name of its own.

    Series stay within the budget, `other` makes the totals equal, and the twenty that are large and stable keep their
    series from before the storm until after it.
    """
    limits = Limits(detail, top=top)
    room = 1000 - reserved_series(limits.details)
    host = BudgetedHost(room, limits)
    stable = [process(pid, f"stable{pid}", 10**9 + pid) for pid in range(1, 21)]
    host.sample(stable)
    for second in range(0, 60, interval_seconds):
        now = second + interval_seconds
        born = range(now * 1000)
        alive = born[-int(1000 * lifetime_seconds) :]
        storm = [process(1000 + pid, f"storm{pid}", pid % 5000) for pid in alive]
        shaped = host.sample([*storm, *stable], interval_seconds)
        assert host.storage.series(host.seconds) <= host.budget.used <= room
        assert {row.pid for row in stable} <= {row.pid for row in shaped.processes}
    level = host.shaper._processes
    assert level is not None
    assert len(level._ended) <= (top or 0)  # of the dead only their number is remembered
    kept = host.sample(stable).processes
    assert len(kept) == 20
    assert host.storage.series(host.seconds) <= host.budget.used <= room
    settled = process(99, "settled", 5)
    host.sample([*stable, settled])
    if lifetime_seconds <= interval_seconds:  # a storm of those that never settle leaves half of the budget to others
        assert settled.pid in {row.pid for row in host.sample([*stable, settled]).processes}
    host.sample(stable)
    host.sample(stable, REMEMBER_SECONDS + 60)
    least = 20 * (SERIES_PER_PROCESS + SERIES_PER_COMMAND * (Detail.COMMAND in limits.details))
    assert host.budget.used == least


@pytest.mark.slow
@given(snapshots(), any_limits(), st.integers(0, 60), st.none() | st.integers(0, 60))
def test_a_budget_holds(
    history: list[tuple[float, Snapshot]], limits: Limits, room: int, fleet_room: int | None
) -> None:
    """Whatever happens: storage sees no more series than the budget has, and the books are not below what is true."""
    fleet = SeriesPool(fleet_room)
    budget = HostBudget(room, fleet)
    shaper, storage, seconds, clock_seconds = Shaper(WEB, limits, budget), Storage(), 1e9, 0.0
    for step_seconds, taken in history:
        seconds += step_seconds
        clock_seconds += max(0.0, step_seconds)
        shaped = shaper.shape(taken, seconds)
        storage.add(shaped, clock_seconds)
        assert_adds_up(shaped, taken.processes)
        assert storage.series(clock_seconds) <= budget.used <= min(room, 60 if fleet_room is None else fleet_room)
        assert budget.used == fleet.used
    shaper.close()
    assert fleet.used == 0


@pytest.mark.slow
@given(snapshots(), st.integers(0, 40), st.sampled_from([Detail.PROCESS, Detail.COMMAND, frozenset(Detail)]))
def test_incumbents_stay(history: list[tuple[float, Snapshot]], room: int, detail: Detail | frozenset[Detail]) -> None:
    """Without other limits, what had series in the sample before has them now."""
    shaper, seconds = Shaper(WEB, Limits(detail), HostBudget(room, SeriesPool())), 1e9
    before: set[tuple[int, str] | str] = set()
    for step_seconds, taken in history:
        seconds += step_seconds
        shaped = shaper.shape(taken, seconds)
        there = {(row.pid, row.command) for row in taken.processes} | {row.command for row in taken.processes}
        kept = {(row.pid, row.command) for row in shaped.processes} | {row.command for row in shaped.commands}
        assert before & there <= kept
        before = kept


@pytest.mark.slow
@given(snapshots(), st.sampled_from([Detail.PROCESS, Detail.COMMAND, frozenset(Detail)]))
def test_a_budget_that_is_large_changes_nothing(
    history: list[tuple[float, Snapshot]], detail: Detail | frozenset[Detail]
) -> None:
    """Far from its end a budget is as none."""
    with_budget = Shaper(WEB, Limits(detail), HostBudget(10**6, SeriesPool(10**6)))
    without, seconds = Shaper(WEB, Limits(detail)), 1e9
    for step_seconds, taken in history:
        seconds += step_seconds
        assert with_budget.shape(taken, seconds) == without.shape(taken, seconds)
