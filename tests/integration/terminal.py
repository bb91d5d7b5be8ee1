"""A terminal for the tests, with fleetmem on it."""

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .servers import Cli, environment, find_tool, stop


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

    def expect(self, text: str, times: int = 1) -> None:
        """Waits until it shows a text for the nth time."""
        deadline = time.monotonic() + 15
        while self.screen.count(text) < times:
            assert self._read(deadline - time.monotonic()), f"no {text!r} on the terminal:\n{self.screen}"

    def type(self, line: str) -> None:
        """Types a line."""
        os.write(self.end, line.encode() + b"\n")

    def finish(self) -> None:
        """Waits until it ends."""
        deadline = time.monotonic() + 15
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
def on_terminal(cli: Cli, *arguments: object, has_stdout: bool = False) -> Iterator[Terminal]:
    """Runs fleetmem with a controlling terminal."""
    ours, theirs = pty.openpty()
    command = [find_tool("setsid"), "--ctty", "--wait", *cli.command(*arguments)]
    output = cli.home / "stdout"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, env=environment(cli.home), stdin=theirs, stdout=theirs if has_stdout else file, stderr=theirs
        )
    os.close(theirs)
    try:
        yield Terminal(process, ours, output)
    finally:
        stop(process)
        os.close(ours)
