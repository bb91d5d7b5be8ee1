"""Every folder in `tests/cases` is a test: what a host sent (`frame.txt`), and what it means (`expected.json`).

To turn a bug report into a test, copy a folder and change its files. `about.toml` says what is special about the frame,
the kind of probe and the id of the request that it answers. An error's message is compared by its beginning: behind
that are words of Python, which change between versions.
"""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fleetmem.errors import HostError
from fleetmem.probe.frame import FrameReader
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import ProbeKind

_CASES = Path(__file__).parents[2] / "cases"


def _outcome(frame: bytes, kind: ProbeKind, request_id: int) -> dict[str, Any]:
    """Takes a frame the whole way: cut out of the stream, then parsed."""
    reader = FrameReader()
    reader.expect(request_id)
    received = reader.feed(frame)
    assert received is not None, "no whole frame in frame.txt"
    try:
        snapshot = SnapshotParser(kind).parse(received)
    except HostError as error:
        return {"error": {"stage": str(error.stage), "kind": str(error.kind), "message": error.message}}
    memory = _known(dataclasses.asdict(snapshot.memory))
    return {"memory": memory, "processes": [_known(process._asdict()) for process in snapshot.processes]}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """Returns values without those that protocol 1 never tells."""
    later = ("started_unix_seconds", "hugetlb_bytes", "pressure")
    return {name: value for name, value in values.items() if value is not None or name not in later}


@pytest.mark.parametrize("case", sorted(path.name for path in _CASES.iterdir() if path.is_dir()))
def test_case(case: str) -> None:
    """A recorded frame means what its folder says."""
    folder = _CASES / case
    about = tomllib.loads((folder / "about.toml").read_text(encoding="utf-8"))
    assert set(about) == {"about", "kind", "request_id"}
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    outcome = _outcome((folder / "frame.txt").read_bytes(), ProbeKind(about["kind"]), about["request_id"])
    if "error" in expected and "error" in outcome:
        assert outcome["error"].pop("message").startswith(expected["error"].pop("message"))
    assert outcome == expected


def test_there_are_cases() -> None:
    """The folder is where it is looked for."""
    assert (_CASES / "debian-dash-mawk" / "frame.txt").is_file()
