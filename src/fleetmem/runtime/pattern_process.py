"""Regular expressions that may take for ever, in a process of their own: run as a program by `pattern.PatternProcess`.

One line of JSON in: `[pattern, method, texts, limit_seconds]`. One line out: the result of each text, and the
CPU seconds of all. A result is the match's named groups, null without a match, or true where the limit was over first.

The engine holds the interpreter, so it cannot be left alone in a thread. It looks for signals every few thousand steps:
a timer that counts CPU ends it.
"""

import json
import re
import signal
import sys
import time
import warnings
from functools import lru_cache
from types import FrameType


class _LimitError(Exception):
    """The time for a text is over."""


def _end_search(_number: int, _frame: FrameType | None) -> None:
    raise _LimitError


def _find(pattern: re.Pattern[str], method: str, text: str, limit_seconds: float) -> dict[str, str] | bool | None:
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, limit_seconds)
        match = getattr(pattern, method)(text)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _LimitError:
        return True
    return match.groupdict("") if match else None


def main() -> None:
    """Answers until its input ends."""
    warnings.simplefilter("ignore")  # of what a pattern may mean one day
    signal.signal(signal.SIGVTALRM, _end_search)
    for number in (signal.SIGINT, signal.SIGHUP):  # they are for the process that asks
        signal.signal(number, signal.SIG_IGN)
    compiled = lru_cache(100)(re.compile)
    for line in sys.stdin.buffer:
        pattern, method, texts, limit_seconds = json.loads(line)
        begun = time.process_time()
        found = [_find(compiled(pattern), method, text, limit_seconds) for text in texts]
        sys.stdout.write(json.dumps([found, time.process_time() - begun]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
