import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import HostError, Kind
from fleetmem.model import CommandMemory, Detail, HostMemory, LeftOut, ProcessMemory, Shaped, Snapshot
from fleetmem.shape.limits import CommandGroup, Filter, Limits, TopBy
from fleetmem.shape.shaper import OTHER, Shaper
from fleetmem.units import percent_of
from unit.builders import (
    MEMORY,
    TAKEN_UNIX_SECONDS,
    TOTAL_BYTES,
    WEB,
    all_limits,
    others,
    process,
    processes,
    snapshot,
)

_SMALL, _MIDDLE, _LARGE = process(1, "a", 10, 100), process(2, "b", 20, 200), process(3, "b", 30, 300)
_BOTH = frozenset(Detail)
_MIB = 1024**2


def _shape(limits: Limits) -> Shaped:
    return Shaper(WEB, limits).shape(snapshot(_SMALL, _MIDDLE, _LARGE), 0.0)


class History:
    """A host that is sampled every ten seconds."""

    def __init__(self, limits: Limits) -> None:
        self.shaper = Shaper(WEB, limits)
        self.seconds = 0.0

    def sample(self, *rows: ProcessMemory, seconds: float = 10.0, boot_id: str = "boot") -> Shaped:
        """Takes the next sample."""
        self.seconds += seconds
        memory = HostMemory(TOTAL_BYTES, None, None, None, None, boot_id)
        return self.shaper.shape(Snapshot(memory, rows), self.seconds)

    def pids(self, *rows: ProcessMemory, seconds: float = 10.0, boot_id: str = "boot") -> set[int]:
        """Takes the next sample; returns the pids that are kept."""
        return {row.pid for row in self.sample(*rows, seconds=seconds, boot_id=boot_id).processes}

    def sizes(self, **sizes: int) -> str:
        """Takes the next sample, of processes called by one letter; returns the letters that are kept."""
        rows = [process(ord(name), name, rss_bytes) for name, rss_bytes in sizes.items()]
        shaped = self.sample(*rows)
        return "".join(sorted([row.command for row in shaped.processes] + [row.command for row in shaped.commands]))


def test_no_limits_keep_everything() -> None:
    """By default every process is kept as it is, the tuple is not even copied, and there is no `other`."""
    rows = (_SMALL, _MIDDLE, _LARGE)
    shaped = Shaper(WEB, Limits()).shape(Snapshot(MEMORY, rows), 0.0)
    assert shaped == Shaped(MEMORY, 3, frozenset({Detail.PROCESS}), rows, (), None, None, {})
    assert shaped.processes is rows


def test_top_keeps_the_largest() -> None:
    """The largest by RSS come first; the sum of the rest is `other`."""
    shaped = _shape(Limits(top=2))
    assert shaped.processes == (_LARGE, _MIDDLE)
    assert shaped.other_processes == CommandMemory(OTHER, 1, 10, 100, percent_of(10, TOTAL_BYTES))
    assert shaped.process_count == 3
    assert shaped.left_out == {LeftOut.TOP: 1}


def test_top_larger_than_the_host() -> None:
    """With fewer processes than asked for nothing is left out."""
    shaped = _shape(Limits(top=3))
    assert (shaped.processes, shaped.other_processes) == ((_LARGE, _MIDDLE, _SMALL), None)


def test_min_rss_keeps_what_is_as_large() -> None:
    """The limit itself is kept, what is smaller is added up."""
    shaped = _shape(Limits(min_rss_bytes=20))
    assert shaped.processes == (_MIDDLE, _LARGE)
    assert shaped.other_processes == CommandMemory(OTHER, 1, 10, 100, percent_of(10, TOTAL_BYTES))
    assert shaped.left_out == {LeftOut.SMALL: 1}


def test_everything_left_out() -> None:
    """A limit that nothing meets leaves `other` alone."""
    shaped = _shape(Limits(min_rss_bytes=10**6))
    assert shaped.processes == ()
    assert shaped.other_processes is not None
    assert shaped.other_processes.procs == 3


def test_both_limits() -> None:
    """`top` counts among those that `min_rss` keeps, and each has its own count."""
    shaped = _shape(Limits(top=1, min_rss_bytes=15))
    assert shaped.processes == (_LARGE,)
    assert shaped.left_out == {LeftOut.SMALL: 1, LeftOut.TOP: 1}


