"""What the sections of the configuration are made of: their base, and types of values."""

import re
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
)

from fleetmem.connect.ssh_settings import parse_jumps
from fleetmem.runtime.elsewhere import is_elsewhere
from fleetmem.runtime.pattern import compiled
from fleetmem.units import parse_size

SectionT = TypeVar("SectionT", bound=BaseModel)


class Section(BaseModel):
    """A table of the file. What stands below a field is its meaning, which `fleetmem config sample` reads from here."""

    # Not use_attribute_docstrings: to read all of them, which one command needs, was a twentieth of every start.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _check_home(path: Path) -> Path:
    try:
        path.expanduser()
    except RuntimeError as error:  # ~somebody without a home
        if is_elsewhere():
            return path
        raise ValueError(f"{path}: {error}") from error
    return path


def split(value: object) -> object:
    """Returns the parts of a comma-separated text, as environment variables hold lists."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def split_lines(value: object) -> object:
    """Returns the lines of a text, as an environment variable holds several inventories: there are commas in them."""
    return [line.strip() for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


def split_all(value: object) -> object:
    """Returns the parts of several comma-separated texts, as a flag gives them that can be repeated."""
    parts = [split(part) for part in value] if isinstance(value, list | tuple) else [split(value)]
    if not all(isinstance(part, list) for part in parts):
        return value
    return list(dict.fromkeys(word for part in parts if isinstance(part, list) for word in part))


def _check_pattern(text: str) -> str:
    try:
        compiled(text)
    except (re.error, OverflowError, RecursionError) as error:  # the latter two: a{99999999999}, ten thousand brackets
        raise ValueError(f"not a regular expression: {error}") from error
    return text


def _check_user_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for text in patterns:
        if re.fullmatch(r"\^?[A-Za-z_][A-Za-z_-]*\$?", text):
            raise ValueError(f"{text!r} matches no user id: hosts send numbers, 0 for root")
    return patterns


def check_jumps(text: str | None) -> str | None:
    """Returns jump hosts as they are written.

    Raises:
        ValueError: they are none.
    """
    if text is not None:
        parse_jumps(text)
    return text


HomePath = Annotated[Path, AfterValidator(_check_home)]


PatternText = Annotated[str, AfterValidator(_check_pattern)]


PatternTexts = Annotated[
    tuple[PatternText, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


UserPatternTexts = Annotated[PatternTexts, AfterValidator(_check_user_patterns)]


Size = Annotated[int, BeforeValidator(lambda value: parse_size(value) if isinstance(value, str) else value)]
