"""Where a host stands in the files of an inventory, for messages."""

import re
from collections.abc import Iterator
from pathlib import Path

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.host_ranges import expand
from fleetmem.inventory.documents import read_text

_FIRST_WORD = re.compile(r"\s*(?:-\s+)?(?:\"([^\"]+)\"|'([^']+)'|([^\s#;=]+?))(?:\s*:)?(?:\s|$)")
_MAX_RANGE_HOSTS = 10_000


class Places:
    """Finds hosts in files. Nothing is read before the first question.

    Args:
        path: the inventory.
        files: its files.
    """

    def __init__(self, path: Path, files: Iterator[Path]) -> None:
        self._path = path
        self._files = files
        self._known: dict[str, str] | None = None

    def of(self, name: str) -> str:
        """Returns file and line of a host, or the inventory where it cannot be found in it."""
        if self._known is None:
            self._known = {}
            for path in self._files:
                self._read(path, self._known)
        return self._known.get(name, str(self._path))

    def _read(self, path: Path, known: dict[str, str]) -> None:
        try:
            lines = read_text(path).split("\n")
        except InventoryError:
            return
        for number, line in enumerate(lines, 1):
            match = _FIRST_WORD.match(line)
            word = (match[1] or match[2] or match[3]) if match else None
            if word:
                for name in _names(word):
                    known.setdefault(name, f"{path}, line {number}")


def _names(word: str) -> list[str]:
    if "[" not in word and not re.search(r":\d+$", word):
        return [word]
    try:
        return [word, *expand(word)[0][:_MAX_RANGE_HOSTS]]
    except InventoryError:
        return [word]
