"""A clock that costs no time: an event loop whose sleeps are over at once, while `time` says that they took as long."""

import asyncio
import random
import selectors
import time
from collections.abc import Coroutine
from typing import Any

import pytest


class VirtualClock:
    """Both clocks of `time`, moved by hand.

    Args:
        unix_seconds: what the wall clock says in the beginning.
        drift: of the wall clock against the monotonic one, as a share.
    """

    def __init__(self, unix_seconds: float, drift: float) -> None:
        self._unix_seconds = unix_seconds
        self._rate = 1 + drift
        self._passed_seconds = 0.0

    def monotonic(self) -> float:
        """Returns monotonic seconds."""
        return self._passed_seconds

    def unix(self) -> float:
        """Returns the seconds of the wall clock."""
        return self._unix_seconds + self._passed_seconds * self._rate

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self._passed_seconds += seconds


class _Selector(selectors.SelectSelector):
    """Lets time pass instead of waiting, and a little more, as on a machine that has other things to do."""

    def __init__(self, clock: VirtualClock, dice: random.Random, late_seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._dice = dice
        self._late_seconds = late_seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Returns what is ready now."""
        if timeout:
            self._clock.advance(timeout + self._dice.random() * self._late_seconds)
        return super().select(0 if timeout is not None else None)


def run_in_virtual_time(
    main: Coroutine[Any, Any, None],
    clock: VirtualClock,
    patch: pytest.MonkeyPatch,
    dice: random.Random,
    late_seconds: float,
) -> None:
    """Runs a coroutine by a virtual clock.

    Args:
        main: what runs.
        clock: that it sees.
        patch: for `time`.
        dice: for delays.
        late_seconds: by which the loop may be late with what it has to do.
    """

    def new_loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(_Selector(clock, dice, late_seconds))

    with patch.context() as patched:
        patched.setattr(time, "time", clock.unix)
        patched.setattr(time, "monotonic", clock.monotonic)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main)
