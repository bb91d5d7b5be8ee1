"""Inventories as people name them: `KIND:ARGUMENT`, or without a kind where the argument shows it."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fleetmem.errors import InventoryError, reason_of
from fleetmem.inventory.documents import parse_file, path_of
from fleetmem.inventory.listing import Listing, Means
from fleetmem.inventory.spec import parse_spec, split_specs
from fleetmem.inventory.union import BY_HAND
from fleetmem.runtime import bounded_file

KINDS = {
    "hosts": "fleetmem.inventory.hosts_file:read",
    "ssh": "fleetmem.inventory.ssh_config:read",
    "ansible": "fleetmem.inventory.ansible.source:read",
    "ec2": "fleetmem.inventory.ec2:read",
    "terraform": "fleetmem.inventory.terraform:read",
    "file_sd": "fleetmem.inventory.prometheus:read_files",
    "http_sd": "fleetmem.inventory.prometheus:read_url",
    "json": "fleetmem.inventory.json_hosts:read_file",
    "command": "fleetmem.inventory.json_hosts:read_program",
}
"""Where each kind is read; imported with its first use."""

NAMES = "names"
"""The kind of hosts that are named one by one: they never change."""

MAY_BE_EMPTY = frozenset({"ssh", "ec2"})
"""Kinds that need no argument."""

_KIND = re.compile(r"([a-z][a-z0-9_]*):(.*)", re.DOTALL)
_URL = re.compile(r"https?://", re.IGNORECASE)
_HEAD_BYTES = 65_536
_INI_LINE = re.compile(
    r"^\s*(?:\[[A-Za-z_][\w.-]*(?::(?:vars|children))?\]|[^\s#;=]+\s.*\bansible_\w+\s*=)", re.MULTILINE
)
_SSH_LINE = re.compile(r"^\s*(?:host|match|include)(?:\s+|\s*=\s*)\S", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """One inventory.

    Attributes:
        kind: of `KINDS`, or `NAMES`.
        argument: what the kind reads.
    """

    kind: str
    argument: str

    def __str__(self) -> str:
        """What it is called in messages: the arguments of a command may be secret, and stay out."""
        if self.kind == NAMES:
            return BY_HAND
        if self.kind == "command":
            return f"command:{self.argument.split()[0] if self.argument.strip() else ''}"
        return f"{self.kind}:{self.argument}"

    @property
    def can_change(self) -> bool:
        """Whether reading it again may give something else."""
        return self.kind != NAMES

    def read(self, means: Means) -> Listing:
        """Returns its hosts. Of those that are named one by one nothing is ignored: who types `ops@web01` means it.

        Raises:
            InventoryError: it cannot be read.
        """
        if self.kind == NAMES:
            return Listing([host for part in split_specs(self.argument) for host in parse_spec(part)])
        module, _, name = KINDS[self.kind].partition(":")
        read: Callable[[str, Means], Listing] = getattr(import_module(module), name)
        try:
            return read(self.argument, means).ignoring(means.ignored)
        except OSError as error:  # what no kind has foreseen: a folder that may not be read, say
            raise InventoryError(f"{self}: {reason_of(error)}") from error


def parse_sources(specs: Iterable[str], sources: Iterable[str]) -> list[Source]:
    """Returns the inventories of what `-i` and `--inventory` say.

    Args:
        specs: comma-separated hosts, or `@file`, a hosts file.
        sources: `KIND:ARGUMENT`, or an argument that shows its kind.

    Raises:
        InventoryError: a kind is unknown or not to be seen.
    """
    named = [source for spec in specs for source in _of_spec(spec)]
    return list(dict.fromkeys((*named, *map(parse_source, sources))))


def _of_spec(spec: str) -> Iterator[Source]:
    if spec.startswith("@") and path_of(spec[1:]).is_file():  # there may be blanks in its path
        yield Source("hosts", spec[1:])
        return
    names: list[str] = []
    for part in split_specs(spec):
        if not part.startswith("@"):
            names.append(part)
            continue
        if names:
            yield Source(NAMES, ",".join(names))
            names = []
        yield Source("hosts", part[1:])
    if names:
        yield Source(NAMES, ",".join(names))


def parse_source(text: str) -> Source:
    """Returns the inventory that a text names.

    Raises:
        InventoryError: the kind is unknown, or not to be seen.
    """
    match = _KIND.fullmatch(text.strip())
    if match and match[1] in KINDS:
        if not match[2].strip() and match[1] not in MAY_BE_EMPTY:
            raise InventoryError(f"inventory {text!r}: nothing after {match[1]}:")
        return Source(match[1], match[2].strip())
    if text.strip() in MAY_BE_EMPTY:
        return Source(text.strip(), "")
    kind, problem = _recognise(text.strip())
    if kind:
        return Source(kind, text.strip())
    told = f"{match[1]}:..." if match else text  # what is behind a word that is no kind may be a secret
    raise InventoryError(f"inventory {told!r} {problem}; write KIND:ARGUMENT, KIND one of {', '.join(KINDS)}")


def is_url(text: str) -> bool:
    """Whether an inventory is a server's."""
    return bool(_URL.match(text))


def _recognise(text: str) -> tuple[str | None, str]:
    """Returns the kind of a URL, a file or a folder; or None, and why it cannot be seen."""
    if is_url(text):
        return "http_sd", ""
    path = path_of(text)
    if text and path.is_dir():
        is_terraform = any(path.glob("*.tf")) or (path / "terraform.tfstate").is_file()
        return "terraform" if is_terraform else "ansible", ""
    if not path.is_file() and any(sign in text for sign in "*?[") and path.suffix in (".json", ".yml", ".yaml"):
        return "file_sd", ""
    if path.is_file():
        return _of_file(path), "is of no kind that fleetmem recognises"
    return None, "is not there" if path.is_absolute() and path.parent != path else "is neither file nor URL"


def _of_file(path: Path) -> str | None:
    try:
        head = bounded_file.read_head(path, _HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    if os.access(path, os.X_OK) and (head.startswith("#!") or "\0" in head):
        return "ansible"
    if path.suffix == ".json":
        return _of_json(path)
    if path.suffix in (".yml", ".yaml"):
        return "file_sd" if re.search(r"^\s*-\s.*\btargets\b|^\s+targets\s*:", head, re.MULTILINE) else "ansible"
    if path.suffix == ".ini" or _INI_LINE.search(head):
        return "ansible"
    if _SSH_LINE.search(head):
        return "ssh"
    return None if "\0" in head else "hosts"


def _of_json(path: Path) -> str | None:
    data: Any = parse_file(path)
    if isinstance(data, Mapping) and isinstance(data.get("all"), Mapping) and isinstance(_hosts(data["all"]), Mapping):
        return "ansible"  # as in YAML, with hosts as an object
    return "json"  # whichever it is


def _hosts(group: Mapping[str, Any]) -> Any:
    return group.get("hosts", group.get("children"))
