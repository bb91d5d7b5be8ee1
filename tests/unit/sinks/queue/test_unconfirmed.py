import pytest

from fleetmem.sinks.queue import unconfirmed
from fleetmem.sinks.queue.unconfirmed import Unconfirmed


def _lost(kept: Unconfirmed, now_seconds: float) -> list[bytes]:
    found = []
    while (text := kept.first_lost()) is not None:
        found.append(text)
        kept.note_sent_again(now_seconds)
    return found


def test_what_a_broken_connection_took_goes_again() -> None:
    """In the order in which it was sent; nothing goes again while the connection holds."""
    kept = Unconfirmed()
    kept.add(0, b"a")
    kept.add(1, b"b")
    assert kept.first_lost() is None
    kept.lose()
    assert _lost(kept, 2) == [b"a", b"b"]


def test_it_may_be_lost_twice() -> None:
    """A connection that breaks while things go again: order stays."""
    kept = Unconfirmed()
    for text in (b"a", b"b", b"c"):
        kept.add(0, text)
    kept.lose()
    kept.note_sent_again(1)
    kept.note_sent_again(1)
    assert kept.texts() == [b"a", b"b", b"c"]
    kept.lose()
    assert kept.texts() == [b"a", b"b", b"c"]
    assert _lost(kept, 2) == [b"a", b"b", b"c"]


def test_a_living_connection_forgets() -> None:
    """What it took before a time; the time of what was sent again is that of sending it again."""
    kept = Unconfirmed()
    kept.add(0, b"a")
    kept.lose()
    kept.note_sent_again(5)
    kept.add(6, b"b")
    kept.forget(4)
    assert kept.texts() == [b"a", b"b"]
    kept.forget(5)
    assert kept.texts() == [b"b"]
    kept.forget_all()
    assert not kept


def test_what_was_lost_is_not_forgotten_for_age() -> None:
    """However long the backend is away."""
    kept = Unconfirmed()
    kept.add(0, b"a")
    kept.lose()
    kept.forget(1e9)
    assert kept.texts() == [b"a"]


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes; what went otherwise makes room."""
    monkeypatch.setattr(unconfirmed, "MAX_BYTES", 4)
    kept = Unconfirmed()
    for text in (b"aa", b"bb", b"cc"):
        kept.add(0, text)
    assert kept.texts() == [b"bb", b"cc"]
    kept.forget(0)
    kept.add(1, b"dddd")
    assert kept.texts() == [b"dddd"]
    kept.forget_all()
    kept.add(1, b"eeee")
    assert kept.texts() == [b"eeee"]