def test_detail_command() -> None:
    """Processes of one name become one row, in the order in which the names were seen."""
    shaped = _shape(Limits(Detail.COMMAND))
    assert shaped.processes == ()
    assert shaped.details == {Detail.COMMAND}
    assert shaped.commands == (
        CommandMemory("a", 1, 10, 100, percent_of(10, TOTAL_BYTES)),
        CommandMemory("b", 2, 50, 500, percent_of(50, TOTAL_BYTES)),
    )


def test_limits_of_commands_count_processes() -> None:
    """What is left out by command counts the processes of the commands, not the commands."""
    shaper = Shaper(WEB, Limits(Detail.COMMAND, top=1, min_rss_bytes=20))
    shaped = shaper.shape(snapshot(_SMALL, _MIDDLE, _LARGE, process(4, "c", 1000)), 0.0)
    assert [row.command for row in shaped.commands] == ["c"]
    assert shaped.other_commands is not None
    assert shaped.other_commands.procs == 3
    assert shaped.left_out == {LeftOut.SMALL: 1, LeftOut.TOP: 2}


def test_both_levels() -> None:
    """Each level has its own limit and its own `other`; what is left out is counted by process."""
    shaped = _shape(Limits(_BOTH, top=1))
    assert shaped.processes == (_LARGE,)
    assert [row.rss_bytes for row in shaped.commands] == [50]
    assert [other.rss_bytes for other in others(shaped)] == [30, 10]
    assert shaped.left_out == {LeftOut.TOP: 2}


def test_an_excluded_process_is_in_other_of_both_levels() -> None:
    """Filters come before everything else, and what they leave out is not lost."""
    limits = Limits(_BOTH, top=1, commands=Filter(exclude=(re.compile("^a$"),)))
    shaped = _shape(limits)
    assert [other.rss_bytes for other in others(shaped)] == [30, 10]
    assert shaped.left_out == {LeftOut.EXCLUDED: 1, LeftOut.TOP: 1}


def test_groups_are_commands() -> None:
    """Processes of one group are one command; alone, they have the group's name."""
    groups = (CommandGroup(re.compile("^(?P<app>[a-z]+)[:-]"), "{app}"),)
    rows = process(1, "pg: a", 1), process(2, "pg-b", 2), process(3, "pg", 4), process(4, "c", 8)
    shaped = Shaper(WEB, Limits(_BOTH, groups=groups)).shape(snapshot(*rows), 0.0)
    assert [(row.command, row.procs, row.rss_bytes) for row in shaped.commands] == [("pg", 3, 7), ("c", 1, 8)]
    assert [row.command for row in shaped.processes] == ["pg", "pg", "pg", "c"]


def test_a_host_without_processes() -> None:
    """Nothing in, nothing out, and no `other` of nothing."""
    shaped = Shaper(WEB, Limits(top=1)).shape(snapshot(), 0.0)
    assert shaped == Shaped(MEMORY, 0, frozenset({Detail.PROCESS}), (), (), None, None, {})


def test_top_by_swap() -> None:
    """The most swapped out; RSS decides among equals; what a kernel does not tell counts as none."""
    rows = [
        process(pid, name, rss_bytes)._replace(swap_bytes=swap_bytes)
        for pid, name, rss_bytes, swap_bytes in ((1, "a", 9, None), (2, "b", 1, 5), (3, "c", 5, 0), (4, "b", 1, 1))
    ]
    by_process = Shaper(WEB, Limits(top=2, top_by=TopBy.SWAP)).shape(snapshot(*rows), 0.0)
    assert [row.pid for row in by_process.processes] == [2, 4]
    assert History(Limits(top=3, top_by=TopBy.SWAP)).pids(*rows) == {1, 2, 4}
    by_command = Shaper(WEB, Limits(Detail.COMMAND, top=1, top_by=TopBy.SWAP)).shape(snapshot(*rows), 0.0)
    assert [row.command for row in by_command.commands] == ["b"]


@pytest.mark.parametrize("detail", list(Detail))
def test_top_by_growth(detail: Detail) -> None:
    """What grew most against its average of ten minutes; a new one has not grown, however large."""
    history = History(Limits(detail, top=1, top_by=TopBy.GROWTH))
    assert history.sizes(a=900, b=500, c=500) == "a"
    assert history.sizes(a=910, b=800, c=500) == "b"
    assert history.sizes(a=910, b=800, c=500, d=10**6) == "b"
    assert history.sizes(a=500, b=800, c=500, d=10**6) == "b"
    assert history.sizes(a=500, b=800, c=900, d=10**6) == "c"


