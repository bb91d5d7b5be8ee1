"""What `config check --offline` can tell of a configuration, and what it leaves alone."""

import json
from pathlib import Path

import pytest

from fleetmem.config import load
from fleetmem.inventory.programs import Programs
from fleetmem.wiring.offline import OfflineReport, check_offline


@pytest.fixture(autouse=True)
def _nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def _start(*_arguments: object) -> None:
        raise AssertionError("a program")

    monkeypatch.setattr(Programs, "_end", _start)


def _check(folder: Path, text: str) -> OfflineReport:
    path = folder / "fleetmem.toml"
    path.write_text(text, encoding="utf-8")
    return check_offline(load(path, {}), path)


def _keys(report: OfflineReport) -> tuple[list[str | None], list[str | None]]:
    return [problem.key for problem in report.errors], [problem.key for problem in report.warnings]


def test_what_is_not_read(tmp_path: Path) -> None:
    """What needs a network, a program or another folder is a warning; patterns are only checked as they are written."""
    (tmp_path / "tf").mkdir()
    script = tmp_path / "list"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    kinds = ("ec2:region=x", "http_sd:http://127.0.0.1:1/", "command:false", "terraform:tf", "ansible:/none/hosts")
    report = _check(
        tmp_path,
        f"""[inventory]
sources = {json.dumps([*kinds, "/none/hosts.ini", "ssh", "ansible:list"])}
limit = "web:&env=prod:!old[0]"
[ssh]
key = "secret"
config_file = "/none/config"
[[overrides]]
match = "whatever-there-is"
[[overrides]]
match = "~(web"
""",
    )
    keys = [f"inventory.sources.{number}" for number in range(8)]
    assert _keys(report) == (["overrides.1.match"], keys)
    assert not report.is_whole


@pytest.mark.parametrize(
    "content",
    [
        "web01 ansible_user=\"{{ lookup('pipe', 'x') }}\"\nweb02\n",
        "web01 ansible_host='{{ a | b }}'\nweb02\n",
    ],
)
def test_what_only_ansible_can_read(tmp_path: Path, content: str) -> None:
    """No error: it may be there, where fleetmem runs."""
    (tmp_path / "hosts.ini").write_text(content, encoding="utf-8")
    report = _check(tmp_path, '[inventory]\nsources = ["hosts.ini"]\nlimit = "web01"\n')
    assert _keys(report) == ([], ["inventory.sources.0"])


def test_inventories_of_plugins_of_ansible(tmp_path: Path) -> None:
    """Likewise."""
    (tmp_path / "aws.yml").write_text("plugin: amazon.aws.aws_ec2\n", encoding="utf-8")
    report = _check(tmp_path, '[inventory]\nsources = ["ansible:aws.yml"]\n')
    assert _keys(report) == ([], ["inventory.sources.0"])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[inventory]\nhosts = ["web[9-1]"]\n', "inventory.hosts.0"),
        ('[inventory]\nhosts = ["web01", "@gone"]\n', "inventory.hosts.1"),
        ('[inventory]\nsources = ["sub/gone.ini"]\n', "inventory.sources.0"),
        ('[inventory]\nsources = ["nokind:x"]\n', "inventory.sources.0"),
        ('[inventory]\nsources = ["hosts.json"]\n', "inventory.sources.0"),
        ('[inventory]\nhosts = ["a"]\nshard = "0/2"\n', "inventory.shard"),
        ('[inventory]\nhosts = ["a@web01", "b@web01"]\n', "inventory.sources"),
        ('[inventory]\nhosts = ["a"]\n[shape]\nmax_series = 1\nmax_series_per_host = 0\n', "shape.max_series"),
        ('[ssh]\nconfig_file = "gone"\n', "ssh.config_file"),
        ('[ssh]\nconfig_file = "bad"\n', "ssh.config_file"),
        ('[inventory]\nsources = ["ssh:one", "ssh:two"]\n', "ssh.config_file"),
        ('[ssh]\nknown_hosts = "gone"\nhost_keys = "strict"\n', "ssh.known_hosts"),
        ('[ssh]\nhost_keys = "strict"\n[[overrides]]\nmatch = "a"\nknown_hosts = "."\n', "overrides.0.known_hosts"),
        ('[prometheus]\nweb_config = "gone"\n', "prometheus.web_config"),
        ('[prometheus]\nweb_config = "bad"\n', "prometheus.web_config"),
        ('[inventory]\nlimit = "a:b,c"\nsources = ["ec2"]\n', "inventory.limit"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, key: str) -> None:
    """The key says where."""
    (tmp_path / "hosts.json").write_text("{", encoding="utf-8")
    (tmp_path / "bad").write_text("Hots web01\n", encoding="utf-8")
    (tmp_path / "one").write_text("Host web01\n", encoding="utf-8")
    (tmp_path / "two").write_text("Host web02\n", encoding="utf-8")
    assert _keys(_check(tmp_path, text))[0] == [key]


def test_a_web_configuration(tmp_path: Path) -> None:
    """Its certificate is not in the repository; one of another folder is the machine's."""
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: /none/a, key_file: /none/b}\n", encoding="utf-8")
    assert _keys(_check(tmp_path, '[prometheus]\nweb_config = "web.yml"\n')) == ([], [])
    report = _check(tmp_path, '[prometheus]\nweb_config = "/none/web.yml"\n')
    assert _keys(report) == ([], ["prometheus.web_config"])


@pytest.mark.parametrize("known_hosts", ["gone", "/none/known_hosts", "~/none"])
def test_known_hosts_that_are_not_there(tmp_path: Path, known_hosts: str) -> None:
    """They are made where new keys are accepted; those of another folder are the machine's."""
    report = _check(tmp_path, f'[ssh]\nknown_hosts = "{known_hosts}"\n')
    assert _keys(report) == ([], ["ssh.known_hosts"] if known_hosts == "gone" else [])


def test_the_hosts_that_are_left(tmp_path: Path) -> None:
    """Overrides may be for hosts that the limit leaves out, or that another collector has."""
    (tmp_path / "hosts.ini").write_text("[web]\nweb[1:4]\n[db]\ndb1\n", encoding="utf-8")
    text = '[[overrides]]\nmatch = "db"\n[inventory]\nsources = ["hosts.ini"]\nlimit = "web"\n'
    counts = []
    for shard in ("0/1", "0/2", "1/2"):
        report = _check(tmp_path, f'{text}shard = "{shard}"\n')
        assert report.errors == []
        counts.append(len(report.hosts))
    assert counts == [4, counts[1], 4 - counts[1]]


def test_without_an_inventory(tmp_path: Path) -> None:
    """It may be named by flags where fleetmem runs."""
    assert _keys(_check(tmp_path, '[[overrides]]\nmatch = "web"\n')) == ([], [])
