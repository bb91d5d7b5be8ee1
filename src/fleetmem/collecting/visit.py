"""One sample of one host while it is under way, and what it comes to where it fails."""

import time
from typing import NamedTuple

from fleetmem.errors import HostError
from fleetmem.model import Failure, Host


class Visit(NamedTuple):
    """A sample that is under way.

    Attributes:
        host: of whom.
        begun_seconds: since when, by the monotonic clock.
        begun_unix_seconds: since when, by the wall clock.
        slot_unix_seconds: the time of its slot; None for the moment of asking.
        is_last: whether there is no other cycle: then a failure speaks of no next attempt.
    """

    host: Host
    begun_seconds: float
    begun_unix_seconds: float
    slot_unix_seconds: float | None
    is_last: bool

    def failure(self, error: HostError) -> Failure:
        """Returns the outcome that an error is."""
        return Failure(
            self.host,
            self.begun_unix_seconds,
            time.monotonic() - self.begun_seconds,
            error.stage,
            error.kind,
            error.message if self.is_last else error.with_wait(),
            error.cause,
            slot_unix_seconds=self.slot_unix_seconds or self.begun_unix_seconds,
        )
