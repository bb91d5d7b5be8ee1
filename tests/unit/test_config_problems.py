"""Where a key stands in a configuration file, and who says what is wrong."""

from pathlib import Path

import pytest

from fleetmem.config import InvalidSettingsError, load
from fleetmem.config.toml_keys import key_lines

TEXT = """prefix = "a"
[inventory]   # which
sources = [
  "x = y",
]
[ shape ]
note = '''
[ssh]
port = 1
'''
top = 1
[[overrides]]
match = "a"
[[ overrides ]]
"match" = "b"
ssh . "port" = 2
"""


def test_lines_of_keys() -> None:
    """Tables, arrays of them, quoted and dotted keys; what looks like one within a text is none."""
    assert key_lines(TEXT) == {
        "prefix": 1,
        "inventory": 2,
        "inventory.sources": 3,
        "shape": 6,
        "shape.note": 7,
        "shape.top": 11,
        "overrides": 12,
        "overrides.0": 12,
        "overrides.0.match": 13,
        "overrides.1": 14,
        "overrides.1.match": 15,
        "overrides.1.ssh.port": 16,
    }


@pytest.mark.parametrize(
    ("flags", "variable", "line"), [({}, "", 2), ({"ssh": {"port": "y"}}, "", None), ({}, "z", None)]
)
def test_who_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, object], variable: str, line: int | None
) -> None:
    """A value of a flag or of the environment is not in the file."""
    path = tmp_path / "fleetmem.toml"
    path.write_text('[ssh]\nport = "x"\n', encoding="utf-8")
    if variable:
        monkeypatch.setenv("FLEETMEM_SSH__PORT", variable)
    with pytest.raises(InvalidSettingsError) as caught:
        load(path, flags)
    (problem,) = caught.value.problems
    assert (problem.key, problem.line, problem.file) == ("ssh.port", line, str(path) if line else None)