def test_growth_fades() -> None:
    """The average follows with ten minutes: after that the growth is a third of what it was, whatever the interval."""
    for step_seconds in (10.0, 600.0):
        history = History(Limits(top=1, top_by=TopBy.GROWTH))
        history.sample(process(1, "a", 1000))
        for _ in range(int(600 / step_seconds)):
            history.sample(process(1, "a", 2000), seconds=step_seconds)
        level = history.shaper._processes
        assert level is not None
        assert level._sizes((process(1, "a", 2000),))[0][0] == pytest.approx(1000 / 2.71828, rel=0.01)


def test_noise_is_no_growth() -> None:
    """Idle processes whose RSS wobbles by a page do not take turns in `top`."""
    history = History(Limits(top=1, top_by=TopBy.GROWTH))
    assert history.sizes(a=900 * _MIB, b=800 * _MIB) == "a"
    for wobble in range(20):
        assert history.sizes(a=900 * _MIB - 4096 * (wobble % 2), b=800 * _MIB + 4096 * (wobble % 2)) == "a"
    assert history.sizes(a=900 * _MIB, b=802 * _MIB) == "b"


@pytest.mark.parametrize("detail", list(Detail))
def test_the_edge_of_top(detail: Detail) -> None:
    """A row at the edge does not come and go; one that is really larger gets in at once, and stays in turn."""
    history = History(Limits(detail, top=2))
    assert history.sizes(a=500, b=100, c=95) == "ab"
    for c in (109, 95, 109, 110, 100):
        assert history.sizes(a=500, b=100, c=c) == "ab"
    assert history.sizes(a=500, b=100, c=111) == "ac"
    assert history.sizes(a=500, b=115, c=111) == "ac"
    assert history.sizes(a=500, b=115, c=111, d=10**6) == "ad"


@pytest.mark.parametrize("detail", list(Detail))
def test_the_edge_of_min_rss(detail: Detail) -> None:
    """What was kept is kept down to 90 % of the limit; what was not, from the limit on."""
    history = History(Limits(detail, min_rss_bytes=1000))
    assert [history.sizes(a=a) for a in (999, 1000, 999, 900, 899, 999, 1000)] == ["", "a", "a", "a", "", "", "a"]


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({}, True),
        ({"peak_rss_bytes": 900}, True),
        ({"peak_rss_bytes": 10**6}, True),
        ({"peak_rss_bytes": 899}, False),
        ({"uid": 1000}, False),
        ({"command": "x"}, False),
        ({"pid": 99}, False),
    ],
)
def test_a_reused_pid(change: dict[str, object], *, is_same: bool) -> None:
    """A process that took over a pid has not the advantage of the one before, and has not grown."""
    edge = process(2, "a", 100)._replace(peak_rss_bytes=1000)
    rival = process(3, "c", 105)
    by_size = History(Limits(top=1))
    assert by_size.pids(edge) == {2}
    now = edge._replace(**change)  # type: ignore[arg-type]
    assert by_size.pids(now, rival) == ({2} if is_same else {3})
    by_growth = History(Limits(top=1, top_by=TopBy.GROWTH))
    assert by_growth.pids(edge, rival) == {3}
    assert by_growth.pids(now._replace(rss_bytes=300), rival._replace(rss_bytes=110)) == ({2} if is_same else {3})


def test_a_peak_that_is_not_known() -> None:
    """Where the kernel or probe has no peak, pid, command and user decide."""
    edge, rival = process(2, "a", 100)._replace(peak_rss_bytes=None), process(3, "c", 105)
    history = History(Limits(top=1))
    history.pids(edge)
    assert history.pids(edge._replace(vsz_bytes=7), rival) == {2}


def test_a_host_that_was_rebooted() -> None:
    """Behind another boot id there are other processes, whatever their pids."""
    edge, rival = process(2, "a", 100), process(3, "c", 105)
    history = History(Limits(top=1))
    history.pids(edge)
    assert history.pids(edge, rival) == {2}
    assert history.pids(edge, rival, boot_id="next") == {3}
    grown, other = process(2, "a", 500), process(3, "c", 600)
    assert History(Limits(top=1, top_by=TopBy.GROWTH)).pids(grown, other) == {3}
    for boot_id, pids in (("boot", {2}), ("next", {3})):
        history = History(Limits(top=1, top_by=TopBy.GROWTH))
        history.sample(edge, other)
        assert history.pids(grown, other, boot_id=boot_id) == pids


