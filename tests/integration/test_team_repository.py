"""A team's repository, as in `examples/`: its check passes anywhere without secrets, and finds what is wrong in it."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .servers import REPOSITORY, Cli, environment

EXAMPLE = REPOSITORY / "examples" / "team-repository"


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """A clone, in a folder whose name has a blank."""
    return shutil.copytree(EXAMPLE, tmp_path / "the team")


def change(path: Path, before: str, after: str) -> None:
    """Replaces a text that is there once."""
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")


def check(cli: Cli, team: Path) -> dict[str, Any]:
    """Returns the result, as programs read it."""
    result = cli("config", "check", "--offline", "-c", team / "fleetmem.toml", "--format", "json")
    found: dict[str, Any] = json.loads(result.stdout)
    assert found.keys() == {"ok", "file", "errors", "warnings"}
    assert (result.status, result.stderr) == (0 if found["ok"] else 2, "")
    for error in found["errors"]:
        assert error.keys() == {"key", "file", "line", "origin", "message", "try"}
    return found


def shown(cli: Cli, team: Path) -> str:
    """Returns what people read where something is wrong."""
    result = cli("config", "check", "--offline", "-c", team / "fleetmem.toml")
    assert (result.status, result.stdout) == (2, "")
    return result.stderr


def test_the_job_passes_from_any_directory(team: Path, cli: Cli) -> None:
    """As the workflow runs it; and from elsewhere, with no home, no key and no network to speak of."""
    (job,) = yaml.safe_load((team / ".github" / "workflows" / "config.yml").read_text())["jobs"].values()
    (command,) = (step["run"] for step in job["steps"] if step.get("run", "").startswith("fleetmem "))
    arguments = cli.command(*shlex.split(command)[1:])
    env = environment(cli.home)
    done = subprocess.run(arguments, cwd=team, env=env, capture_output=True, text=True, check=False)
    said = "ok: 4 hosts, 1 sinks; not connected, no key read\nfile: fleetmem.toml\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert check(cli, team) == {"ok": True, "file": str(team / "fleetmem.toml"), "errors": [], "warnings": []}
    arguments = cli.command("config", "check", "--offline", "-c", os.path.relpath(team / "fleetmem.toml", "/"))
    assert subprocess.run(arguments, cwd="/", env=env, capture_output=True, check=False).returncode == 0


def test_the_hosts_of_the_repository(team: Path, cli: Cli) -> None:
    """The same from anywhere; the account is ours."""
    lines = cli("hosts", "-c", team / "fleetmem.toml", "--format", "jsonl").stdout.splitlines()
    users = {json.loads(line)["host"]: json.loads(line)["user"] for line in lines}
    assert users == dict.fromkeys(
        [*(f"web0{number}.example.com" for number in (1, 2, 3)), "db01.example.com"], "fleetmem"
    )


@pytest.mark.parametrize(
    ("file", "before", "after", "key", "line", "words"),
    [
        ("fleetmem.toml", "top = 20", "topp = 20", "shape.topp", 17, ["no such key", "do you mean top?"]),
        ("fleetmem.toml", '"^sshd$"', '"(sshd"', "shape.exclude_commands.1", 19, ["not a regular expression"]),
        ("fleetmem.toml", "15\n", '"15 s"\n', "overrides.0.command_timeout_seconds", 23, ["'15 s'", "without a unit"]),
        ("fleetmem.toml", '"10MiB"', '"10 parsecs"', "shape.min_rss", 18, ["10 parsecs"]),
        ("fleetmem.toml", 'match = "db"', 'match = "dbs"', "overrides.0.match", 22, ["no host or group 'dbs'", "db?"]),
        ("fleetmem.toml", 'match = "db"', 'match = "mail*"', "overrides.0.match", 22, ["none of 4 hosts"]),
        ("fleetmem.toml", 'match = "db"', 'match = "web[0"', "overrides.0.match", 22, ["brackets do not match"]),
        ("fleetmem.toml", '"web:db"', '"wbe"', "inventory.limit", 5, ["no host or group 'wbe'"]),
        (
            "fleetmem.toml",
            "inventory/hosts.ini",
            "inventory/gone.ini",
            "inventory.sources.0",
            4,
            ["gone.ini: no such", "relative to"],
        ),
        ("inventory/hosts.ini", "[db]", "[db", "inventory.sources.0", 4, ["hosts.ini, line 4"]),
        ("inventory/hosts.ini", "db01.", "db;01(", "inventory.sources.0", 4, ["hosts.ini", "correct the entry"]),
        ("inventory/group_vars/web.yml", "env: prod", "env: [", "inventory.sources.0", 4, ["web.yml, line 2", "YAML"]),
    ],
)
def test_a_mistake(
    team: Path, cli: Cli, file: str, before: str, after: str, key: str, line: int, words: list[str]
) -> None:
    """It fails, and names key, file and line; of an inventory also where in it."""
    change(team / file, before, after)
    found = check(cli, team)
    errors = [error for error in found["errors"] if error["key"] == key]
    assert errors, found
    assert (errors[0]["file"], errors[0]["line"]) == (str(team / "fleetmem.toml"), line)
    for word in words:
        assert word in f"{errors[0]['message']}; {errors[0]['try']}"


def test_several_mistakes_at_once(team: Path, cli: Cli) -> None:
    """All that is wrong with values is reported together, also to people."""
    config = team / "fleetmem.toml"
    for before, after in (("top = 20", "topp = 20"), ('"^sshd$"', '"(sshd"'), ("= 10\n", "= -1\n")):
        change(config, before, after)
    errors = check(cli, team)["errors"]
    assert [error["key"] for error in errors] == ["shape.exclude_commands.1", "shape.topp", "run.interval_seconds"]
    text = shown(cli, team)
    assert str(config) in text
    for error in errors:
        assert f"  {config}, line {error['line']}: {error['key']}: {error['message']}" in text


def test_mistakes_of_the_inventory_for_people(team: Path, cli: Cli) -> None:
    """Each with its line in the configuration, and what to do."""
    change(team / "fleetmem.toml", 'match = "db"', 'match = "mail*"')
    assert shown(cli, team).splitlines() == [
        "fleetmem: configuration:",
        f"  {team}/fleetmem.toml, line 22: overrides.0.match: 'mail*' matches none of 4 hosts; `fleetmem hosts` prints "
        "hosts, groups and labels",
    ]


def test_toml_that_cannot_be_read(team: Path, cli: Cli) -> None:
    """The line is the one that breaks."""
    change(team / "fleetmem.toml", "[shape]", "[shape")
    flags = ("config", "check", "--offline", "-c", team / "fleetmem.toml", "--format", "json")
    result = cli(*flags)
    (error,) = json.loads(result.stdout)["errors"]
    assert (result.status, error["key"], error["file"], error["line"]) == (2, None, str(team / "fleetmem.toml"), 16)
