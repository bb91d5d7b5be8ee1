"""How fast, and how many at once."""

import asyncio
import time


class RateLimit:
    """Lets so many pass in a second, and so many at once after a pause.

    Args:
        per_second: 0 for no limit.
        at_once: how many may pass without waiting after a pause.
    """

    def __init__(self, per_second: float, at_once: int) -> None:
        self._gap_seconds = 1 / per_second if per_second else 0.0
        self._slack_seconds = self._gap_seconds * at_once
        self._next = 0.0

    async def wait(self) -> None:
        """Waits for its turn: first come, first served."""
        now = time.monotonic()
        self._next = max(self._next, now - self._slack_seconds) + self._gap_seconds
        if self._next > now:
            await asyncio.sleep(self._next - now)
