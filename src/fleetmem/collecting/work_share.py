"""What the outcomes of one host may cost in our time: parsing, shaping and writing are charged to it, as its bytes are.

    a sample's work ──charge──> the host's own allowance ──used up──> what all hosts share beyond their own ──used up──>
    the host fails until its allowance has grown again, and is not asked meanwhile

Ordinary work is charged to nobody, nor measured: thousands of hosts do nothing else, and it is too little to stand out
from noise. To ask what CPU it took would take a fifth as much.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from fleetmem.errors import HostError, Kind, Stage

FREE_SECONDS = 0.005
"""Of CPU, that a sample costs at most without being charged: ten times an ordinary one."""

OWN_SECONDS = 2.0
"""Of CPU, that a host's samples may cost at once: four whole frames of 65,536 processes that have all changed."""

OWN_SHARE = 0.02
"""Of a core, in the long run."""

COMMON_SECONDS = 4.0
"""The same for all hosts together, for what they cost beyond their own."""

COMMON_SHARE = 0.15

TURN_SECONDS = 0.01
"""Of CPU, after which others have their turn."""

FREE_FRAME_BYTES = 32 * 1024
"""Work on a frame that is no longer is not measured: 500 processes, which take no more than FREE_SECONDS if all of them
have changed. A thread's CPU clock takes 0.1 ms to read where a virtual machine has just been busy."""

LONG_FRAME_BYTES = 256 * 1024
"""A frame of 4,000 processes."""

LONGEST_WAIT_SECONDS = 5.0
"""For the turn of a long frame."""


class Allowance:
    """Seconds that may be spent: some at once, and a share of a core in the long run.

    Args:
        at_once_seconds: see above.
        share: see above.
    """

    def __init__(self, at_once_seconds: float, share: float) -> None:
        self._at_once_seconds = at_once_seconds
        self._share = share
        self._spent_seconds = 0.0
        self._spent_at = 0.0

    def spent_seconds(self, now: float) -> float:
        """Returns what is spent and has not grown again."""
        return max(0.0, self._spent_seconds - self._share * (now - self._spent_at))

    def wait_seconds(self, now: float) -> float:
        """Returns when there will be something to spend; 0 where there is."""
        return max(0.0, (self.spent_seconds(now) - self._at_once_seconds) / self._share)

    def spend(self, seconds: float, now: float) -> None:
        """Spends what it took, also where there is not as much."""
        self._spent_seconds, self._spent_at = self.spent_seconds(now) + seconds, now


class WorkShare:
    """Knows what hosts have cost.

    Args:
        now: returns monotonic seconds.

    Attributes:
        costly: hosts that cost more than ordinary ones, and what is left of that; no other needs a `check`.
        long_frames: is held by the one that is worked on.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._common = Allowance(COMMON_SECONDS, COMMON_SHARE)
        self.costly: dict[Hashable, Allowance] = {}
        self.long_frames = asyncio.Lock()

    def charge(self, host: Hashable, seconds: float) -> None:
        """Notes what a host has cost."""
        if seconds <= FREE_SECONDS:
            return
        now = self._now()
        own = self.costly.setdefault(host, Allowance(OWN_SECONDS, OWN_SHARE))
        if own.wait_seconds(now):
            self._common.spend(seconds, now)
        else:
            own.spend(seconds, now)

    def check(self, host: Hashable) -> None:
        """Lets a host have its sample, or the rest of it.

        Raises:
            HostError: (bad_frame) it has cost more than its share.
        """
        own = self.costly.get(host)
        if own is None:
            return
        now = self._now()
        if not own.spent_seconds(now):
            del self.costly[host]
        elif (wait_seconds := own.wait_seconds(now)) and self._common.wait_seconds(now):
            message = (
                f"took {own.spent_seconds(now):.1f} s of our CPU, more than its share: "
                f"too many processes or names change with each sample; next attempt in {wait_seconds:.0f} s at most"
            )
            raise HostError(Stage.PARSE, Kind.BAD_FRAME, message)

    def forget(self, host: Hashable) -> None:
        """Forgets a host."""
        self.costly.pop(host, None)


class Turn:
    """The work of one sample: measured, and put off now and then so that other hosts have theirs, until it is closed.

    Args:
        work: what is charged.
        host: whose it is.
    """

    __slots__ = ("_begun", "_has_lock", "_host", "_may_last", "_seconds", "_work")

    def __init__(self, work: WorkShare, host: Hashable) -> None:
        self._work = work
        self._host = host
        self._seconds = 0.0
        self._begun: float | None = None
        self._has_lock = False
        self._may_last = False

    def close(self) -> None:
        """Charges the host for what was measured."""
        if self._has_lock:
            self._work.long_frames.release()
        if self._begun is not None:
            self._stop()
            self._work.charge(self._host, self._seconds)

    async def begin(self, frame_bytes: int) -> None:
        """Begins to measure, where the frame is not an ordinary one. Of long frames one at a time is worked on.

        Raises:
            HostError: (bad_frame) so many wait that this one would be too late.
        """
        if frame_bytes > LONG_FRAME_BYTES:
            try:
                async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                    await self._work.long_frames.acquire()
            except TimeoutError as error:
                message = f"one of many frames with megabytes of changes: it waited {LONGEST_WAIT_SECONDS:g} s in vain"
                raise HostError(Stage.PARSE, Kind.BAD_FRAME, message) from error
            self._has_lock = self._may_last = True
        if frame_bytes > FREE_FRAME_BYTES:
            self._begun = time.thread_time()

    def measure(self) -> None:
        """Measures what follows whatever the frame, and lets it rest: it may last."""
        self._may_last = True
        if self._begun is None:
            self._begun = time.thread_time()

    async def rest(self) -> None:
        """Lets others have their turn where this one has lasted long.

        Raises:
            HostError: the host has cost more than its share.
        """
        if not self._may_last or self._begun is None or time.thread_time() - self._begun < TURN_SECONDS:
            return
        with self.paused():
            self._work.charge(self._host, self._seconds)
            self._seconds = 0.0
            self._work.check(self._host)
            await asyncio.sleep(0)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Does not measure what is done inside."""
        self._stop()
        try:
            yield
        finally:
            self._begun = time.thread_time()

    def charge(self, seconds: float) -> None:
        """Adds work that was done elsewhere, while this turn was paused."""
        self._seconds += seconds

    def _stop(self) -> None:
        if self._begun is not None:
            self._seconds += time.thread_time() - self._begun
            self._begun = None
