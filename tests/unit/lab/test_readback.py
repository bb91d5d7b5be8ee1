"""What was sent, read back: every series against what Graphite has."""

from collections.abc import Mapping

import pytest

from fleetmem import config
from fleetmem.errors import UsageError
from fleetmem.lab.readback import GRAPHITE_PREFIX, Fetch, Mismatch, Sent, Verdict, parse_gauges, record, verify
from fleetmem.lab.render import RenderedPoint, Series
from fleetmem.sinks import formats
from fleetmem.sinks.naming import HostNames
from fleetmem.wiring.fleet import build_fleet

SENT_AT = 100.0


def _fetch(*answers: Mapping[str, Series]) -> Fetch:
    """Returns a Graphite that gives these answers in turn, the last one for ever."""
    waiting = list(answers)

    def fetch(names: list[str], _since_unix_seconds: float) -> dict[str, Series]:
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return {name: series for name, series in answer.items() if name in names}

    return fetch


def _stored(value: float, unix_seconds: int = 101, name: str = "a") -> dict[str, Series]:
    return {f"{GRAPHITE_PREFIX}{name}": [RenderedPoint(0, 90), RenderedPoint(value, unix_seconds)]}


def _verdict(
    values: Mapping[str, str], *answers: Mapping[str, Series], seconds: float = 0, ahead_seconds: float = 0
) -> Verdict:
    sent = {name: Sent(value, SENT_AT) for name, value in values.items()}
    return verify(sent, _fetch(*answers), seconds, ahead_seconds, sleep=lambda _seconds: None)


def test_what_was_sent_is_read_from_the_text_on_the_wire() -> None:
    """The sink's own text gives back names and values, the last one of each."""
    template = formats.statsd_plain("p", HostNames("web01").process("nginx", 7)).template(["a", "b", "a"])
    text = (template % ("1", "0.5", "2")).encode()
    assert parse_gauges(text) == {"p.process.web01.nginx.7.a": "2", "p.process.web01.nginx.7.b": "0.5"}


def test_all_found() -> None:
    """Series with their last value, stored after it was sent, are found."""
    verdict = _verdict({"a": "5", "b": "0.123456"}, _stored(5) | _stored(0.123456, name="b"))
    assert verdict.is_good
    assert str(verdict) == "2 of 2 series sent were found in Graphite with the value sent last"


@pytest.mark.parametrize(
    ("answer", "found"),
    [({}, None), (_stored(4), 4.0), (_stored(5, unix_seconds=99), None), (_stored(5, name="b"), None)],
)
def test_missing_other_and_old_values_are_mismatches(answer: dict[str, Series], found: float | None) -> None:
    """A series that is absent, has another value, or only one from before it was sent, is not found."""
    verdict = _verdict({"a": "5"}, answer)
    assert not verdict.is_good
    assert verdict.mismatches == [Mismatch("a", "5", found)]
    assert str(verdict).startswith("0 of 1 series")


def test_waits_for_the_flush() -> None:
    """What is not there at first is asked for again."""
    assert _verdict({"a": "5"}, {}, _stored(4), _stored(5), seconds=60).is_good


def test_nothing_sent_is_no_success() -> None:
    """A demo that sent nothing has proved nothing."""
    assert not _verdict({}, {}).is_good


def test_each_series_counts_from_when_it_was_sent_itself() -> None:
    """A value that is older than the end of the run, but newer than its own datagram, is proof."""
    sent = {"a": Sent("5", 100.0), "b": Sent("6", 120.0)}
    answer = _stored(5, unix_seconds=110) | _stored(6, unix_seconds=110, name="b")
    verdict = verify(sent, _fetch(answer), 0, sleep=lambda _seconds: None)
    assert verdict.mismatches == [Mismatch("b", "6", None)]


def test_the_clock_of_graphite_counts() -> None:
    """What a server stored 5 s after, whose clock is 30 s ahead, was stored before."""
    assert not _verdict({"a": "5"}, _stored(5, unix_seconds=105), ahead_seconds=30).is_good
    assert _verdict({"a": "5"}, _stored(5, unix_seconds=135), ahead_seconds=30).is_good


@pytest.mark.parametrize(
    "sinks",
    [
        {},
        {"statsd": {"server": "a,b"}},
        {"statsd": {"server": "tcp://a"}},
        {"statsd": {"server": "a"}, "graphite": {"server": "b"}},
    ],
)
def test_only_one_statsd_over_udp_can_be_read_back(sinks: dict[str, dict[str, str]]) -> None:
    """Anything else is refused, with what to set."""
    fleet = build_fleet(config.load(None, {"inventory": {"hosts": "web01"}, **sinks}), lambda _path: None)
    with pytest.raises(UsageError, match=r"one StatsD, over UDP: set statsd\.server"):
        record(fleet)
