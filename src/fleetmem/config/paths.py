"""Relative paths of a configuration file: they are below the folder of that file, wherever fleetmem is started.

Which keys hold paths is read off their types, plug-ins' sections included; inventories are named in a way of their own.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from fleetmem.config.fields import split, split_lines
from fleetmem.inventory.relative import anchored, anchored_source, anchored_spec
from fleetmem.inventory.spec import split_specs

log = logging.getLogger(__name__)

_NONE = "none"  # not a path where it may stand


_NO_FOLDERS = (Path("/dev"), Path("/proc"))  # of `-c /dev/stdin` and `-c <(decrypt fleetmem.toml)`


def folder_of(path: Path | None) -> Path:
    """Returns what relative paths of a configuration file are relative to.

    Args:
        path: the file, None for none. Its folder is the one that it is named in: a symbolic link is not followed. For
            a pipe of the shell it is the working directory.
    """
    if path is None:
        return Path.cwd()
    folder = path.expanduser().parent.resolve()
    return Path.cwd() if any(folder.is_relative_to(other) for other in _NO_FOLDERS) else folder


class Anchor:
    """Puts the relative paths of a file below its folder.

    Args:
        path: the configuration file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path
        self._folder = folder_of(path)
        self._moved: list[tuple[str, str, str]] = []

    def values(self, model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of a file, as TOML has them, with absolute paths."""
        moved = self._model(model, values, "")
        if isinstance(inventory := moved.get("inventory"), Mapping):
            moved["inventory"] = {**inventory, **self._inventory(inventory)}
        if isinstance(sinks := moved.get("sinks"), Mapping):
            moved["sinks"] = {name: self._plugin(name, section) for name, section in sinks.items()}
        return moved

    def warn(self) -> None:
        """Logs each path that lies in the working directory alone, where earlier versions looked for it."""
        for key, text, moved in self._moved:
            before = Path.cwd() / text
            with suppress(OSError, ValueError):
                if not Path(moved).exists() and before.exists():
                    log.warning(
                        "configuration %s: %s: %s is relative to the configuration file and means %s, "
                        "which does not exist; write %s to use the one in the working directory",
                        *(self._file, key, text, moved, before),
                    )

    def _model(self, model: type[BaseModel], values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        fields = model.model_fields
        return {
            name: self._value(fields[name].annotation, value, f"{prefix}{name}") if name in fields else value
            for name, value in values.items()
        }

    def _value(self, annotation: Any, value: Any, key: str) -> Any:
        """Returns a value whose paths, if its type has any, are absolute."""
        types = set(_types(annotation))
        section = next((type_ for type_ in types if issubclass(type_, BaseModel)), None)
        if section and isinstance(value, Mapping):
            return self._model(section, value, f"{key}.")
        if section and isinstance(value, list):
            return [self._value(section, part, f"{key}.{index}") for index, part in enumerate(value)]
        if not any(issubclass(type_, PathLike) for type_ in types):  # a secret's file is one, too
            return value
        if isinstance(value, str) and get_origin(annotation) is tuple:
            value = split(value)
        if isinstance(value, list):
            return [self._move(f"{key}.{index}", part, anchored) for index, part in enumerate(value)]
        return self._move(key, value, anchored)

    def _move(self, key: str, value: Any, move: Callable[[str, Path], str]) -> Any:
        if not isinstance(value, str) or not value or value == _NONE:
            return value
        moved = move(value, self._folder)
        if moved != value and move is anchored:
            self._moved.append((key, value, moved))
        return moved

    def _inventory(self, values: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        hosts, sources = values.get("hosts"), split_lines(values.get("sources"))
        hosts = [hosts] if isinstance(hosts, str) else hosts
        if isinstance(hosts, list):
            found["hosts"] = [part for number, spec in enumerate(hosts) for part in self._spec(number, spec)]
        if isinstance(sources, list):
            found["sources"] = [self._source(number, source) for number, source in enumerate(sources)]
        return found

    def _spec(self, number: int, spec: Any) -> list[Any]:
        if not isinstance(spec, str) or "@" not in spec:
            return [spec]
        parts = anchored_spec(spec, self._folder)
        for text, moved in zip(split_specs(spec), parts, strict=True):
            self._note(f"inventory.hosts.{number}", "@", text, moved)
        return [*parts]

    def _source(self, number: int, source: Any) -> Any:
        if not isinstance(source, str):
            return source
        moved = anchored_source(source, self._folder)
        self._note(f"inventory.sources.{number}", ":", source, moved)
        return moved

    def _note(self, key: str, sign: str, text: str, moved: str) -> None:
        if text != moved:
            self._moved.append((key, text.partition(sign)[2] or text, moved.partition(sign)[2] or moved))

    def _plugin(self, name: str, section: Any) -> Any:
        if not isinstance(section, Mapping):
            return section
        # Imported here: a configuration without plug-ins, which is nearly every one, does without.
        from fleetmem.sinks import installed

        try:
            hints = get_type_hints(installed.load(name).section)
        except (installed.PluginError, NameError, TypeError):  # reported when the section is checked
            return section
        return {
            key: self._value(hints[key], value, f"sinks.{name}.{key}") if key in hints else value
            for key, value in section.items()
        }


def _types(annotation: Any) -> Iterator[type[Any]]:
    """Yields the classes that a type is made of."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _types(part)
