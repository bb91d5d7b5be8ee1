"""Configuration from flags, environment and a file: read, checked, explained."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from fleetmem.config.paths import Anchor
from fleetmem.config.problems import InvalidSettingsError, Problem, placed
from fleetmem.config.settings import ENV_PREFIX, Settings, file_values
from fleetmem.config.suggestions import fix_of, suggestion
from fleetmem.config.toml_keys import explain
from fleetmem.errors import ConfigError, reason_of
from fleetmem.runtime import bounded_file
from fleetmem.safe_text import redact_setting

PATH_VARIABLE = f"{ENV_PREFIX}CONFIG"
"""The environment variable that names the configuration file; `-c` wins over it."""

DEFAULT_PATHS = (Path("~/.config/fleetmem/config.toml"), Path("/etc/fleetmem/config.toml"))
"""Looked for in this order where nobody names a file; then in the folder of `XDG_CONFIG_HOME`."""

_XDG_HOME = "~/.config"


def find_path() -> Path | None:
    """Returns the configuration file that the environment names, or else the first of the usual ones that exists."""
    if named := os.environ.get(PATH_VARIABLE):
        return Path(named)
    return next((path for path in map(Path.expanduser, (*DEFAULT_PATHS, *_xdg_paths())) if path.is_file()), None)


def _xdg_paths() -> list[Path]:
    """Returns the files of the XDG Base Directory Specification, which has relative folders ignored."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or _XDG_HOME)
    if not home.expanduser().is_absolute():
        home = Path(_XDG_HOME)
    return [home / "fleetmem" / name for name in ("config.toml", "fleetmem.toml")]


def load(path: Path | None, flags: dict[str, Any]) -> Settings:
    """Returns the configuration.

    Args:
        path: TOML file, None for none. Relative paths in it are below its folder.
        flags: values given on the command line, nested as the sections are.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a wrong value; the message names the key.
    """
    text = read_file(path) if path else ""
    values: dict[str, Any] = {}
    if path:
        values = _parse(text, path)
        anchor = Anchor(path)
        values = anchor.values(Settings, values)
        anchor.warn()
    token = file_values.set(values)
    try:
        return _under_flags(Settings(**flags), flags)
    except ValidationError as error:
        found = [_problem(one) for one in error.errors()]
        raise InvalidSettingsError(placed(found, path, text, flags)) from error
    except SettingsError as error:
        raise ConfigError(f"environment: {error} ({error.__cause__})") from error
    finally:
        file_values.reset(token)


def _under_flags(settings: Settings, flags: dict[str, Any]) -> Settings:
    """Returns a configuration whose overrides say nothing that a flag says: what is typed now is meant now."""
    keys = {*flags.get("ssh", {}), *flags.get("probe", {})}
    if not keys or not settings.overrides:
        return settings
    return settings.model_copy(update={"overrides": tuple(override.without(keys) for override in settings.overrides)})


_LIMIT_BYTES = 4 << 20
_DICTIONARY = re.compile(r"valid dictionary(?: or instance of \w+)?")
_BYTE_ORDER_MARK = "\ufeff"  # some editors begin UTF-8 with it; TOML does not allow it


def read_file(path: Path) -> str:
    """Returns the text of a configuration file.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    try:
        return bounded_file.read_text(path.expanduser(), _LIMIT_BYTES).removeprefix(_BYTE_ORDER_MARK)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~somebody without a home
        named_by = f" ({PATH_VARIABLE})" if str(path) == os.environ.get(PATH_VARIABLE) else ""
        raise ConfigError(f"configuration {path}{named_by}: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        message = f"byte {error.object[error.start]:#04x} is not UTF-8"
        raise InvalidSettingsError([Problem(None, message, "save the file as UTF-8", str(path), line)]) from error


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, fix, line = explain(error, text)
        raise InvalidSettingsError([Problem(None, message, fix, str(path), line)]) from error


def _problem(error: ErrorDetails) -> Problem:
    key = ".".join(map(str, error["loc"]))
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return Problem(key, "no such key", f"{suggestion(error['loc'])}`fleetmem config sample` shows all")
    message = error["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
    message = _DICTIONARY.sub("table", message)
    # What a plug-in takes may be a secret that nobody knows here by its looks.
    is_shown = key and not key.startswith("sinks") and error["type"] != "missing"
    given = f" (given: {redact_setting(repr(error['input']))})" if is_shown else ""
    # What several keys have to do with has no key of its own: it begins with the one that it is about.
    return Problem(key or message.split()[0], f"{message[0].lower()}{message[1:]}{given}", fix_of(error))
