"""What ansible.cfg and the environment say of how hosts are reached, found and read as Ansible does."""

import configparser
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fleetmem.errors import InventoryError, reason_of
from fleetmem.runtime.bounded_file import read_text

_FILE = "ansible.cfg"
_LIMIT_BYTES = 4 << 20


class _Place(NamedTuple):
    """Where a setting may stand; of several places the last one counts.

    Attributes:
        environment: names of environment variables; they are stronger than the file.
        file: sections and keys.
    """

    environment: tuple[str, ...]
    file: tuple[tuple[str, str], ...]


TAKEN = {
    "transport": _Place(("ANSIBLE_TRANSPORT",), (("defaults", "transport"),)),
    "remote_user": _Place(("ANSIBLE_REMOTE_USER",), (("defaults", "remote_user"),)),
    "remote_port": _Place(("ANSIBLE_REMOTE_PORT",), (("defaults", "remote_port"),)),
    "private_key_file": _Place(("ANSIBLE_PRIVATE_KEY_FILE",), (("defaults", "private_key_file"),)),
    "ssh_args": _Place(("ANSIBLE_SSH_ARGS",), (("ssh_connection", "ssh_args"),)),
    "ssh_common_args": _Place(("ANSIBLE_SSH_COMMON_ARGS",), (("ssh_connection", "ssh_common_args"),)),
    "ssh_extra_args": _Place(("ANSIBLE_SSH_EXTRA_ARGS",), (("ssh_connection", "ssh_extra_args"),)),
}
"""Settings that are taken over, unless a variable of the inventory says something else."""

REPORTED = {
    "host_key_checking": _Place(
        ("ANSIBLE_HOST_KEY_CHECKING", "ANSIBLE_SSH_HOST_KEY_CHECKING"),
        (("defaults", "host_key_checking"), ("ssh_connection", "host_key_checking")),
    ),
    "timeout": _Place(
        ("ANSIBLE_TIMEOUT", "ANSIBLE_SSH_TIMEOUT"), (("defaults", "timeout"), ("ssh_connection", "timeout"))
    ),
    "ssh_executable": _Place(("ANSIBLE_SSH_EXECUTABLE",), (("ssh_connection", "ssh_executable"),)),
    "pkcs11_provider": _Place(("ANSIBLE_PKCS11_PROVIDER",), (("ssh_connection", "pkcs11_provider"),)),
    "private_key": _Place(("ANSIBLE_PRIVATE_KEY",), ()),
}
"""Settings that are reported as not taken over."""

_INSTEAD = {
    "host_key_checking": "set ssh.host_keys",
    "timeout": "set ssh.connect_timeout_seconds",
    "ssh_executable": "fleetmem starts no ssh",
    "pkcs11_provider": "use an ssh agent",
    "private_key": "name a file",
}
_AS_IT_IS_ANYWAY = {
    "host_key_checking": ("true", "yes", "on", "1", "y", "t"),
    "ssh_executable": ("ssh", "/usr/bin/ssh"),
}


@dataclass(frozen=True, slots=True)
class AnsibleSettings:
    """What holds for hosts of which the inventory does not say otherwise.

    Attributes:
        values: of `TAKEN`, those that are set.
        remarks: what is not taken over.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def find_file(environment: Mapping[str, str]) -> Path | None:
    """Returns the ansible.cfg that counts, None where there is none.

    A file in a folder that everybody may write to does not count, as with Ansible.
    """
    return next((path for path in _candidates(environment) if os.access(path, os.R_OK)), None)


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    if named := environment.get("ANSIBLE_CONFIG"):
        path = Path(os.path.expandvars(named)).expanduser()
        yield path / _FILE if path.is_dir() else path
    with suppress(OSError):
        folder = Path.cwd()
        if not folder.stat().st_mode & stat.S_IWOTH:
            yield folder / _FILE
    with suppress(RuntimeError):  # a user without a home
        yield Path("~/.ansible.cfg").expanduser()
    yield Path("/etc/ansible") / _FILE


def read_settings(environment: Mapping[str, str]) -> AnsibleSettings:
    """Returns what ansible.cfg and the environment say.

    Raises:
        InventoryError: the file cannot be read: Ansible refuses it, too.
    """
    path = find_file(environment)
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    if path:
        try:
            parser.read_string(read_text(path, _LIMIT_BYTES), str(path))
        except OSError as error:
            raise InventoryError(f"{path}: {reason_of(error)}") from error
        except (configparser.Error, UnicodeDecodeError) as error:
            raise InventoryError(f"{path}: not a configuration of Ansible: {' '.join(str(error).split())}") from error
    values = {name: found for name, place in TAKEN.items() if (found := _find(place, parser, environment))}
    remarks = (
        f"{path or 'environment'}: {name} is not taken over: {_INSTEAD[name]}"
        for name, place in REPORTED.items()
        if (found := _find(place, parser, environment)) and found.lower() not in _AS_IT_IS_ANYWAY.get(name, ())
    )
    return AnsibleSettings(values, tuple(remarks))


def _find(place: _Place, parser: configparser.ConfigParser, environment: Mapping[str, str]) -> str | None:
    for name in reversed(place.environment):
        if name in environment:
            return environment[name]
    for section, key in reversed(place.file):
        value = parser.get(section, key, fallback=None)
        if value is not None:
            return _unquoted(value)
    return None


def _unquoted(value: str) -> str:
    """Returns a value without quotation marks around all of it, as Ansible reads it."""
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" and value[-2] != "\\"
    return value[1:-1] if is_quoted else value
