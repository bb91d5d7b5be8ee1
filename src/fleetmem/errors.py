"""Every error that fleetmem raises on purpose.

    FleetmemError
    ├── UsageError (ValueError)        the user asked for something impossible        exit status 2
    │   ├── ConfigError                a configuration key, file or environment variable
    │   └── InventoryError             a host, range or hosts file
    ├── HostError                      one host, one sample; becomes a `Failure`      exit status 1 or 3
    ├── SinkError                      a backend cannot be reached or refuses         exit status 4
    │   └── GraphiteError              Graphite cannot be asked what it stores
    └── LabError                       the lab cannot be started, watched or stopped  exit status 1

Any other exception is a bug of ours: it becomes a `Failure` of kind `internal`   exit status 70

asyncssh's and the OS's errors are turned into `HostError` at one door, `connect.translate`.
"""

import os
from enum import StrEnum
from typing import Self

from fleetmem.safe_text import printable, redact

_MESSAGE_MAX_CHARACTERS = 1000  # of a host's failure: its words may be megabytes


class FleetmemError(Exception):
    """Root of the tree above. No message holds a secret, wherever it is shown."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class UsageError(FleetmemError, ValueError):
    """What was asked for cannot be done; the message says what to write instead."""


class ConfigError(UsageError):
    """A configuration value is wrong; the message names its key and where it came from."""


class InventoryError(UsageError):
    """The list of hosts cannot be read; the message names the part that is wrong."""


class Stage(StrEnum):
    """How far a sample got."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    LOGIN = "login"
    COMMAND = "command"
    PARSE = "parse"
    SHAPE = "shape"


class Kind(StrEnum):
    """Why a host has no snapshot in a cycle. The names are a contract (JSON output, counters, logs)."""

    UNRESOLVABLE = "unresolvable"
    UNREACHABLE = "unreachable"
    CONNECT_TIMEOUT = "connect_timeout"
    HOST_KEY_UNKNOWN = "host_key_unknown"
    HOST_KEY_CHANGED = "host_key_changed"
    AUTH_FAILED = "auth_failed"
    AGENT_UNAVAILABLE = "agent_unavailable"
    LOGIN_TIMEOUT = "login_timeout"
    COMMAND_TIMEOUT = "command_timeout"
    COMMAND_MISSING = "command_missing"
    COMMAND_FAILED = "command_failed"
    SUDO_REFUSED = "sudo_refused"
    BAD_FRAME = "bad_frame"
    DISCONNECTED = "disconnected"
    INTERNAL = "internal"
    """a bug of fleetmem itself; the log has its traceback"""


class HostError(FleetmemError):
    """One host could not be sampled.

    Attributes:
        stage: how far it got.
        kind: why, as one of the contract's words.
        message: what happened, for a person, without the host's name. On one line that steers no terminal: a host has
            its say in it.
    """

    def __init__(self, stage: Stage, kind: Kind, message: str) -> None:
        super().__init__(printable(message[:_MESSAGE_MAX_CHARACTERS]))
        self.stage = stage
        self.kind = kind
        self.message: str = self.args[0]

    def bare(self) -> Self:
        """Returns the same, to be kept: without the frames that it went through, and all that they hold."""
        return type(self)(self.stage, self.kind, self.message)


class SinkError(FleetmemError):
    """A backend cannot be reached or refuses; the message says which, why and what to try."""


class GraphiteError(SinkError):
    """Graphite's web API does not answer, or with an error."""


def reason_of(error: Exception) -> str:
    """Returns what an error of the OS says, without its number: `connection refused`."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error)


class LabError(FleetmemError):
    """The lab on this machine does not work; the message says which part, why and what to try."""
