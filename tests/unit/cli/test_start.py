"""What a start does not do: each of these was a twentieth of its processor time and more, with no use for it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleetmem.connect.libraries import loadable

_UNUSED = {
    "boto3",
    "dashboards",
    "fleetmem.doctor",
    "fleetmem.inventory.ansible",
    "fleetmem.lab",
    "fleetmem.sinks.pages.http_server",
    "http.client",
    "markdown_it",
    "prometheus_client",
    "rich",
    "yaml",
}

_PROGRAM = """
import json, linecache, sys

children = []
sys.addaudithook(lambda event, facts: children.append(str(facts[0])) if event == "subprocess.Popen" else None)

from fleetmem.cli import main

try:
    main()
except SystemExit as end:
    print(json.dumps({"status": end.code, "modules": [*sys.modules], "children": children, "read": [*linecache.cache]}))
"""


def _start(*words: str, **environment: str) -> dict[str, Any]:
    """Runs a command in a process of its own, without a terminal; returns what that did."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *words],
        env=kept | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    facts: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return facts


_COLLECT = ("collect", "-i", "127.0.0.1", "-p", "1", "-F", "none", "-o", os.devnull)


@pytest.mark.slow
@pytest.mark.parametrize("sink", [(), ("-g", "127.0.0.1:9")])
def test_collect_imports_nothing_that_it_does_not_use(sink: tuple[str, ...]) -> None:
    """Neither tables nor pages nor inventories of other kinds, where none is asked for."""
    facts = _start(*_COLLECT, *sink)
    assert facts["status"] in (3, 4)  # nobody answers: the host does not, and StatsD may seem to
    assert not _UNUSED & set(facts["modules"])


@pytest.mark.slow
def test_collect_reads_no_source() -> None:
    """What settings mean is read from the source where it is printed, and only there."""
    assert not [path for path in _start(*_COLLECT)["read"] if path.endswith("config.py")]


@pytest.mark.slow
@pytest.mark.skipif(loadable() is None, reason="it is not known what the loader may find")
def test_collect_runs_no_compiler() -> None:
    """None is asked for libraries that are not there; where those are that are, ldconfig says."""
    assert {Path(child).name for child in _start(*_COLLECT)["children"]} <= {"ldconfig"}


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_bars_are_there_for_what_says_that_it_is_a_terminal(variable: str) -> None:
    """By these variables rich takes a pipe for a terminal; whether there are bars is then for it to say."""
    assert "rich.progress" in _start(*_COLLECT, **{variable: "1"})["modules"]
    assert "rich" not in _start(*_COLLECT, "-q", **{variable: "1"})["modules"]
