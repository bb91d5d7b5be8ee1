"""A terminal for the tests, with fleetmem on it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .servers import Cli, environment, find_tool, stop

CLEAR, CLEAR_BELOW = "\x1b[2J", "\x1b[J"


@dataclass
class Terminal:
    """A pseudo-terminal with fleetmem on it: stdin and stderr there, stdout too unless it goes to a file.

    Attributes:
        output: the file.
        screen: what it showed so far.
        status: the exit status, when it has ended.
    """

    process: "subprocess.Popen[bytes]"
    end: int
    output: Path
    screen: str = ""
    status: int | None = field(default=None)

    def expect(self, text: str, times: int = 1, seconds: float = 15) -> None:
        """Waits until it shows a text for the nth time."""
        deadline = time.monotonic() + seconds
        while self.screen.count(text) < times:
            assert self._read(deadline - time.monotonic()), f"no {text!r} on the terminal:\n{self.screen}"

    def resize(self, columns: int, rows: int) -> None:
        """Gives it another size, as a person does who drags the corner of its window."""
        _set_size(self.end, columns, rows)

    def type(self, line: str) -> None:
        """Types a line."""
        os.write(self.end, line.encode() + b"\n")

    def next_frame(self) -> str:
        """Waits until it is cleared and filled anew; returns what is drawn then."""
        before = self.screen.count(CLEAR)
        self.expect(CLEAR, before + 1, 60)
        start = self.screen.rindex(CLEAR) + len(CLEAR)
        deadline = time.monotonic() + 60
        while CLEAR_BELOW not in self.screen[start:]:
            assert self._read(deadline - time.monotonic()), f"no end of the page:\n{self.screen}"
        return self.screen[start:].partition(CLEAR_BELOW)[0].replace("\r", "")

    def finish(self, seconds: float = 15) -> None:
        """Waits until it ends."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            continue
        self.status = self.process.wait(5)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.end], [], [], max(0, seconds))
        if not ready:
            return False
        try:
            data = os.read(self.end, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)


@contextmanager
def on_terminal(
    cli: Cli, *arguments: object, has_stdout: bool = False, size: tuple[int, int] | None = None, **variables: str
) -> Iterator[Terminal]:
    """Runs fleetmem with a controlling terminal.

    Args:
        cli: whose home it has.
        arguments: of fleetmem.
        has_stdout: whether stdout is the terminal, too.
        size: columns and rows; None for any, and 200 columns.
        variables: of its environment.
    """
    ours, theirs = pty.openpty()
    settings = environment(cli.home)
    if size:
        _set_size(theirs, *size)
        for name in ("COLUMNS", "LINES"):  # which would win
            settings.pop(name, None)
    command = [find_tool("setsid"), "--ctty", "--wait", *cli.command(*arguments)]
    output = cli.home / "stdout"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, env=settings | variables, stdin=theirs, stdout=theirs if has_stdout else file, stderr=theirs
        )
    os.close(theirs)
    try:
        yield Terminal(process, ours, output)
    finally:
        stop(process)
        os.close(ours)


def _set_size(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
