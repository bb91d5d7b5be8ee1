from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.model import Detail, Host, HostMemory, MemoryPressure, Outcome, ProcessMemory
from fleetmem.process_table import ProcessTable
from fleetmem.shape.limits import Limits
from fleetmem.sinks.endings import Room
from fleetmem.sinks.formats import (
    Format,
    carbon_plain,
    carbon_tagged,
    cut_lines,
    statsd_dogstatsd,
    statsd_graphite,
    statsd_influx,
    statsd_plain,
)
from fleetmem.sinks.naming import MAX_TAGS, FleetNames, check_tags, make_tags
from fleetmem.sinks.series import RETIRE_AFTER_FAILURES, HostSeries, Retire, SeriesEncoding, Text
from fleetmem.sinks.transports.udp import MAX_DATAGRAM_BYTES
from fleetmem.units import format_number
from unit.builders import MEMORY, WEB, all_limits, command_names, failure, process, sample

_NGINX, _REDIS = process(7, "nginx", 4096, 8192), process(8, "redis-server", 1024, 2048)


def _series(retire: Retire = Retire.ZERO) -> HostSeries:
    return SeriesEncoding(statsd_plain, retire).host(FleetNames("p", ["web01"]), WEB)


def _values(text: Text) -> dict[str, str]:
    """Returns names and values of a text; a name that is there twice is an error."""
    lines = text.text.decode("ascii").splitlines()
    pairs = [(name, value) for name, value in (line.removesuffix("|g").split(":") for line in lines)]
    assert all(line.endswith("|g") for line in lines)
    assert not [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    return dict(pairs)


def _retired(text: Text) -> set[str]:
    """Returns the stems behind `p.` whose rss_bytes is 0."""
    return {
        name.removeprefix("p.").removesuffix(".rss_bytes")
        for name, value in _values(text).items()
        if value == "0" and name.endswith(".rss_bytes")
    }


def test_the_text_of_a_sample() -> None:
    """Every process has three series, the host its own, all as unsigned decimals."""
    text = _series().update(sample(_NGINX))
    assert _values(text) == {
        "p.process.web01.nginx.7.rss_bytes": "4096",
        "p.process.web01.nginx.7.vsz_bytes": "8192",
        "p.process.web01.nginx.7.mem_percent": "0.000048",
        "p.host.web01.up": "1",
        "p.host.web01.mem_total_bytes": "8589934592",
        "p.host.web01.mem_available_bytes": "3221225472",
        "p.host.web01.swap_total_bytes": "1073741824",
        "p.host.web01.swap_free_bytes": "1048576",
        "p.host.web01.processes": "1",
        "p.host.web01.collect_seconds": "0.125",
        "p.host.web01.oom_kills_total": "2",
    }
    assert text.points == 11


def test_what_a_host_tells_of_its_memory() -> None:
    """Pressure and huge pages are series of hosts that tell of them, and end where one does no more."""
    pressure = MemoryPressure(12.5, 0.25, 1.5, 0.0)
    telling = replace(MEMORY, hugetlb_bytes=2097152, pressure=pressure)
    series = _series()
    assert (
        _values(series.update(sample(_NGINX, memory=telling))).items()
        >= {
            "p.host.web01.memory_pressure_some_seconds_total": "12.5",
            "p.host.web01.memory_pressure_full_seconds_total": "0.25",
            "p.host.web01.hugetlb_bytes": "2097152",
        }.items()
    )
    values = _values(series.update(sample(_NGINX)))
    assert values["p.host.web01.hugetlb_bytes"] == values["p.host.web01.memory_pressure_full_seconds_total"] == "0"
    other = _values(series.update(sample(_NGINX, memory=replace(MEMORY, hugetlb_bytes=0, oom_kills_total=None))))
    assert (other["p.host.web01.hugetlb_bytes"], other["p.host.web01.oom_kills_total"]) == ("0", "0")


def test_the_text_of_commands_and_other() -> None:
    """By command there is `procs` too, and `other` is beside the commands."""
    outcome = sample(_NGINX, process(9, "nginx", 4096), _REDIS, limits=Limits(Detail.COMMAND, top=1))
    values = _values(_series().update(outcome))
    assert {name: value for name, value in values.items() if ".command." in name} == {
        "p.command.web01.nginx.rss_bytes": "8192",
        "p.command.web01.nginx.vsz_bytes": "16384",
        "p.command.web01.nginx.mem_percent": "0.000095",
        "p.command.web01.nginx.procs": "2",
        "p.command.web01.other.rss_bytes": "1024",
        "p.command.web01.other.vsz_bytes": "2048",
        "p.command.web01.other.mem_percent": "0.000012",
        "p.command.web01.other.procs": "1",
    }


def test_other_of_processes() -> None:
    """By process `other` has the pid that no process has."""
    values = _values(_series().update(sample(_NGINX, _REDIS, limits=Limits(top=1))))
    assert values["p.process.web01.other.0.rss_bytes"] == "1024"
    assert values["p.process.web01.other.0.procs"] == "1"


def test_what_the_kernel_does_not_tell_is_not_sent() -> None:
    """No value is guessed: an old kernel without MemAvailable has no such series."""
    memory = replace(MEMORY, available_bytes=None, swap_total_bytes=None)
    values = _values(_series().update(sample(memory=memory)))
    assert "p.host.web01.mem_available_bytes" not in values
    assert "p.host.web01.swap_total_bytes" not in values
    assert values["p.host.web01.swap_free_bytes"] == "1048576"


def test_the_graphite_format() -> None:
    """The format is the sink's; series are the same."""
    text = SeriesEncoding(carbon_plain, Retire.NONE).host(FleetNames("p", ["web01"]), WEB).update(sample(_NGINX))
    assert b"p.process.web01.nginx.7.rss_bytes 4096 \0\n" in text.text
    assert text.text.count(b"\n") == text.points


def test_a_process_that_is_gone_is_retired_in_three_cycles() -> None:
    """A 0 for each of its measures, in three cycles, and silence after that; it counts as ended once."""
    series = _series()
    series.update(sample(_NGINX, _REDIS))
    for ended in (3, 0, 0):
        text = series.update(sample(_NGINX))
        assert _retired(text) == {"process.web01.redis_server.8"}
        assert _values(text)["p.process.web01.redis_server.8.mem_percent"] == "0"
        assert text.ended == ended
        assert text.zeros.count(b":0|g\n") == 3
    assert _retired(series.update(sample(_NGINX))) == set()


def test_a_cycle_without_an_answer_is_one_of_the_three() -> None:
    """Zeros do not wait for the host: a host that fails may stay away."""
    series = _series()
    series.update(sample(_NGINX, _REDIS))
    series.update(sample(_NGINX))
    for _ in range(2):
        assert _retired(series.update(failure())) == {"process.web01.redis_server.8"}
    assert _retired(series.update(sample(_NGINX))) == set()


def test_a_name_that_lives_again_gets_no_more_zeros() -> None:
    """A pid that the same command has again shows its value in each cycle, and ends as often as it ends."""
    series = _series()
    series.update(sample(_NGINX, _REDIS))
    series.update(sample(_NGINX))
    again = series.update(sample(_NGINX, _REDIS))
    assert _retired(again) == set()
    assert _values(again)["p.process.web01.redis_server.8.rss_bytes"] == "1024"
    assert again.zeros == b""
    assert _retired(series.update(sample(_NGINX, _REDIS))) == set()
    for _ in range(3):
        assert _retired(series.update(sample(_NGINX))) == {"process.web01.redis_server.8"}
    assert _retired(series.update(sample(_NGINX))) == set()


def test_a_measure_that_the_host_has_no_more_is_ended() -> None:
    """A host that boots another kernel, one that does not say what is available, leaves no frozen value."""
    series = _series()
    series.update(sample(_NGINX))
    lacking = replace(MEMORY, available_bytes=None)
    for _ in range(3):
        assert _values(series.update(sample(_NGINX, memory=lacking)))["p.host.web01.mem_available_bytes"] == "0"
    assert "p.host.web01.mem_available_bytes" not in _values(series.update(sample(_NGINX, memory=lacking)))
    assert _values(series.update(sample(_NGINX)))["p.host.web01.mem_available_bytes"] != "0"


def test_zeros_that_were_lost_go_again() -> None:
    """In three more cycles, but for what lives again; what has still to be sent is sent once in each."""
    series = _series()
    series.update(sample(_NGINX, _REDIS))
    lost = series.update(sample()).zeros
    series.update(sample(_REDIS))
    series.end_again(lost)
    for _ in range(3):
        text = series.update(sample(_REDIS))
        assert _retired(text) == {"process.web01.nginx.7"}
        assert text.ended == 0
    assert _retired(series.update(sample(_REDIS))) == set()


def test_zeros_have_bounded_room() -> None:
    """What does not fit is ended once, as far as that arrives; nothing grows."""
    room = Room(1000)
    names = FleetNames("p", ["web01"])
    series = HostSeries(names.host("web01"), lambda place: statsd_plain("p", place), Retire.ZERO, room)
    series.update(sample(*(process(pid, "nginx") for pid in range(1, 100))))
    assert len(_retired(series.update(sample()))) == 99
    assert _retired(series.update(sample())) == set()
    series.update(sample(_NGINX))
    assert len(_retired(series.update(sample()))) == 1
    assert 0 < room.used_bytes < 1000
    for _ in range(3):
        series.update(sample())
    assert room.used_bytes == 0


def test_a_pid_with_another_command_is_another_series() -> None:
    """A process that execs, or a reused pid, ends the series of the old command and begins one."""
    series = _series()
    series.update(sample(_NGINX))
    text = series.update(sample(process(7, "sh")))
    assert _retired(text) == {"process.web01.nginx.7"}
    assert _values(text)["p.process.web01.sh.7.rss_bytes"] == "4096"


def test_a_command_that_is_gone_is_retired() -> None:
    """By command the last process ends the series, procs included."""
    series = _series()
    by_command = Limits(Detail.COMMAND)
    series.update(sample(_NGINX, _REDIS, limits=by_command))
    values = _values(series.update(sample(_NGINX, limits=by_command)))
    assert {name for name, value in values.items() if "redis" in name and value == "0"} == {
        f"p.command.web01.redis_server.{measure}" for measure in ("rss_bytes", "vsz_bytes", "mem_percent", "procs")
    }


def test_other_is_retired() -> None:
    """When nothing is left out any more, `other` ends."""
    series = _series()
    series.update(sample(_NGINX, _REDIS, limits=Limits(top=1)))
    assert _retired(series.update(sample(_NGINX, limits=Limits(top=1)))) == {"process.web01.other.0"}


def test_a_failure_says_down_and_keeps_the_series() -> None:
    """A cycle without an answer ends nothing: the host is back in the next one, mostly."""
    series = _series()
    series.update(sample(_NGINX))
    for _ in range(RETIRE_AFTER_FAILURES - 1):
        assert series.update(failure()) == Text(b"p.host.web01.up:0|g\n", 1)
    text = series.update(sample())
    assert _retired(text) == {"process.web01.nginx.7"}
    assert _values(text)["p.host.web01.up"] == "1"


def test_a_host_that_stays_down_is_retired_once() -> None:
    """After three cycles all of its series end, `up` stays at 0; then only `up` is sent."""
    series = _series()
    series.update(sample(_NGINX))
    for _ in range(RETIRE_AFTER_FAILURES - 1):
        series.update(failure())
    values = _values(series.update(failure()))
    assert set(values.values()) == {"0"}
    assert len(values) == 11
    for _ in range(2):
        assert _values(series.update(failure())) == values
    assert series.update(failure()) == Text(b"p.host.web01.up:0|g\n", 1)
    assert _values(series.update(sample(_NGINX)))["p.host.web01.up"] == "1"


def test_failures_are_counted_in_a_row() -> None:
    """An answer in between starts the count anew."""
    series = _series()
    for _ in range(RETIRE_AFTER_FAILURES):
        series.update(sample(_NGINX))
        assert series.update(failure()).points == 1


def test_a_host_that_never_answered() -> None:
    """Nothing but `up` was sent, so nothing else has to end."""
    series = _series()
    assert [series.update(failure()).points for _ in range(5)] == [1] * 5
    assert series.retire() == Text(b"", 0)


def test_retire_ends_a_host_that_left() -> None:
    """A host that is sampled no more ends whole, `up` included, and only once."""
    series = _series()
    series.update(sample(_NGINX))
    values = _values(series.retire())
    assert set(values.values()) == {"0"}
    assert {"p.host.web01.up", "p.host.web01.processes", "p.process.web01.nginx.7.vsz_bytes"} <= set(values)
    assert series.retire() == Text(b"", 0)


def test_retire_none() -> None:
    """Switched off, nothing is ever set to 0 but `up`."""
    series = _series(Retire.NONE)
    series.update(sample(_NGINX, _REDIS))
    assert _retired(series.update(sample(_NGINX))) == set()
    for _ in range(RETIRE_AFTER_FAILURES):
        assert series.update(failure()) == Text(b"p.host.web01.up:0|g\n", 1)
    assert series.retire() == Text(b"", 0)


@pytest.mark.parametrize("detail", list(Detail))
def test_an_unchanged_row_keeps_its_text(detail: Detail, monkeypatch: pytest.MonkeyPatch) -> None:
    """No value is formatted again that did not change."""
    series, limits = _series(), Limits(detail)
    first = _values(series.update(sample(_NGINX, _REDIS, limits=limits)))
    formatted: list[float] = []
    looked_at: list[int] = []
    sizes = ProcessTable.sizes

    def note(value: float) -> str:
        formatted.append(value)
        return format_number(value)

    def note_places(table: ProcessTable, places: Iterable[int]) -> Iterator[tuple[str, int, int, int] | None]:
        looked_at.extend(places)
        return sizes(table, places)

    monkeypatch.setattr("fleetmem.sinks.series.format_number", note)
    monkeypatch.setattr(ProcessTable, "sizes", note_places)
    grown = process(8, "redis-server", 2048)
    second = _values(series.update(sample(grown, _NGINX, limits=limits)))
    assert looked_at == ([0] if detail is Detail.PROCESS else [])
    assert (grown.mem_percent in formatted) is (detail is Detail.COMMAND)
    assert _NGINX.mem_percent not in formatted
    changed = {name for name, value in second.items() if value != first[name]}
    assert {name.split(".")[3] for name in changed} == {"redis_server"}
    assert second.keys() == first.keys()


def test_a_collision_within_one_sample() -> None:
    """Two commands that fold to one name get their hashes in the very sample that brings them together."""
    values = _values(_series().update(sample(process(1, "a.b"), process(2, "a-b"), process(3, "a_b"))))
    stems = {name.removesuffix(".rss_bytes") for name in values if name.endswith(".rss_bytes")}
    assert len(stems) == 3
    assert "p.process.web01.a_b.3" in stems
    assert "p.process.web01.a_b.1" not in stems


@pytest.mark.parametrize("detail", list(Detail))
def test_a_collision_later_on(detail: Detail) -> None:
    """The series that moves to a hashed name is ended under its old one."""
    series = _series()
    series.update(sample(process(1, "a.b"), limits=Limits(detail)))
    text = series.update(sample(process(1, "a.b"), process(2, "a-b"), limits=Limits(detail)))
    old = "process.web01.a_b.1" if detail is Detail.PROCESS else "command.web01.a_b"
    assert _retired(text) == {old}
    assert sum(name.endswith(".rss_bytes") for name in _values(text)) == 3


def test_a_collision_that_takes_the_place() -> None:
    """A legal name that takes over a folded one's name is not ended by that."""
    series = _series()
    series.update(sample(process(1, "a.b"), limits=Limits(Detail.COMMAND)))
    text = series.update(sample(process(1, "a.b"), process(2, "a_b", 12345), limits=Limits(Detail.COMMAND)))
    assert _values(text)["p.command.web01.a_b.rss_bytes"] == "12345"
    assert _retired(text) == set()


_ROWS = st.builds(process, st.integers(1, 6), command_names(), st.integers(1, 9), st.integers(1, 9))
_OUTCOMES = st.just(failure()) | st.builds(
    lambda rows, limits: sample(*rows, limits=limits),
    st.lists(_ROWS, max_size=6, unique_by=lambda row: row.pid),
    all_limits(),
)


@pytest.mark.slow
@given(st.lists(_OUTCOMES, max_size=8), st.sampled_from(Retire))
def test_points_are_lines_and_every_series_ends(outcomes: list[Outcome], retire: Retire) -> None:
    """Over any history: as many points as lines, no name twice in a text, and what was not 0 at last is retired."""
    series = _series(retire)
    last: dict[str, str] = {}
    for outcome in outcomes:
        text = series.update(outcome)
        assert text.points == text.text.count(b"\n")
        last |= _values(text)
    ended = series.retire()
    assert ended.points == ended.text.count(b"\n")
    last |= _values(ended)
    if retire is Retire.ZERO:
        assert set(last.values()) <= {"0"}


@pytest.mark.slow
@given(st.lists(st.lists(_ROWS, max_size=6, unique_by=lambda row: row.pid), min_size=1, max_size=6))
def test_what_a_receiver_shows_is_the_last_sample(history: list[list[ProcessMemory]]) -> None:
    """A receiver that repeats the last value for ever shows the last sample's RSS, and 0 for all that is gone."""
    series = _series()
    shown: dict[str, str] = {}
    for rows in history:
        shown |= _values(series.update(sample(*rows)))
    sizes = sorted(int(value) for name, value in shown.items() if name.endswith(".rss_bytes") and value != "0")
    assert sizes == sorted(row.rss_bytes for row in history[-1])


def _tagged(env: str | None) -> FleetNames:
    return FleetNames("p", ["web01"], tags={"web01": (("env", env),)} if env else {})


@pytest.mark.parametrize(
    ("format_", "line"),
    [
        (statsd_plain, "p.process.web01.nginx.7.rss_bytes:4096|g"),
        (statsd_dogstatsd, "p.process.rss_bytes:4096|g|#host:web01,command:nginx,pid:7,env:prod"),
        (statsd_influx, "p.process.rss_bytes,host=web01,command=nginx,pid=7,env=prod:4096|g"),
        (statsd_graphite, "p.process.rss_bytes;host=web01;command=nginx;pid=7;env=prod:4096|g"),
        (carbon_plain, "p.process.web01.nginx.7.rss_bytes 4096 \0"),
        (carbon_tagged, "p.process.rss_bytes;host=web01;command=nginx;pid=7;env=prod 4096 \0"),
    ],
)
def test_tags_of_a_host(format_: Format, line: str) -> None:
    """Where names have tags, every series of the host has its tags, too; plain names stay as they are."""
    lines = SeriesEncoding(format_, Retire.ZERO).host(_tagged("prod"), WEB).update(sample(_NGINX)).text.decode()
    assert lines.startswith(line)
    has_tags = "prod" in line
    assert all(("prod" in text) == has_tags for text in lines.splitlines())


@pytest.mark.parametrize(("format_", "is_same"), [(statsd_plain, True), (statsd_influx, False)])
def test_other_tags_are_other_series(format_: Format, is_same: bool) -> None:
    """But only where they are part of the name."""
    encoding = SeriesEncoding(format_, Retire.ZERO)
    assert encoding.is_same_host(_tagged("test"), _tagged("test"), WEB)
    assert encoding.is_same_host(_tagged("test"), _tagged("prod"), WEB) == is_same
    assert encoding.is_same_host(_tagged(None), _tagged("prod"), WEB) == is_same


def test_the_longest_tags_fit_a_datagram() -> None:
    """Eight of them, as long as they may be."""
    labels = {f"{number}{'k' * 99}": "v" * 999 for number in range(MAX_TAGS)}
    names = FleetNames("p" * 40, ["h" * 200], tags={"h" * 200: make_tags(labels, check_tags(tuple(labels)))})
    for format_ in (statsd_dogstatsd, statsd_influx, statsd_graphite):
        series = SeriesEncoding(format_, Retire.ZERO).host(names, Host("h" * 200, "x"))
        text = series.update(sample(process(2**31, "c" * 40, 2**60, 2**60))).text
        assert cut_lines(text, MAX_DATAGRAM_BYTES)
        assert max(map(len, text.splitlines())) > 600


def _unsure(limits: Limits | None = None) -> Outcome:
    memory = HostMemory(None, None, None, None, None, None)
    rows = [row._replace(mem_percent=None) for row in (_NGINX, _REDIS)]
    return sample(*rows, limits=limits, memory=memory)


@pytest.mark.parametrize("limits", [Limits(), Limits(frozenset(Detail), top=1)])
def test_shares_of_a_memory_that_nobody_knows(limits: Limits) -> None:
    """Processes and sums have their sizes, and no percentage; the host has no totals, and the count is right."""
    series = _series()
    text = series.update(_unsure(limits))
    values = _values(text)
    assert text.points == len(values) == series.count
    assert not [name for name in values if name.endswith(("percent", "total_bytes"))]
    assert values["p.process.web01.nginx.7.rss_bytes"] == "4096"


def test_shares_come_and_go() -> None:
    """What is no longer known ends with 0, once and only that; what is known again is there again."""
    series = _series()
    series.update(sample(_NGINX, _REDIS))
    values = _values(series.update(_unsure()))
    assert {name for name, value in values.items() if value == "0" and ".process." in name} == {
        f"p.process.web01.{name}.mem_percent" for name in ("nginx.7", "redis_server.8")
    }
    assert values["p.process.web01.nginx.7.rss_bytes"] == "4096"
    for _ in range(5):
        series.update(_unsure())
    assert not [name for name in _values(series.update(_unsure())) if name.endswith("percent")]
    back = _values(series.update(sample(_NGINX, _REDIS)))
    assert back["p.process.web01.nginx.7.mem_percent"] == "0.000048"
