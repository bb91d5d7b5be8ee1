"""Programs that print an inventory: a limit on time and on output, and none is left running."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

from fleetmem.errors import InventoryError, reason_of
from fleetmem.runtime import children
from fleetmem.safe_text import printable

MAX_OUTPUT_BYTES = 64 * 1024**2
"""100,000 hosts with their labels are a third of it."""

_STDERR_KEPT_BYTES = 4096
_STDERR_SHOWN = 300
_CHUNK_BYTES = 65_536
_KILLED_SECONDS = 2.0  # for a program to end that was killed


Reason = Callable[[list[str]], str]
"""From the lines that a program has said, one at least, to why it failed."""


def last_line(lines: list[str]) -> str:
    """Returns the last one: most programs end with the reason."""
    return lines[-1]


class NotRunError(InventoryError):
    """A program would have to be run, and none may be."""


class Programs:
    """Runs programs, and ends those that still run when the collector stops.

    Args:
        may_run: whether any may be run.
    """

    def __init__(self, *, may_run: bool = True) -> None:
        self._may_run = may_run
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    def run(
        self,
        arguments: Sequence[str],
        shown: str,
        timeout_seconds: float,
        environment: Mapping[str, str] | None = None,
        reason: Reason = last_line,
        good_statuses: Sequence[int] = (0,),
    ) -> bytes:
        """Returns what a program prints.

        Args:
            arguments: the program and its own; no shell reads them.
            shown: what the program is called in messages.
            timeout_seconds: after which it is killed, with all that it has started.
            environment: beside the one that there is, of which it has no setting of fleetmem: they may be secret.
            reason: finds why it failed in what it has said.
            good_statuses: exit statuses with which it has not failed.

        Raises:
            InventoryError: it cannot be started, fails, takes too long or prints too much.
        """
        process = self._start(arguments, shown, children.environment() | {**(environment or {})})
        try:
            output, errors = _read(process, shown, time.monotonic() + timeout_seconds, timeout_seconds)
        finally:
            self._end(process)
        if process.returncode not in good_statuses:
            lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
            said = f": {printable(reason(lines)[-_STDERR_SHOWN:])}" if lines else ""
            raise InventoryError(f"{shown}: exit status {process.returncode}{said}")
        return output

    def kill(self) -> None:
        """Ends what still runs, for good: nothing is started after it. Waits for nothing."""
        self._is_closed = True
        for process in list(self._running):
            _kill(process)

    def _start(self, arguments: Sequence[str], shown: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        if not self._may_run:
            raise NotRunError(f"not read: {shown} is a program")
        if self._is_closed:
            raise InventoryError(f"{shown}: not run, the collector stops")
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # a group of its own, which can be killed as one
                env=environment,
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL among the arguments
            raise InventoryError(f"{shown}: cannot be run: {reason_of(error)}") from error
        self._running.add(process)
        children.add(process.pid)
        if self._is_closed:  # meanwhile
            _kill(process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        _kill(process)
        with suppress(subprocess.TimeoutExpired):  # a disk that hangs may keep it for ever
            process.wait(_KILLED_SECONDS)
        self._running.discard(process)
        children.remove(process.pid)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a program that nobody has waited for yet, and what it has started; until then its number is its own."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _read(process: subprocess.Popen[bytes], shown: str, until: float, timeout_seconds: float) -> tuple[bytes, bytes]:
    """Returns what it printed, and the end of what it said on stderr, once both are closed and it has ended."""
    output, errors = bytearray(), bytearray()
    late = InventoryError(f"{shown}: not done after {timeout_seconds:g} s; inventory.timeout_seconds gives it longer")
    with selectors.DefaultSelector() as selector:
        for stream, kept in ((process.stdout, output), (process.stderr, errors)):
            if stream:
                selector.register(stream, selectors.EVENT_READ, kept)
        while selector.get_map():
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                raise late
            for key, _events in ready:
                _take(selector, key)
            if len(output) > MAX_OUTPUT_BYTES:
                raise InventoryError(f"{shown}: prints more than {MAX_OUTPUT_BYTES // 1024**2} MiB")
            del errors[:-_STDERR_KEPT_BYTES]
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise late from None
    return bytes(output), bytes(errors)


def _take(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
    data = os.read(stream.fileno(), _CHUNK_BYTES)
    if data:
        key.data.extend(data)
    else:
        selector.unregister(stream)
        stream.close()
