"""The ssh client configuration: read once, then asked for each host, by the rules of ssh_config(5).

asyncssh reads the files again for each connection, stops at a comment behind a value, and passes over what it does not
know without a word. This module finds out which settings hold for a host; `targets` gives them a meaning.
"""

import fnmatch
import glob
import logging
import os
import pwd
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fleetmem.connect.openssh.directives import KNOWN, SEVERAL_WORDS
from fleetmem.errors import ConfigError, reason_of
from fleetmem.runtime import children
from fleetmem.runtime.bounded_file import read_text

log = logging.getLogger(__name__)

_DEEPEST_INCLUDE = 16  # as ssh's
_MOST_BYTES = 16 << 20  # of a file and all that it includes
_MOST_TIMEOUTS = 2  # of a Match exec, for whatever hosts; then it is not run again
_EXEC_SECONDS = 5.0
# The rest of the line is one value, quotes and # included.
_WHOLE_LINE = frozenset({"proxycommand", "localcommand", "remotecommand", "knownhostscommand"})
_REPEATABLE = frozenset({"identityfile", "certificatefile"})
_ALIASES = {
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "rsaminsize": "requiredrsasize",  # of RHEL 8 and 9.0
    "hostbasedkeytypes": "hostbasedacceptedalgorithms",
    "hostbasedacceptedkeytypes": "hostbasedacceptedalgorithms",
    "identityfile2": "identityfile",
    "keepalive": "tcpkeepalive",
    "protocolkeepalives": "serveraliveinterval",
    "setuptimeout": "serveraliveinterval",
    "dsaauthentication": "pubkeyauthentication",
    "skeyauthentication": "kbdinteractiveauthentication",
    "tisauthentication": "kbdinteractiveauthentication",
    "challengeresponseauthentication": "kbdinteractiveauthentication",
}
_WITHOUT_ARGUMENT = frozenset({"all", "canonical", "final"})
_WITH_ARGUMENT = frozenset(
    {"host", "originalhost", "user", "localuser", "exec", "tagged", "sessiontype", "localnetwork", "command", "version"}
)
_NOT_ASKED_HERE = frozenset({"localnetwork", "command", "version"})


class LinePosition(NamedTuple):
    """Where a line stands."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path} line {self.line}"


class Setting(NamedTuple):
    """One line that sets something: its keyword in lower case and as it was written, and its arguments, unquoted."""

    keyword: str
    name: str
    arguments: tuple[str, ...]
    place: LinePosition


class _Criterion(NamedTuple):
    """One condition of a Match line; `attribute` is `host pattern` for a Host line."""

    attribute: str
    argument: str
    is_negated: bool


@dataclass(slots=True)
class _Block:
    """What stands below a Host or Match line, or above the first one (no criteria)."""

    criteria: tuple[_Criterion, ...] = ()
    items: list["Setting | list[_Block]"] = field(default_factory=list)


class HostDirectives:
    """The settings that hold for a host: the first of each keyword, all of those that add up.

    Attributes:
        host: the name that it was asked for by.
        port: where something stronger than the files has said it.
    """

    def __init__(self, host: str, user: str | None, port: int | None) -> None:
        self.host = host
        self.port = port
        self._user = user
        self._address: str | None = None
        self._settings: dict[str, list[Setting]] = {}

    def __iter__(self) -> Iterator[Setting]:
        for settings in self._settings.values():
            yield from settings

    def get(self, keyword: str) -> Setting | None:
        """Returns the setting of a keyword (lower case), None where there is none."""
        settings = self._settings.get(keyword)
        return settings[0] if settings else None

    def all(self, keyword: str) -> list[Setting]:
        """Returns all settings of a keyword that may be there several times."""
        return self._settings.get(keyword, [])

    def add(self, setting: Setting) -> None:
        """Takes a setting, where none before it counts."""
        if setting.keyword in self._settings:
            known = self._settings[setting.keyword]
            if setting.keyword in _REPEATABLE and all(setting.arguments != one.arguments for one in known):
                known.append(setting)
        elif not self._is_rivalled(setting.keyword):
            self._settings[setting.keyword] = [setting]

    def _is_rivalled(self, keyword: str) -> bool:
        """Whether the other one of ProxyJump and ProxyCommand was there first; `ProxyJump none` is in nobody's way."""
        if keyword == "proxyjump":
            return "proxycommand" in self._settings
        jump = self.get("proxyjump")
        return keyword == "proxycommand" and jump is not None and jump.arguments[0].lower() != "none"

    def settle_address(self) -> None:
        """Takes the address for good: in the last round, HostName is no longer asked for."""
        self._address = self.address

    @property
    def user(self) -> str:
        """Who logs in, as far as it is known."""
        setting = self.get("user")
        return self._user or (setting.arguments[0] if setting else local_user())

    @property
    def address(self) -> str:
        """The HostName, as far as it is known, in lower case; but not the zone of an IPv6 address."""
        if self._address is not None:
            return self._address
        setting = self.get("hostname")
        text = _expand_percent(setting.arguments[0], {"h": self.host}, setting.place) if setting else self.host
        return text if "%" in text else text.lower()

    @property
    def tag(self) -> str:
        """What `Match tagged` looks at."""
        setting = self.get("tag")
        return setting.arguments[0] if setting else ""


