"""What may have been meant by a key that there is not, or by a value of the wrong type."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from fleetmem.config.settings import ENV_PREFIX, Settings

_NUMBER = "write a number without a unit and quotation marks"
_BOOLEAN = "write true or false"
_FIXES = {
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "int_parsing": _NUMBER,
    "int_type": _NUMBER,
    "bool_parsing": _BOOLEAN,
    "bool_type": _BOOLEAN,
}


def suggestion(location: Sequence[str | int]) -> str:
    """Returns a question that names the key, as the start of a sentence; empty where nothing is close.

    Args:
        location: of the unknown key: names of sections and of the key, numbers for entries of lists.
    """
    *parents, name = (str(part) for part in location if isinstance(part, str))
    section = _section(parents)
    if section is None:  # of a plug-in
        return ""
    names = list(section.model_fields)
    if close := difflib.get_close_matches(name.lower().replace("-", "_"), names, 1):
        return f"do you mean {close[0]}? "
    if homes := [f"[{title}]" for title, model in _sections() if name in model.model_fields]:
        return f"it belongs to {' or '.join(homes)}. "
    return ""


def fix_of(error: ErrorDetails) -> str:
    """Returns what to write instead of a value of the wrong type; empty where the message says it."""
    kind, value = error["type"], error["input"]
    table = ".".join(part for part in error["loc"] if isinstance(part, str))
    if kind in ("model_type", "dataclass_type"):
        is_entry = isinstance(error["loc"][-1], int)
        return f"write [[{table}]]" if is_entry else f"write [{table}] and its keys below, or {_variable(table)}"
    if kind == "tuple_type" and isinstance(value, Mapping):
        return f"write [[{table}]]"
    if kind == "missing":
        return f"add {error['loc'][-1]} = ..."
    if kind == "string_type" and isinstance(value, int | float):
        return "write it in quotation marks"
    return _FIXES.get(kind, "")


def _variable(section: str) -> str:
    return f"{ENV_PREFIX}{section.upper()}__KEY in the environment"


def _section(parents: Sequence[str]) -> type[BaseModel] | None:
    section: type[BaseModel] = Settings
    for name in parents:
        inner = next(_models(section.model_fields[name].annotation), None) if name in section.model_fields else None
        if inner is None:
            return None
        section = inner
    return section


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for title, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield title, field.annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
