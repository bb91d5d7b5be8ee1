"""Measures that are asked for beside the usual ones: in StatsD's and carbon's lines, and on Prometheus' page."""

import pickle
from dataclasses import replace

import pytest

from fleetmem.model import MORE_MEASURES, PROCESS_MEASURES, Detail, Measure, Outcome, ProcessMemory, Sample
from fleetmem.shape.limits import Limits
from fleetmem.sinks.formats import STATSD, Dialect, Format, carbon_plain, carbon_tagged
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.pages.exposition import FAMILIES, Exposition, HostState
from fleetmem.sinks.series import HostSeries, Retire, SeriesEncoding, Text
from unit.builders import MEMORY, WEB, process, sample

ALL = tuple(str(measure) for measure in Measure)
NGINX = process(7, "nginx", 4096, 8192)._replace(peak_rss_bytes=6000, anon_bytes=3000, swap_bytes=0)
REDIS = process(8, "redis", 1024, 2048)._replace(peak_rss_bytes=2000, anon_bytes=1000, swap_bytes=500)
OLD = NGINX._replace(peak_rss_bytes=None, anon_bytes=None, swap_bytes=None)
"""The same process as `ps` shows it."""

KTHREAD = process(2, "kthreadd", 0, 0)._replace(peak_rss_bytes=None, anon_bytes=None, swap_bytes=None)
FORMATS = [*STATSD.values(), carbon_plain, carbon_tagged]


def asked(*measures: str, detail: Detail | frozenset[Detail] = Detail.PROCESS, top: int | None = None) -> Limits:
    """Returns limits with these measures."""
    return Limits(detail, top, measures=measures)


def series(format_: Format = STATSD[Dialect.PLAIN], retire: Retire = Retire.ZERO) -> HostSeries:
    """Returns the series of a host."""
    return SeriesEncoding(format_, retire).host(FleetNames("p", ["web01"]), WEB)


def values(text: Text, stem: str = "p.process.web01.nginx.7.") -> dict[str, str]:
    """Returns the values of the lines that begin so, by the rest of their names; no name is there twice."""
    pairs = [line.removesuffix("|g").split(":") for line in text.text.decode().splitlines()]
    assert len({name for name, _value in pairs}) == len(pairs)
    return {name.removeprefix(stem): value for name, value in pairs if name.startswith(stem)}


def test_all_measures_of_a_process() -> None:
    """Each is a series of its own, in bytes; those of the host stay as they are."""
    host = series()
    text = host.update(sample(NGINX, limits=asked(*ALL)))
    assert values(text) == {
        "rss_bytes": "4096",
        "vsz_bytes": "8192",
        "mem_percent": "0.000048",
        "peak_rss_bytes": "6000",
        "anon_bytes": "3000",
        "swap_bytes": "0",
    }
    assert host.count == text.points == text.text.count(b"\n") == len(ALL) + 8


@pytest.mark.parametrize("measures", [("anon_bytes",), ("rss_bytes",), ("rss_bytes", "swap_bytes"), ALL])
@pytest.mark.parametrize("format_", FORMATS)
def test_a_row_that_changes_reads_as_a_new_one(format_: Format, measures: tuple[str, ...]) -> None:
    """Whatever the format, old parts and new ones fit together; the count is the number of lines."""
    host = series(format_, Retire.NONE)
    grown = REDIS._replace(anon_bytes=1001, rss_bytes=1025, swap_bytes=7)
    for rows in ((NGINX, REDIS), (NGINX, grown), (grown, KTHREAD), (KTHREAD, NGINX, grown)):
        outcome = sample(*rows, limits=asked(*measures, top=5))
        text = host.update(outcome)
        assert text.text == series(format_, Retire.NONE).update(outcome).text
        assert text.points == host.count == text.text.count(b"\n")


def test_sums_have_no_peak() -> None:
    """Commands and `other` add up what adds up."""
    limits = asked(*ALL, detail=frozenset(Detail), top=1)
    text = series().update(sample(NGINX, REDIS, REDIS._replace(pid=9), limits=limits))
    expected = {"rss_bytes": "2048", "vsz_bytes": "4096", "mem_percent": "0.000024"}
    expected |= {"anon_bytes": "2000", "swap_bytes": "1000", "procs": "2"}
    assert values(text, "p.process.web01.other.0.") == expected
    assert values(text, "p.command.web01.other.") == expected
    assert values(text, "p.command.web01.nginx.")["anon_bytes"] == "3000"


def test_what_is_asked_for_no_more_ends() -> None:
    """A reload takes measures away: their series get their zeros, in three cycles, the others go on; and come back."""
    host = series()
    host.update(sample(NGINX, limits=asked(*ALL)))
    for ended in (3, 0, 0):
        text = host.update(sample(NGINX, limits=Limits()))
        assert {name for name, value in values(text).items() if value == "0"} == set(MORE_MEASURES)
        assert values(text)["rss_bytes"] == "4096"
        assert text.ended == ended
    assert set(values(host.update(sample(NGINX, limits=Limits())))) == set(PROCESS_MEASURES)
    back = host.update(sample(NGINX, limits=asked(*ALL)))
    assert values(back)["anon_bytes"] == "3000"
    assert back.begun.count(b"\n") >= len(MORE_MEASURES)


def test_a_usual_measure_that_is_not_asked_for() -> None:
    """Fewer series than usual are a choice, too."""
    host = series()
    host.update(sample(NGINX))
    text = host.update(sample(NGINX, limits=asked("rss_bytes")))
    assert values(text) == {"rss_bytes": "4096", "vsz_bytes": "0", "mem_percent": "0"}


