"""How fast datagrams may leave. Pure: the clock is handed in.

A Linux socket with the default receive buffer (rmem_default 212992) holds 92 datagrams of 1432 bytes; what comes while
it is full is lost in silence. So no 200 ms hold more than 90: a receiver may stop reading for as long. That can be kept
up to 428 a second; 40 at once and then 250 a second hardly ever come near it.
"""

import math
from collections import deque

BURST_DATAGRAMS = 40
STEADY_DATAGRAMS_PER_SECOND = 250.0
CATCH_UP_SECONDS = 4.0
"""A backlog that steady pace would not clear in this time is cleared in it, at whatever pace that takes."""

LARGE_BACKLOG_DATAGRAMS = 4000
"""More than this is that of a fleet whose queue would be full in four seconds: the rest is cleared in one."""

_STALL_SECONDS = 0.21  # 200 ms, and a moment to wake up
_STALL_DATAGRAMS = 90  # of 92: our own timers are late, too
_STATS_DATAGRAMS = 5  # the own counters, which the main process of several senders adds once per interval
_SAFE_DATAGRAMS_PER_SECOND = _STALL_DATAGRAMS / _STALL_SECONDS
_LOAD_SECONDS = 10.0  # over which the usual load is averaged
_LOAD_HEADROOM = 1.25  # or a load above the steady pace would keep a backlog of CATCH_UP_SECONDS for ever
# At high rates that much may leave at once: sleeps are half as long, and a busy event loop may wake us as late as that.
_LATEST_WAKE_SECONDS = 0.05
_GROUP_SECONDS = 0.001  # at rates that no default buffer holds: that much may leave without asking for each datagram


class Pace:
    """A token bucket whose rate follows the load.

    Args:
        now_seconds: a monotonic clock.
        steady_rate: datagrams per second, when there is neither backlog nor a load above it.
        senders: processes that send to the same receiver: each has an equal part of everything.
    """

    def __init__(self, now_seconds: float, steady_rate: float = STEADY_DATAGRAMS_PER_SECOND, senders: int = 1) -> None:
        self._steady_rate = steady_rate / senders
        self._burst = BURST_DATAGRAMS / senders
        self._large_backlog = LARGE_BACKLOG_DATAGRAMS / senders
        self._safe_rate = _SAFE_DATAGRAMS_PER_SECOND / senders
        self._tokens = self._burst
        self._at = now_seconds
        self._rate = self._steady_rate
        self._sent = self._came = 0.0  # datagrams, each forgotten at the pace of _LOAD_SECONDS
        stall_datagrams = _STALL_DATAGRAMS if senders == 1 else max(1, (_STALL_DATAGRAMS - _STATS_DATAGRAMS) // senders)
        self._left = 0.0  # behind the last that were sent
        self._sent_at = deque([-math.inf] * stall_datagrams, maxlen=stall_datagrams)

    @property
    def at_once(self) -> int:
        """How many datagrams to ask for at a time: one, or more at thousands a second."""
        return max(1, int(self._rate * _GROUP_SECONDS)) if self._rate > self._safe_rate else 1

    def wait_seconds(self, now_seconds: float, backlog_datagrams: float, count: int = 1) -> float:
        """Returns how long to wait before the next datagrams, 0 for not at all; then they count as sent.

        Args:
            now_seconds: a monotonic clock.
            backlog_datagrams: about how many are waiting, these included.
            count: how many are asked for, `at_once` or less.
        """
        elapsed = now_seconds - self._at
        self._at = now_seconds
        kept = math.exp(-elapsed / _LOAD_SECONDS)
        self._sent = self._sent * kept + count
        self._came = self._came * kept + max(0.0, backlog_datagrams - self._left)
        self._left = max(0.0, backlog_datagrams - count)
        # A load that grows faster than its average must not wait until a backlog tells of it.
        load = max(self._sent, self._came) / _LOAD_SECONDS
        # A backlog that is being cleared counts as load: headroom alone must not take the pace over what is safe.
        most = self._safe_rate if load < self._safe_rate else math.inf
        catching_up = backlog_datagrams / (CATCH_UP_SECONDS - _LATEST_WAKE_SECONDS)
        catching_up = max(catching_up, backlog_datagrams - self._large_backlog)
        wanted = max(self._steady_rate, min(load * _LOAD_HEADROOM, most), catching_up)
        # A backlog is cleared at the rate it had at its highest; slowing down with it would never end.
        self._rate = rate = max(wanted, self._rate) if backlog_datagrams > self._burst else wanted
        burst = max(self._burst, rate * _LATEST_WAKE_SECONDS)
        self._tokens = min(burst, self._tokens + elapsed * rate) - count
        wait_seconds = 0.0 if self._tokens >= 0 else (burst / 2 - self._tokens) / rate
        if rate <= self._safe_rate:
            wait_seconds = max(wait_seconds, self._sent_at[0] + _STALL_SECONDS - now_seconds)
        self._sent_at.extend([now_seconds + wait_seconds] * count)
        return wait_seconds
