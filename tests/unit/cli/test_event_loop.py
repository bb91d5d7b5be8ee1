import asyncio
import resource
import sys

import pytest

from fleetmem.cli.event_loop import raise_file_limit, run_async
from fleetmem.errors import UsageError


async def _answer() -> tuple[int, str]:
    return 7, type(asyncio.get_running_loop()).__module__


def test_run_async() -> None:
    """A coroutine runs to its end, on uvloop where it is installed."""
    pytest.importorskip("uvloop")
    assert run_async(_answer()) == (7, "uvloop")


def test_run_async_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvloop the standard loop does."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    answer, module = run_async(_answer())
    assert answer == 7
    assert module.startswith("asyncio")


def test_an_error_in_a_group_is_told_as_itself() -> None:
    """What failed inside task groups decides message and exit status."""

    async def fail() -> None:
        raise UsageError("wrong")

    async def inner() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    async def nested() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(inner())

    with pytest.raises(UsageError, match="wrong"):
        run_async(nested())


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "new_soft", "fits"),
    [
        (1024, 4096, 10, None, 10),
        (1024, 4096, 2000, 2064, 2000),
        (1024, 4096, 10_000, 4096, 4032),
        (1024, resource.RLIM_INFINITY, 10_000, 10_064, 10_000),
        (10, 10, 5, 10, 1),
    ],
)
def test_raise_file_limit(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, new_soft: int | None, fits: int
) -> None:
    """The limit is raised as far as needed and allowed; one connection fits at least."""
    changes: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: changes.append(limits))
    assert raise_file_limit(wanted) == fits
    assert changes == ([] if new_soft is None else [(new_soft, hard)])
