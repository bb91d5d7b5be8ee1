"""What a host prints until the probe has answered for the first time: it shows whether the probe is there at all.

A start-up file with `exec fish`, a menu, a forced `script`, a restricted shell: each runs in place of the probe, or
around it. They repeat our request or complain of it, and the probe never does either.
"""

import re

from fleetmem.connect.host_words import one_line
from fleetmem.errors import Cause, HostError, Kind, Stage

_KEPT_BYTES = 2000
_SHOWN_CHARACTERS = 200
_LINE_BYTES = 200  # before our request, where a prompt may stand. The command, which has it, too, is longer.

_TERMINAL = re.compile(rb"BEGIN fleetmem/\d{1,3} \d{1,10}\r+\n")
_COMPLAINT = (
    rb"not found|no such|unknown|not recogni[sz]ed|not a|denied|restricted|not allowed|forbidden|invalid|illegal|error"
    rb"|introuvable|nicht gefunden|unbekannt|no encontrada"
)


class FirstOutput:
    """Collects the first output of one channel.

    Args:
        request: the first request, as it was sent.

    Attributes:
        stdout_bytes: what came where only the probe is to write, all of it.
    """

    def __init__(self, request: bytes) -> None:
        words = request.split() or [b"-"]
        verb = re.escape(words[0])
        self._echo = re.compile(rb"(?:^|[\r\n])[^\r\n]{0,%d}%s\r?\n" % (_LINE_BYTES, re.escape(b" ".join(words))))
        self._complaint = re.compile(
            rb"(?i)\b%s\b[^\r\n]{0,80}(?:%s)|(?:%s)[^\r\n]{0,80}\b%s\b" % (verb, _COMPLAINT, _COMPLAINT, verb)
        )
        self._stdout = b""
        self._stderr = b""
        self.stdout_bytes = 0

    def add(self, data: bytes, *, is_stderr: bool) -> bool:
        """Takes what the host printed; returns whether there is more to look at than before."""
        before = self._stdout, self._stderr
        if is_stderr:
            self._stderr = (self._stderr + data)[:_KEPT_BYTES]
        else:
            self.stdout_bytes += len(data)
            self._stdout = (self._stdout + data)[:_KEPT_BYTES]
        return before != (self._stdout, self._stderr)

    @property
    def has_stdout(self) -> bool:
        """Whether anything came where only the probe is to write."""
        return bool(self._stdout.strip())

    @property
    def is_terminal(self) -> bool:
        """Whether the probe answers through a terminal, which ends lines in a way of its own."""
        return bool(_TERMINAL.search(self._stdout))

    @property
    def is_other(self) -> bool:
        """Whether something repeats our request or complains of it."""
        texts = self._stdout, self._stderr
        return any(pattern.search(text) for pattern in (self._echo, self._complaint) for text in texts)

    def error(self, note: str = "") -> HostError:
        """Returns what to say of a host where something else answered.

        Args:
            note: how it ended, or how long it was waited for.
        """
        if self.is_terminal:
            message = "the probe answers through a terminal, which changes what it prints (script, a forced pty)"
            return HostError(Stage.COMMAND, Kind.COMMAND_FAILED, message, Cause.TERMINAL)
        both = [one_line(self._stdout), one_line(self._stderr)]
        words = "; ".join(text[:_SHOWN_CHARACTERS] for text in both if text) or "nothing"
        message = f"something other than the probe answered{note}: {words}"
        return HostError(Stage.COMMAND, Kind.COMMAND_FAILED, message, Cause.OTHER_OUTPUT)
