"""When to try a host again after a failure. Pure: the clock and the dice are handed in."""

from collections.abc import Callable
from dataclasses import dataclass

from fleetmem.errors import Kind


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

_BY_KIND = {
    Kind.DISCONNECTED: _DROPPED,
    Kind.BAD_FRAME: _DENIED,  # a host that floods or speaks another protocol will do so again
    Kind.AUTH_FAILED: _DENIED,
    Kind.SUDO_REFUSED: _DENIED,  # each try is in the host's log, and sudo may send a mail about it
    Kind.HOST_KEY_CHANGED: _DENIED,
    Kind.HOST_KEY_UNKNOWN: _DENIED,
}


def backoff_for(kind: Kind) -> Backoff:
    """Returns the waits that fit a failure."""
    return _BY_KIND.get(kind, _REFUSED)
