import pickle
from pathlib import Path
from typing import Any

import pytest

from fleetmem.cli.config import to_toml
from fleetmem.config import Settings, load
from fleetmem.connect.ssh_settings import HostKeyPolicy, JumpSpec
from fleetmem.errors import ConfigError
from fleetmem.model import Host
from fleetmem.probe.script import ProbeKind
from fleetmem.wiring.fleet_spec import fleet_spec, read_inventory
from fleetmem.wiring.host_settings import HostSettings, match_overrides, settings_by_host

_HOSTS = [
    Host("web1", "web1", groups=frozenset({"web", "eu"})),
    Host("web2", "web2", groups=frozenset({"web", "us"}), labels={"env": "prod"}),
    Host("db1", "db1", groups=frozenset({"db", "eu"})),
]


def _settings(*overrides: dict[str, Any], **flags: dict[str, Any]) -> Settings:
    return load(None, {"overrides": list(overrides), **flags})


def _by_name(settings: Settings, *, is_refresh: bool = False) -> dict[str, HostSettings]:
    by_host = settings_by_host(settings, _HOSTS, match_overrides(settings, _HOSTS), is_refresh=is_refresh)
    return {host.name: found for host, found in by_host.items()}


def test_no_overrides() -> None:
    """All hosts share what the sections say."""
    settings = load(None, {"ssh": {"user": "u"}})
    found = _by_name(settings)
    assert {each.ssh for each in found.values()} == {settings.ssh.settings()}
    assert len({id(each) for each in found.values()}) == 1


def test_a_pattern_chooses_hosts() -> None:
    """Groups, names and labels, with Ansible's signs; the other keys stay as the sections have them."""
    settings = _settings(
        {"match": "web:&eu", "user": "a"}, {"match": "env=prod", "port": 2222}, {"match": "all:!web", "kind": "ps"}
    )
    found = _by_name(settings)
    assert [found[name].ssh.user for name in ("web1", "web2", "db1")] == ["a", None, None]
    assert [found[name].ssh.port for name in ("web1", "web2", "db1")] == [None, 2222, None]
    assert [found[name].probe.kind for name in ("web1", "web2", "db1")] == [ProbeKind.STATUS] * 2 + [ProbeKind.PS]


@pytest.mark.parametrize("inventory", [{"limit": "web"}, {"shard": "0/2"}, {"shard": "1/2"}])
def test_part_of_an_inventory(tmp_path: Path, inventory: dict[str, str]) -> None:
    """A limit or a shard may leave no host of a group: the group is still one, and `all[0]` its first host."""
    (tmp_path / "hosts.ini").write_text("[web]\nweb[1:4]\n[db]\ndb1\n", encoding="utf-8")
    settings = _settings(
        {"match": "db", "user": "a"},
        {"match": "web[0]", "user": "b"},
        inventory={"sources": [f"ansible:{tmp_path}/hosts.ini"], "ansible_reader": "builtin", **inventory},
    )
    spec = fleet_spec(settings, read_inventory(settings))
    for part in (spec, *spec.shares(2)):
        by_host = settings_by_host(settings, part.hosts, part.matches, is_refresh=False)
        for host, found in by_host.items():
            assert found.ssh.user == {"db1": "a", "web1": "b"}.get(host.name), host.name
        assert len(pickle.dumps(part.matches)) > 0
    assert len(spec.hosts) < 5


def test_later_ones_are_stronger() -> None:
    """Of two that match the later one wins, key by key."""
    found = _by_name(_settings({"match": "all", "user": "a", "port": 1}, {"match": "web1", "user": "b"}))
    assert (found["web1"].ssh.user, found["web1"].ssh.port) == ("b", 1)
    assert (found["db1"].ssh.user, found["db1"].ssh.port) == ("a", 1)


def test_every_key() -> None:
    """What [ssh] says of a host, and [probe], can be different for some."""
    override = {
        "match": "web1",
        "user": "admin",
        "port": 2222,
        "key": ["~/.ssh/eu"],
        "jump": "ops@bastion.example.com",
        "known_hosts": "/known",
        "host_keys": "strict",
        "connect_timeout_seconds": 1.0,
        "login_timeout_seconds": 2.0,
        "command_timeout_seconds": 3.0,
        "keepalive_seconds": 0.0,
        "compression": True,
        "kind": "ps",
        "sudo": True,
        "processes": "all",
    }
    found = _by_name(_settings(override))
    ssh, probe = found["web1"].ssh, found["web1"].probe
    assert (ssh.user, ssh.port, ssh.key_paths) == ("admin", 2222, (Path("~/.ssh/eu"),))
    assert ssh.jumps == (JumpSpec("ops", "bastion.example.com", None),)
    assert (ssh.known_hosts_path, ssh.host_key_policy) == (Path("/known"), HostKeyPolicy.STRICT)
    assert (ssh.connect_timeout_seconds, ssh.login_timeout_seconds, ssh.command_timeout_seconds) == (1.0, 2.0, 3.0)
    assert (ssh.keepalive_seconds, ssh.is_compressed) == (0.0, True)
    assert (probe.kind, probe.sudo, probe.processes) == ("ps", True, "all")
    assert found["db1"] == _by_name(load(None, {}))["db1"]


def test_flags_are_stronger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is typed now is meant now; what the environment says is no more than the file's sections."""
    path = tmp_path / "fleetmem.toml"
    path.write_text("""
[[overrides]]
match = "web"
user = "a"
port = 1
sudo = true
[ssh]
port = 2
""")
    monkeypatch.setenv("FLEETMEM_SSH__PORT", "3")
    found = _by_name(load(path, {"ssh": {"user": "typed"}, "probe": {"kind": "ps"}}))
    assert (found["web1"].ssh.user, found["web1"].ssh.port, found["web1"].probe.sudo) == ("typed", 1, True)
    assert (found["db1"].ssh.user, found["db1"].ssh.port, found["db1"].probe.sudo) == ("typed", 3, False)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"match": "web", "port": 0}, ["overrides.0.port", "greater than or equal to 1"]),
        ({"match": "web", "concurrency": 3}, ["overrides.0.concurrency", "no such key"]),
        ({"match": "web", "jump": "a b"}, ["overrides.0.jump", "expected [user@]host[:port]"]),
        ({"user": "a"}, ["overrides.0.match", "required"]),
        ({"match": "", "user": "a"}, ["overrides.0.match", "at least 1"]),
    ],
)
def test_errors_name_the_entry(override: dict[str, Any], words: list[str]) -> None:
    """Which one, and which of its keys."""
    with pytest.raises(ConfigError) as caught:
        _settings(override)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("match", "reason"), [("webb", "do you mean web"), ("web:&", "a term is empty")])
def test_a_pattern_that_means_nothing(match: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """A typing error would be the wrong user on some hosts: it is an error, but not while hosts come and go."""
    settings = _settings({"match": "all", "user": "a"}, {"match": match, "user": "b"})
    with pytest.raises(ConfigError) as caught:
        _by_name(settings)
    assert "configuration: overrides.1.match: " in str(caught.value)
    assert reason in str(caught.value)
    assert {each.ssh.user for each in _by_name(settings, is_refresh=True).values()} == {"a"}
    (message,) = caplog.messages
    assert message.endswith("it matches no host now")


def test_show_prints_overrides(tmp_path: Path) -> None:
    """As they were given, and readable as a configuration."""
    settings = _settings({"match": "web", "user": "a", "key": ["/k"], "sudo": True})
    path = tmp_path / "shown.toml"
    path.write_text(to_toml(settings))
    assert load(path, {}) == settings
