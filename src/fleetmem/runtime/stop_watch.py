"""The last resort after SIGTERM: the process ends in time, whatever hangs.

    SIGTERM ──> handler ──> event loop: an orderly stop       done in time: nothing else happens
                   └──────> alarm, and a thread that waits    too late: one line that names what hung, status 0

The handler needs no event loop. The alarm needs no thread. The thread needs no main thread that runs Python: it reads
the signals' numbers, which the interpreter writes as they come, and hands them on to the event loop.
"""

import asyncio
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import FrameType

from fleetmem.runtime import children
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.runtime.side_thread import start_thread
from fleetmem.runtime.stop_budget import LAST_LINE_SECONDS, LAST_RESORT_SECONDS, PROMISED_SECONDS

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # between two looks for a signal that waits for a main thread which the kernel does not let run
_SAME_SIGNAL_SECONDS = 0.1  # `timeout` signals its child and then its group: the child gets two
_FRAMES_SHOWN = 3
_TASKS_SHOWN = 5
_LINE_BYTES = 4096  # a pipe that can be written at all takes so many without a wait
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_READ_BYTES = 4096

_Handler = Callable[[int, FrameType | None], None]


class StopWatch:
    """Ends this process when it has not ended by itself within `LAST_RESORT_SECONDS` after it should."""

    def __init__(self) -> None:
        self._armed_seconds: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_installed = False
        self._thread: threading.Thread | None = None
        self._pipe: tuple[int, int] | None = None
        self._loop_descriptor = -1
        self._forwarding = threading.Lock()
        self._ending = threading.Lock()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Lets SIGTERM end the process in time also before and after the event loop, and ends the programs it started.

        For the main thread.
        """
        self._is_installed = True
        handlers = {signal.SIGTERM: self._end_start, signal.SIGALRM: lambda _number, _frame: self.end_in_time()}
        with _handled(handlers):
            self._watch()
            try:
                yield
            finally:
                self._is_installed = False
                self.disarm()
                children.kill_all()

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Lets SIGTERM and SIGINT call `stop` on the running event loop; a second one ends the process at once."""
        self._loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            self._handle(stop)

        handlers = dict.fromkeys(_STOP_SIGNALS, handle)
        with _handled({**handlers, signal.SIGALRM: lambda _number, _frame: self.end_in_time()}):
            self._watch()
            try:
                yield
            finally:
                self._give_back()
                if not self._is_installed:
                    self.disarm()

    def arm(self) -> None:
        """Lets the time run, from the first call on."""
        if self._armed_seconds is None:
            self._armed_seconds = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, LAST_RESORT_SECONDS, _LOOK_SECONDS)

    def disarm(self) -> None:
        """Ends nothing any more."""
        self._armed_seconds = None
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    def end_in_time(self) -> None:
        """Ends the process where its time is over."""
        armed_seconds = self._armed_seconds
        if armed_seconds is not None and time.monotonic() - armed_seconds >= LAST_RESORT_SECONDS - _SAME_SIGNAL_SECONDS:
            if self._ending.acquire(timeout=LAST_LINE_SECONDS):  # the alarm and the thread come at the same time
                children.kill_all()
                with suppress(Exception):  # whatever state the rest is in
                    _write_line(logging.ERROR, f"not stopped within {PROMISED_SECONDS:g} s, ended: {self._hung()}")
            os._exit(ExitStatus.OK)

    def _end_start(self, _number: int, _frame: FrameType | None) -> None:
        self.arm()
        children.kill_all()
        raise SystemExit(ExitStatus.OK)

    def _handle(self, stop: Callable[[], None]) -> None:
        armed_seconds = self._armed_seconds
        if armed_seconds is None or self._loop is None:
            self.arm()
        elif time.monotonic() - armed_seconds > _SAME_SIGNAL_SECONDS:
            children.kill_all()
            with suppress(Exception):
                _write_line(logging.WARNING, "stopped at once: data in the queues is lost")
            os._exit(ExitStatus.INTERRUPTED)
        if self._loop:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(stop)

    def _watch(self) -> None:
        """Starts the thread, where that is possible, and puts it between the interpreter's signals and the loop."""
        if self._thread is None:
            try:
                self._pipe = self._pipe or _open_pipe()
                self._thread = start_thread(self._run, "stop watch")
            except OSError as error:
                log.warning("no thread watches over the stop: %s", error)
                return
        if self._pipe:
            descriptor = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            self._loop_descriptor = descriptor if descriptor != self._pipe[1] else -1

    def _give_back(self) -> None:
        """Lets the loop have its signals from the interpreter again: it closes its descriptor soon."""
        with self._forwarding:
            descriptor, self._loop_descriptor = self._loop_descriptor, -1
        if descriptor != -1:
            signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self._look()
            self.end_in_time()

    def _look(self) -> None:
        """Waits for a signal, and arms with SIGTERM; the time that is left where it runs already."""
        descriptor = self._pipe[0] if self._pipe else -1
        left_seconds, armed_seconds = _LOOK_SECONDS, self._armed_seconds
        if armed_seconds is not None:
            left_seconds = armed_seconds + LAST_RESORT_SECONDS - time.monotonic()
        if select.select([descriptor], [], [], min(_LOOK_SECONDS, max(0.01, left_seconds)))[0]:
            numbers = os.read(descriptor, _READ_BYTES)
            if signal.SIGTERM in numbers:
                self.arm()
            with self._forwarding, suppress(OSError):
                if self._loop_descriptor != -1:
                    os.write(self._loop_descriptor, numbers)
        if signal.SIGTERM in signal.sigpending():
            self.arm()

    def _hung(self) -> str:
        """Returns where the main thread is, and what the loop still waits for."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        codes = ((each.f_code, line) for each, line in traceback.walk_stack(frame))  # innermost first; no file is read
        places = (
            f"{code.co_name} ({Path(code.co_filename).name}:{line})"
            for code, line in codes
            if code.co_filename != __file__
        )
        stood = f"the main thread was in {' < '.join(islice(places, _FRAMES_SHOWN))}"
        return f"{stood}; {waits}" if (waits := self._waits()) else stood

    def _waits(self) -> str:
        with suppress(Exception):  # tasks come and go meanwhile
            tasks = [task for task in asyncio.all_tasks(self._loop) if not task.done()] if self._loop else []
            names = (getattr(task.get_coro(), "__qualname__", task.get_name()) for task in tasks)
            return (
                f"{len(tasks)} tasks waited: {', '.join(islice(dict.fromkeys(names), _TASKS_SHOWN))}" if tasks else ""
            )
        return ""


@contextmanager
def _handled(handlers: Mapping[signal.Signals, _Handler]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    return reading, writing


def _write_line(level: int, message: str) -> None:
    """Logs without a lock, which a thread that hangs may have, and without a wait, which a full pipe would bring."""
    record = log.makeRecord(log.name, level, __file__, 0, message, (), None)
    handlers = logging.getLogger().handlers
    text = handlers[0].format(record) if handlers else message
    descriptor = 2
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if any(event & select.POLLOUT for _descriptor, event in poll.poll(0)):
        os.write(descriptor, text.encode("utf-8", "replace")[: _LINE_BYTES - 1] + b"\n")
