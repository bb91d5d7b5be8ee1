"""Relative paths in a configuration file, and which file that is."""

import logging
import os
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fleetmem.cli.config import to_toml
from fleetmem.config import find_path, load, loading
from fleetmem.errors import ConfigError
from fleetmem.inventory.sources import Source, parse_sources
from fleetmem.runtime.elsewhere import for_another_machine
from fleetmem.sinks import installed
from fleetmem.sinks.plugin import SecretFile, WriterKind

ALL = """
[inventory]
hosts = ["web01,@hosts.txt", "@/abs/hosts"]
sources = ["ansible:inv/hosts.ini", "ssh", "ssh:config", "terraform:tf", "file_sd:t/*.json", "json:~/h.json",
  "command:bin/list --file x", "command:ansible-inventory --list", "ec2:region=eu-west-1",
  "https://sd.example.com/targets", "hosts.yml", "../up.ini"]
[ssh]
key = ["keys/a", "~/b", "/c"]
known_hosts = "known_hosts"
config_file = "none"
[[overrides]]
match = "web01"
key = "keys/d, keys/e"
known_hosts = "other"
[graphite]
spool_dir = "spool"
[run]
state_dir = "state"
[file]
path = "memory.jsonl"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a blank and a bracket in its name; we are somewhere else."""
    folder, elsewhere = tmp_path / "my [team] repo", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


def _write(folder: Path, text: str) -> Path:
    path = folder / "fleetmem.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_path_is_relative_to_the_file(folder: Path) -> None:
    """Those of all sections; absolute ones, those of a home and `none` stay."""
    settings = load(_write(folder, ALL), {})
    assert settings.ssh.key == (folder / "keys/a", Path("~/b"), Path("/c"))
    assert (settings.ssh.known_hosts, settings.ssh.config_file) == (folder / "known_hosts", Path("none"))
    (override,) = settings.overrides
    assert (override.key, override.known_hosts) == ((folder / "keys/d", folder / "keys/e"), folder / "other")
    assert settings.graphite.spool_dir == folder / "spool"
    assert settings.run.state_dir == folder / "state"
    assert settings.file.path == folder / "memory.jsonl"


def test_inventories_are_relative_to_the_file(folder: Path) -> None:
    """Whatever their kind, as far as they are in files; of a glob the folder's own signs mean nothing."""
    (folder / "hosts.txt").write_text("web02\n", encoding="utf-8")
    (folder / "hosts.yml").write_text("all:\n  hosts:\n    web03:\n", encoding="utf-8")
    (folder.parent / "up.ini").write_text("[web]\nweb04\n", encoding="utf-8")
    inventory = load(_write(folder, ALL), {}).inventory
    assert parse_sources(inventory.hosts, inventory.sources) == [
        Source("names", "web01"),
        Source("hosts", f"{folder}/hosts.txt"),
        Source("hosts", "/abs/hosts"),
        Source("ansible", f"{folder}/inv/hosts.ini"),
        Source("ssh", ""),
        Source("ssh", f"{folder}/config"),
        Source("terraform", f"{folder}/tf"),
        Source("file_sd", f"{folder.parent}/my [[]team] repo/t/*.json"),
        Source("json", "~/h.json"),
        Source("command", f"'{folder}/bin/list' --file x"),
        Source("command", "ansible-inventory --list"),
        Source("ec2", "region=eu-west-1"),
        Source("http_sd", "https://sd.example.com/targets"),
        Source("ansible", f"{folder}/hosts.yml"),
        Source("ansible", f"{folder}/../up.ini"),
    ]


def test_flags_and_variables_are_relative_to_where_we_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with every program."""
    monkeypatch.setenv("FLEETMEM_SSH__KNOWN_HOSTS", "mine")
    settings = load(_write(folder, ALL), {"ssh": {"key": ["k"]}, "inventory": {"hosts": ["@hosts.txt"]}})
    assert (settings.ssh.key, settings.ssh.known_hosts) == ((Path("k"),), Path("mine"))
    assert settings.inventory.hosts == ("@hosts.txt",)


def test_the_file_may_be_relative_or_a_link(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown is absolute, so that it means the same elsewhere; of a link its own folder counts."""
    _write(folder, '[ssh]\nkey = "k"\n')
    monkeypatch.chdir(folder)
    assert f'key = ["{folder}/k"]' in to_toml(load(Path("fleetmem.toml"), {}))
    (folder.parent / "link.toml").symlink_to(folder / "fleetmem.toml")
    assert load(folder.parent / "link.toml", {}).ssh.key == (folder.parent / "k",)


