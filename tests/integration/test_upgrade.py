"""The pages on deployment and upgrade, followed line by line: from the release before to this one, and back.

Everything runs as it stands below a folder of its own: `sudo` runs its words, `systemctl` starts what the unit names.
"""

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import documents, servers
from .documents import Block, Place
from .receivers import CarbonCache
from .servers import REPOSITORY, USER, StatsD, make_key, wait_for

BEFORE = "94b75ea"  # the release before: its protocol, files and units are what an upgrade starts from
_SYSTEMCTL = r"""
root=@ROOT@
state=$root/var/lib/private/fleetmem
case "$*" in
daemon-reload) ;;
'enable --now fleetmem' | 'start fleetmem')
    mkdir -p "$state"
    ln -sfn "$state" "$root/var/lib/fleetmem"
    read -r -a command < <(sed -n "s|^ExecStart=||; T; s|/opt/|$root/opt/|; s|/etc/|$root/etc/|; p" \
        "$root/etc/systemd/system/fleetmem.service")
    STATE_DIRECTORY=$state HOME=$state FLEETMEM_SSH__KEY=$root/etc/fleetmem/ssh_key \
        "${command[@]}" </dev/null >"$root/log" 2>&1 &
    echo $! >"$root/pid"
    for _ in $(seq 600); do
        grep -qE '[1-9][0-9]* hosts (ok|answered), 0 failed' "$root/log" && exit
        kill -0 $! || break
        sleep 0.1
    done
    cat "$root/log" >&2
    exit 1
    ;;
'stop fleetmem' | 'disable --now fleetmem')
    kill -TERM "$(cat "$root/pid")"
    while kill -0 "$(cat "$root/pid")" 2>/dev/null; do sleep 0.1; done
    ;;
'status fleetmem') kill -0 "$(cat "$root/pid")" && tail -n 1 "$root/log" ;;
*) echo "systemctl $*: not known here" >&2 && exit 1 ;;
esac
"""
# What the release needs comes from the environment of the tests, which pip takes for installed: no download.
_PYTHON = r"""
[ "$1 $2" = '-m venv' ] || exec @PYTHON@ "$@"
@PYTHON@ -m venv --without-pip "$3"
echo '@PACKAGES@' >"$(echo "$3"/lib/python*/site-packages)/tests.pth"
printf '#!/bin/sh\nexec %s/bin/python -m pip "$@" --no-index --quiet\n' "$3" >"$3/bin/pip"
chmod +x "$3/bin/pip"
"""


def _blocks(page: str, heading: str) -> list[Block]:
    """Returns the commands below a heading of a page."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    start = text[: text.index(f"\n## {heading}\n")].count("\n") + 1
    end = start + text.splitlines()[start + 1 :].index(
        next((line for line in text.splitlines()[start + 1 :] if line.startswith("## ")), text.splitlines()[-1])
    )
    return [block for block in documents.blocks(page) if start < block.line <= end + 1]


def _wheel(source: Path, folder: Path, version: str) -> Path:
    """Builds a wheel, and returns the folder that `make dist` would leave."""
    folder.mkdir(parents=True)
    pip = f"{sys.executable} -m pip wheel --quiet --no-deps --no-build-isolation"
    environment = os.environ | {"SETUPTOOLS_SCM_PRETEND_VERSION": version}
    subprocess.run([*pip.split(), "-w", str(folder), str(source)], check=True, env=environment)
    (folder / "fleetmem.1").touch()
    return folder


@dataclass(frozen=True)
class Machine:
    """The collector's machine.

    Attributes:
        root: what stands for `/`.
        dist: what `make dist` copies from.
    """

    place: Place
    root: Path
    dist: Path

    def follow(self, page: str, heading: str) -> None:
        """Runs what stands below a heading."""
        blocks = _blocks(page, heading)
        assert blocks
        for block in blocks:
            done = self.place.run(block)
            assert done.returncode == 0, f"{page}:{block.line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def release(self, folder: Path) -> None:
        """Has `make dist` make this release from now on."""
        self.dist.unlink(missing_ok=True)
        self.dist.symlink_to(folder)

    @property
    def cycles(self) -> int:
        """How many cycles without a failure the log has."""
        return (self.root / "log").read_text(encoding="utf-8").count("3 of 3 hosts answered, 0 failed")

    @property
    def version(self) -> str:
        """What is installed."""
        program = self.root / "opt" / "fleetmem" / "bin" / "fleetmem"
        done = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
        return str(done.stdout.split()[-1])


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The source of the release before."""
    source = tmp_path / "source"
    source.mkdir()
    archive = subprocess.run(["git", "archive", BEFORE], cwd=REPOSITORY, capture_output=True, check=False)
    if archive.returncode:
        reason = f"commit {BEFORE} is not here: the release before needs a clone with its history (fetch-depth: 0)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    subprocess.run(["tar", "-x", "-C", source], input=archive.stdout, check=True)
    return source


@pytest.fixture
def carbon(tmp_path: Path) -> Iterator[CarbonCache]:
    """A carbon that is not started yet."""
    server = CarbonCache(tmp_path / "carbon")
    yield server
    server.stop()


