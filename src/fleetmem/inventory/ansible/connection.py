"""From the variables of a host to how it is reached. Pure."""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.tree import Variables
from fleetmem.inventory.entries import make_host
from fleetmem.model import Host

# Where both are there, Ansible takes the later one.
_ADDRESS = ("ansible_host", "ansible_ssh_host")
_PORT = ("ansible_port", "ansible_ssh_port")
_USER = ("ansible_user", "ansible_ssh_user")
_KEY = ("ansible_private_key_file", "ansible_ssh_private_key_file")
_ARGUMENTS = ("ansible_ssh_common_args", "ansible_ssh_extra_args")
_OVER_SSH = {"ssh", "smart", "paramiko", "paramiko_ssh"}

_PLAIN_TEMPLATE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_TEMPLATE = re.compile(r"\{\{|\{%")
_TEMPLATES_DEEP = 10

_SSH_VALUE_FLAGS = "BbcDEeFIiJLlmOopQRSWw"  # ssh's flags that take a value


@dataclass(slots=True)
class Leavings:
    """What is not taken from an inventory, to be told.

    Attributes:
        hosts: names, by why they are left out.
        options: of ssh, that are left out from all hosts.
    """

    hosts: dict[str, list[str]] = field(default_factory=dict)
    options: dict[str, None] = field(default_factory=dict)

    def remarks(self) -> Iterator[str]:
        """Yields lines for people."""
        for reason, names in self.hosts.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield f"left out, {reason}: {', '.join(names[:3])}{more}"
        if self.options:
            yield f"options of ssh that are not taken over: {', '.join(self.options)}"


class NotReachedBySsh(Exception):  # noqa: N818 - no error, a reason
    """A host that is left out, and why."""


def host_of(
    name: str, variables: Variables, groups: Iterable[str], labels: Iterable[str], where: str, leavings: Leavings
) -> Host | None:
    """Returns a host, None where it is not reached over SSH, or only Ansible knows how.

    Args:
        name: of the host.
        variables: all that hold for it, groups' included.
        groups: that it is in.
        labels: the variables that become labels.
        where: what messages begin with.
        leavings: takes what is left out.

    Raises:
        InventoryError: a variable is wrong.
    """
    values = _Values(name, variables)
    try:
        connection = values.text("ansible_connection")
        if connection and connection.rpartition(".")[2] not in _OVER_SSH:
            raise NotReachedBySsh(f"ansible_connection={connection}")
        key = values.last(_KEY)
        jump, arguments_key = _from_arguments(values, leavings)
        return make_host(
            where,
            name=name,
            address=values.last(_ADDRESS),
            port=values.last(_PORT),
            user=values.last(_USER),
            key=key or arguments_key or (),
            jump=jump,
            groups=groups,
            labels={label: variables.get(label) for label in labels},
        )
    except NotReachedBySsh as reason:
        leavings.hosts.setdefault(str(reason), []).append(name)
        return None


class _Values:
    """Variables of one host; those that only name another one are looked up, as Ansible's templates would."""

    def __init__(self, name: str, variables: Variables) -> None:
        self._variables = {
            "inventory_hostname": name,
            "inventory_hostname_short": name.partition(".")[0],
            **variables,
        }

    def text(self, name: str) -> str | None:
        """Returns a variable as text, None where it is not set."""
        value = self._variables.get(name)
        if value is None or value == "":
            return None
        text = str(value)
        for _depth in range(_TEMPLATES_DEEP):
            if not _TEMPLATE.search(text):
                return text
            text = _PLAIN_TEMPLATE.sub(self._replace, text)
        raise NotReachedBySsh(f"{name} is a template that only Ansible can evaluate")

    def _replace(self, match: re.Match[str]) -> str:
        value = self._variables.get(match[1])
        return match[0] if value is None else str(value)

    def last(self, names: Iterable[str]) -> str | None:
        """Returns the last one that is set."""
        return next((text for name in reversed(tuple(names)) if (text := self.text(name)) is not None), None)


def _from_arguments(values: _Values, leavings: Leavings) -> tuple[str | None, str | None]:
    """Returns jump hosts and key that are given to ssh as arguments."""
    jump = key = None
    for variable in _ARGUMENTS:
        for option, value in parse_arguments(values.text(variable) or ""):
            match option:
                case "proxyjump":
                    jump = value
                case "proxycommand":
                    jump = jump_of(value)
                    if jump is None:
                        raise NotReachedBySsh("its ProxyCommand is no `ssh -W`")
                case "identityfile":
                    key = value
                case _:
                    leavings.options[option] = None
    return jump, key


def parse_arguments(text: str) -> Iterator[tuple[str, str]]:
    """Yields the options in arguments of ssh, in lower case, with their values: `-J`, `-i` and `-o` alike.

    Raises:
        InventoryError: a quotation has no end.
    """
    try:
        words = iter(shlex.split(text))
    except ValueError as error:
        raise InventoryError(f"arguments of ssh: {error}") from error
    for word in words:
        if not word.startswith("-"):
            continue
        flag, value = word[1:2], word[2:]
        if flag in _SSH_VALUE_FLAGS and not value:
            value = next(words, "")
        if flag == "o":
            name, value = _split_option(value)
            yield name, value
        elif flag in ("J", "i"):
            yield ("proxyjump" if flag == "J" else "identityfile"), value
        else:
            yield f"-{flag}", value


def _split_option(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*(\w+)\s*(?:=|\s)\s*(.*?)\s*", text, re.DOTALL)
    return (match[1].lower(), match[2].strip('"')) if match else (text.lower(), "")


def jump_of(proxy_command: str) -> str | None:
    """Returns the jump host of a ProxyCommand such as `ssh -W %h:%p -p 2222 user@bastion`; None where it has none."""
    try:
        program, *words = shlex.split(proxy_command)
    except ValueError:
        return None
    if program.rpartition("/")[2] != "ssh":
        return None
    user, port, hop, has_forward = None, None, None, False
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            hop = hop or word
            continue
        flag, value = word[1:2], word[2:]
        while flag and flag not in _SSH_VALUE_FLAGS and value:  # -qW %h:%p
            flag, value = value[0], value[1:]
        if flag in _SSH_VALUE_FLAGS and not value:
            value = next(rest, "")
        has_forward = has_forward or flag == "W"
        user = value if flag == "l" else user
        port = value if flag == "p" else port
    if not has_forward or not hop:
        return None
    at_user = f"{user}@" if user and "@" not in hop else ""
    return f"{at_user}{hop}" + (f":{port}" if port else "")
