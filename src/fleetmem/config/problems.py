"""What is wrong with a configuration, problem by problem: its key, where that stands, and what to write instead."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleetmem.config.settings import ENV_PREFIX, Settings
from fleetmem.config.toml_keys import key_lines
from fleetmem.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        key: of the configuration, `ssh.port` or `overrides.0.match`; None where it is about no key.
        message: what is wrong.
        fix: what to do; empty where the message says it.
        file: the configuration file, None where the value is not known to be from there.
        line: of the key in that file, from 1; None where it is not known.
        origin: `flags`, or the environment variable, where the value is from there.
    """

    key: str | None
    message: str
    fix: str = ""
    file: str | None = None
    line: int | None = None
    origin: str | None = None

    def __str__(self) -> str:
        """How people read it."""
        place = f"{self.file}, line {self.line}" if self.line else self.file or self.origin
        said = f"{self.message}; {self.fix}" if self.fix else self.message
        return ": ".join(part for part in (place, self.key, said) if part)


class InvalidSettingsError(ConfigError):
    """Values of a configuration are wrong.

    Attributes:
        problems: all of them.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(["configuration:", *(f"  {problem}" for problem in problems)]))
        self.problems = tuple(problems)


def placed(problems: Iterable[Problem], path: Path | None, text: str, flags: Mapping[str, Any]) -> list[Problem]:
    """Returns problems with where they stand in the configuration file, as far as their keys are from there.

    Args:
        problems: with their keys.
        path: the file, None for none.
        text: what is in it.
        flags: values given on the command line, nested as the sections are.
    """
    lines = key_lines(text)
    return [_placed(problem, path, lines, flags) for problem in problems]


def _placed(problem: Problem, path: Path | None, lines: Mapping[str, int], flags: Mapping[str, Any]) -> Problem:
    parts = (problem.key or "").split(".")
    if origin := "flags" if _is_flag(flags, parts) else _variable_of(parts):
        return replace(problem, origin=origin)
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    line = next((lines[name] for name in names if name in lines), None)
    return replace(problem, file=str(path), line=line) if path and line else problem


def _is_flag(flags: Mapping[str, Any], parts: Sequence[str]) -> bool:
    value: Any = flags
    for part in parts:
        if not isinstance(value, Mapping):
            return True  # a part of what a flag says
        if part not in value:
            return False
        value = value[part]
    return True


def _variable_of(parts: Sequence[str]) -> str | None:
    """Returns the environment variable that a value is from: of the key, or of all of a list that it is in."""
    if parts[0] not in Settings.model_fields:
        return None
    variables = {name.upper(): name for name in os.environ}
    names = (f"{ENV_PREFIX}{'__'.join(parts[:end]).upper()}" for end in range(len(parts), 0, -1))
    return next((variables[name] for name in names if name in variables), None)
