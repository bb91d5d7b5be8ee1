import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.connect.backoff import Backoff, OwnError, UnsentError, backoff_for
from fleetmem.errors import HostError, Kind, Stage


def _lowest() -> float:
    return 0.0


def _backoff(kind: Kind, stage: Stage = Stage.LOGIN) -> Backoff:
    return backoff_for(HostError(stage, kind, "it happens"))


@pytest.mark.parametrize(
    ("kind", "first_seconds", "longest_seconds"),
    [
        (Kind.DISCONNECTED, 15, 300),
        (Kind.COMMAND_TIMEOUT, 15, 300),
        (Kind.UNREACHABLE, 15, 300),
        (Kind.CONNECT_TIMEOUT, 15, 300),
        (Kind.UNRESOLVABLE, 15, 300),
        (Kind.LOGIN_TIMEOUT, 15, 300),
        (Kind.COMMAND_MISSING, 15, 300),
        (Kind.AUTH_FAILED, 60, 3600),
        (Kind.HOST_KEY_CHANGED, 60, 3600),
        (Kind.HOST_KEY_UNKNOWN, 60, 3600),
        (Kind.BAD_FRAME, 60, 3600),
    ],
)
def test_waits_by_kind(kind: Kind, first_seconds: float, longest_seconds: float) -> None:
    """A refused connection is tried again after 15 s, which is the least that sshd punishes for, a login after 60 s."""
    assert _backoff(kind).wait_seconds(1, _lowest) == first_seconds
    assert _backoff(kind).wait_seconds(50, _lowest) == longest_seconds


def test_what_fails_on_this_machine_is_tried_again_soon() -> None:
    """The host has refused nothing: an agent that is well again is of use after 2 s, and after 10 s at most."""
    for kind in (Kind.AGENT_UNAVAILABLE, Kind.AUTH_FAILED):
        backoff = backoff_for(OwnError(Stage.LOGIN, kind, "no agent"))
        assert backoff.wait_seconds(1, _lowest) == 2
        assert backoff.wait_seconds(50, _lowest) == 10


def test_what_has_not_left_this_machine_is_tried_again_at_once() -> None:
    """No host has seen anything: however long it lasts, three seconds after the end of it all are tried."""
    for kind in (Kind.UNRESOLVABLE, Kind.UNREACHABLE):
        backoff = backoff_for(UnsentError(Stage.RESOLVE, kind, "no name server"))
        assert backoff.wait_seconds(1, _lowest) == 1
        assert backoff.wait_seconds(50, lambda: 0.999) < 3


def test_a_dropped_connection_comes_back_soon() -> None:
    """One that was established is tried again after 1 s; one that was closed during the login was refused."""
    assert _backoff(Kind.DISCONNECTED, Stage.COMMAND).wait_seconds(1, _lowest) == 1
    assert _backoff(Kind.DISCONNECTED, Stage.COMMAND).wait_seconds(50, _lowest) == 60


def test_waits_double() -> None:
    """Each failure in a row doubles the wait up to the longest."""
    backoff = Backoff(first_seconds=1, longest_seconds=10)
    assert [backoff.wait_seconds(failures, _lowest) for failures in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@given(st.sampled_from(Kind), st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_stay_in_bounds(kind: Kind, failures: int, dice: float) -> None:
    """Jitter stretches by less than a quarter and never shortens, whatever the number of failures."""
    backoff = _backoff(kind)
    base = backoff.wait_seconds(failures, _lowest)
    wait_seconds = backoff.wait_seconds(failures, lambda: dice)
    assert backoff.first_seconds <= base <= backoff.longest_seconds
    assert base <= wait_seconds <= base * 1.25
    assert base <= backoff.wait_seconds(failures + 1, _lowest)


def test_jitter_spreads() -> None:
    """Hosts that failed together come back apart."""
    backoff = _backoff(Kind.UNREACHABLE)
    assert (backoff.wait_seconds(1, lambda: 0.0), backoff.wait_seconds(1, lambda: 0.5)) == (15, 16.875)
