"""From the variables of a host to how it is reached. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.arguments import Arguments
from fleetmem.inventory.ansible.templates import OnlyAnsibleError, Templates
from fleetmem.inventory.ansible.tree import Variables
from fleetmem.inventory.entries import make_host
from fleetmem.inventory.listing import LoginPart
from fleetmem.model import Host

# Where both are there, Ansible takes the later one.
_CONNECTION = ("ansible_connection",)
_ADDRESS = ("ansible_host", "ansible_ssh_host")
_PORT = ("ansible_port", "ansible_ssh_port")
_USER = ("ansible_user", "ansible_ssh_user")
_KEY = ("ansible_private_key_file", "ansible_ssh_private_key_file")
_SSH_ARGS = ("ansible_ssh_args",)
_COMMON_ARGS = ("ansible_ssh_common_args",)
_EXTRA_ARGS = ("ansible_ssh_extra_args",)
TAKEN = (*_CONNECTION, *_ADDRESS, *_PORT, *_USER, *_KEY, *_SSH_ARGS, *_COMMON_ARGS, *_EXTRA_ARGS)
"""Variables that say how a host is reached."""

_PASSWORDS = ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password")
REPORTED = {
    **dict.fromkeys(_PASSWORDS, "passwords are not used, give hosts a key"),
    **dict.fromkeys(("ansible_private_key", "ansible_ssh_private_key"), "name a file"),
    **dict.fromkeys(
        ("ansible_private_key_passphrase", "ansible_ssh_private_key_passphrase"), "set ssh.passphrase_file"
    ),
    **dict.fromkeys(("ansible_host_key_checking", "ansible_ssh_host_key_checking"), "set ssh.host_keys"),
    "ansible_ssh_timeout": "set ssh.connect_timeout_seconds",
    "ansible_ssh_executable": "fleetmem starts no ssh",
    "ansible_ssh_pkcs11_provider": "use an ssh agent",
    "ansible_paramiko_proxy_command": "write it as ansible_ssh_common_args",
    "ansible_paramiko_host_key_checking": "set ssh.host_keys",
}
"""Variables that are reported as not taken over, with what helps instead."""

_OPTIONS = {LoginPart.USER: ("user",), LoginPart.KEY: ("identityfile",), LoginPart.JUMP: ("proxyjump", "proxycommand")}
"""Options of ssh that say these things."""

_OVER_SSH = {"ssh", "smart", "paramiko", "paramiko_ssh"}


class Defaults(NamedTuple):
    """What holds for hosts beside their own variables.

    Attributes:
        values: of ansible.cfg and the environment (see `settings.TAKEN`).
        variables: Ansible's own, `inventory_dir` say.
        environment: environment variables.
        has_ansible: whether Ansible can be asked to evaluate a template.
        ignored: what is said of logins and not taken over. It is not looked at: it may be encrypted, or of no use here.
    """

    values: Mapping[str, str] = {}
    variables: Mapping[str, Any] = {}
    environment: Mapping[str, str] = {}
    has_ansible: bool = False
    ignored: frozenset[LoginPart] = frozenset()


@dataclass(slots=True)
class Leavings:
    """What is not taken from an inventory, though nothing in it is wrong.

    Attributes:
        hosts: names, by why they are left out.
        variables: that are not taken over.
        options: of ssh that are not taken over.
        labels: that a host has not, as only Ansible can evaluate them.
    """

    hosts: dict[str, list[str]] = field(default_factory=dict)
    variables: dict[str, None] = field(default_factory=dict)
    options: dict[str, None] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)

    def remarks(self) -> Iterator[str]:
        """Yields lines for people."""
        for reason, names in self.hosts.items():
            yield f"left out, {reason}: {_some(names)}"
        if self.options:
            yield f"options of ssh that are not taken over: {', '.join(self.options)}"
        for name in self.variables:
            yield f"{name} is not taken over: {REPORTED[name]}"
        for reason, names in self.labels.items():
            yield f"a label left out, {reason}: {_some(names)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


class Reached(NamedTuple):
    """A host, and the ssh configuration that its arguments name."""

    host: Host
    config: str | None


def host_of(
    name: str,
    variables: Variables,
    groups: Iterable[str],
    labels: Iterable[str],
    where: str,
    leavings: Leavings,
    defaults: Defaults = Defaults(),  # noqa: B008 - nothing changes it
) -> Reached | None:
    """Returns a host, None where it is not reached over SSH.

    Args:
        name: of the host.
        variables: all that hold for it, groups' included.
        groups: that it is in.
        labels: the variables that become labels.
        where: what messages begin with.
        leavings: takes what is left out.
        defaults: what holds beside its variables.

    Raises:
        OnlyAnsibleError: a variable is a template that only Ansible can evaluate.
        InventoryError: a variable is wrong.
    """
    groups = list(groups)
    try:
        given = _describe(name, variables, groups, labels, leavings, defaults)
    except InventoryError as error:
        raise type(error)(f"{where} ({name!r}): {error}") from error
    if given is None:
        return None
    fields, arguments = given
    host = make_host(where, name=name, groups=groups, **fields)
    leavings.options |= arguments.not_taken
    leavings.variables |= {name: None for name in REPORTED if variables.get(name) not in (None, "")}
    return Reached(host, arguments.config)


def _describe(
    name: str, variables: Variables, groups: list[str], labels: Iterable[str], leavings: Leavings, defaults: Defaults
) -> tuple[dict[str, Any], Arguments] | None:
    """Returns what is said of a host, None where it is not reached over SSH."""
    magic = {
        **defaults.variables,
        "inventory_hostname": name,
        "inventory_hostname_short": name.partition(".")[0],
        "group_names": sorted(set(groups) - {"all"}),
    }
    values = _Values(Templates({**variables, **magic}, defaults.environment), variables, defaults)
    connection = values.setting(_CONNECTION, "transport")
    if connection and connection.rpartition(".")[2] not in _OVER_SSH:
        leavings.hosts.setdefault(f"ansible_connection={connection}", []).append(name)
        return None
    ignored = defaults.ignored
    arguments = Arguments(ignored={option for login in ignored for option in _OPTIONS[login]})
    arguments.read(values.setting(_SSH_ARGS, "ssh_args") or "")
    port = arguments.port or values.setting(_PORT, "remote_port")
    user = None if LoginPart.USER in ignored else arguments.user or values.setting(_USER, "remote_user")
    if LoginPart.KEY not in ignored and (key := values.setting(_KEY, "private_key_file")):
        arguments.keys.append(key)
    arguments.read(values.setting(_COMMON_ARGS, "ssh_common_args") or "")
    arguments.read(values.setting(_EXTRA_ARGS, "ssh_extra_args") or "")
    return {
        "address": values.address(),
        "port": port or arguments.port,
        "user": user or arguments.user,
        "key": list(dict.fromkeys(arguments.keys)),
        "jump": arguments.jump,
        "jump_key": arguments.jump_keys,
        "labels": values.labels(labels, name, leavings),
    }, arguments


class _Values:
    """Variables of one host, evaluated."""

    def __init__(self, templates: Templates, variables: Variables, defaults: Defaults) -> None:
        self._templates = templates
        self._variables = variables
        self._defaults = defaults

    def setting(self, names: Iterable[str], default: str) -> str | None:
        """Returns the last variable that is set, or what ansible.cfg says."""
        name = next((name for name in reversed(tuple(names)) if self._variables.get(name) is not None), None)
        text = self._templates.text(name) if name else self._defaults.values.get(default)
        if text == "" and name in _PORT:
            raise InventoryError(f"{name} is empty")
        return text or None

    def address(self) -> str | None:
        """Returns where a host is; None where nothing is said: its name is its address.

        Raises:
            InventoryError: it has none: nobody knows which machine its name would be.
        """
        name = next((name for name in reversed(_ADDRESS) if name in self._variables), None)
        if name is None:
            return None
        text = self._templates.text(name)
        if not text:
            raise InventoryError(f"no address: {name} is empty")
        return text

    def labels(self, names: Iterable[str], host: str, leavings: Leavings) -> dict[str, Any]:
        """Returns labels; one that cannot be evaluated is left out and told."""
        labels: dict[str, Any] = {}
        for name in names:
            value = self._variables.get(name)
            try:
                is_text = isinstance(value, str | Mapping)
                labels[name] = self._templates.text(name) if is_text else value
            except OnlyAnsibleError as error:
                if self._defaults.has_ansible:
                    raise
                leavings.labels.setdefault(str(error), []).append(host)
            except InventoryError as error:
                leavings.labels.setdefault(str(error), []).append(host)
        return labels
