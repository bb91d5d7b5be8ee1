"""Regular expressions of people: what they mean is what Python says, and none takes longer than its limit."""

import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetmem.config import Shape
from fleetmem.runtime import pattern
from fleetmem.runtime.pattern import Pattern, PatternProcess, end_process
from fleetmem.runtime.pattern_cost import MAX_STEPS, steps_of

_ORDINARY = [
    "",
    "^postgres",
    "^nginx$",
    "[a-z]+-[0-9]+",
    r"^(?P<app>[a-z]+)-[0-9]+",
    r"^(?P<app>[a-z]+)(-(?P<number>[0-9]+))?$",
    r"java.*-Dapp=(?P<app>\w+)",
    r"(?i)^(web|db)\d+$",
    r"(?!foo)bar",
    r"^(?=.*x)a",
    r"(?<=kworker/)\d",
    r"\bpython[23]?\b",
    r"^[\w.-]+@[\w.-]+\.\w+$",
    r"kworker/.*",
    r"café|\x1b|\udce9",
    r"a{3,5}b",
    r"^\s*\S+\s*\Z",
    r"^(?:(a)|b)*(?(1)c|d)$",
]
_CATASTROPHIC = [
    "(a+)+$",
    "(a|a)*$",
    r"(\w+\s?)*$",
    r"(x+x+)+y",
    "(a*)*b",
    "(a?){20}a{20}",
    r"^(\d+|[a-z]+)+$",
    r"(.*.*)*=",
    r"(?:a{0,20}){0,20}b",
    r"(?i)(A+)+$",
    r"(?=(a+)+$)b",
    r"(a|ab|b)*c",
]
_FLAGGED = [r"(?a)(?:\w+\W+)+x", r"(?m)^.*.*x$", r"(?i:k+)\u212a+.*.*x"]  # what a flag makes of it
_UNSEEN = [r"(.)\1+"]  # nothing is known of its time


@pytest.fixture(autouse=True)
def _no_process_stays() -> Iterator[None]:
    yield
    end_process()


@pytest.mark.parametrize("text", _ORDINARY)
def test_ordinary_patterns_stay_here(text: str) -> None:
    """No process is started for them."""
    assert Pattern(text).is_bounded


@pytest.mark.parametrize("text", [*_CATASTROPHIC, *_UNSEEN])
def test_others_do_not(text: str) -> None:
    """Whatever can take exponential time, and what nothing is known of."""
    assert not Pattern(text).is_bounded


_PARTS = st.sampled_from(["a", "b", "-", ".", "[ab]", "[^a]", r"\w", r"\d", "(?:ab|a)", "(a|b)", "(?P<n>a)", "(?:x?)"])
_REPEATED = st.tuples(_PARTS, st.sampled_from(["", "*", "+", "?", "{0,3}", "*?", "{2}"])).map("".join)
_PATTERNS = st.lists(_REPEATED | st.lists(_REPEATED, max_size=3).map(lambda some: f"(?:{''.join(some)})*"), max_size=5)
_HARD = st.sampled_from(["a" * 255, "ab" * 127, "a-" * 127, "a" * 254 + "!", "1" * 255, "-" * 255])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(_PATTERNS.map("".join), _HARD)
def test_what_stays_here_is_quick(text: str, name: str) -> None:
    """Any pattern of which it is said takes a moment at most on the hardest names."""
    try:
        compiled = re.compile(text)
    except re.error:  # two groups of one name
        return
    if steps_of(compiled) <= MAX_STEPS:
        begun = time.process_time()
        compiled.search(name)
        assert time.process_time() - begun < 1.0


_NAMES = ["", "a", "web-1", "pg: a", "nginx", "DB12", "kw/0:1", "café", "caf\udce9", "a\n", "x" * 9, "a b"]


@pytest.mark.parametrize("text", [*_ORDINARY, *_CATASTROPHIC, *_FLAGGED, *_UNSEEN])
def test_the_meaning_is_that_of_python(text: str) -> None:
    """The same names, the same groups, wherever it runs."""
    compiled, ours = re.compile(text), Pattern(text)
    for name in _NAMES:
        for method in ("search", "match"):
            expected, found = getattr(compiled, method)(name), getattr(ours, method)(name)
            assert (found and found.groupdict("")) == (expected and expected.groupdict(""))
    assert (ours.pattern, dict(ours.groupindex)) == (text, dict(compiled.groupindex))


def test_a_name_that_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """It counts as not found, which is logged once; other names go on, and it is not tried again."""
    slow = Pattern("(a+)+$")
    begun = time.monotonic()
    assert slow.search("a" * 200 + "!") is None
    assert slow.search("a" * 201 + "!") is None
    assert slow.search("baa") is not None
    first_seconds = time.monotonic() - begun
    assert first_seconds < 10
    assert slow.look_up(["a" * 200 + "!", "baa"]) == 0.0
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "'(a+)+$' takes more than 0.05 s on a text of 201 characters" in record.getMessage()


def test_names_are_looked_up_at_once() -> None:
    """What it took is told, and `search` finds all of it there."""
    slow = Pattern(r"(?P<letter>.)\1+")
    assert slow.look_up(["aa", "ab", "xbb"]) > 0
    assert slow.look_up(["aa", "ab", "xbb"]) == 0.0
    found = slow.search("xbb")
    assert found
    assert found.groupdict("") == {"letter": "b"}
    assert slow.search("ab") is None


def test_a_process_that_ended_is_started_again() -> None:
    """What it was asked counts as too slow, the next question is answered."""
    process = PatternProcess()
    assert process.find("a", "search", ["a"])[0] == [{}]
    assert process._process
    process._process.kill()
    process._process.wait()
    assert process.find("a", "search", ["a"])[0] == [{}]
    process.close()
    process.close()


@pytest.mark.slow
def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its own limit does not work."""
    monkeypatch.setattr(pattern, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(pattern, "TEXT_LIMIT_SECONDS", 60)
    monkeypatch.setattr(pattern, "_LIMIT_FACTOR", 0.001)
    process = PatternProcess()
    found, seconds = process.find("(a+)+$", "search", ["a" * 100 + "!"])
    assert (found, seconds > 0, process._process) == ([True], True, None)


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no answer: it is asked again the next time."""
    slow = Pattern(r"(.)\1+")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nonexistent")
        with pytest.raises(OSError, match="nonexistent"):
            slow.search("aa")
    assert slow.search("aa")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old names are forgotten."""
    monkeypatch.setattr(pattern, "_MAX_REMEMBERED", 10)
    slow = Pattern(r"(.)\1+")
    for number in range(5):
        slow.look_up(f"{number}-{more}" for more in range(4))
    assert len(slow._found) <= 10


@pytest.mark.parametrize("text", ["[0~~1]", "[[a]", "[a||b]", "[+--b]"])
def test_what_python_warns_of_is_quiet(text: str) -> None:
    """A pattern that may mean something else in a later Python is taken without a warning on the screen."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Pattern(text).search("name")
        Shape(include_commands=(text,))
    assert told == []