class SshConfig:
    """Configuration files, read and parsed once.

    Raises:
        ConfigError: a file cannot be read, or a line is none that ssh takes; the message names file and line.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        """Reads the files, the stronger one first: `~/.ssh/config`, then the system's."""
        reader = _BlockReader()
        self._blocks = [block for path in paths for block in reader.read(path.expanduser(), 0, _include_folder(path))]
        self._has_final = any(criterion.attribute == "final" for criterion in _all_criteria(self._blocks))
        self._exec_results: dict[str, bool] = {}
        self._exec_timeouts: Counter[str] = Counter()

    def ask(self, host: str, user: str | None, port: int | None) -> HostDirectives:
        """Returns what the files say of a host.

        Args:
            host: the name that it is asked for by.
            user: who logs in, where something stronger than the files has said so.
            port: where it is reached, where something stronger than the files has said so.
        """
        answer = HostDirectives(host, user, port)
        self._apply(self._blocks, answer, is_final=False)
        if self._has_final:
            answer.settle_address()
            self._apply(self._blocks, answer, is_final=True)
        return answer

    def _apply(self, blocks: Iterable[_Block], answer: HostDirectives, *, is_final: bool) -> None:
        for block in blocks:
            if not self._matches(block.criteria, answer, is_final=is_final):
                continue
            for item in block.items:
                if isinstance(item, Setting):
                    answer.add(item)
                else:
                    self._apply(item, answer, is_final=is_final)

    def _matches(self, criteria: tuple[_Criterion, ...], answer: HostDirectives, *, is_final: bool) -> bool:
        return all(self._meets(criterion, answer, is_final=is_final) for criterion in criteria)

    def _meets(self, criterion: _Criterion, answer: HostDirectives, *, is_final: bool) -> bool:
        attribute, argument, is_negated = criterion
        match attribute:
            case "host pattern":  # in the last round ssh looks at where it will connect to
                return matches_words(answer.address if is_final else answer.host, argument.split("\0"))
            case "all":
                is_met = True
            case (
                "final" | "canonical"
            ):  # names are never canonicalized here, but ssh takes the last round for that, too
                is_met = is_final
            case "host":
                is_met = matches_list(answer.address.lower(), argument.lower())
            case "originalhost":
                is_met = matches_list(answer.host.lower(), argument.lower())
            case "user":
                is_met = matches_list(answer.user, argument)
            case "localuser":
                is_met = matches_list(local_user(), argument)
            case "tagged":
                is_met = matches_list(answer.tag, argument)
            case "sessiontype":
                is_met = matches_list("exec", argument)
            case "exec":
                is_met = self._exec(argument, answer)
            case _:  # what is not asked here
                is_met = False
        return is_met is not is_negated

    def _exec(self, command: str, answer: HostDirectives) -> bool:
        """Runs a command as ssh does, the same one once; one that hangs for several hosts is not run for the others."""
        expanded = _expand_tokens(command, answer, None)
        if expanded not in self._exec_results:
            try:
                self._exec_results[expanded] = self._may_run(command) and _run_shell(expanded) == 0
            except (OSError, subprocess.TimeoutExpired) as error:
                log.warning("ssh configuration: Match exec %r: %s; taken as false", expanded, error)
                self._exec_results[expanded] = False
                self._exec_timeouts[command] += isinstance(error, subprocess.TimeoutExpired)
                if not self._may_run(command):
                    log.warning("ssh configuration: Match exec %r is not run for other hosts: false for them", command)
        return self._exec_results[expanded]

    def _may_run(self, command: str) -> bool:
        return self._exec_timeouts[command] < _MOST_TIMEOUTS


