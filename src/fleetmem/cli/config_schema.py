"""The configuration file as a JSON Schema, from which editors complete and check it."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, BeforeValidator, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo

from fleetmem.cli.toml_text import meanings_of
from fleetmem.config import Settings
from fleetmem.sinks import installed

_DRAFT = "http://json-schema.org/draft-07/schema#"  # the newest that all editors of TOML know
_ADDRESS = {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 1, "maximum": 65535}]}
_DROPPED = ("title", "format", "default", "examples")
# Keys that accept more than their type, as functions say which check them.
_ACCEPTED = {
    "statsd_management": _ADDRESS,
    "listen": _ADDRESS,
    "health_listen": _ADDRESS,
    "workers": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 999}, {"const": "auto"}]},
}


def settings_schema() -> dict[str, Any]:
    """Returns the schema. Texts such as addresses, and what keys have to do with each other, are left to the check."""
    whole = Settings.model_json_schema()
    schema = _section(Settings, whole, whole["$defs"])
    schema["properties"]["sinks"] = _sinks()
    return {"$schema": _DRAFT, "title": "Configuration of fleetmem"} | schema


def _section(model: type[BaseModel], schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the schema of a table: each key with its meaning."""
    meanings = meanings_of(model)
    properties = {
        name: _key(name, field, schema["properties"][name], defs, meanings.get(name))
        for name, field in model.model_fields.items()
    }
    required = {"required": schema["required"]} if "required" in schema else {}
    description = {"description": model.__doc__} if model.__doc__ else {}
    return {**description, "type": "object", "additionalProperties": False, "properties": properties, **required}


def _key(
    name: str, field: FieldInfo, found: Mapping[str, Any], defs: Mapping[str, Any], meaning: str | None
) -> dict[str, Any]:
    if section := next(_models(field.annotation), None):
        inner = _section(section, defs[section.__name__], defs)
        if found.get("type") != "array":
            return inner
        schema: dict[str, Any] = {"type": "array", "items": inner}
    else:
        schema = _ACCEPTED.get(name) or _with_text(field, _plain(found, defs))
    told = {name: found[name] for name in ("default", "examples") if found.get(name) not in (None, [])}
    return {**({"description": meaning} if meaning else {}), **schema, **told}


def _with_text(field: FieldInfo, schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a list or a size, which may be a text, too."""
    has_other_form = any(isinstance(part, BeforeValidator) for part in field.metadata)
    return {"anyOf": [schema, {"type": "string"}]} if has_other_form else schema


def _plain(schema: Any, defs: Mapping[str, Any]) -> Any:
    """Returns a schema without references, titles and null, which TOML has not."""
    if isinstance(schema, list):
        return [_plain(part, defs) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        schema = {name: part for name, part in defs[schema["$ref"].rsplit("/", 1)[1]].items() if name != "description"}
    plain = {name: _plain(part, defs) for name, part in schema.items() if name not in _DROPPED}
    if plain.get("type") == "array" and "minLength" in plain:
        plain["minItems"] = plain.pop("minLength")
    choices = [part for part in plain.get("anyOf", ()) if part != {"type": "null"}]
    return choices[0] if len(choices) == 1 else {**plain, **({"anyOf": choices} if choices else {})}


def _models(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _sinks() -> dict[str, Any]:
    """Returns the schema of sections of plug-ins: of those that are installed by key, of others any."""
    properties = {name: schema for name in installed.names() if (schema := _plugin(name))}
    meaning = meanings_of(Settings)["sinks"]
    return {
        "description": meaning,
        "type": "object",
        "properties": properties,
        "additionalProperties": {"type": "object"},
    }


def _plugin(name: str) -> dict[str, Any] | None:
    """Returns the schema of a plug-in's section; None where it has types that pydantic cannot describe."""
    try:
        section = installed.load(name).section
        found = TypeAdapter(section).json_schema()
    except (installed.PluginError, PydanticSchemaGenerationError, PydanticUserError):
        return None
    meanings, defs = meanings_of(section), found.get("$defs", {})
    properties = {
        key: {**({"description": meanings[key]} if key in meanings else {}), **_plain(part, defs)}
        for key, part in found.get("properties", {}).items()
    }
    required = {"required": found["required"]} if "required" in found else {}
    return {"type": "object", "additionalProperties": False, "properties": properties, **required}
