"""Python's garbage collection, kept short where thousands of hosts are known.

A full collection looks at all there is: with 10,000 connections for a second, once a minute and twenty times while they
log in, and everything else waits. What has survived one is then looked at only once an hour. Nearly all of it is
freed without: when nothing refers to it any more (`gc.freeze` changes nothing there).
"""

import gc
import time

LOOK_AGAIN_SECONDS = 3600.0
"""What refers to itself and has died may stay for so long: a few KB of a login that failed in a new way."""


def keep_collections_short() -> None:
    """Takes what there is now, and what survives a full collection, out of those that follow."""
    if not any(isinstance(callback, _FreezeSurvivors) for callback in gc.callbacks):
        gc.callbacks.append(_FreezeSurvivors())
    gc.freeze()


class _FreezeSurvivors:
    """Is called by each collection, before and after (`gc.callbacks`)."""

    def __init__(self) -> None:
        self._look_again_at = time.monotonic() + LOOK_AGAIN_SECONDS

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase != "stop" or info["generation"] != 2:
            return
        if time.monotonic() < self._look_again_at:
            gc.freeze()
        else:
            gc.unfreeze()  # the next one looks at all of it
            self._look_again_at = time.monotonic() + LOOK_AGAIN_SECONDS
