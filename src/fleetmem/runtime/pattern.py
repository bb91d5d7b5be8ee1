"""Regular expressions that people write, on texts that hosts choose: none of them holds fleetmem up.

pattern ──pattern_cost──> bounded ──> here, on texts of at most 255 characters
                        └> not    ──> in another process, with a limit of CPU for each text
"""

import json
import logging
import re
import select
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fleetmem.runtime import children, pattern_process
from fleetmem.runtime.pattern_cost import MAX_STEPS, TEXT_CHARACTERS, steps_of

log = logging.getLogger(__name__)

TEXT_LIMIT_SECONDS = 0.05
"""CPU for one text: an ordinary one takes a thousandth of it."""

_MAX_REMEMBERED = 10_000
_LIMIT_FACTOR = 2.0  # of the limits in CPU, on the clock
_GRACE_SECONDS = 5.0  # beyond the limits of all texts: for a process to start on a busy machine
_READ_BYTES = 64 * 1024


def compiled(text: str) -> re.Pattern[str]:
    """Returns a regular expression that people wrote, without Python's warnings of what it may mean one day.

    Raises:
        re.error, OverflowError, RecursionError: it is none.
    """
    with _unwarned():
        return re.compile(text)


@contextmanager
def _unwarned() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Groups(NamedTuple):
    """A match, of which only the named groups are known."""

    groups: Mapping[str, str]

    def groupdict(self, _default: str) -> Mapping[str, str]:
        return self.groups


class Pattern:
    """A regular expression whose time is limited, with the meaning that it has in Python.

    Where it takes longer than its limit on a text, it counts as not found there; the first time that is logged.

    Args:
        text: as it is written.

    Attributes:
        is_bounded: whether no text of 255 characters takes it long.

    Raises:
        re.error, OverflowError, RecursionError: it is none.
    """

    def __init__(self, text: str) -> None:
        self._re = compiled(text)
        with _unwarned():
            self.is_bounded = steps_of(self._re) <= MAX_STEPS
        self._found: dict[tuple[str, str], _Groups | None] = {}
        self._is_late_logged = False

    @property
    def pattern(self) -> str:
        """As it is written."""
        return self._re.pattern

    @property
    def groupindex(self) -> Mapping[str, int]:
        """Its named groups."""
        return self._re.groupindex

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self._re == other._re

    def __hash__(self) -> int:
        return hash(self._re)

    def __repr__(self) -> str:
        return f"Pattern({self.pattern!r})"

    def search(self, text: str, /) -> re.Match[str] | _Groups | None:
        """Returns the first match, wherever it is; may wait for the other process.

        Raises:
            OSError: that cannot be started.
        """
        return self._find("search", text)

    def match(self, text: str, /) -> re.Match[str] | _Groups | None:
        """Returns the match at the beginning; may wait for the other process.

        Raises:
            OSError: that cannot be started.
        """
        return self._find("match", text)

    def _find(self, method: str, text: str) -> re.Match[str] | _Groups | None:
        if self.is_bounded and len(text) <= TEXT_CHARACTERS:
            found: re.Match[str] | _Groups | None = getattr(self._re, method)(text)
            return found
        if (method, text) not in self._found:
            self._ask(method, [text])
        return self._found[method, text]

    def look_up(self, texts: Iterable[str]) -> float:
        """Searches in texts at once, so that `search` need not wait; returns the CPU seconds that it took.

        Raises:
            OSError: the other process cannot be started.
        """
        wanted = [text for text in texts if ("search", text) not in self._found]
        return 0.0 if self.is_bounded or not wanted else self._ask("search", wanted)

    def _ask(self, method: str, texts: Sequence[str]) -> float:
        found, seconds = _PROCESS.find(self.pattern, method, texts)
        if len(self._found) + len(texts) > _MAX_REMEMBERED:
            self._found.clear()
        for text, groups in zip(texts, found, strict=True):
            self._found[method, text] = _Groups(groups) if isinstance(groups, dict) else None
            if groups is True and not self._is_late_logged:
                self._is_late_logged = True
                message = "pattern %r takes more than %g s on a text of %d characters: it counts as not found there"
                log.warning(message, self.pattern, TEXT_LIMIT_SECONDS, len(text))
        return seconds


class PatternProcess:
    """The process that searches; started when it is needed, and again where it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def find(
        self, pattern: str, method: str, texts: Sequence[str]
    ) -> tuple[Sequence[dict[str, str] | bool | None], float]:
        """Returns for each text its named groups, None where nothing is found, True where it took too long.

        Raises:
            OSError: no process can be started.
        """
        question = json.dumps([pattern, method, texts, TEXT_LIMIT_SECONDS]).encode("ascii") + b"\n"
        limit_seconds = _GRACE_SECONDS + _LIMIT_FACTOR * TEXT_LIMIT_SECONDS * len(texts)
        with self._lock:
            process = self._process = self._started()
            try:
                found, seconds = json.loads(_ask(process, question, limit_seconds))
            except (OSError, ValueError):  # it has hung or died: what it was asked is not asked again
                self._end()
                return [True] * len(texts), limit_seconds
            return found, seconds

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process and self._process.poll() is None:
            return self._process
        self._end()
        program = [sys.executable, "-I", "-S", str(Path(pattern_process.__file__))]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            program, bufsize=0, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=children.environment()
        )

    def close(self) -> None:
        """Ends it; it is started again where it is needed."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()


def _ask(process: "subprocess.Popen[bytes]", question: bytes, limit_seconds: float) -> bytes:
    """Returns the line that answers a question.

    Raises:
        OSError: there is none within the limit.
    """
    if not process.stdin or not process.stdout:
        raise OSError("it has no pipes")
    until = time.monotonic() + limit_seconds
    waiting = memoryview(question)
    answer = bytearray()
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    poll.register(process.stdin, select.POLLOUT)
    while not answer.endswith(b"\n"):
        ready = dict(poll.poll(max(0.0, until - time.monotonic()) * 1000))
        if not ready:
            raise TimeoutError("no answer")
        if ready.get(process.stdin.fileno()):
            waiting = waiting[process.stdin.write(waiting[: select.PIPE_BUF]) :]
            if not waiting:
                poll.unregister(process.stdin)
        if ready.get(process.stdout.fileno()):
            data = process.stdout.read(_READ_BYTES)
            if not data:
                raise OSError("it has ended")
            answer += data
    return bytes(answer)


_PROCESS = PatternProcess()


def end_process() -> None:
    """Ends the process that searches, where there is one."""
    _PROCESS.close()
