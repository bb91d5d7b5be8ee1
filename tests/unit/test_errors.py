import re

import pytest

from fleetmem import errors
from fleetmem.cli.hints import HINTS
from fleetmem.errors import FleetmemError, HostError, Kind, Stage


def _tree_in_docstring() -> dict[str, str]:
    """Returns each class of the drawn tree with the one that it is drawn below."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+Error)", line)
        if not match:
            continue
        depth, name = len(match[1]), match[2]
        above = [(other_depth, other) for other_depth, other in above if other_depth < depth]
        parents[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    return parents


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The docstring draws every class of the module below its base, and no other."""
    classes = {
        name: thing.__bases__[0].__name__
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, Exception)
    }
    assert _tree_in_docstring() == classes
    assert {"FleetmemError", "HostError", "SinkError"} < set(classes)


@pytest.mark.parametrize("line", (errors.__doc__ or "").splitlines())
def test_builtins_in_the_docstring_are_bases(line: str) -> None:
    """A builtin in parentheses behind a class is one of its bases."""
    match = re.search(r"(\w+) \((\w+)\) ", line)
    if match:
        assert match[2] in {base.__name__ for base in getattr(errors, match[1]).__mro__}


def test_host_error_keeps_its_facts() -> None:
    """Stage, kind and message stay apart, and the message is the text."""
    error = HostError(Stage.LOGIN, Kind.AUTH_FAILED, "refused")
    assert (error.stage, error.kind, error.message, str(error)) == ("login", "auth_failed", "refused", "refused")
    assert isinstance(error, FleetmemError)


def test_kinds_are_the_contract() -> None:
    """The words that output, counters and logs promise; a new one needs a hint too."""
    assert {str(kind) for kind in Kind} == {
        "unresolvable",
        "unreachable",
        "connect_timeout",
        "host_key_unknown",
        "host_key_changed",
        "auth_failed",
        "agent_unavailable",
        "login_timeout",
        "command_timeout",
        "command_missing",
        "command_failed",
        "sudo_refused",
        "bad_frame",
        "disconnected",
        "internal",
    }
    assert set(HINTS) == set(Kind)
