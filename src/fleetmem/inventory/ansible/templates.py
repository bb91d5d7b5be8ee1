"""Templates in variables, as far as they need no Ansible: names, members, and `lookup('env', NAME)`. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from fleetmem.errors import InventoryError

_EXPRESSION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_ANY = re.compile(r"\{\{|\{%|\{#")
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[\s*(?:-?\d{1,6}|'[^'\\]*'|\"[^\"\\]*\")\s*\])*", re.ASCII)
_STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[\s*(?:(-?\d+)|'([^']*)'|\"([^\"]*)\")\s*\]", re.ASCII)
_ENVIRONMENT = re.compile(r"(?:lookup|query)\(\s*(['\"])(?:ansible\.builtin\.)?env\1\s*,\s*(['\"])(\w+)\2\s*\)")
_DEEP = 10
_LONGEST = 100_000

_UNSAFE = "__ansible_unsafe"
VAULT = "__ansible_vault"
"""What a value that is encrypted has as its key in the output of Ansible, and in documents that we read."""

ENCRYPTED = "is encrypted"
FOR_ANSIBLE = "is a template that only Ansible can evaluate"
"""What errors say of values that mean something to Ansible alone."""


class OnlyAnsibleError(InventoryError):
    """A template that only Ansible can evaluate."""


class Templates:
    """Evaluates the variables of one host.

    Args:
        variables: by name.
        environment: environment variables.
    """

    def __init__(self, variables: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._variables = variables
        self._environment = environment

    def text(self, name: str) -> str | None:
        """Returns a variable as text, None where it is not set.

        Raises:
            OnlyAnsibleError: it is a template that only Ansible can evaluate.
            InventoryError: it is encrypted, or no text.
        """
        value = self._variables.get(name)
        return None if value is None else self._evaluate(value, name, 0)

    def _evaluate(self, value: Any, name: str, depth: int) -> str:
        if isinstance(value, Mapping) and VAULT in value:
            raise InventoryError(f"{name} {ENCRYPTED}")
        if isinstance(value, Mapping) and isinstance(plain := value.get(_UNSAFE), str):
            return plain
        if isinstance(value, Mapping | list | tuple | set):
            raise InventoryError(f"{name}: expected a text")
        text = str(value)
        if not _ANY.search(text):
            return text
        if depth >= _DEEP or len(text) > _LONGEST:
            raise OnlyAnsibleError(f"{name} {FOR_ANSIBLE}")
        evaluated = _EXPRESSION.sub(lambda match: self._expression(match[1], name, depth), text)
        if _ANY.search(_EXPRESSION.sub("", text)):  # {% if %}, or braces without an end
            raise OnlyAnsibleError(f"{name} {FOR_ANSIBLE}")
        return evaluated

    def _expression(self, text: str, name: str, depth: int) -> str:
        if match := _ENVIRONMENT.fullmatch(text):
            return self._environment.get(match[3], "")
        if not _PATH.fullmatch(text):
            raise OnlyAnsibleError(f"{name} {FOR_ANSIBLE}")
        value: Any = self._variables
        for step in _STEP.finditer(text):
            value = _member(value, step)
            if value is None or (isinstance(value, str) and _ANY.search(value) and step.end() < len(text)):
                raise OnlyAnsibleError(f"{name} {FOR_ANSIBLE}")
        return self._evaluate(value, name, depth + 1)


def _member(value: Any, step: re.Match[str]) -> Any:
    key = next(key for key in (step[1], step[3], step[4], "") if key is not None)
    if isinstance(value, Mapping):
        return value.get(key if step[2] is None else int(step[2]))
    if isinstance(value, list | tuple) and step[2] is not None and -len(value) <= int(step[2]) < len(value):
        return value[int(step[2])]
    return None