@pytest.fixture
def machine(tmp_path: Path, before: Path, statsd: StatsD, carbon: CarbonCache) -> Iterator[Machine]:
    """A machine without fleetmem, and three hosts whose key may run the probe of the release before, nothing else."""
    folder, root = tmp_path / "work", tmp_path / "root"
    key = make_key(tmp_path / "key")
    probe = [sys.executable, "-m", "fleetmem", "probe", "--authorized-keys", f"{key}.pub"]
    line = subprocess.run(
        probe, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(before / "src")}
    ).stdout
    (folder / "home" / ".ssh").mkdir(parents=True)
    (folder / "home" / ".ssh" / "fleetmem").write_bytes(key.read_bytes())
    (folder / "fleetmem.pub").write_text(key.with_suffix(".pub").read_text())
    (folder / "deploy").symlink_to(before / "deploy")
    for name in ("etc/systemd/system", "opt", "var/lib/private", "usr/local/share/man/man1"):
        (root / name).mkdir(parents=True)
    with servers.sshd(tmp_path / "sshd", public_keys=[line]) as sshd:
        settings = (
            f'[inventory]\nhosts = ["127.0.1.[1-3]"]\n[ssh]\nuser = "{USER}"\nport = {sshd.port}\n'
            f"[run]\ninterval_seconds = 1\n[shape]\ntop = 3\n[statsd]\nserver = {json.dumps(statsd.address)}\n"
            f"[graphite]\nserver = {json.dumps(carbon.line_address)}\n"
        )
        (folder / "config.toml").write_text(settings)
        words = {
            r"(?<![\w.])/(opt|etc|var|usr/local)/": f"{root}/\\1/",
            r"(?m)(fleetmem doctor .*)$": r"\1 || test $? -le 4",
        }
        place = Place(folder, words)
        place.add_program("sudo", 'exec "$@"\n')
        place.add_program("sudoedit", f'exec cp {folder}/config.toml "$1"\n')
        place.add_program("make", f"[ $* = dist ] && rm -rf dist && cp -rL {tmp_path}/dist dist\n")
        python = _PYTHON.replace("@PYTHON@", sys.executable).replace("@PACKAGES@", sysconfig.get_path("purelib"))
        place.add_program("python3", python)
        place.add_program("systemctl", _SYSTEMCTL.replace("@ROOT@", str(root)))
        place.add_program("journalctl", f"exec cat {root}/log\n")
        machine = Machine(place, root, tmp_path / "dist")
        yield machine
        if (root / "pid").exists():
            subprocess.run(["kill", "-9", (root / "pid").read_text().strip()], check=False, capture_output=True)


def _times(carbon: CarbonCache) -> list[float]:
    """Returns when the points of one host were taken that carbon has."""
    return [
        seconds for seconds, _value in carbon.points("fleetmem.host.127_0_1_1").get("fleetmem.host.127_0_1_1.up", [])
    ]


@pytest.mark.long
def test_upgrade_and_back(machine: Machine, before: Path, carbon: CarbonCache, tmp_path: Path) -> None:
    """Configuration, forced commands, spool and state go with it, both ways; points that wait in the spool arrive."""
    old = _wheel(before, tmp_path / "releases" / "old", "0.0.9")
    new = _wheel(REPOSITORY, tmp_path / "releases" / "new", "0.1.0")
    deploy = "docs/how-to/deploy.md"
    guide = "docs/how-to/upgrade.md"
    machine.release(old)
    install = _blocks(deploy, "systemd")
    assert "systemctl enable" in install[0].text
    assert "systemctl disable" in install[-1].text
    began = time.time()
    for block in install[:-1]:
        done = machine.place.run(block)
        assert done.returncode == 0, done.stderr[-4000:]
    assert machine.version == "0.0.9"

    (machine.place.folder / "deploy").unlink()
    (machine.place.folder / "deploy").symlink_to(REPOSITORY / "deploy")
    machine.release(new)
    machine.follow(guide, "Before")
    upgraded = time.time()
    machine.follow(guide, "Forward")
    assert machine.version == "0.1.0"
    carbon.start()
    wait_for(
        "points of the old release are in carbon",
        lambda: any(began - 1 <= taken < upgraded for taken in _times(carbon)),
    )

    carbon.stop()
    away, cycles = time.time(), machine.cycles
    wait_for("a few cycles without carbon", lambda: machine.cycles > cycles + 5)
    back = time.time()
    machine.follow(guide, "Back")
    assert machine.version == "0.0.9"
    carbon.start()
    wait_for("points of the new release are in carbon", lambda: any(away < taken < back for taken in _times(carbon)))
    machine.follow(guide, "Clean up")
    state = machine.root / "var" / "lib" / "private" / "fleetmem"
    assert not [path for path in state.rglob("*") if "damaged" in path.name]
    done = machine.place.run(install[-1])
    assert done.returncode == 0, done.stderr
    assert [path for path in machine.root.rglob("*") if "fleetmem" in path.name] == []