def test_a_clock_that_is_set_back() -> None:
    """Time only stands still then."""
    history = History(Limits(top=1, top_by=TopBy.GROWTH))
    assert history.sizes(a=900, b=500) == "a"
    history.seconds -= 1e6
    assert history.sizes(a=900, b=600) == "b"
    assert history.sizes(a=900, b=600, c=9) == "b"


def test_an_unchanged_row_is_the_same_object() -> None:
    """Sinks keep the text of rows that are the very same: at both levels, group or not."""
    groups = (CommandGroup(re.compile("^b"), "group"),)
    history = History(Limits(_BOTH, top=9, groups=groups))
    before = history.sample(_SMALL, _MIDDLE, _LARGE)
    after = history.sample(_SMALL, _MIDDLE, _LARGE._replace(rss_bytes=31))
    old, new = ({row.pid: row for row in shaped.processes} for shaped in (before, after))
    assert [new[pid] is old[pid] for pid in (1, 2, 3)] == [True, True, False]
    assert {row.command for row in after.commands if row in before.commands} == {"a"}
    assert any(row is other for row in after.commands for other in before.commands)


def _filters() -> st.SearchStrategy[Filter]:
    patterns = st.lists(st.sampled_from(["a", "^[0-4]", "o", "_", "."]).map(re.compile), max_size=2).map(tuple)
    return st.just(Filter()) | st.builds(Filter, patterns, patterns)


def any_limits() -> st.SearchStrategy[Limits]:
    """Any limits, filters and groups."""
    groups = st.lists(
        st.sampled_from([CommandGroup(re.compile("^a"), "other"), CommandGroup(re.compile("(?P<first>.)"), "{first}")]),
        max_size=2,
    )
    return st.builds(
        lambda limits, top_by, commands, users, hosts, groups: Limits(
            limits.detail, limits.top, limits.min_rss_bytes, top_by, commands, users, hosts, tuple(groups)
        ),
        all_limits(),
        st.sampled_from(TopBy),
        _filters(),
        _filters(),
        st.just(Filter()) | _filters(),
        groups,
    )


def snapshots() -> st.SearchStrategy[list[tuple[float, Snapshot]]]:
    """Samples of one host, with the seconds before each: few pids, so that they come again, in one boot or another."""
    row = st.builds(
        lambda pid, command, rss, peak, swap, uid: process(pid, command, rss, rss + 7)._replace(
            peak_rss_bytes=peak, swap_bytes=swap, uid=uid
        ),
        st.integers(1, 9),
        st.sampled_from(["a", "ab", "b", "b", "other", ""]),
        st.integers(0, 300),
        st.none() | st.integers(0, 300),
        st.none() | st.integers(0, 300),
        st.none() | st.integers(0, 9),
    )
    rows = st.lists(row, max_size=9, unique_by=lambda row: row.pid)
    one = st.builds(
        lambda rows, boot_id: Snapshot(HostMemory(TOTAL_BYTES, None, None, None, None, boot_id), tuple(rows)),
        rows,
        st.sampled_from(["boot", "boot", "boot", None]),
    )
    return st.lists(st.tuples(st.sampled_from([10.0, 10.0, 900.0, 3700.0, -50.0]), one), max_size=12)


def assert_adds_up(shaped: Shaped, rows: Sequence[ProcessMemory]) -> None:
    """What is kept and `other` together are the host, at each level; what is left out is counted."""
    levels: list[tuple[Sequence[ProcessMemory | CommandMemory], CommandMemory | None]] = []
    if Detail.PROCESS in shaped.details:
        levels.append((shaped.processes, shaped.other_processes))
    if Detail.COMMAND in shaped.details:
        levels.append((shaped.commands, shaped.other_commands))
    for kept, other in levels:
        parts = [*kept, other] if other else [*kept]
        assert sum(part.rss_bytes for part in parts) == sum(row.rss_bytes for row in rows)
        assert sum(part.vsz_bytes for part in parts) == sum(row.vsz_bytes for row in rows)
        assert sum(part.procs for part in parts) == shaped.process_count == len(rows)
        assert other is None or other.mem_percent == percent_of(other.rss_bytes, shaped.memory.total_bytes)
        assert other is None or other.procs
    finest_other = levels[0][1]
    assert sum(shaped.left_out.values()) == (finest_other.procs if finest_other else 0)
    assert all(shaped.left_out.values())


