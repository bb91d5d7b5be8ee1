"""What the values of ssh_config(5) mean: numbers, times, files, algorithms, the agent."""

import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from fleetmem.connect.openssh import algorithms
from fleetmem.connect.openssh.algorithms import Algorithms
from fleetmem.connect.openssh.config_file import HostDirectives, Setting, expand
from fleetmem.connect.ssh_settings import SSH_PORT, HostKeyPolicy, JumpSpec, parse_jumps
from fleetmem.errors import ConfigError, UsageError

_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_UNIT_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_BOOLEANS = {"yes": True, "true": True, "no": False, "false": False}
_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
_POLICIES = {
    "yes": HostKeyPolicy.STRICT,
    "accept-new": HostKeyPolicy.ACCEPT_NEW,
    "ask": HostKeyPolicy.ACCEPT_NEW,  # there is nobody to ask: as if it was not set
    "no": HostKeyPolicy.ACCEPT_NEW,
    "off": HostKeyPolicy.ACCEPT_NEW,
}
_HIGHEST_PORT = 65535

_T = TypeVar("_T")


class Values:
    """The settings that hold for a host, by keyword in lower case; None where there is none of it.

    All methods raise ConfigError where a value has no meaning; the message says where it stands.
    """

    def __init__(self, answer: HostDirectives) -> None:
        self._answer = answer

    def has(self, keyword: str) -> bool:
        """Whether there is anything of a keyword."""
        return self._answer.get(keyword) is not None

    def text(self, keyword: str) -> str | None:
        """Returns a text as it is; None also where it says `none`."""
        text = self._read(keyword, str)
        return None if text is None or text.lower() == "none" else text

    def command(self, keyword: str) -> str | None:
        """Returns a text with its tokens replaced; None also where it says `none`."""
        setting, text = self._answer.get(keyword), self.text(keyword)
        return expand(setting, text, self._answer) if setting and text else None

    def boolean(self, keyword: str) -> bool | None:
        """Returns whether it says `yes`."""
        return self._read(keyword, lambda text: _BOOLEANS[text.lower()])

    def number(self, keyword: str) -> int | None:
        """Returns a whole number."""
        return self._read(keyword, int)

    def seconds(self, keyword: str) -> float | None:
        """Returns a time; none of `none`."""
        return self._read(keyword, lambda text: None if text.lower() == "none" else _seconds(text))

    def family(self) -> int:
        """Returns the addresses to connect to (socket.AF_*)."""
        return self._read("addressfamily", lambda text: _FAMILIES[text.lower()]) or socket.AF_UNSPEC

    def policy(self) -> HostKeyPolicy | None:
        """Returns what to do with host keys."""
        return self._read("stricthostkeychecking", lambda text: _POLICIES[text.lower()])

    def port(self) -> int:
        """Returns the TCP port: that which was asked for, that which is set, or 22."""
        return self._answer.port or self._read("port", _port) or SSH_PORT

    def jumps(self) -> tuple[JumpSpec, ...]:
        """Returns the jump hosts on the way."""
        setting = self._answer.get("proxyjump")
        if not setting:
            return ()
        return _meaning(setting, parse_jumps, expand(setting, setting.arguments[0], self._answer))

    def rekey_limit(self) -> tuple[int | None, float | None]:
        """Returns bytes and seconds after which there are new session keys."""
        setting = self._answer.get("rekeylimit")
        if not setting:
            return None, None
        size, time = (*setting.arguments, "none")[:2]
        seconds = None if time.lower() == "none" else _meaning(setting, _seconds, time)
        return None if size.lower() == "default" else _meaning(setting, _bytes, size), seconds

    def paths(self, keyword: str, default: Sequence[Path]) -> tuple[Path, ...]:
        """Returns the files of a setting, or of all of its kind where they add up; none of them for `none`."""
        settings = self._answer.all(keyword)
        if not settings:
            return tuple(path.expanduser() for path in default)
        words = [(setting, word) for setting in settings for word in setting.arguments if word.lower() != "none"]
        return tuple(self._path(setting, word) for setting, word in words)

    def agent_path(self) -> str | None:
        """Returns the socket of the agent (ssh_config(5), IdentityAgent)."""
        setting = self._answer.get("identityagent")
        text = setting.arguments[0] if setting else "SSH_AUTH_SOCK"
        if not setting or text == "SSH_AUTH_SOCK":
            return os.environ.get("SSH_AUTH_SOCK") or None
        if text.lower() == "none":
            return None
        if match := re.fullmatch(r"\$(\w+)", text):
            return os.environ.get(match[1]) or None
        return str(self._path(setting, text))

    def algorithms(self) -> Algorithms:
        """Returns what to offer to the host. Only lists that the ssh configuration has are looked at."""

        def listed(keyword: str, choose: Callable[[str], tuple[str, ...]]) -> str | None:
            return self._read(keyword, lambda text: text if choose(text) else None)

        return Algorithms(
            cipher_list=listed("ciphers", algorithms.ciphers) or "",
            mac_list=listed("macs", algorithms.macs) or "",
            key_exchange_list=listed("kexalgorithms", algorithms.key_exchanges) or "",
            host_key_list=listed("hostkeyalgorithms", algorithms.host_keys) or "",
            signature_list=listed("pubkeyacceptedalgorithms", algorithms.signatures) or "",
            ca_signature_list=listed("casignaturealgorithms", algorithms.signatures),
            rsa_bits=self._read("requiredrsasize", _bits) or 0,
        )

    def _read(self, keyword: str, read: Callable[[str], _T]) -> _T | None:
        setting = self._answer.get(keyword)
        return _meaning(setting, read, setting.arguments[0]) if setting else None

    def _path(self, setting: Setting, text: str) -> Path:
        return _meaning(setting, lambda written: Path(written).expanduser(), expand(setting, text, self._answer))


def _meaning(setting: Setting, read: Callable[[str], _T], text: str) -> _T:
    try:
        return read(text)
    except (ValueError, KeyError, RuntimeError) as error:  # RuntimeError: ~somebody without a home
        reason = f": {error}" if isinstance(error, UsageError) else ""
        raise ConfigError(f"ssh configuration {setting.place}: {setting.name} cannot be {text!r}{reason}") from error


def _bits(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _HIGHEST_PORT:
        raise ValueError(text)
    return int(text)


def _seconds(text: str) -> float:
    """Returns seconds of `90`, `1m30s` and so on (sshd_config(5), TIME FORMATS)."""
    if not re.fullmatch(r"(?:[0-9]+[smhdw]?)+", text.lower()):
        raise ValueError(text)
    parts = re.findall(r"([0-9]+)([smhdw]?)", text.lower())
    return float(sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts))


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([kmg]?)", text.lower())
    if not match or not int(match[1]):
        raise ValueError(text)
    return int(match[1]) * _UNIT_BYTES[match[2]]
