"""Configuration from flags, environment and a file: read, checked, explained."""

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)
from pydantic_settings import SettingsError

from fleetmem.config.paths import Anchor
from fleetmem.config.settings import ENV_PREFIX, Settings, file_values
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
    values: dict[str, Any] = {}
    if path:
        anchor = Anchor(path)
        values = anchor.values(Settings, _read_toml(path))
        anchor.warn()
    token = file_values.set(values)
    try:
        return _under_flags(Settings(**flags), flags)
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error
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


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(bounded_file.read_text(path.expanduser(), _LIMIT_BYTES))
    except (OSError, RuntimeError) as error:  # RuntimeError: ~somebody without a home
        raise ConfigError(f"configuration {path}: {reason_of(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path}: {error}") from error


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(f"{key}: no such key; `fleetmem config sample` shows all")
        else:
            message = problem["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
            # What a plug-in takes may be a secret that nobody knows here by its looks.
            is_shown = key and not key.startswith("sinks")
            given = f" (given: {redact_setting(repr(problem['input']))})" if is_shown else ""
            # What several keys have to do with has no key of its own: it begins with the one that it is about.
            lines.append(f"{key or message.split()[0]}: {message[0].lower()}{message[1:]}{given}")
    source = f"flags, {ENV_PREFIX}* variables or {path}" if path else f"flags or {ENV_PREFIX}* variables"
    return f"configuration ({source}):\n  " + "\n  ".join(lines)
