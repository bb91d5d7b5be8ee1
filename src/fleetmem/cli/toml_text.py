"""Values and meanings of settings, as text of a TOML file."""

import ast
import inspect
import json
import textwrap
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fleetmem.safe_text import redact_setting


def meanings_of(model: type[Any]) -> dict[str, str]:
    """Returns what stands below each field, in the source of the class and of those that it inherits fields from."""
    meanings: dict[str, str] = {}
    for class_ in reversed(model.__mro__):
        if class_.__module__ != model.__module__:
            continue
        try:
            [definition] = ast.parse(textwrap.dedent(inspect.getsource(class_))).body
        except (OSError, TypeError):  # a plug-in may come without its source
            continue
        for pair in pairwise(ast.iter_child_nodes(definition)):
            match pair:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(meaning))):
                    meanings[name] = meaning
    return meanings


def toml_value(value: Any) -> str:
    """Returns a value as TOML has it, without secrets."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, BaseModel):
        value = {name: part for name, part in value if name in value.model_fields_set}
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {toml_value(part)}' for name, part in value.items())} }}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return json.dumps(value.value)
    if isinstance(value, str | Path):
        # A TOML basic string escapes as JSON does, except DEL, and has no surrogate pairs.
        return json.dumps(redact_setting(str(value)), ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value) if isinstance(value, int | float) else toml_value(str(value))
