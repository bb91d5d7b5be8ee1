import re

import pytest

from fleetmem.model import Detail
from fleetmem.shape.limits import CommandGroup, Filter, Limits


def _filter(include: str = "", exclude: str = "") -> Filter:
    return Filter(
        tuple(re.compile(text) for text in include.split()), tuple(re.compile(text) for text in exclude.split())
    )


@pytest.mark.parametrize(
    ("patterns", "text", "is_kept"),
    [
        (_filter(), "any", True),
        (_filter("ngi"), "nginx", True),
        (_filter("^gin"), "nginx", False),
        (_filter("a b"), "xbx", True),
        (_filter(exclude="x$"), "nginx", False),
        (_filter(exclude="x$"), "nginx2", True),
        (_filter("ngi", "x$"), "nginx", False),
        (_filter("ngi"), None, False),
        (_filter(exclude="."), None, True),
        (_filter(), None, True),
    ],
)
def test_filter(patterns: Filter, text: str | None, *, is_kept: bool) -> None:
    """One of include is found anywhere in the text, and no exclude; what is not known matches nothing."""
    assert patterns.keeps(text) == is_kept


def test_a_filter_without_patterns_is_false() -> None:
    """Where there is nothing to match nothing has to be asked."""
    assert [bool(patterns) for patterns in (_filter(), _filter("a"), _filter(exclude="a"))] == [False, True, True]


@pytest.mark.parametrize(
    ("match", "name", "command", "given"),
    [
        ("^postgres", "postgres", "postgres: writer", "postgres"),
        ("^postgres", "postgres", "nginx", None),
        ("(?P<app>[a-z]+)-[0-9]+", "app {app}", "my web-12", "app web"),
        ("(?P<a>.)(?P<b>.)", "{b}{a}", "xy", "yx"),
        ("^(?P<a>x)?", "<{a}>", "y", "<>"),
        ("x", "{{x}}", "x", "{x}"),
        ("(?P<a>.*)", "{a}", "{b}", "{b}"),
        ("", "", "anything", ""),
    ],
)
def test_group(match: str, name: str, command: str, given: str | None) -> None:
    """The name is made of the captures; what a process calls itself is text and nothing else."""
    assert CommandGroup(re.compile(match), name).name_of(command) == given


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{b}", "has {b}; captures in '(?P<a>.)(.)': {a}"),
        ("{}", "has {}"),
        ("{2}", "has {2}"),
        ("{a.__class__}", "has {a.__class__}"),
        ("{a!r}", "has {a}"),
        ("{a:>5}", "has {a}"),
        ("{a", "'}'"),
        ("}", "'}'"),
    ],
)
def test_a_name_that_cannot_be_made(name: str, message: str) -> None:
    """A template is checked when it is made, not when the first process comes by."""
    with pytest.raises(ValueError, match=re.escape(message)):
        CommandGroup(re.compile("(?P<a>.)(.)"), name)


def test_a_group_without_captures() -> None:
    """The message says how to make one."""
    with pytest.raises(ValueError, match=re.escape("none, (?P<capture>...) makes one")):
        CommandGroup(re.compile("a"), "{a}")


def test_details() -> None:
    """One level or several."""
    assert Limits().details == {Detail.PROCESS}
    assert Limits(Detail.COMMAND).details == {Detail.COMMAND}
    assert Limits(frozenset(Detail)).details == set(Detail)