def test_wrong_types_are_still_reported(folder: Path) -> None:
    """What is no path is left to the check."""
    with pytest.raises(ConfigError, match=r"ssh\.key\.0"):
        load(_write(folder, "[ssh]\nkey = [1]\n"), {})
    with pytest.raises(ConfigError, match=r"ssh: "):
        load(_write(folder, "ssh = 1\n"), {})
    with pytest.raises(ConfigError, match=r"inventory\.sources"):
        load(_write(folder, "[inventory]\nsources = 1\nhosts = [1]\n"), {})


@pytest.mark.parametrize(
    ("text", "key", "name"),
    [
        ('[ssh]\nkey = "k"\n', "ssh.key.0", "k"),
        ('[inventory]\nsources = ["ansible:hosts.ini"]\n', "inventory.sources.0", "hosts.ini"),
        ('[inventory]\nhosts = ["web01, @hosts.ini"]\n', "inventory.hosts.0", "hosts.ini"),
        ('[graphite]\nspool_dir = "spool"\n', "graphite.spool_dir", "spool"),
    ],
)
def test_a_file_in_the_working_directory_alone(
    folder: Path, caplog: pytest.LogCaptureFixture, text: str, key: str, name: str
) -> None:
    """Earlier versions took that one: both paths are named. Where the new one is there, all is well."""
    path, before = _write(folder, text), Path.cwd() / name
    with caplog.at_level(logging.WARNING):
        load(path, {})
        assert caplog.text == ""
        before.write_text("", encoding="utf-8")
        load(path, {})
    for word in (f"{path}: {key}: {name} ", str(folder / name), f"write {before} "):
        assert word in caplog.text
    caplog.clear()
    (folder / name).write_text("", encoding="utf-8")
    load(path, {})
    assert caplog.text == ""


@dataclass(frozen=True)
class _Section:
    path: Path
    name: str = ""
    secret: SecretFile | None = None


def test_paths_of_plugins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of a plug-in that is a `Path` is one; texts stay as they are."""
    entry = EntryPoint("mine", f"{__name__}:KIND", installed.GROUP)
    monkeypatch.setattr(installed, "entry_points", lambda **_wanted: [entry])
    settings = load(_write(folder, '[sinks.mine]\npath = "out"\nname = "out"\n'), {})
    assert settings.sinks["mine"] == _Section(folder / "out", "out")
    (folder / "token").write_text("sesame", encoding="utf-8")
    with_secret = load(_write(folder, '[sinks.mine]\npath = "/out"\nsecret = "token"\n'), {}).sinks["mine"]
    assert (with_secret.secret.path, with_secret.secret.value) == (folder / "token", "sesame")


def test_secrets_and_homes_of_another_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a configuration is checked for another machine, they need not be here; elsewhere they must."""
    entry = EntryPoint("mine", f"{__name__}:KIND", installed.GROUP)
    monkeypatch.setattr(installed, "entry_points", lambda **_wanted: [entry])
    path = _write(folder, '[ssh]\nkey = "~nosuchuser/key"\n[sinks.mine]\npath = "/out"\nsecret = "token"\n')
    with for_another_machine():
        settings = load(path, {})
    assert settings.sinks["mine"].secret.path == folder / "token"
    assert settings.ssh.key == (Path("~nosuchuser/key"),)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert ["ssh.key.0" in str(caught.value), "token: no such file" in str(caught.value)] == [True, True]


KIND = WriterKind(_Section, lambda _section: None)  # type: ignore[arg-type,return-value]


def test_a_pipe_has_no_folder(folder: Path) -> None:
    """A configuration that is decrypted on the way: its paths are those of the working directory."""
    inner, outer = os.pipe()
    os.write(outer, b'[ssh]\nkey = "key"\n')
    os.close(outer)
    assert load(Path(f"/dev/fd/{inner}"), {}).ssh.key == (folder.parent / "elsewhere" / "key",)
    os.close(inner)


def test_the_order_of_files(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG's come last; a variable that names a file comes first, there or not."""
    system, xdg, named = tmp_path / "system.toml", tmp_path / "xdg", tmp_path / "named.toml"
    monkeypatch.setattr(loading, "DEFAULT_PATHS", (system,))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    last = home / ".config" / "fleetmem" / "fleetmem.toml"
    assert find_path() is None
    for path in (last, xdg / "fleetmem" / "fleetmem.toml", xdg / "fleetmem" / "config.toml", system):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
        if path != last:
            monkeypatch.setenv("XDG_CONFIG_HOME", str(xdg))
        assert find_path() == path
    monkeypatch.setenv("FLEETMEM_CONFIG", str(named))
    assert find_path() == named
    with pytest.raises(ConfigError, match="no such file"):
        load(find_path(), {})
    monkeypatch.setenv("FLEETMEM_CONFIG", "")
    assert find_path() == system
    system.unlink()
    monkeypatch.setenv("XDG_CONFIG_HOME", os.path.relpath(xdg))  # the specification has it ignored
    assert find_path() == last
