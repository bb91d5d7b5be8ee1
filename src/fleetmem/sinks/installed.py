"""Plug-ins that are installed: entry points of the group `fleetmem.sinks`, found and imported only when asked for."""

import difflib
import re
from dataclasses import is_dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fleetmem.errors import UsageError
from fleetmem.sinks.plugin import WriterKind

GROUP = "fleetmem.sinks"

BUILT_IN_NAMES = frozenset({"statsd", "graphite", "prometheus", "file"})
"""Names of the sinks that fleetmem brings along; further StatsD servers are `statsd_2` and so on."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,23}")
_NUMBERED = re.compile(r"statsd_\d+|former")


class PluginError(UsageError):
    """A plug-in cannot be used: it is not installed, or broken. The message says which, and why."""


def names() -> list[str]:
    """Returns the names of all plug-ins that are installed, sorted."""
    return sorted({found.name for found in entry_points(group=GROUP)})


def load(name: str) -> WriterKind[Any]:
    """Returns what a plug-in offers; imports it.

    Raises:
        PluginError: there is none of that name, or several; it cannot be imported; it offers something else.
    """
    if name in BUILT_IN_NAMES:
        raise PluginError(f"{name!r} cannot be a plug-in's name; the section of the built-in sink is [{name}]")
    if not _NAME.fullmatch(name) or _NUMBERED.fullmatch(name):
        raise PluginError(
            f"{name!r} cannot be a plug-in's name: lower case letters, digits and _; not statsd_2, not former"
        )
    found = [*entry_points(group=GROUP, name=name)]
    if not found:
        raise PluginError(_not_installed(name))
    if len({entry.value for entry in found}) > 1:
        raise PluginError(f"several packages offer it: {', '.join(sorted(map(_origin, found)))}")
    return _loaded(found[0])


def _loaded(entry: EntryPoint) -> WriterKind[Any]:
    try:
        kind = entry.load()
    except Exception as error:  # whatever somebody else's module does while it is imported
        raise PluginError(f"{_origin(entry)} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(kind, WriterKind):
        raise PluginError(f"{_origin(entry)} is no WriterKind of fleetmem.sinks.plugin")
    if not is_dataclass(kind.section):
        raise PluginError(f"{_origin(entry)}: its section is no dataclass")
    return kind


def _origin(entry: EntryPoint) -> str:
    """Returns where a plug-in comes from: `fleetmem_top:KIND of fleetmem-top 1.0`."""
    package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    return f"{entry.value}{package}"


def _not_installed(name: str) -> str:
    known = names()
    close = difflib.get_close_matches(name, [*known, *BUILT_IN_NAMES], 1)
    if close and close[0] in BUILT_IN_NAMES:
        return f"no such plug-in is installed; the section of the built-in sink is [{close[0]}]"
    hint = f"; did you mean {close[0]}?" if close else f"; installed are: {', '.join(known) or 'none'}"
    return f"no such plug-in is installed{hint}"
