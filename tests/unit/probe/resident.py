"""A probe that runs here, and what its tests need: shells, awks, processes with odd names, a /proc of their own."""

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from fleetmem.probe import script

SHELLS = ("dash", "bash", "busybox sh")


AWKS = ("mawk", "gawk", "busybox")


USUAL_PAIRS = {("dash", "mawk"), ("bash", "mawk"), ("bash", "gawk"), ("busybox sh", "busybox")}


EACH_PAIR = pytest.mark.parametrize(
    ("shell", "awk"),
    [
        pytest.param(shell, awk, id=f"{shell}-{awk}", marks=() if (shell, awk) in USUAL_PAIRS else pytest.mark.long)
        for shell in SHELLS
        for awk in AWKS
    ],
)
"""Each shell and each awk once; all of them together are for `make check-long`."""


SYSTEM_PATH = "PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin"


# Gives itself each name in turn, and holds the processes until standard input ends.
NAMES_SCRIPT = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
for name in map(bytes.fromhex, sys.argv[1:]):
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc.prctl(15, name, 0, 0, 0)
        os.write(write_end, b".")
        sys.stdin.buffer.read()
        os._exit(0)
    os.read(read_end, 1)
    print(pid, flush=True)
print(flush=True)
sys.stdin.buffer.read()
"""


NAMES = (
    b"a:b|c@d#e",
    "café".encode(),
    b"caf\xe9",
    b"two\nlines",
    b"",
    b"  lead",
    b"trail ",
    b"x" * 15,
    b"back\\slash",
    b"\\n",
    b"tab\tesc\x1b[0m",
    b"END 1 0 1",
    b"S 0",
    b"Name:\tx",
)


def find_program(name: str) -> str:
    """Returns where a program is; skips the test where it is not installed."""
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def shell_command(shell: str) -> list[str]:
    """Returns the words that start a shell."""
    name, *arguments = shell.split()
    return [find_program(name), *arguments]


def tools_folder(folder: Path, links: Mapping[str, str]) -> Path:
    """Returns a folder of programs for PATH: names, and what they are links to."""
    folder.mkdir()
    for name, target in links.items():
        (folder / name).symlink_to(find_program(target))
    return folder


def write_wrapper(path: Path, text: str) -> None:
    """Writes a script that stands for a program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def search_path(tools: Path | None) -> str:
    """Returns PATH with the tools first."""
    return f"{tools}:{os.environ['PATH']}" if tools else os.environ["PATH"]


class Probe:
    """A running probe, asked as fleetmem does: the next request when the answer is there."""

    def __init__(
        self,
        shell: str = "sh",
        tools: Path | None = None,
        source: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        # A source of its own comes with a PATH of nothing but the tools.
        path = str(tools) if tools and source and SYSTEM_PATH not in source else search_path(tools)
        self.process = subprocess.Popen(
            [*shell_command(shell), "-c", source or script.source()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": path, **(env or {})},
            bufsize=0,
        )

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_error: object) -> None:
        """It ends with its input, and nothing of it stays."""
        started = self.processes()
        self.send(b"", close=True)
        try:
            assert self.process.wait(10) == 0
            wait_for_end(started)
        finally:
            self.process.kill()
            assert self.process.stdout
            self.process.stdout.close()

    def send(self, text: bytes, *, close: bool = False) -> None:
        """Writes to its standard input."""
        assert self.process.stdin
        if text:
            self.process.stdin.write(text)
        if close:
            self.process.stdin.close()

    def ask(self, request: bytes) -> bytes:
        """Returns what is printed until an answer is complete, within 20 s."""
        self.send(request)
        return self.answer()

    def answer(self) -> bytes:
        """Returns what is printed until an answer is complete, within 20 s."""
        assert self.process.stdout
        output = b""
        deadline = time.monotonic() + 20
        while not re.search(rb"^(END|AGAIN) .*\n\Z", output, re.MULTILINE):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no answer: {output[-200:]!r}"
            data = self.process.stdout.read(65536)
            assert data, f"it ended: {output[-200:]!r}"
            output += data
        return output

    def processes(self) -> list[int]:
        """Returns the pids of all that runs for it, itself first."""
        found = [self.process.pid]
        for pid in found:
            try:
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                continue
        return found

    def awks(self) -> list[int]:
        """Returns the pids of its awk, under that name."""
        found = []
        for pid in self.processes():
            with suppress(OSError):  # it has just ended
                if Path(f"/proc/{pid}/comm").read_text().strip() == "awk":
                    found.append(pid)
        return found

    def work(self) -> list[list[str]]:
        """Returns the page faults and CPU ticks of all that runs for it, and of their children that have ended."""
        return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7:15] for pid in self.processes()]


def is_alive(pid: int) -> bool:
    """Whether it runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(what: str, happened: Callable[[], object]) -> None:
    """Waits 10 s for something to happen."""
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


def wait_for_end(pids: list[int]) -> None:
    """Waits until none of these runs."""
    wait_for("nothing of it is left", lambda: not any(map(is_alive, pids)))


def wait_for_processes(probe: Probe, pids: set[int]) -> None:
    """Waits until these are all that runs for it."""
    wait_for("the others are gone", lambda: pids == set(probe.processes()))


def assert_idle(probe: Probe) -> None:
    """Nothing runs but what waits."""
    time.sleep(0.2)
    before = probe.processes(), probe.work()
    time.sleep(0.5)
    assert (probe.processes(), probe.work()) == before


def busybox_takes_its_own_awk() -> bool:
    """Whether busybox sh prefers its own programs to those on PATH."""
    command = ["busybox", "sh", "-c", "command -v awk"]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).stdout.strip() == b"awk"


def fake_proc(folder: Path) -> Path:
    """Returns the folder as a /proc without processes."""
    folder.mkdir(exist_ok=True)
    (folder / "meminfo").write_text("MemTotal: 1000000 kB\nMemAvailable: 5000 kB\nSwapTotal: 7 kB\nSwapFree: 6 kB\n")
    (folder / "vmstat").write_text("nr_free_pages 1\noom_kill 3\n")
    return folder


def state_of(pid: int) -> str:
    """Returns the letter of what a process does."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
