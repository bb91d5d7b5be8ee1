"""Variables in `group_vars` and `host_vars` beside an inventory, found as Ansible's `host_group_vars` finds them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleetmem.errors import InventoryError
from fleetmem.inventory.documents import parse_yaml, read_text

_SUFFIXES = (".yml", ".yaml", ".json")
_VAULT = "$ANSIBLE_VAULT;"


class VarsFiles:
    """Reads them, each once.

    Args:
        folder: where `group_vars` and `host_vars` are, if there are any.

    Attributes:
        encrypted: files that only Ansible can read.
    """

    def __init__(self, folder: Path) -> None:
        self.encrypted: list[Path] = []
        self._folders = {kind: folder / kind for kind in ("group_vars", "host_vars") if (folder / kind).is_dir()}
        self._known: dict[tuple[str, str], dict[str, Any]] = {}

    def of(self, kind: str, name: str) -> dict[str, Any]:
        """Returns the variables of a group or host.

        Args:
            kind: `group_vars` or `host_vars`.
            name: of the group or host.

        Raises:
            InventoryError: a file cannot be read, or holds no variables.
        """
        if kind not in self._folders or "/" in name or name.startswith("."):  # a name shall not lead elsewhere
            return {}
        if (kind, name) not in self._known:
            variables: dict[str, Any] = {}
            for path in _find(self._folders[kind], name):
                variables |= self._read(path)
            self._known[kind, name] = variables
        return self._known[kind, name]

    def _read(self, path: Path) -> dict[str, Any]:
        text = read_text(path)
        if text.startswith(_VAULT):
            self.encrypted.append(path)
            return {}
        data = parse_yaml(text, str(path))
        if data is not None and not isinstance(data, dict):
            raise InventoryError(f"{path}: expected variables, name: value")
        return data or {}


def _find(folder: Path, name: str) -> Iterator[Path]:
    """Yields the files of a name: a folder of them, or one file."""
    path = folder / name
    if path.is_dir():
        yield from _inside(path)
        return
    found = next(
        (file for file in (path, *(folder / f"{name}{suffix}" for suffix in _SUFFIXES)) if file.is_file()), None
    )
    if found:
        yield found


def _inside(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.endswith("~"):
            continue
        if path.is_dir() and not path.suffix:
            yield from _inside(path)
        elif path.is_file() and path.suffix in ("", *_SUFFIXES):
            yield path
