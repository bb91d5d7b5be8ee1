"""Templates that only Ansible can evaluate: it is asked for them, for all hosts at once."""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fleetmem.errors import InventoryError
from fleetmem.inventory.listing import Means

Evaluate = Callable[[list[str], Iterable[str]], Mapping[str, Mapping[str, Any]]]
"""From hosts and names of variables to their values, by host; a host that fails is not in it."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ANSWER = re.compile(r"^(\S+) \| [A-Z]+!? => (?=\{)", re.MULTILINE)
_STATUSES = (0, 2, 4)  # 2 and 4: of some hosts
_ENVIRONMENT = {
    "ANSIBLE_NOCOLOR": "True",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
    "ANSIBLE_STDOUT_CALLBACK": "minimal",
    "ANSIBLE_LOAD_CALLBACK_PLUGINS": "False",
    "ANSIBLE_CHECK_MODE_MARKERS": "False",
}


def evaluated(
    program: str, path: Path, means: Means, until: float, hosts: list[str], names: Iterable[str]
) -> Mapping[str, Mapping[str, Any]]:
    """Returns variables of hosts as Ansible evaluates them. It connects to no host.

    Args:
        program: Ansible's loader; `ansible` is beside it.
        path: the inventory.
        means: what it is read with.
        until: when it must be done, in monotonic seconds.
        hosts: by name.
        names: of variables.
    """
    asked = [host for host in hosts if _NAME.fullmatch(host)]
    ansible = Path(program).parent / "ansible"
    if not asked or not ansible.is_file():
        return {}
    wanted = ", ".join(f"'{name}': {name} | default(none)" for name in names if _VARIABLE.fullmatch(name))
    message = json.dumps({"msg": "{{ {" + wanted + "} | to_json }}"})
    action = ("-m", "ansible.builtin.debug", "-a", message)
    arguments = [str(ansible), "-i", str(path.absolute()), ",".join(asked), *action]
    seconds = max(0.1, until - time.monotonic())
    try:
        output = means.programs.run(arguments, f"ansible {path}", seconds, _ENVIRONMENT, good_statuses=_STATUSES)
    except InventoryError:
        return {}  # each host is left out, and told
    return parse_answers(output.decode("utf-8", "replace"))


def parse_answers(text: str) -> dict[str, dict[str, Any]]:
    """Returns the variables in what `ansible -m debug` prints, by host; those that are not set are not in it."""
    answers: dict[str, dict[str, Any]] = {}
    for match in _ANSWER.finditer(text):
        try:
            answer, _end = json.JSONDecoder().raw_decode(text, match.end())
            message = answer.get("msg")
            values = json.loads(message) if isinstance(message, str) else message
        except ValueError:
            continue
        if isinstance(values, dict):
            answers[match[1]] = {name: value for name, value in values.items() if value is not None}
    return answers
