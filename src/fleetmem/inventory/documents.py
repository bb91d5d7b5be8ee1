"""Files and answers that hold JSON or YAML, up to the values in them."""

import json
from pathlib import Path
from typing import Any

from fleetmem.errors import InventoryError, reason_of
from fleetmem.runtime import bounded_file


def path_of(text: str) -> Path:
    """Returns the path that a text means, `~` as home.

    Raises:
        InventoryError: it begins with `~somebody` who has no home, or holds what no path can.
    """
    try:
        path = Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        raise InventoryError(f"{text}: {error}") from error
    if "\0" in text:
        raise InventoryError(f"{text!r}: no path holds that")
    return path


def read_text(path: Path) -> str:
    """Returns the text of a file.

    Raises:
        InventoryError: it cannot be read, exceeds a limit, or is none.
    """
    try:
        return bounded_file.read_text(path)
    except OSError as error:
        raise InventoryError(f"{path}: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        raise InventoryError(f"{path}: not text ({error.reason} at byte {error.start})") from error


def parse_json(text: str | bytes, where: str) -> Any:
    """Returns what a JSON document holds.

    Raises:
        InventoryError: it is none; the message says where it breaks, and nothing of what it holds.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InventoryError(f"{where}: not JSON: {error}") from error


def parse_yaml(text: str, where: str) -> Any:
    """Returns what a YAML document holds.

    A value that Ansible has encrypted (`!vault`) is an object with the key `templates.VAULT`.

    Raises:
        InventoryError: it is none.
    """
    # Imported here: most inventories have none.
    import yaml

    from fleetmem.inventory.ansible.templates import VAULT

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # libyaml's is ten times as fast
        pass

    Loader.add_constructor("!vault", lambda _loader, _node: {VAULT: ""})
    Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InventoryError(f"{where}{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InventoryError(f"{where}: not YAML: {error}") from error


def parse_file(path: Path) -> Any:
    """Returns what a file holds: YAML where it is called so, JSON otherwise.

    Raises:
        InventoryError: it cannot be read.
    """
    text = read_text(path)
    return parse_yaml(text, str(path)) if path.suffix in (".yml", ".yaml") else parse_json(text, str(path))
