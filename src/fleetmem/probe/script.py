"""The probe as text: as a remote command, as a forced command in `authorized_keys`, and as what sudo may run.

As root it is not in the command, which sudo compares and logs, but is the first line on standard input. The command has
its digest: whoever may run that command as root may run this probe as root, and nothing else.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from importlib.resources import files

# csh replaces `!` even in single quotes and ends a quoted string at a newline; fish reads `\\` and `\'` inside one; a
# quote ends it everywhere. As `\0ddd` (three digits, as a digit may follow) and `\n` they reach `printf %b` whole
# through any login shell.
_ESCAPES = {"\\": "\\0134", "'": "\\0047", "!": "\\0041", "\n": "\\n"}


# What sudo allows must have no space in its one word. sudo compares the words of a command joined by spaces, so two
# words also pass as one. `eval "$(printf %b "$0")"` and a script would become a root shell that way.
# PATH is set, as sudo keeps the caller's where it has no secure_path.
_ROOT_WORD = (
    "PATH=/usr/bin:/bin:/usr/sbin:/sbin;export PATH;read -r script;"
    'set -- $(printf %s "$script"|sha256sum);'
    'test "$1" = DIGEST||echo sudoers-allows-another-version-of-the-probe>&2;'
    'test "$1" = DIGEST&&eval "$(printf %b "$script")"'
)
_SUDOERS_SPECIAL = re.compile(r"[,:=\\#]")  # sudoers(5): in arguments of a command


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


LATEST = 2

USUAL = 1
"""The protocol that a host is asked to speak where nothing else is said. The line for a key that is limited to the
probe of protocol 2 is longer than the 8192 bytes that old versions of OpenSSH read."""

_FILES = {1: "probe.sh", LATEST: "probe2.sh"}


def source(protocol: int = USUAL) -> str:
    """Returns the script of a protocol as it is in the package.

    That of protocol 1 does not change any more: keys and sudoers rules are limited to it by its digest.
    """
    return files("fleetmem.probe").joinpath(_FILES[protocol]).read_text(encoding="utf-8")


def _compact(script: str) -> str:
    """Returns the script without indentation, blank lines and all comments but the first line, which names it."""
    title, *rest = (line.strip() for line in script.splitlines())
    return "\n".join([title, *(line for line in rest if line and not line.startswith("#"))])


def _encoded(protocol: int) -> str:
    return "".join(_ESCAPES.get(character, character) for character in _compact(source(protocol)))


def digest(protocol: int = USUAL) -> str:
    """Returns the SHA-256 of the probe as it is sent, in hexadecimal: of the last word of `command`, without quotes."""
    return hashlib.sha256(_encoded(protocol).encode("ascii")).hexdigest()


@cache
def command(protocol: int = USUAL) -> str:
    """Returns the command that runs the probe on a host, for any login shell (sh, bash, zsh, fish, csh).

    The script travels as an argument. So standard input is free for requests from the first byte on, nothing is
    written on the host, and `ps` there shows all that runs. The words of a request may follow: it is answered
    before standard input is read, and once, should it come there again.
    """
    return f"""exec /bin/sh -c 'eval "$(printf %b "$0")"' '{_encoded(protocol)}'"""


@cache
def root_command(protocol: int = USUAL) -> str:
    """Returns the command that runs the probe as root, by `sudo -n`, when `root_input` is sent to it."""
    return f"exec env LC_ALL=C sudo -n /bin/sh -c '{_root_word(protocol)}'"


@cache
def root_input(protocol: int = USUAL) -> bytes:
    """Returns what `root_command` reads before the first request."""
    return f"{_encoded(protocol)}\n".encode("ascii")


def _root_word(protocol: int) -> str:
    return _ROOT_WORD.replace("DIGEST", digest(protocol)).replace(" ", "${IFS}")


def sudoers(user: str, protocol: int = USUAL) -> str:
    """Returns lines for /etc/sudoers.d that let a user run the probe as root, without a password, and nothing else.

    Raises:
        ValueError: that is not the name of a user.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", user) or user.isupper():  # ALL, or an alias
        raise ValueError(f"{user!r} is not the name of a user")
    word = _SUDOERS_SPECIAL.sub(r"\\\g<0>", _root_word(protocol))
    return (
        f"# fleetmem's probe, SHA-256 {digest(protocol)}\n"
        f"Defaults:{user} !requiretty\n"
        f"{user} ALL=(root) NOPASSWD: /bin/sh -c {word}\n"
    )


