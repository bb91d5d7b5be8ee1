"""`[sinks.NAME]`: sections of plug-ins, checked as the plug-in declares them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError, create_model
from pydantic_core import InitErrorDetails, PydanticCustomError

_CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)


def _check(value: object) -> dict[str, Any]:
    """Returns sections by name, each as a value of the type that its plug-in declares.

    Raises:
        ValidationError: a plug-in is not there or cannot be used, or a key or value is wrong.
    """
    sections = TypeAdapter(dict[str, Any]).validate_python(value)
    types = {name: _type_of(name) for name in sections}
    # By aliases: a plug-in may be called `copy`, which a model has already.
    wanted: dict[str, Any] = {
        f"section_{number}": (_checked(type_), Field(alias=name)) for number, (name, type_) in enumerate(types.items())
    }
    checked = create_model("Sinks", **wanted).model_validate(sections)
    found = zip(types.items(), wanted, strict=True)
    return {name: _hashable(name, _unwrapped(getattr(checked, field), type_)) for (name, type_), field in found}


def _type_of(name: str) -> type[Any]:
    # Imported here: a configuration without plug-ins, which is nearly every one, does without.
    from fleetmem.sinks import installed

    try:
        return installed.load(name).section
    except installed.PluginError as error:
        raise _problem(name, str(error)) from error


def _checked(section: type[Any]) -> Any:
    """Returns what pydantic checks a section by: unknown keys are errors."""
    from pydantic.dataclasses import dataclass  # imported here for the same reason

    return dataclass(section, frozen=True, config=_CHECKED)


def _unwrapped(section: Any, type_: type[Any]) -> Any:
    """Returns a section as a value of the very class that the plug-in declares, which pydantic has wrapped."""
    return type_(**{field.name: getattr(section, field.name) for field in fields(type_) if field.init})


def _hashable(name: str, section: Any) -> Any:
    try:
        hash(section)
    except TypeError as error:
        raise _problem(name, f"its section must be a frozen dataclass, with tuples for lists: {error}") from error
    return section


def _problem(name: str, message: str) -> ValidationError:
    details = InitErrorDetails(
        type=PydanticCustomError("plugin", "{message}", {"message": message}), loc=(name,), input=None
    )
    return ValidationError.from_exception_data("Sinks", [details])


PluginSections = Annotated[Mapping[str, Any], PlainValidator(_check)]
"""Sections by the name of their plug-in."""
