"""The `Host` entries of an OpenSSH client configuration. Only names come from here: `connect` knows what they mean."""

import glob
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from fleetmem.errors import InventoryError
from fleetmem.inventory.documents import path_of, read_text
from fleetmem.inventory.entries import make_host, one_entry
from fleetmem.inventory.listing import Listing, Means
from fleetmem.model import Host

DEFAULT_PATH = "~/.ssh/config"

_KEYWORD = re.compile(r"(\w+)(?:\s*=\s*|\s+)(.*)")
_PATTERN_SIGNS = frozenset("*?!")
_INCLUDES_DEEP = 16  # as in OpenSSH's readconf.c


def read(argument: str, _means: Means) -> Listing:
    """Returns a host for each name that a `Host` line has without wildcards. Raises InventoryError."""
    path = path_of(argument or DEFAULT_PATH)
    hosts: list[Host] = []
    left_out: list[str] = []
    known: set[str] = set()
    for name, where in _aliases(path, 0):
        if name not in known:
            known.add(name)
            with one_entry(left_out):
                hosts.append(make_host(where, name=name))
    return Listing(hosts).without(left_out)


def _aliases(path: Path, depth: int) -> Iterator[tuple[str, str]]:
    """Yields names, each with where it stands."""
    if depth > _INCLUDES_DEEP:
        raise InventoryError(f"{path}: included more than {_INCLUDES_DEEP} levels deep")
    is_for_all = True  # what is included below `Host a` holds for a alone
    for number, keyword, words in _lines(path):
        if keyword == "host":
            is_for_all = "*" in words
            yield from ((word, f"{path}, line {number}") for word in words if not _PATTERN_SIGNS & set(word))
        elif keyword == "match":
            is_for_all = [word.lower() for word in words] == ["all"]
        elif is_for_all:
            for word in words:
                yield from _included(word, depth)


def _lines(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yields those lines that say which hosts there are: number, keyword and arguments."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        match = _KEYWORD.fullmatch(line.strip())
        if not match or match[1].lower() not in ("host", "match", "include"):
            continue
        try:
            yield number, match[1].lower(), shlex.split(match[2], comments=True)
        except ValueError as error:
            raise InventoryError(f"{path}, line {number}: {error}") from error


def _included(pattern: str, depth: int) -> Iterator[tuple[str, str]]:
    # Relative to ~/.ssh, wherever the file is that includes: ssh_config(5).
    for name in sorted(glob.glob(str(path_of("~/.ssh") / path_of(pattern)))):  # noqa: PTH207
        if Path(name).is_file():
            yield from _aliases(Path(name), depth + 1)