def _run_shell(command: str) -> int:
    """Returns the exit status of a command; one that takes too long is killed with all that it has started.

    Raises:
        TimeoutExpired: it has been.
        OSError: there is no shell.
    """
    words = [os.environ.get("SHELL") or "/bin/sh", "-c", command]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        words,
        stdin=nowhere,
        stdout=nowhere,
        stderr=nowhere,
        env=children.environment(),
        start_new_session=True,  # a group of its own, which can be killed as one
    )
    with process, children.known(process.pid):
        try:
            return process.wait(_EXEC_SECONDS)
        except BaseException:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def expand(setting: Setting, text: str, answer: HostDirectives) -> str:
    """Returns a text of a setting with its tokens (`%h`) and variables (`${HOME}`) replaced.

    Raises:
        ConfigError: there is no such token or variable.
    """

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise ConfigError(f"ssh configuration {setting.place}: ${match[1]} is not set")
        return value

    return re.sub(r"\$\{([^}]*)\}", value_of, _expand_tokens(text, answer, setting.place))


def _expand_tokens(text: str, answer: HostDirectives, place: LinePosition | None) -> str:
    """Returns a text with what stands for %h, %n and so on (ssh_config(5), TOKENS); not %C, which is for sockets."""
    if "%" not in text:
        return text
    port, alias, machine = answer.get("port"), answer.get("hostkeyalias"), os.uname().nodename
    known = {
        "d": str(Path.home()),
        "h": answer.address,
        "i": str(os.getuid()),
        "j": "",
        "k": alias.arguments[0] if alias else answer.host,
        "L": machine.partition(".")[0],
        "l": machine,
        "n": answer.host,
        "p": str(answer.port or (port.arguments[0] if port else 22)),
        "r": answer.user,
        "u": local_user(),
    }
    return _expand_percent(text, known, place)


def _expand_percent(text: str, known: dict[str, str], place: LinePosition | None) -> str:
    pieces = re.split(r"%(.?)", text, flags=re.DOTALL)
    for position in range(1, len(pieces), 2):
        token = pieces[position]
        if token != "%" and token not in known:  # noqa: S105 - no password
            raise ConfigError(f"ssh configuration {place or 'Match exec'}: %{token} stands for nothing there")
        pieces[position] = known.get(token, "%")
    return "".join(pieces)


def matches_list(text: str, patterns: str) -> bool:
    """Whether a comma-separated list of patterns holds a text: one matches, and none that begins with `!`."""
    return matches_words(text, patterns.split(","))


