"""Runs a program in place of itself that ends by itself: `python -m fleetmem.lab.limited SECONDS PARENT PROGRAM...`.

After SECONDS the kernel ends it: a pending alarm outlives exec (execve(2)). With a PARENT other than 0 it also ends,
on Linux, when that process does, however that ends.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tie_to(parent: int) -> None:
    """Has the kernel kill this process as soon as its parent is gone.

    Raises:
        SystemExit: it is gone already.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(f"process {parent}, which this was started for, is gone")


def main(seconds: str, parent: str, *program: str) -> None:
    """Becomes the program."""
    signal.alarm(int(seconds))
    if int(parent):
        tie_to(int(parent))
    try:
        os.execvp(program[0], program)  # noqa: S606 - an argument list from our own code, no shell
    except OSError as error:
        raise SystemExit(f"{program[0]}: {error.strerror}") from error


if __name__ == "__main__":
    main(*sys.argv[1:])