@pytest.mark.parametrize("detail", Detail)
def test_a_host_that_does_not_tell(detail: Detail) -> None:
    """No value is guessed: with `ps` or an old kernel there are the usual series, and none that the kernel lacks."""
    limits = asked(*ALL, detail=detail)
    host = series()
    text = host.update(sample(OLD, KTHREAD, limits=limits))
    names = text.text.decode()
    assert "rss_bytes:4096" in names
    assert not [measure for measure in ("anon_bytes", "swap_bytes", "peak_rss_bytes") if measure in names]
    assert text.points == host.count == text.text.count(b"\n")


@pytest.mark.parametrize("measures", [ALL, ("anon_bytes", "swap_bytes")])
@pytest.mark.parametrize("detail", [frozenset([Detail.PROCESS]), frozenset([Detail.COMMAND]), frozenset(Detail)])
def test_a_host_that_tells_now_and_then_not(detail: frozenset[Detail], measures: tuple[str, ...]) -> None:
    """The kind of probe changes, or another kernel boots: series end with zeros, and begin again."""
    limits = asked(*measures, detail=detail)
    host = series()

    def lines(outcome: Outcome) -> set[str]:
        text = host.update(outcome)
        assert host.count == text.points - text.zeros.count(b"\n")
        return set(text.text.decode().splitlines())

    def fresh(outcome: Outcome) -> set[str]:
        return set(series().update(outcome).text.decode().splitlines())

    old, new = sample(OLD, REDIS, limits=limits), sample(NGINX, REDIS, limits=limits)
    old = replace(old, shaped=sample(OLD, _as_ps(REDIS), limits=limits).shaped)
    assert lines(new) == fresh(new)
    for _cycle in range(3):
        ended = lines(old) - fresh(old)
        assert ended
        assert all(line.endswith(":0|g") for line in ended)
        assert {line.rpartition(".")[2].partition(":")[0] for line in ended} <= set(MORE_MEASURES)
    assert lines(old) == fresh(old)
    assert lines(new) == fresh(new)


@pytest.mark.parametrize("is_reload", [False, True])
def test_a_process_that_ends_just_then(*, is_reload: bool) -> None:
    """With the sample in which the host's measures change, a process is gone: all of its series end."""
    host = series()
    host.update(sample(NGINX, REDIS, limits=asked(*ALL)))
    text = host.update(sample(NGINX) if is_reload else sample(OLD, limits=asked(*ALL)))
    assert values(text, "p.process.web01.redis.8.") == dict.fromkeys(ALL, "0")
    assert {name for name, value in values(text).items() if value == "0"} == set(MORE_MEASURES)


def _as_ps(row: ProcessMemory) -> ProcessMemory:
    return row._replace(peak_rss_bytes=None, anon_bytes=None, swap_bytes=None)


def test_rows_of_two_kinds_in_one_sample() -> None:
    """No kernel sends this. What one process lacks, none has a series of; cycle by cycle the same."""
    host = series()
    mixed = sample(NGINX, _as_ps(REDIS), limits=asked(*ALL))
    for rows in (mixed, mixed, sample(NGINX._replace(anon_bytes=1), _as_ps(REDIS), limits=asked(*ALL))):
        assert set(values(host.update(rows))) == set(PROCESS_MEASURES)


def page(outcome: Sample) -> tuple[list[str], int]:
    """Returns the lines of Prometheus' page about processes and commands, and how many samples are said to be there."""
    state = HostState().after(outcome)
    texts = Exposition("p").host(WEB, state)
    assert list(texts) == [family for family in texts if family in FAMILIES]
    assert state.series == sum(text.count(b"\n") for text in texts.values())
    whole = b"".join(texts.values()).decode()
    return [line for line in whole.splitlines() if line.startswith(("p_process", "p_command"))], state.series


@pytest.mark.parametrize("limits", [asked(*ALL), asked(*ALL, detail=frozenset(Detail), top=1), asked("anon_bytes")])
@pytest.mark.parametrize("rows", [(NGINX, REDIS), (OLD, KTHREAD), (KTHREAD, NGINX), ()])
def test_the_page_counts_its_samples(rows: tuple[ProcessMemory, ...], limits: Limits) -> None:
    """Whatever is asked for, and whatever the host tells."""
    page(sample(*rows, limits=limits))


def test_the_page_has_what_is_asked_for() -> None:
    """Families of their own, in bytes; none that nobody asks for."""
    lines, _series = page(sample(NGINX, limits=asked(*ALL)))
    labels = '{host="web01",command="nginx",pid="7"}'
    assert f"p_process_peak_rss_bytes{labels} 6000" in lines
    assert f"p_process_anon_bytes{labels} 3000" in lines
    assert f"p_process_swap_bytes{labels} 0" in lines
    usual, _series = page(sample(NGINX))
    assert not [line for line in usual if "anon" in line or "peak" in line or "swap" in line]
    fewer, _series = page(sample(NGINX, limits=asked("anon_bytes")))
    assert fewer == [f"p_process_anon_bytes{labels} 3000"]


def test_a_worker_hands_them_on() -> None:
    """What goes to another process has its measures with it."""
    outcome = sample(NGINX, limits=asked("rss_bytes", "anon_bytes"), memory=MEMORY)
    assert pickle.loads(pickle.dumps(outcome)).shaped == outcome.shaped  # noqa: S301 - our own
    assert pickle.loads(pickle.dumps(outcome)).shaped.measures == ("rss_bytes", "anon_bytes")  # noqa: S301
