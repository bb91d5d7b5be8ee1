"""What commands end with. A contract: a change is one for everybody's scripts."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """The status of a process."""

    OK = 0
    """every host answered; nothing is wrong; stopped by a signal, of `run`"""
    FAILED = 1
    """some host failed; the doctor warns; a check or a part of the lab failed"""
    USAGE = 2
    """what was asked for, or configured, cannot be done"""
    NONE_ANSWERED = 3
    """no host answered"""
    SINK = 4
    """a backend, or whoever reads the output, does not take what it should"""
    INTERNAL = 70
    """a bug in fleetmem: EX_SOFTWARE of sysexits(3)"""
    INTERRUPTED = 130
    """Ctrl-C, or the second signal of a stop"""
    TERMINATED = 143
    """SIGTERM ended what does not handle it"""