def authorized_keys_line(public_key: str, *, command: str, sources: Sequence[str] = ()) -> str:
    """Returns an `authorized_keys` line that lets a key run one command and nothing else.

    Args:
        public_key: one line as in a `.pub` file: type, base64, comment.
        command: of the probe.
        sources: addresses, networks or patterns that it may be used from, as sshd_config(5) has them in PATTERNS; all
            where there are none.

    Raises:
        ValueError: that is not a public key, or no such address.
    """
    escaped = command.replace('"', '\\"')  # sshd(8): quotes inside an option value are escaped with a backslash
    return f'restrict,{_from(sources)}command="{escaped}" {checked_key(public_key)}'


def bastion_line(public_key: str, *, targets: Sequence[str], sources: Sequence[str] = ()) -> str:
    """Returns an `authorized_keys` line for a jump host: the key may go on from there to targets, and do nothing else.

    Args:
        public_key: as for `authorized_keys_line`.
        targets: `host:port` as the jump host is asked for them; sshd compares letter by letter. Host and port may be
            `*` for any, IPv6 addresses are in brackets.
        sources: as for `authorized_keys_line`.

    Raises:
        ValueError: that is not a public key, no such address or target, or there are more targets than sshd reads.
    """
    if len(targets) > _TARGETS_MAX:
        raise ValueError(f"{len(targets)} targets, and sshd reads {_TARGETS_MAX} at most; any host is '*:22'")
    for target in targets:
        if not _TARGET.fullmatch(target) or target == "*:*":  # which would open Unix sockets there, too
            raise ValueError(f"{target!r} is not HOST:PORT; IPv6 is [ADDRESS]:PORT, and '*' any host or any port")
    opened = "".join(f'permitopen="{target}",' for target in targets)
    return (
        f"restrict,port-forwarding,{_NO_LISTENING},{opened}{_from(sources)}"
        f'command="/bin/false" {checked_key(public_key)}'
    )


_TARGETS_MAX = 4096  # SSH_AUTHOPT_PERMIT_MAX of OpenSSH's auth-options.c: with more sshd ignores the line
_TARGET = re.compile(r"(\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[\w.-]+|\*):([1-9]\d{0,4}|\*)", re.ASCII)
# `port-forwarding` allows both directions, and there is no word for one. Nobody but root may listen on port 1.
_NO_LISTENING = 'permitlisten="none:1"'


def checked_key(public_key: str) -> str:
    """Returns a public key without what surrounds its line.

    Raises:
        ValueError: that is not a public key.
    """
    public_key = public_key.strip()
    if "\n" in public_key or not public_key.startswith(("ssh-", "ecdsa-", "sk-")) or len(public_key.split()) < 2:
        raise ValueError("not a public key: expected one line like 'ssh-ed25519 AAAA... name'")
    return public_key


def _from(sources: Sequence[str]) -> str:
    for text in sources:
        if not re.fullmatch(r"!?[0-9A-Za-z.:*?/_%-]+", text):
            raise ValueError(f"{text!r} is not an address, a network or a pattern")
    return f'from="{",".join(sources)}",' if sources else ""


def request_maker(kind: ProbeKind, processes: Processes) -> Callable[[int], bytes]:
    """Returns what makes the line that asks a running probe for one frame, from a request id."""
    make: Callable[[int], bytes] = f"sample %d {kind} {processes}\n".encode().__mod__
    return make


def facts_request(request_id: int, kind: FactsKind) -> bytes:
    """Returns the line that asks a running probe for facts. One from before there were any calls it no request."""
    return f"facts {request_id} {kind}\n".encode()
