"""Sections of plug-ins as text of a TOML file."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from fleetmem.cli.toml_text import meanings_of, toml_value
from fleetmem.safe_text import printable
from fleetmem.sinks import installed


def plugin_sections(sections: Mapping[str, Any]) -> str:
    """Returns sections as they are in force; keys without a value are left out."""
    return "".join(f"\n[sinks.{name}]\n{''.join(_values(section))}" for name, section in sections.items())


def _values(section: Any) -> Iterator[str]:
    for field in fields(section):
        value = getattr(section, field.name)
        if value is not None:
            yield f"{field.name} = {toml_value(value)}\n"


def plugin_samples() -> str:
    """Returns the section of each plug-in that is installed, commented out: where it is there, the plug-in is used."""
    return "".join(f"\n{''.join(_sample(name))}" for name in installed.names())


def _sample(name: str) -> Iterator[str]:
    try:
        section = installed.load(name).section
    except installed.PluginError as error:
        yield f"# [sinks.{name}]: {printable(str(error))}\n"
        return
    meanings = meanings_of(section)
    yield f"# {(inspect.getdoc(section) or name).splitlines()[0]}\n#[sinks.{name}]\n"
    for field in fields(section):
        default = _default(field)
        note = " (must be set)" if default is MISSING else " (not set)" if default is None else ""
        value = toml_value("" if note else default)
        yield f"# {meanings.get(field.name, field.name)}{note}\n#{field.name} = {value}\n"


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
