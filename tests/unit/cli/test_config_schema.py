"""The JSON Schema of the configuration file: editors go by it, so it must not be stricter than fleetmem."""

import json
import tomllib
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from fleetmem.cli.config import sample_toml
from fleetmem.cli.config_schema import settings_schema
from fleetmem.config import Settings, load
from fleetmem.sinks import installed
from fleetmem.sinks.plugin import SecretFile, WriterKind

REPOSITORY = Path(__file__).parents[3]
FILES = [path for folder in ("examples", "deploy") for path in (REPOSITORY / folder).rglob("*.toml")]
FILES = [path for path in FILES if path.name != "pyproject.toml"]


def _errors(text: str) -> list[str]:
    validator = Draft7Validator(settings_schema())
    return [".".join(map(str, error.path)) for error in validator.iter_errors(tomllib.loads(text))]


def test_it_is_a_schema() -> None:
    """Of the draft that it names; without references, which some editors do not follow."""
    schema = settings_schema()
    Draft7Validator.check_schema(schema)
    assert "$ref" not in json.dumps(schema)


def test_every_key_has_its_meaning() -> None:
    """What editors show beside a key is what the sample says."""
    properties = settings_schema()["properties"]
    assert properties.keys() == Settings.model_fields.keys()
    for name, section in properties.items():
        if section["type"] == "object" and name != "sinks":
            assert section["properties"].keys() == Settings.model_fields[name].annotation.model_fields.keys()  # type: ignore[union-attr]
            assert all(key["description"] for key in section["properties"].values())
    assert properties["ssh"]["properties"]["host_keys"]["enum"] == ["accept-new", "strict", "insecure"]
    assert properties["shape"]["properties"]["top_by"]["default"] == "rss"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_files_that_people_copy_are_right(path: Path) -> None:
    """Those of examples and deployments."""
    assert _errors(path.read_text(encoding="utf-8")) == []


def test_the_sample_is_right() -> None:
    """Every key with its default or example."""
    lines = [line.removeprefix("#") if line[1:2] != " " else line for line in sample_toml().splitlines()]
    assert len(tomllib.loads("\n".join(lines))) > 10
    assert _errors("\n".join(lines)) == []


@pytest.mark.parametrize(
    "text",
    [
        "[inventory]\nhosts = 'web01'\nsources = 'ssh'\nignore = 'user,key'\ntags = 'a,b'",
        "[ssh]\nkey = 'a,b'\nconfig_file = 'none'",
        "[shape]\ndetail = 'process,command'\nmin_rss = 5\ninclude_commands = 'x'",
        "[shape]\nmin_rss = '5MiB'\n[[shape.groups]]\nmatch = 'a'\nname = 'b'",
        "[statsd]\nserver = 'a,b'\n[graphite]\nspool_max_size = '5GiB'",
        "[prometheus]\nlisten = 9877\n[run]\nhealth_listen = '[::1]:9878'\nworkers = 'auto'",
        "[run]\nworkers = 3\nstate_dir = 'none'\ninterval_seconds = 10",
        "[doctor]\nstatsd_management = 8126",
    ],
)
def test_what_fleetmem_accepts(tmp_path: Path, text: str) -> None:
    """Texts for lists and sizes, numbers for ports."""
    path = tmp_path / "fleetmem.toml"
    path.write_text(text, encoding="utf-8")
    load(path, {})
    assert _errors(text) == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("prefx = 'a'", ""),
        ("[sssh]", ""),
        ("[ssh]\nusr = 'a'", "ssh"),
        ("[ssh]\nport = 70000", "ssh.port"),
        ("[ssh]\nhost_keys = 'yes'", "ssh.host_keys"),
        ("[ssh]\ncommand_timeout_seconds = '15 s'", "ssh.command_timeout_seconds"),
        ("[ssh]\ncommand_timeout_seconds = 0", "ssh.command_timeout_seconds"),
        ("[shape]\ndetail = []", "shape.detail"),
        ("[shape]\nmin_rss = -1", "shape.min_rss"),
        ("[inventory]\nignore = ['keys']", "inventory.ignore"),
        ("[run]\nworkers = 'many'", "run.workers"),
        ("[[overrides]]\nuser = 'a'", "overrides.0"),
        ("[[overrides]]\nmatch = 'a'\nconcurrency = 3", "overrides.0"),
        ("[[shape.groups]]\nmatch = 'a'\nname = ''", "shape.groups.0.name"),
    ],
)
def test_what_fleetmem_refuses(text: str, key: str) -> None:
    """Unknown keys, wrong types, values out of range."""
    assert _errors(text) == [key]


@dataclass(frozen=True)
class _Section:
    server: str
    """where to"""
    top: int = 10
    token: SecretFile | None = None


KIND = WriterKind(_Section, lambda _section: None)  # type: ignore[arg-type,return-value]


def test_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of those that are installed; others may be where the file is used."""
    entry = EntryPoint("mine", f"{__name__}:KIND", installed.GROUP)
    monkeypatch.setattr(installed, "entry_points", lambda **_wanted: [entry])
    section: dict[str, Any] = settings_schema()["properties"]["sinks"]["properties"]["mine"]
    assert section["properties"]["server"] == {"description": "where to", "type": "string"}
    assert _errors("[sinks.mine]\nserver = 'a'\ntoken = 'file'\n[sinks.other]\nx = 1") == []
    assert _errors("[sinks.mine]\nserver = 'a'\ntop = 'x'") == ["sinks.mine.top"]
    assert _errors("[sinks.mine]\nserver = 'a'\ntopp = 3") == ["sinks.mine"]
