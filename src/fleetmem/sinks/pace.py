"""How fast datagrams may leave. Pure: the clock is handed in.

A Linux socket with the default receive buffer (rmem_default 212992) holds 92 datagrams of 1432 bytes; what comes while
it is full is lost in silence. 40 at once and 250 a second fill it only when the receiver does not read for 200 ms.
"""

BURST_DATAGRAMS = 40
STEADY_DATAGRAMS_PER_SECOND = 250.0
CATCH_UP_SECONDS = 4.0
"""A backlog that steady pace would not clear in this time is cleared in it, at whatever pace that takes."""


class Pace:
    """A token bucket whose rate grows with the backlog."""

    def __init__(self, now_seconds: float) -> None:
        self._tokens = float(BURST_DATAGRAMS)
        self._at = now_seconds
        self._rate = STEADY_DATAGRAMS_PER_SECOND

    def wait_seconds(self, now_seconds: float, backlog_datagrams: float) -> float:
        """Returns how long to wait before the next datagram, 0 for not at all; then the datagram counts as sent.

        Args:
            now_seconds: a monotonic clock.
            backlog_datagrams: about how many are waiting.
        """
        wanted = max(STEADY_DATAGRAMS_PER_SECOND, backlog_datagrams / CATCH_UP_SECONDS)
        # A backlog is cleared at the rate it had at its highest; slowing down with it would never end.
        self._rate = rate = max(wanted, self._rate) if backlog_datagrams > BURST_DATAGRAMS else wanted
        self._tokens = min(BURST_DATAGRAMS, self._tokens + (now_seconds - self._at) * rate)
        self._at = now_seconds
        self._tokens -= 1
        if self._tokens >= 0:
            return 0.0
        # Wait for a quarter of a burst at once: fewer and longer sleeps.
        return (BURST_DATAGRAMS / 4 - self._tokens) / rate
