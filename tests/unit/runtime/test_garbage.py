import gc
import time
import weakref
from collections.abc import Iterator

import pytest

from fleetmem.runtime.garbage import LOOK_AGAIN_SECONDS, keep_collections_short


class _Node:
    """Refers to itself: freed by a collection alone."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    callbacks = list(gc.callbacks)
    gc.callbacks.clear()  # of commands that other tests ran in this process
    gc.disable()
    yield
    gc.callbacks[:] = callbacks
    gc.unfreeze()
    gc.enable()
    gc.collect()


def _is_looked_at(node: object) -> bool:
    return any(each is node for each in gc.get_objects())


@pytest.mark.slow
def test_a_collection_does_not_look_at_what_survived_the_one_before() -> None:
    """Neither at what was there when this began, nor at what has come since and stays."""
    before = _Node()
    assert _is_looked_at(before)
    keep_collections_short()
    after = _Node()
    assert (_is_looked_at(before), _is_looked_at(after)) == (False, True)
    gc.collect(1)
    assert _is_looked_at(after)
    gc.collect()
    assert not _is_looked_at(after)


@pytest.mark.slow
def test_what_refers_to_itself_goes_at_once_or_within_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Young garbage is found as ever; what had survived a collection when it died is found when all is looked at."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    keep_collections_short()
    young, old = _Node(), _Node()
    young_dead, old_dead = weakref.ref(young), weakref.ref(old)
    del young
    gc.collect()
    assert young_dead() is None
    del old
    gc.collect()
    assert old_dead() is not None
    now += LOOK_AGAIN_SECONDS
    gc.collect()
    gc.collect()
    assert old_dead() is None
    kept = _Node()
    gc.collect()
    assert not _is_looked_at(kept)


def test_asked_for_twice() -> None:
    """It is done once."""
    keep_collections_short()
    keep_collections_short()
    assert len(gc.callbacks) == 1
