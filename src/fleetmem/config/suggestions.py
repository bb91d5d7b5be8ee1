"""What may have been meant by a key that there is not."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from fleetmem.config.settings import Settings


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
