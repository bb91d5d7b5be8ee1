import re
from re import Pattern
from typing import cast

import pytest

from fleetmem.model import Host, ProcessMemory
from fleetmem.shape import selection
from fleetmem.shape.limits import CommandGroup, Filter, Limits
from fleetmem.shape.selection import Selection
from unit.builders import WEB, process

_NGINX, _SSHD, _PG1, _PG2 = (
    process(1, "nginx"),
    process(2, "sshd"),
    process(3, "postgres: a"),
    process(4, "postgres: b"),
)
_ALL = (_NGINX, _SSHD, _PG1, _PG2)
_POSTGRES = CommandGroup(re.compile("^postgres"), "postgres")


def _filter(include: str | None = None, exclude: str | None = None) -> Filter:
    return Filter(() if include is None else (re.compile(include),), () if exclude is None else (re.compile(exclude),))


def _split(limits: Limits, *rows: ProcessMemory, host: Host = WEB) -> tuple[list[int], list[int]]:
    """Returns the pids that are looked at and the excluded ones."""
    selected, excluded = Selection(host, limits).split(rows)
    return [row.pid for row in selected], [row.pid for row in excluded]


def test_without_rules_nothing_is_touched() -> None:
    """Rows are handed on as they are, the very same tuple."""
    selected, excluded = Selection(WEB, Limits()).split(_ALL)
    assert selected is _ALL
    assert excluded == ()


def test_commands() -> None:
    """Include and exclude by command."""
    assert _split(Limits(commands=_filter("n|s")), *_ALL) == ([1, 2, 3, 4], [])
    assert _split(Limits(commands=_filter("^n", None)), *_ALL) == ([1], [2, 3, 4])
    assert _split(Limits(commands=_filter(None, "^postgres")), *_ALL) == ([1, 2], [3, 4])


def test_users() -> None:
    """Users are user ids in decimal; one that is not known matches nothing."""
    rows = [process(pid)._replace(uid=uid) for pid, uid in ((1, 0), (2, 1000), (3, 100), (4, None))]
    assert _split(Limits(users=_filter("^1000$")), *rows) == ([2], [1, 3, 4])
    assert _split(Limits(users=_filter(None, "^1")), *rows) == ([1, 4], [2, 3])


def test_hosts() -> None:
    """Of a host that is left out all processes are excluded."""
    limits = Limits(hosts=_filter("^web", "02$"))
    assert _split(limits, _NGINX) == ([1], [])
    assert _split(limits, _NGINX, host=Host("web02", "web")) == ([], [1])
    assert _split(limits, _NGINX, host=Host("db", "web01")) == ([], [1])


def test_groups() -> None:
    """A process has the name of the first group that matches; filters still see the kernel's name."""
    any_p = CommandGroup(re.compile("p"), "p")
    limits = Limits(
        groups=(_POSTGRES, any_p, CommandGroup(re.compile("^(?P<x>..)"), "{x}")), commands=_filter(None, "b$")
    )
    selected, excluded = Selection(WEB, limits).split((*_ALL, process(5, "cp")))
    assert [row.command for row in selected] == ["ng", "ss", "postgres", "p"]
    assert excluded == (_PG2,)
    assert selected[2] == _PG1._replace(command="postgres")


def test_a_row_keeps_its_identity() -> None:
    """An unchanged row comes out as the same object as last time, renamed or not; a changed one as a new one."""
    rules = Selection(WEB, Limits(groups=(_POSTGRES,)))
    first, _ = rules.split(_ALL)
    changed = _PG2._replace(rss_bytes=1)
    second, _ = rules.split((_NGINX, _PG1, changed))
    assert second[0] is first[0] is _NGINX
    assert second[1] is first[2]
    assert second[2] == changed._replace(command="postgres")


def test_a_group_of_the_same_name() -> None:
    """A process that is called as its group already is passed on as it is."""
    postgres = process(9, "postgres")
    selected, _ = Selection(WEB, Limits(groups=(_POSTGRES,))).split((postgres,))
    assert selected[0] is postgres


class _Counting:
    """A pattern that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def search(self, text: str) -> None:
        self.asked.append(text)


def test_a_command_is_matched_once() -> None:
    """Regular expressions may be slow: each distinct command of a host meets them once, each user too."""
    commands, users = _Counting(), _Counting()
    excludes = [Filter((), (cast("Pattern[str]", counting),)) for counting in (commands, users)]
    rules = Selection(WEB, Limits(commands=excludes[0], users=excludes[1]))
    for pid in range(10):
        rules.split((process(pid, "a"), process(pid + 100, "b")))
    assert (sorted(commands.asked), users.asked) == (["a", "b"], ["0"])


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with endless new names and users costs no more memory than so many."""
    monkeypatch.setattr(selection, "MAX_REMEMBERED", 10)
    rules = Selection(WEB, Limits(commands=_filter(None, "7$"), users=_filter(None, "^8"), groups=(_POSTGRES,)))
    for pid in range(100):
        rows = (process(pid, f"postgres{pid}")._replace(uid=pid),)
        _selected, excluded = rules.split(rows)
        assert bool(excluded) == (pid % 10 == 7 or str(pid)[0] == "8")
        assert len(rules._names) <= 10
        assert len(rules._users_kept) <= 10
        assert len(rules._renamed) <= 1
