"""What a process may be started without: open standard streams, a home, a user name. Each is made up for."""

import io
import os
import pwd
import sys
from contextlib import suppress
from typing import Any

_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
_STDIN, _STDOUT, _STDERR = range(3)


def complete() -> None:
    """Makes up for what is missing. Call it first: the next file that is opened would become the missing stream."""
    _open_streams()
    _let_stderr_fail()
    _name_home_and_user()


def _open_streams() -> None:
    """Opens closed standard streams, so that no socket takes their place and gets what is meant for people.

    What is written to a closed stdout is an error, as it is with other programs; stderr takes all in silence.
    """
    for descriptor, mode in ((_STDIN, os.O_RDONLY), (_STDOUT, os.O_RDONLY), (_STDERR, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest free number, which is this one
            os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = open(_STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def forget_stdout() -> None:
    """Drops what is left for a stdout that cannot be written, or it would fail once more at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


class _Unfailing(io.FileIO):
    """A file that loses what it cannot write: messages are no reason to end."""

    def write(self, data: Any) -> int:
        """Writes, or claims to have."""
        with suppress(OSError):
            if (written := super().write(data)) is not None:
                return written
        return len(memoryview(data).cast("B"))


def _let_stderr_fail() -> None:
    """Lets a full disk or a pipe that nobody reads change no exit status. Not where somebody has replaced stderr."""
    stream = sys.stderr
    if stream is not sys.__stderr__ or not isinstance(stream, io.TextIOWrapper):
        return
    raw = _Unfailing(_STDERR, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors="backslashreplace", line_buffering=True
    )


def _name_home_and_user() -> None:
    """Gives a user whom the system does not know, as in a container, a home and a name: `/` and the number."""
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)  # an empty one would be the working folder
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("HOME", "/")
        if not any(os.environ.get(name) for name in _NAMES):
            os.environ["LOGNAME"] = str(os.getuid())
