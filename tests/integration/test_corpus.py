"""A corpus of odd files: each host is reached as Ansible and ssh would reach it, or is left out and told."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from fleetmem.connect.openssh.targets import Targets
from fleetmem.connect.ssh_settings import LoginLimits, ReachSettings, SshSettings
from fleetmem.connect.target import Target
from fleetmem.errors import UsageError
from fleetmem.inventory.ansible import source
from fleetmem.inventory.listing import AnsibleReader, Listing, Means

from .servers import find_tool, missing
from .test_ssh_config import as_ssh_says, ask_ssh, resolve

CORPUS = Path(__file__).parents[1] / "corpus"
_SSH_CASES = sorted(path.name for path in (CORPUS / "ssh").iterdir())
_ANSIBLE_CASES = sorted(path.name for path in (CORPUS / "ansible").iterdir())
_QUICK_ANSIBLE_CASES = {
    "cfg-arguments",
    "group-variables",
    "odd-names",
    "plain",
    "port-as-option",
    "proxy-command",
    "stray-word",
    "template-filter",
    "yaml-types",
}
"""One of each sort: Ansible takes seconds for each, so the long run has the others."""

_ENVIRONMENT = {"CORPUS_USER": "fromenv", "CORPUS_FOLDER": "/folder"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without an ssh configuration, and nothing of Ansible in the environment."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
        monkeypatch.delenv(name)
    for name, value in _ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return home


# --- ssh -------------------------------------------------------------------------------------------------------------

# Refused here with file and line, where ssh reads a part of the line, or refuses when it connects.
_REFUSED_HERE = {"nul", "variable-unset"}
# Taken here, as there is one thing only that it can mean.
_REFUSED_THERE = {"boolean-true"}
# What ssh -G does not look at before it connects, and we do.
_OURS = ("hostname", "port", "user", "addressfamily", "compression", "tcpkeepalive", "identitiesonly")


@pytest.mark.parametrize("case", _SSH_CASES)
def test_a_host_resolves_as_with_ssh_or_the_file_is_refused(case: str, tmp_path: Path) -> None:
    """Address, user, port, keys and jump hosts are those of `ssh -G`; what ssh refuses, fleetmem refuses."""
    config = tmp_path / "config"
    shutil.copy(CORPUS / "ssh" / case, config)
    said = ask_ssh(config, "web01", None, None)
    if said is None or case in _REFUSED_HERE:
        if case not in _REFUSED_THERE:
            with pytest.raises(UsageError, match=str(config)):
                resolve(config, "web01", None, None)
        return
    target = resolve(config, "web01", None, None)
    ours = as_ssh_says(target)
    assert {name: said.get(name, ["no"]) for name in _OURS} == {name: ours[name] for name in _OURS}
    assert _jumps_of(said) == [str(jump) for jump in target.jumps]
    assert (target.proxy_command is None) == (said.get("proxycommand", ["none"]) == ["none"])
    files = [path for path in said.get("identityfile", []) if not path.startswith("~/.ssh/id_") and path != "none"]
    named = [str(path) for path in target.access.identities.paths if "/.ssh/id_" not in str(path)]
    assert named == [_expanded(path, target) for path in files]


def _jumps_of(said: dict[str, list[str]]) -> list[str]:
    jumps = said.get("proxyjump", ["none"])
    return [] if jumps == ["none"] else jumps[0].split(",")


def _expanded(path: str, target: Target) -> str:
    for token, value in {"h": target.address, "r": target.user, "n": "web01", "p": str(target.port)}.items():
        path = path.replace(f"%{token}", value)
    return path.replace("${CORPUS_FOLDER}", _ENVIRONMENT["CORPUS_FOLDER"])


# --- Ansible ---------------------------------------------------------------------------------------------------------

_RECORDER = r"""#!{python}
import json, os, subprocess, sys
arguments = sys.argv[1:]
done = subprocess.run(["{ssh}", "-G", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
name = arguments[-1].rpartition("corpus:")[2].strip("'\" ")
with open(os.path.join(os.environ["CORPUS_RECORDS"], "records"), "a") as file:
    file.write(json.dumps([name, done.stdout if done.returncode == 0 else None]) + "\n")
sys.exit(255)
"""


class Way(NamedTuple):
    """How a host is reached."""

    address: str
    user: str
    port: int
    keys: tuple[str, ...]
    jumps: tuple[tuple[str, str, int, tuple[str, ...]], ...]


def _way_of(said: dict[str, list[str]]) -> Way:
    """Returns what `ssh -G` says, with the jump host of a ProxyCommand."""
    jumps = [_hop(jump.rpartition("@")[2].partition(":")[0], _flags(jump)) for jump in _jumps_of(said)]
    command = said.get("proxycommand", ["none"])[0]
    if command != "none":
        words = [word for word in shlex.split(command)[1:] if word not in ("-W", "%h:%p")]
        jumps.append(_hop("", words))
    return Way(said["hostname"][0], said["user"][0], int(said["port"][0]), _keys(said), tuple(jumps))


def _flags(jump: str) -> list[str]:
    user, at, rest = jump.rpartition("@")
    host, colon, port = rest.partition(":")
    return [*(["-l", user] if at else []), *(["-p", port] if colon else []), host]


def _hop(_host: str, words: list[str]) -> tuple[str, str, int, tuple[str, ...]]:
    done = subprocess.run([find_tool("ssh"), "-G", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        return "nothing that ssh could do", "", 0, ()
    said = _parse(done.stdout)
    return said["hostname"][0], said["user"][0], int(said["port"][0]), _keys(said)


def _keys(said: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path for path in said.get("identityfile", []) if not path.startswith("~/.ssh/id_")))


def _parse(text: str) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        said.setdefault(keyword, []).append(value)
    return said


def _theirs(folder: Path, inventory: Path, tmp_path: Path) -> dict[str, Way | None]:
    """Returns how Ansible would have reached each host: by the ssh that it starts. None where ssh refuses."""
    recorder = tmp_path / "ssh"
    recorder.write_text(_RECORDER.replace("{python}", sys.executable).replace("{ssh}", find_tool("ssh")))
    recorder.chmod(0o755)
    records = tmp_path / "records"
    records.touch()
    program = Path(sys.executable).parent / "ansible"
    if not program.is_file():
        missing("ansible-core")
    subprocess.run(
        [program, "-i", str(inventory), "all", "-m", "raw", "-a", "corpus:{{ inventory_hostname }}"],
        cwd=folder,
        env={
            **os.environ,
            "ANSIBLE_SSH_EXECUTABLE": str(recorder),
            "CORPUS_RECORDS": str(tmp_path),
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
            "ANSIBLE_SSH_PASSWORD_MECHANISM": "ssh_askpass",
        },
        capture_output=True,
        timeout=120,
        check=False,
    )
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    return {name: _way_of(_parse(text)) if text is not None else None for name, text in lines}


def _ours(listing: Listing) -> dict[str, Way]:
    ways = {}
    paths = (Path(listing.ssh_config),) if listing.ssh_config else ()
    targets = Targets(ReachSettings(SshSettings(), LoginLimits(), paths))
    for host in listing.hosts:
        target = targets.resolve(host, SshSettings())
        jumps = tuple((jump.address, jump.user, jump.port, _paths(jump)) for jump in target.jumps)
        ways[host.name] = Way(target.address, target.user, target.port, _paths(target), jumps)
    return ways


def _paths(target: Target) -> tuple[str, ...]:
    return tuple(str(path) for path in target.access.identities.paths if "/.ssh/id_" not in str(path))


def _make_keys(folder: Path, keys: Path) -> None:
    """Gives the files that are called `/k/NAME` a place: ssh passes over `-i` of a file that is not there."""
    keys.mkdir()
    for path in filter(Path.is_file, folder.rglob("*")):
        text = path.read_text()
        for name in re.findall(r"/k/([\w.]+)", text):
            (keys / name).touch()
        path.write_text(text.replace("/k/", f"{keys}/"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if case in _QUICK_ANSIBLE_CASES else [pytest.mark.long]) for case in _ANSIBLE_CASES],
)
def test_a_host_is_reached_as_ansible_reaches_it_or_is_left_out(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Ansible's reader and with our own: never another machine, user, port, key or jump host in silence."""
    folder = tmp_path / "case"
    shutil.copytree(CORPUS / "ansible" / case, folder)
    folder.chmod(0o755)
    _make_keys(folder, tmp_path / "keys")
    monkeypatch.chdir(folder)
    inventory = next(path for path in (folder / "hosts", folder / "hosts.yml") if path.exists())
    theirs = _theirs(folder, inventory, tmp_path)
    for reader in (AnsibleReader.AUTO, AnsibleReader.BUILTIN):
        listing = source.read(str(inventory), replace(Means(), ansible_reader=reader))
        ours, told = _ours(listing), "\n".join((*listing.remarks, *listing.left_out))
        is_refused_whole = not theirs  # Ansible takes nothing of a file with one odd line
        for name in {*theirs, *ours}:
            if name not in ours:
                assert name[:40] in told, f"{reader}: {name} is missing without a word: {told}"
            elif theirs.get(name) is not None:
                assert ours[name] == theirs[name], reader
            else:
                assert is_refused_whole, f"{reader}: {name} is reached, and not by Ansible: {ours[name]}"
        assert ours or told
