"""The probe as text: as a remote command, and as a forced command in `authorized_keys`."""

from enum import StrEnum
from functools import cache
from importlib.resources import files

# csh replaces `!` even in single quotes and ends a quoted string at a newline; fish reads `\\` and `\'` inside one; a
# quote ends it everywhere. As `\0ddd` (three digits, as a digit may follow) and `\n` they reach `printf %b` whole
# through any login shell.
_ESCAPES = {"\\": "\\0134", "'": "\\0047", "!": "\\0041", "\n": "\\n"}


class ProbeKind(StrEnum):
    """How the probe reads the process table."""

    STATUS = "status"
    PS = "ps"


class Processes(StrEnum):
    """Which processes the probe reports: those that own memory, or kernel threads and zombies too."""

    USER = "user"
    ALL = "all"


class FactsKind(StrEnum):
    """What the probe tells beside samples, when asked."""

    HOST = "host"
    COST = "cost"


def source() -> str:
    """Returns `probe.sh` as it is in the package."""
    return files("fleetmem.probe").joinpath("probe.sh").read_text(encoding="utf-8")


def _compact(script: str) -> str:
    """Returns the script without indentation, blank lines and all comments but the first line, which names it."""
    title, *rest = (line.strip() for line in script.splitlines())
    return "\n".join([title, *(line for line in rest if line and not line.startswith("#"))])


@cache
def command() -> str:
    """Returns the command that runs the probe on a host, for any login shell (sh, bash, zsh, fish, csh).

    The script travels as an argument, so that standard input is free for requests from the first byte on, nothing is
    written on the host, and `ps` there shows the whole of what runs.
    """
    encoded = "".join(_ESCAPES.get(character, character) for character in _compact(source()))
    return f"""exec /bin/sh -c 'eval "$(printf %b "$0")"' '{encoded}'"""


def authorized_keys_line(public_key: str) -> str:
    """Returns an `authorized_keys` line that lets this key run the probe and nothing else.

    Args:
        public_key: one line as in a `.pub` file: type, base64, comment.

    Raises:
        ValueError: that is not a public key.
    """
    public_key = public_key.strip()
    if "\n" in public_key or not public_key.startswith(("ssh-", "ecdsa-", "sk-")) or len(public_key.split()) < 2:
        raise ValueError("not a public key: expected one line like 'ssh-ed25519 AAAA... name'")
    escaped = command().replace('"', '\\"')  # sshd(8): quotes inside an option value are escaped with a backslash
    return f'restrict,command="{escaped}" {public_key}'


def request(request_id: int, kind: ProbeKind, processes: Processes) -> bytes:
    """Returns the line that asks a running probe for one frame."""
    return f"sample {request_id} {kind} {processes}\n".encode()


def facts_request(request_id: int, kind: FactsKind) -> bytes:
    """Returns the line that asks a running probe for facts. One from before there were any calls it no request."""
    return f"facts {request_id} {kind}\n".encode()
