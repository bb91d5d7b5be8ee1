"""When to try a host again after a failure. Pure: the clock and the dice are handed in."""

from collections.abc import Callable
from dataclasses import dataclass

from fleetmem.errors import Cause, HostError, Kind, Stage


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits grow from first to longest by doubling; each is stretched by up to a quarter, so that hosts spread."""

    first_seconds: float
    longest_seconds: float

    def wait_seconds(self, failures: int, random: Callable[[], float]) -> float:
        """Returns the wait after this many failures in a row (1 or more); `random` gives 0 <= x < 1."""
        base = min(self.first_seconds * (1 << min(failures - 1, 30)), self.longest_seconds)
        return base * (1 + random() / 4)


_DROPPED = Backoff(first_seconds=1, longest_seconds=60)
_REFUSED = Backoff(first_seconds=15, longest_seconds=300)
# sshd 9.8 and later refuse a source address for a while after failed logins (sshd_config(5), PerSourcePenalties).
_DENIED = Backoff(first_seconds=60, longest_seconds=3600)

_AWAY = Backoff(first_seconds=2, longest_seconds=60)
# The host has done nothing. An agent or a key that works again is used within three cycles of 10 s. For sshd, a login
# that breaks off is one second of PerSourcePenalties: it never punishes a longer wait than that.
_OURS = Backoff(first_seconds=2, longest_seconds=10)
# The host has seen nothing, so that no host minds the next try: with the next slots.
_UNSENT = Backoff(first_seconds=1, longest_seconds=2)

MENDED_BY_HAND = frozenset(
    {
        Kind.AUTH_FAILED,
        Kind.HOST_KEY_CHANGED,
        Kind.HOST_KEY_UNKNOWN,
        Kind.SUDO_REFUSED,  # each try is in the host's log, and sudo may send a mail about it
    }
)
"""What will be so again until a person does something about it."""

_BY_KIND = {
    Kind.BAD_FRAME: _DENIED,  # a host that floods or speaks another protocol will do so again
    **dict.fromkeys(MENDED_BY_HAND, _DENIED),
}


class NotTriedError(HostError):
    """A host was not tried, for a reason that it shares with others. It may be, as soon as that is gone: no backoff."""


class OwnError(HostError):
    """A login failed for a reason on this machine, an agent or a key file. The host has refused nothing."""


class UnsentError(OwnError):
    """Nothing has left this machine for the host: no file may be opened, or no name server answers."""


def backoff_for(error: HostError) -> Backoff:
    """Returns the waits that fit a failure."""
    if isinstance(error, UnsentError):
        return _UNSENT
    if isinstance(error, OwnError):
        return _OURS
    # An established connection that drops comes back at once. One that is closed before the login is over is refused:
    # sshd is at its MaxStartups, or punishes our address for what came before (PerSourcePenalties).
    is_dropped = error.kind is Kind.DISCONNECTED and error.stage is Stage.COMMAND
    if is_dropped or error.cause is Cause.KILLED:
        return _DROPPED
    return _BY_KIND.get(error.kind, _REFUSED)


def backoff_for_jump(error: HostError) -> Backoff:
    """Returns the waits of a jump host. While nothing answers there, a knock each few seconds is all there is."""
    is_away = error.stage in (Stage.RESOLVE, Stage.CONNECT) and not isinstance(error, UnsentError)
    return _AWAY if is_away else backoff_for(error)
