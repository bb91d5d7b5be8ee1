"""What a host says while we log in: before its version, as a banner, as a farewell, and which ways in it lists.

sshd says there why it lets nobody in: maintenance, an expired account, too many connections. asyncssh drops it.
"""

import re
from collections.abc import Sequence

from fleetmem.errors import Cause, HostError, Kind

_KEPT_BYTES = 500
_SHOWN_CHARACTERS = 300
_SHOWN_ALGORITHMS = 8

_DIRECTIVES = {
    "key exchange": "KexAlgorithms",
    "host key": "HostKeyAlgorithms",
    "encryption": "Ciphers",
    "MAC": "MACs",
}
"""What ssh_config(5) calls the algorithms that asyncssh calls so."""

_PUBLIC_KEY = "publickey"

_STEERING = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*\x07?|.)", re.DOTALL)  # ECMA-48, and titles


class HostWords:
    """Collects what one host says during one login.

    Attributes:
        methods: ways to log in that the host lists, as of its last refusal; None where it listed none.
        accepted: names of the keys that it accepted without letting us in: it wants more.
        reason: of its SSH_MSG_DISCONNECT, empty where there was none.
    """

    def __init__(self) -> None:
        self.methods: tuple[str, ...] | None = None
        self.accepted: list[str] = []
        self.reason = ""
        self._greeting = b""
        self._banner = b""
        self._mismatch: tuple[str, tuple[str, ...], tuple[str, ...]] | None = None
        self._host_keys: tuple[str, tuple[str, ...], tuple[str, ...]] | None = None

    def add_greeting(self, line: bytes) -> None:
        """Takes a line that came before the version of the protocol (RFC 4253, 4.2)."""
        self._greeting = (self._greeting + line + b"\n")[:_KEPT_BYTES]

    def add_banner(self, text: bytes) -> None:
        """Takes a banner of the login (RFC 4252, 5.4)."""
        self._banner = (self._banner + text + b"\n")[-_KEPT_BYTES:]

    def note_mismatch(self, what: str, offered: Sequence[bytes], known: Sequence[bytes]) -> None:
        """Takes it that there is no algorithm that both sides offer.

        Args:
            what: they are for, in asyncssh's words.
            offered: by the host.
            known: to us, also those that we do not offer.
        """
        self._mismatch = what, _decoded(offered), _decoded(known)

    def note_host_keys(self, wanted: Sequence[bytes], offered: Sequence[bytes], known: Sequence[bytes]) -> None:
        """Takes the kinds of host keys: a host that has none of those that we want hangs up without a word."""
        if not set(wanted) & set(offered):
            self._host_keys = "host key", _decoded(offered), _decoded(known)

    def _said(self, error: HostError) -> str:
        """Returns all that the host said for people and an error does not say already, on one line."""
        reason = "" if error.kind is Kind.DISCONNECTED else self.reason[:_SHOWN_CHARACTERS]
        return "; ".join(part for part in (one_line(self._greeting), one_line(self._banner), reason) if part)

    def explain(self, error: HostError) -> HostError:
        """Returns why a login failed, with what the host had to say about it."""
        if error.kind is Kind.DISCONNECTED and (mismatch := self._mismatch or self._host_keys):
            return HostError(error.stage, error.kind, _mismatch_message(*mismatch), Cause.ALGORITHMS)
        said = self._said(error)
        if not said:
            return error
        return error.with_message(f"{error.message}; the host said: {said}", Cause.HOST_SAID)

    def refusal(self, user: str, names: Sequence[str]) -> tuple[str, Cause | None] | None:
        """Returns what the ways in that the host lists tell of a refusal; None where they tell nothing.

        Args:
            user: who was to log in.
            names: of the keys that were offered.
        """
        methods = [method for method in self.methods or () if method != "none"]
        wanted = " or ".join(methods)
        if self.accepted:
            more = "another key (publickey)" if wanted == _PUBLIC_KEY else wanted or "more"
            return f"{user}: key {', '.join(self.accepted)} accepted; the host also wants {more}", Cause.MORE_METHODS
        if names and methods and _PUBLIC_KEY not in methods:
            return f"{user}: the host takes no keys, only {wanted}", Cause.NO_KEYS_TAKEN
        return None


def _decoded(names: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(name.decode("ascii", "replace") for name in names)


def one_line(text: bytes) -> str:
    """Returns a host's words on one line, without what steers a terminal, and cut."""
    plain = _STEERING.sub(b" ", text).decode("utf-8", "replace")
    words = "".join(character if character.isprintable() else " " for character in plain).split()
    return " ".join(words)[:_SHOWN_CHARACTERS]


def _mismatch_message(what: str, offered: Sequence[str], known: Sequence[str]) -> str:
    """Returns what to say of a host that offers other algorithms: which, and the setting that allows them."""
    real = [name for name in offered if not name.startswith(("ext-info-", "kex-strict-"))]
    more = f" and {len(real) - _SHOWN_ALGORITHMS} more" if len(real) > _SHOWN_ALGORITHMS else ""
    listed = f"{', '.join(real[:_SHOWN_ALGORITHMS])}{more}" if real else "nothing"
    usable = [name for name in real if name in known]
    if what == "compression":
        return f"for compression the host offers only {listed}: set `Compression yes` in the ssh configuration"
    if not usable:
        return f"for {what} the host offers only {listed}, none of which fleetmem has"
    mend = f"{_DIRECTIVES.get(what, what)} +{','.join(usable[:_SHOWN_ALGORITHMS])}"
    return f"for {what} the host offers only {listed}: set `{mend}` in the ssh configuration"
