"""fleetmem's command line out of a process that has imported it already: a start is a fork, not a second of imports.

    test ──order──> this file as a program ──fork──> minder ──fork──> fleetmem.cli.main()
      ^                                                │                   │
      └──────────── pid, later exit status ────────────┘   stdout, stderr ─┘

What a command is given and what it leaves is as if it had been started; only `/proc/<pid>/cmdline` and `environ` are
those of the program. What the interpreter reads when it starts needs a start of its own (`needs_start`).
"""

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from pkgutil import walk_packages

_MOST_BYTES = 1_000_000  # of an order
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ")


def needs_start(variables: Iterable[str]) -> bool:
    """Whether one of these variables of the environment is read by the interpreter, or the loader, when it starts."""
    return any(name.startswith(_READ_AT_START) for name in variables)


class WarmProcess:
    """A command that was started, as `subprocess.Popen` would have it with pipes.

    Attributes:
        pid: its process id.
        stdout: what it prints.
        stderr: likewise.
        returncode: its exit status, or a signal below zero; None while it runs.
    """

    stdin = None

    def __init__(self, arguments: Sequence[str], report: BufferedReader, stdout: int, stderr: int) -> None:
        self.pid = int(report.readline())
        self.stdout, self.stderr = os.fdopen(stdout, "rb"), os.fdopen(stderr, "rb")
        self.returncode: int | None = None
        self._arguments = arguments
        self._report = report

    def poll(self) -> int | None:
        """Returns the exit status, None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits until it has ended; returns its exit status.

        Args:
            timeout: seconds.

        Raises:
            subprocess.TimeoutExpired: it still runs then.
        """
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self._arguments, timeout or 0)
            self.returncode = int(self._report.readline())
            self._report.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, where it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it."""
        self.send_signal(signal.SIGKILL)


class WarmStarter:
    """Starts commands; ended by `stop`."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            descriptor = theirs.fileno()
            # -P: the modules beside this file are not those that fleetmem imports.
            self._program = subprocess.Popen(
                [sys.executable, "-P", __file__, str(descriptor)],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def start(self, arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> WarmProcess:
        """Starts a command in a folder."""
        order = json.dumps({"arguments": arguments, "environment": dict(env), "folder": str(folder)})
        (stdout, their_stdout), (stderr, their_stderr), (report, their_report) = (os.pipe() for _ in range(3))
        theirs = [their_stdout, their_stderr, their_report]
        socket.send_fds(self._orders, [order.encode()], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        # Two lines come, far apart: a buffer would have read the second one while `select` waits for it.
        return WarmProcess(arguments, os.fdopen(report, "rb", 0), stdout, stderr)  # type: ignore[arg-type]

    def stop(self) -> None:
        """Ends the program."""
        self._orders.close()
        self._program.wait()


def _serve(descriptor: int) -> None:
    """Takes orders until there can be no more; returns in each command that was ordered, too."""
    _import_everything()
    with socket.socket(fileno=descriptor) as orders:
        while True:
            message, descriptors, _flags, _address = socket.recv_fds(orders, _MOST_BYTES, 3)
            if not message:
                os._exit(0)
            if os.fork() == 0:
                break
            for each in descriptors:
                os.close(each)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    continue
    _mind(json.loads(message), *descriptors)


def _import_everything() -> None:
    import fleetmem

    for module in walk_packages(fleetmem.__path__, "fleetmem."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


def _mind(order: dict[str, object], stdout: int, stderr: int, report: int) -> None:
    """Starts a command, which returns from here, and waits for it."""
    pid = os.fork()
    if pid == 0:
        os.close(report)
        _become(order, stdout, stderr)
        return
    os.close(stdout)
    os.close(stderr)
    os.write(report, b"%d\n" % pid)
    _pid, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        os.write(report, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(order: dict[str, object], stdout: int, stderr: int) -> None:
    """Makes this process what a start would have made it."""
    for descriptor, standard in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    before = sys.stdout  # it remembers that it could be told where it stands: a pipe cannot
    pipe = os.fdopen(1, "wb", closefd=False)
    sys.stdout = TextIOWrapper(pipe, before.encoding, before.errors, line_buffering=bool(before.line_buffering))
    os.chdir(str(order["folder"]))
    os.environ.clear()
    os.environ.update(order["environment"])  # type: ignore[call-overload]
    random.seed()
    time.tzset()
    main_module = sys.modules["__main__"]
    main_module.__package__ = "fleetmem"  # by which messages name the program
    sys.argv = ["__main__.py", *order["arguments"]]  # type: ignore[misc]


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
    from fleetmem.cli import main

    main()
