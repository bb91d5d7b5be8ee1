"""The demo's check: every series sent, against what Graphite has."""

from collections.abc import Mapping

import pytest

from fleetmem.lab.demo import GRAPHITE_PREFIX, Fetch, Mismatch, Verdict, parse_gauges, verify
from fleetmem.lab.render import Datapoint, Series
from fleetmem.sinks import formats
from fleetmem.sinks.naming import HostNames

ENDED = 100.0


def _fetch(*answers: Mapping[str, Series]) -> Fetch:
    """Returns a Graphite that gives these answers in turn, the last one for ever."""
    waiting = list(answers)

    def fetch(names: list[str], _since_unix_seconds: float) -> dict[str, Series]:
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return {name: series for name, series in answer.items() if name in names}

    return fetch


def _stored(value: float, unix_seconds: int = 101, name: str = "a") -> dict[str, Series]:
    return {f"{GRAPHITE_PREFIX}{name}": [Datapoint(0, 90), Datapoint(value, unix_seconds)]}


def _verdict(sent: Mapping[str, str], *answers: Mapping[str, Series], seconds: float = 0) -> Verdict:
    return verify(sent, _fetch(*answers), ENDED, seconds, sleep=lambda _seconds: None)


def test_what_was_sent_is_read_from_the_text_on_the_wire() -> None:
    """The sink's own text gives back names and values, the last one of each."""
    template = formats.statsd_plain("p", HostNames("web01").process("nginx", 7)).template(["a", "b", "a"])
    text = (template % ("1", "0.5", "2")).encode()
    assert parse_gauges(text) == {"p.process.web01.nginx.7.a": "2", "p.process.web01.nginx.7.b": "0.5"}


def test_all_found() -> None:
    """Series with their last value, stored after the end, are found."""
    verdict = _verdict({"a": "5", "b": "0.123456"}, _stored(5) | _stored(0.123456, name="b"))
    assert verdict.is_good
    assert str(verdict) == "2 of 2 series sent were found in Graphite with the value sent last"


@pytest.mark.parametrize(
    ("answer", "found"),
    [({}, None), (_stored(4), 4.0), (_stored(5, unix_seconds=99), None), (_stored(5, name="b"), None)],
)
def test_missing_other_and_old_values_are_mismatches(answer: dict[str, Series], found: float | None) -> None:
    """A series that is absent, has another value, or only one from before the end, is not found."""
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
