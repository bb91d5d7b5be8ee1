"""Inventories that are named relative to a folder: the one of the configuration file that names them."""

import glob
import re
import shlex
from pathlib import Path

from fleetmem.inventory.sources import KINDS, MAY_BE_EMPTY, is_url
from fleetmem.inventory.spec import split_specs

_KIND = re.compile(r"([a-z][a-z0-9_]*):(.*)", re.DOTALL)
_GLOB_SIGNS = frozenset("*?[")
_NO_PATHS = frozenset({"ec2", "http_sd"})


def anchored(text: str, folder: Path) -> str:
    """Returns a path below a folder, unless it is absolute or begins with `~`."""
    return text if text.startswith(("/", "~")) else str(folder / text)


def anchored_spec(spec: str, folder: Path) -> list[str]:
    """Returns the parts of what `-i` takes, with the files in it (`@FILE`) below a folder."""
    return [f"@{anchored(part[1:], folder)}" if part[:1] == "@" else part for part in split_specs(spec)]


def anchored_source(text: str, folder: Path) -> str:
    """Returns what `--inventory` takes, with its path below a folder."""
    text = text.strip()
    match = _KIND.fullmatch(text)
    if text in MAY_BE_EMPTY or is_url(text) or (match and match[1] not in KINDS):
        return text
    if not match:
        return anchored(text, _without_signs(folder) if _GLOB_SIGNS & set(text) else folder)
    kind, argument = match[1], match[2].strip()
    if not argument or kind in _NO_PATHS:
        return text
    if kind == "command":
        return f"{kind}:{_anchored_program(argument, folder)}"
    return f"{kind}:{anchored(argument, _without_signs(folder) if kind == 'file_sd' else folder)}"


def _without_signs(folder: Path) -> Path:
    """Returns a folder in which a glob takes each sign for itself."""
    return Path(glob.escape(str(folder)))


def _anchored_program(argument: str, folder: Path) -> str:
    """Returns a program below a folder, as a shell finds it: one without a slash is looked for on the PATH."""
    try:
        program, *others = shlex.split(argument)
    except ValueError:  # reported when it is run
        return argument
    return shlex.join([anchored(program, folder), *others]) if "/" in program else argument