@pytest.mark.slow
@given(snapshots(), any_limits())
def test_totals_add_up(history: list[tuple[float, Snapshot]], limits: Limits) -> None:
    """Whatever the limits and whatever came before."""
    shaper, seconds = Shaper(WEB, limits), 1e9
    for step_seconds, taken in history:
        seconds += step_seconds
        shaped = shaper.shape(taken, seconds)
        assert_adds_up(shaped, taken.processes)
        assert limits.top is None or max(len(shaped.processes), len(shaped.commands)) <= limits.top


@given(processes(), all_limits())
def test_limits_hold(rows: tuple[ProcessMemory, ...], limits: Limits) -> None:
    """No more than `top` rows, none below `min_rss`, and nothing larger left out by `top`."""
    shaped = Shaper(WEB, limits).shape(snapshot(*rows), 0.0)
    for rows_kept in (shaped.processes, shaped.commands):
        kept = [row.rss_bytes for row in rows_kept]
        assert limits.top is None or len(kept) <= limits.top
        assert all(rss_bytes >= limits.min_rss_bytes for rss_bytes in kept)
    if Detail.PROCESS in shaped.details and shaped.processes:
        left_out = [row.rss_bytes for row in rows if row not in shaped.processes]
        smallest = min(row.rss_bytes for row in shaped.processes)
        assert max(left_out, default=0) <= max(smallest, limits.min_rss_bytes)


@pytest.mark.slow
@given(snapshots(), st.integers(1, 4))
def test_whoever_leaves_top_was_overtaken(history: list[tuple[float, Snapshot]], top: int) -> None:
    """A process that is still there loses its place only to others that are all a tenth larger, or had it before."""
    shaper, seconds = Shaper(WEB, Limits(top=top)), 1e9
    before: dict[int, ProcessMemory] = {}
    boot_id: str | None = None
    for step_seconds, taken in history:
        seconds += step_seconds
        shaped = shaper.shape(taken, seconds)
        kept = {row.pid: row for row in shaped.processes}
        for row in taken.processes if taken.memory.boot_id == boot_id else ():
            old = before.get(row.pid)
            if old and old[:3] == row[:3] and (row.peak_rss_bytes or 0) >= (old.peak_rss_bytes or 0):
                newer = [other for pid, other in kept.items() if pid not in before]
                assert row.pid in kept or all(other.rss_bytes >= row.rss_bytes * 1.1 for other in newer)
        before, boot_id = kept, taken.memory.boot_id


@pytest.mark.parametrize("detail", list(Detail))
@given(rows=processes(), top=st.none() | st.integers(1, 3))
def test_percent_is_of_the_host(detail: Detail, rows: tuple[ProcessMemory, ...], top: int | None) -> None:
    """Every row, `other` included, says its share of the host's memory."""
    shaped = Shaper(WEB, Limits(detail, top)).shape(snapshot(*rows), 0.0)
    rows_kept: list[ProcessMemory | CommandMemory] = [*shaped.processes, *shaped.commands]
    for row in [*rows_kept, *others(shaped)]:
        assert row.mem_percent == percent_of(row.rss_bytes, TOTAL_BYTES)


def test_percent_follows_the_memory_of_the_host() -> None:
    """A host that gets more memory shows smaller shares, also of commands that did not change."""
    shaper = Shaper(WEB, Limits(Detail.COMMAND))
    shares = [
        shaper.shape(snapshot(_LARGE, memory=HostMemory(total, None, None, None, None, None)), 0.0).commands[0]
        for total in (100, 300)
    ]
    assert [row.mem_percent for row in shares] == [30.0, 10.0]


def test_sizes_that_add_up_to_more_than_a_receiver_holds() -> None:
    """Each row may be possible and their sum not: that is no host, and nothing of it is sent."""
    rows = [process(pid, "big", rss_bytes=10**15, vsz_bytes=10**18) for pid in range(1, 12)]
    for limits in (Limits(detail=Detail.COMMAND), Limits(top=1)):
        with pytest.raises(HostError, match=r"add up to more than 2\^63") as caught:
            Shaper(WEB, limits).shape(snapshot(*rows), TAKEN_UNIX_SECONDS)
        assert caught.value.kind is Kind.BAD_FRAME
