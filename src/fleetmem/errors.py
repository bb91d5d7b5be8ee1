"""Every error that fleetmem raises on purpose.

    FleetmemError
    ├── UsageError (ValueError)        the user asked for something impossible        exit status 2
    │   ├── ConfigError                a configuration key, file or environment variable
    │   └── InventoryError             a host, range or hosts file
    ├── HostError                      one host, one sample; becomes a `Failure`      exit status 1 or 3
    ├── SinkError                      a backend cannot be reached or refuses         exit status 4
    │   └── GraphiteError              Graphite cannot be asked what it stores
    └── LabError                       the lab cannot be started, watched or stopped  exit status 1

    PluginBugError                     a plug-in raised what it should not            exit status 70

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


class Cause(StrEnum):
    """What there is evidence for beyond the kind: advice goes by it."""

    NO_KEY = "no_key"
    """there is no key to offer"""
    MORE_METHODS = "more_methods"
    """the host accepts the key and wants more"""
    NO_KEYS_TAKEN = "no_keys_taken"
    """the host lists other ways to log in"""
    ALGORITHMS = "algorithms"
    """both sides have no algorithm in common"""
    HOST_SAID = "host_said"
    """the host said why, in its own words"""
    OTHER_OUTPUT = "other_output"
    """something that is not the probe answers"""
    TERMINAL = "terminal"
    """the probe answers through a terminal, which changes what it prints"""
    KILLED = "killed"
    """a signal ended the probe"""


class HostError(FleetmemError):
    """One host could not be sampled.

    Attributes:
        stage: how far it got.
        kind: why, as one of the contract's words.
        message: what happened, for a person, without the host's name. On one line that steers no terminal: a host has
            its say in it.
        cause: what there is evidence for beyond the kind, None for nothing.
        wait_seconds: until the next attempt, where this is what the last one came to; None where it was just tried.
    """

    def __init__(
        self,
        stage: Stage,
        kind: Kind,
        message: str,
        cause: Cause | None = None,
        *,
        wait_seconds: float | None = None,
    ) -> None:
        super().__init__(printable(message[:_MESSAGE_MAX_CHARACTERS]))
        self.stage = stage
        self.kind = kind
        self.cause = cause
        self.wait_seconds = wait_seconds
        self.message: str = self.args[0]

    def bare(self) -> Self:
        """Returns the same, to be kept: without the frames that it went through, and all that they hold."""
        return self.with_message(self.message)

    def with_message(self, message: str, cause: Cause | None = None) -> Self:
        """Returns the same in other words, with the cause where none was known."""
        return type(self)(self.stage, self.kind, message, self.cause or cause, wait_seconds=self.wait_seconds)

    def with_wait(self) -> str:
        """Returns the message with the wait until the next attempt, for those who will make one."""
        wait = "" if self.wait_seconds is None else f"; next attempt in {self.wait_seconds:.0f} s"
        return f"{self.message}{wait}"


class SinkError(FleetmemError):
    """A backend cannot be reached or refuses; the message says which, why and what to try."""


class GraphiteError(SinkError):
    """Graphite's web API does not answer, or with an error."""


def reason_of(error: Exception) -> str:
    """Returns what an error of the OS says, without its number: `connection refused`."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error)


class PluginBugError(Exception):
    """A plug-in raised what it should not: not our bug, but its own. Its cause says what and where."""


class LabError(FleetmemError):
    """The lab on this machine does not work; the message says which part, why and what to try."""