def matches_words(text: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns matches a text, and none that begins with `!`."""
    is_found = False
    for pattern in patterns:
        if pattern.startswith("!"):
            if _compiled(pattern[1:]).match(text):
                return False
        elif not is_found and _compiled(pattern).match(text):
            is_found = True
    return is_found


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Returns a pattern of ssh as a regular expression: `*` and `?` are all that it has, brackets are brackets."""
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")))


@lru_cache(maxsize=1)
def local_user() -> str:
    """Returns who we are on this machine; a user of a container may have no name but a number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get("USER") or str(os.getuid())


def _include_folder(path: Path) -> Path:
    """Returns where the files lie that are included without a folder (ssh_config(5), Include)."""
    return path.parent if path.is_relative_to("/etc/ssh") else Path("~/.ssh").expanduser()


def _all_criteria(blocks: Iterable[_Block]) -> Iterator[_Criterion]:
    for block in blocks:
        yield from block.criteria
        for item in block.items:
            if isinstance(item, list):
                yield from _all_criteria(item)


class _BlockReader:
    """Turns files into blocks. What ssh refuses is refused, also below a Host that is none of ours."""

    def __init__(self) -> None:
        self._ignored: str | None = None
        self._left_bytes = _MOST_BYTES

    def read(self, path: Path, depth: int, include_folder: Path) -> list[_Block]:
        """Returns the blocks of a file, and of what it includes.

        Raises:
            ConfigError: it cannot be read, or ssh would not take it.
        """
        if depth > _DEEPEST_INCLUDE:
            raise ConfigError(f"ssh configuration {path}: files include each other {_DEEPEST_INCLUDE} deep")
        try:
            text = read_text(path, self._left_bytes, errors="replace")
        except OSError as error:
            raise ConfigError(f"ssh configuration {path}: {reason_of(error)}") from error
        self._left_bytes -= len(text)
        blocks = [_Block()]
        for number, line in enumerate(text.splitlines(), 1):
            setting = _parse_line(line, LinePosition(path, number))
            if setting is None:
                continue
            if setting.keyword in ("host", "match"):
                blocks.append(_Block(_parse_criteria(setting)))
            elif setting.keyword == "include":
                found = _find(setting, include_folder)
                blocks[-1].items += [self.read(included, depth + 1, include_folder) for included in found]
            elif self._is_known(setting):
                blocks[-1].items.append(setting)
        return blocks

    def _is_known(self, setting: Setting) -> bool:
        """Returns whether ssh has such a setting; not one that IgnoreUnknown passes over, which holds from its line on.

        Raises:
            ConfigError: ssh has none, or one with fewer words.
        """
        if setting.keyword == "ignoreunknown" and self._ignored is None:
            self._ignored = setting.arguments[0].lower()
        if setting.keyword not in KNOWN:
            if self._ignored is not None and matches_list(setting.keyword, self._ignored):
                return False
            raise ConfigError(
                f"ssh configuration {setting.place}: bad configuration option {setting.name}: ssh refuses it, too; "
                f"`IgnoreUnknown {setting.name}` above it passes over it"
            )
        if len(setting.arguments) > 1 and setting.keyword not in SEVERAL_WORDS:
            raise ConfigError(
                f"ssh configuration {setting.place}: extra words behind {setting.name} {setting.arguments[0]!r}: "
                f"{' '.join(setting.arguments[1:])!r}"
            )
        return True


def _find(setting: Setting, include_folder: Path) -> Iterator[Path]:
    """Yields the files that an Include line means."""
    for argument in setting.arguments:
        pattern = os.path.expanduser(os.path.expandvars(argument))  # noqa: PTH111 - of a pattern, not a path
        for found in sorted(glob.glob(str(include_folder / pattern))):  # noqa: PTH207 - absolute ones, too
            if os.path.isfile(found):  # noqa: PTH113
                yield Path(found)
            else:  # a pipe could hold us up, a device fill our memory
                log.warning("ssh configuration %s: %s is no file; it is not read", setting.place, found)


def _parse_line(line: str, place: LinePosition) -> Setting | None:
    """Returns what a line sets; None for a comment or an empty line.

    Raises:
        ConfigError: there is no value, or a quote is not closed.
    """
    if "\0" in line:
        raise ConfigError(f"ssh configuration {place}: a NUL in it")
    match = re.fullmatch(r'\s*"?([^\s"=#][^\s"=]*)"?\s*=?\s*(.*?)\s*', line)
    if not match:
        if line.strip() and not line.strip().startswith("#"):
            raise ConfigError(f"ssh configuration {place}: {line.strip()!r} is not `Keyword value`")
        return None
    name, rest = match.groups()
    keyword = _ALIASES.get(name.lower(), name.lower())
    arguments = (rest,) if keyword in _WHOLE_LINE and rest else tuple(_split(rest, place))
    if not arguments:
        raise ConfigError(f"ssh configuration {place}: {name} has no value")
    return Setting(keyword, name, arguments, place)


_QUOTED = r"\"((?:\\[\"'\\]|[^\"])*)\"|'((?:\\[\"'\\]|[^'])*)'"
_PIECE = re.compile(rf"\\([\"'\\ ])|{_QUOTED}")
_WORD = re.compile(rf"\s*(?!#)((?:\\[\"'\\ ]|{_QUOTED}|[^\s\"'])+)")


def _split(text: str, place: LinePosition) -> Iterator[str]:
    """Yields the words of a line, unquoted, up to a comment."""
    at = 0
    while match := _WORD.match(text, at):
        at = match.end()
        yield _PIECE.sub(lambda piece: re.sub(r"\\([\"'\\])", r"\1", piece[1] or piece[2] or piece[3] or ""), match[1])
    rest = text[at:].strip()
    if rest and not rest.startswith("#"):
        raise ConfigError(f"ssh configuration {place}: a quote is not closed: {rest}")


def _parse_criteria(setting: Setting) -> tuple[_Criterion, ...]:
    """Returns the conditions of a Host or Match line.

    Raises:
        ConfigError: ssh has no such condition, or it lacks its pattern.
    """
    if setting.keyword == "host":
        return (_Criterion("host pattern", "\0".join(setting.arguments), is_negated=False),)
    criteria = []
    words = iter(setting.arguments)
    for word in words:
        attribute, equals, argument = word.partition("=")
        is_negated = attribute.startswith("!")
        attribute = attribute.removeprefix("!").lower()
        if attribute in _WITHOUT_ARGUMENT:
            argument = ""
        elif attribute not in _WITH_ARGUMENT:
            raise ConfigError(f"ssh configuration {setting.place}: Match has no condition {word!r}")
        elif not equals:
            argument = next(words, "")
        if attribute in _WITH_ARGUMENT and not argument:
            raise ConfigError(f"ssh configuration {setting.place}: Match {attribute} has no value")
        if attribute in _NOT_ASKED_HERE:
            log.warning(
                "ssh configuration %s: Match %s is not supported: it counts as not met", setting.place, attribute
            )
        criteria.append(_Criterion(attribute, argument, is_negated))
    return tuple(criteria)
