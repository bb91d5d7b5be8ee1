"""Arguments of ssh, as inventories and ansible.cfg give them, to what they mean for a host. Pure."""

import re
import shlex
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from enum import StrEnum

from fleetmem.errors import InventoryError


class Fate(StrEnum):
    """What becomes of an option of ssh."""

    TAKEN = "taken over"
    SILENT = "makes no difference here"
    REPORTED = "reported as not taken over"
    LEAVES_OUT = "leaves the host out"


_VALUE_FLAGS = "BbcDEeFIiJLlmOopPQRSWw"  # ssh's flags that take a value
_FLAGS = {"J": "proxyjump", "i": "identityfile", "l": "user", "p": "port", "F": "-F"}

FATES = {
    **dict.fromkeys(("proxyjump", "proxycommand", "identityfile", "user", "port", "-F"), Fate.TAKEN),
    **dict.fromkeys(
        (
            *("controlmaster", "controlpath", "controlpersist", "-C", "compression", "-q", "-v", "loglevel"),
            *("-T", "-t", "requesttty", "-x", "-X", "-Y", "-a", "-A", "-k", "-n", "-N", "-E", "-y"),
            *("forwardagent", "forwardx11", "forwardx11trusted", "clearallforwardings", "exitonforwardfailure"),
            *("batchmode", "passwordauthentication", "kbdinteractiveauthentication", "challengeresponseauthentication"),
            *("numberofpasswordprompts", "visualhostkey", "sendenv", "setenv", "permitlocalcommand", "localcommand"),
            *("escapechar", "-e", "-S", "-O", "gssapidelegatecredentials", "ipqos", "streamlocalbindunlink"),
        ),
        Fate.SILENT,
    ),
    **dict.fromkeys(("hostname", "canonicalizehostname", "match", "host", "include"), Fate.LEAVES_OUT),
}
"""What becomes of each option; one that is not here is reported."""


def fate_of(option: str) -> Fate:
    """Returns what becomes of an option, which is in lower case or a flag."""
    return FATES.get(option, Fate.REPORTED)


@dataclass(slots=True)
class Arguments:
    """What arguments say.

    Attributes:
        user: login name, None where they say none.
        port: TCP port, None where they say none.
        keys: private keys, all of them.
        jump: jump hosts, None where they say nothing of them.
        jump_keys: private keys for the last jump host.
        config: another ssh configuration.
        not_taken: options that are not taken over.
        ignored: options that are passed over without a word: nobody is to look at what they say.
    """

    user: str | None = None
    port: str | None = None
    keys: list[str] = field(default_factory=list)
    jump: str | None = None
    jump_keys: list[str] = field(default_factory=list)
    config: str | None = None
    not_taken: dict[str, None] = field(default_factory=dict)
    ignored: Set[str] = frozenset()

    def read(self, text: str) -> None:
        """Reads arguments; as with ssh, what is said first counts.

        Raises:
            InventoryError: a quotation has no end, or an option cannot be done.
        """
        for option, value in parse_arguments(text):
            if option in self.ignored:
                continue
            if fate_of(option) is Fate.LEAVES_OUT:
                raise InventoryError(f"{option} among its arguments of ssh leads elsewhere; write it as ansible_host")
            if fate_of(option) is Fate.REPORTED:
                self.not_taken[option] = None
            elif fate_of(option) is Fate.TAKEN:
                self._take(option, value)

    def _take(self, option: str, value: str) -> None:
        if not value:
            raise InventoryError(f"arguments of ssh: nothing after {option}")
        match option:
            case "proxyjump":
                self.jump = self.jump or value
            case "proxycommand" if self.jump is None:
                self._take_proxy_command(value)
            case "identityfile":
                self.keys.append(value)
            case "user":
                self.user = self.user or value
            case "port":
                self.port = self.port or value
            case "-F":
                self.config = self.config or value

    def _take_proxy_command(self, command: str) -> None:
        if command.lower() == "none":
            self.jump = "none"
            return
        hop = jump_of(command)
        if hop is None:
            raise InventoryError("its ProxyCommand is no `ssh -W`")
        self.jump, self.jump_keys = hop.jump, hop.keys
        self.not_taken |= dict.fromkeys(f"{option} of its ProxyCommand" for option in hop.not_taken)


@dataclass(slots=True)
class Hop:
    """The jump host of a ProxyCommand.

    Attributes:
        jump: `[user@]host[:port]`, with those before it.
        keys: private keys for it.
        not_taken: options that are not taken over.
    """

    jump: str
    keys: list[str]
    not_taken: dict[str, None]


def jump_of(proxy_command: str) -> Hop | None:
    """Returns the jump host of a ProxyCommand such as `ssh -W %h:%p -p 2222 user@bastion`; None where it has none.

    Raises:
        InventoryError: an option of it cannot be done.
    """
    try:
        words = shlex.split(proxy_command)
    except ValueError:
        return None
    if words[:1] == ["exec"]:
        words = words[1:]
    if not words or words[0].rpartition("/")[2] != "ssh":
        return None
    options, rest = _split(words[1:])
    if not rest or len(rest) > 1 or not any(option == "-W" for option, _value in options):
        return None
    said = Arguments()
    for option, value in options:
        if option == "-W" or fate_of(option) is Fate.SILENT:
            continue
        if option in ("-F", "proxycommand") or fate_of(option) is Fate.LEAVES_OUT:
            raise InventoryError(f"its ProxyCommand has an option {option}, which is not taken over")
        if fate_of(option) is Fate.REPORTED:
            said.not_taken[option] = None
        else:
            said._take(option, value)
    user, at, host = rest[0].rpartition("@")
    user = said.user or user if not at else user
    hop = f"{user}@{host}" if user else host
    hop += f":{said.port}" if said.port else ""
    return Hop(f"{said.jump},{hop}" if said.jump else hop, said.keys, said.not_taken)


def parse_arguments(text: str) -> Iterator[tuple[str, str]]:
    """Yields the options in arguments of ssh, in lower case, with their values: `-J`, `-i` and `-o` alike.

    Raises:
        InventoryError: a quotation has no end, or there are words that are no options.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InventoryError(f"arguments of ssh: {error}") from error
    options, rest = _split(words)
    if rest:
        raise InventoryError(f"arguments of ssh: {rest[0]!r} is not an option")
    yield from options


def _split(words: Iterable[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Returns options with their values, and words that are none."""
    options: list[tuple[str, str]] = []
    rest: list[str] = []
    words = iter(words)
    for word in words:
        if not word.startswith("-") or word == "-":
            rest.append(word)
            continue
        flags = word[1:]
        while flags:  # -qW %h:%p
            flag, flags = flags[0], flags[1:]
            if flag in _VALUE_FLAGS:
                options.append(_option(flag, flags or next(words, "")))
                break
            options.append((f"-{flag}", ""))
    return options, rest


def _option(flag: str, value: str) -> tuple[str, str]:
    if flag == "o":
        match = re.fullmatch(r"\s*(\w+)\s*(?:=|\s)\s*(.*?)\s*", value, re.DOTALL)
        return (match[1].lower(), match[2].strip('"')) if match else (value.strip().lower(), "")
    return _FLAGS.get(flag, f"-{flag}"), value
