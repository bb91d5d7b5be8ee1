"""What is released: made by scripts/dist, installed as people install it, in environments that have nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .servers import REPOSITORY, TOOLS, Sshd, find_tool

IMAGE = REPOSITORY / "deploy" / "Dockerfile"
IMAGE_IGNORE = REPOSITORY / "deploy" / "Dockerfile.dockerignore"


def run(*command: object, cwd: Path = REPOSITORY, **env: object) -> str:
    """Returns what a command prints; fails the test where it fails."""
    environment = os.environ | {key: str(value) for key, value in env.items()}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed here is started several times
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that is released."""
    folder = tmp_path_factory.mktemp("dist")
    run(REPOSITORY / "scripts" / "dist", folder, PYTHON=sys.executable)
    return folder


def one(folder: Path, pattern: str) -> Path:
    """Returns the only file of this kind."""
    (path,) = folder.glob(pattern)
    return path


def version_of(wheel: Path) -> str:
    """Returns the version in a wheel's name."""
    return wheel.name.split("-")[1]


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The command as pipx installs it from the wheel."""
    folder = tmp_path_factory.mktemp("pipx")
    env = {"PIPX_HOME": folder / "home", "PIPX_BIN_DIR": folder / "bin", "PIPX_MAN_DIR": folder / "man"}
    run(find_tool("pipx"), "install", "--python", sys.executable, one(dist, "*.whl"), **_cached(folder), **env)
    yield folder / "bin" / "fleetmem"
    shutil.rmtree(folder, ignore_errors=True)


def _cached(home: Path) -> dict[str, Any]:
    """Returns an environment in which the versions are those that were tested, and a second run fetches nothing."""
    constraints = REPOSITORY / "constraints.txt"
    return {"HOME": home, "PIP_CONSTRAINT": constraints, "UV_CONSTRAINT": constraints, "UV_CACHE_DIR": TOOLS / "uv"}


@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(dist: Path) -> None:
    """Each file of the source, the type marker and the probe among them, and what describes the package."""
    with zipfile.ZipFile(one(dist, "*.whl")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    known = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "src/fleetmem").split("\n")
    assert names == {name.removeprefix("src/") for name in known if name}
    assert {"fleetmem/py.typed", "fleetmem/probe/probe.sh"} <= names


@pytest.mark.slow
def test_the_wheel_offers_users_only_what_they_need(dist: Path) -> None:
    """Its extras are those of users; what contributors need is in dependency groups, which are not published."""
    with zipfile.ZipFile(one(dist, "*.whl")) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = wheel.read(name).decode()
    assert {*re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE)} == {"aws", "zstd"}


@pytest.mark.slow
def test_the_sdist_is_the_repository(dist: Path) -> None:
    """Every file of it, so that one can work on it; nothing that git ignores, as keys and passwords are."""
    with tarfile.open(one(dist, "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = {*run("git", "ls-files", "--cached", "--others", "--exclude-standard").split("\n")} - {""}
    assert names - tracked == {"PKG-INFO"}
    assert tracked - names == set()


@pytest.mark.slow
def test_the_sdist_can_be_worked_on(dist: Path, tmp_path: Path) -> None:
    """Unpacked, without git, its unit tests pass: some of each kind, and those of all that is no code."""
    with tarfile.open(one(dist, "*.tar.gz")) as sdist:
        sdist.extractall(tmp_path, filter="data")
    folder = one(tmp_path, "fleetmem-*")
    tests = ("units", "model", "house", "docs", "requirements", "workflows")
    modules = [f"tests/unit/test_{name}.py" for name in tests]
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *modules)
    printed = run(*command, cwd=folder, PYTHONPATH=folder / "src")
    assert " passed" in printed


@pytest.mark.slow
def test_installed_with_uv(dist: Path, tmp_path: Path) -> None:
    """`uv tool install` of the wheel is all that it takes."""
    wheel = one(dist, "*.whl")
    env = {"UV_TOOL_DIR": tmp_path / "tools", "UV_TOOL_BIN_DIR": tmp_path / "bin"}
    run(find_tool("uv"), "tool", "install", "--python", sys.executable, wheel, **_cached(tmp_path), **env)
    told = run(tmp_path / "bin" / "fleetmem", "--version", cwd=tmp_path)
    assert told == f"fleetmem {version_of(wheel)}\n"


@pytest.mark.slow
def test_installed_with_pipx(installed: Path, dist: Path, fleet: Sshd, tmp_path: Path) -> None:
    """It collects from a host, with the probe that came along, and has its version, its help and its configuration."""
    key = ("-k", fleet.key)
    line = run(
        *(installed, "collect", "-q", "-i", f"127.0.1.1:{fleet.port}", *key, "--format", "jsonl"),
        cwd=tmp_path,
        HOME=tmp_path,
    )
    assert json.loads(line)["processes"]
    assert run(installed, "--version", cwd=tmp_path) == f"fleetmem {version_of(one(dist, '*.whl'))}\n"
    assert "collect" in run(installed, "--help", cwd=tmp_path)
    assert "health_listen" in run(installed, "config", "sample", cwd=tmp_path)
    assert run(installed, "probe", cwd=tmp_path) == (REPOSITORY / "src/fleetmem/probe/probe.sh").read_text()
    run(installed, "dashboards", "-o", "dashboards", cwd=tmp_path)
    delivered = {path.name: path.read_text() for path in (REPOSITORY / "deploy/grafana/graphite").glob("*.json")}
    assert {path.name: path.read_text() for path in (tmp_path / "dashboards").iterdir()} == delivered


@pytest.mark.slow
def test_completion(installed: Path, tmp_path: Path) -> None:
    """What `--show-completion` prints makes bash complete commands and options."""
    script = """
eval "$(fleetmem --show-completion)"
complete_line() {
    COMP_WORDS=($1) COMP_CWORD=$2 COMPREPLY=()
    "$(complete -p fleetmem | sed 's/.*-F *\\([^ ]*\\).*/\\1/')" fleetmem
    echo "${COMPREPLY[@]}"
}
complete_line "fleetmem col" 1
complete_line "fleetmem run --heal" 2
"""
    path = f"{installed.parent}:{os.environ['PATH']}"
    told = run(find_tool("bash"), "-c", script, cwd=tmp_path, PATH=path, HOME=tmp_path).split("\n")
    assert told[:2] == ["collect", "--health"]


@pytest.mark.slow
def test_man_page(dist: Path) -> None:
    """Roff has nothing to say about it, and every command and option of the help is there."""
    page = dist / "fleetmem.1"
    done = subprocess.run(
        [find_tool("groff"), "-man", "-ww", "-Tascii", "-P-cbou", page], capture_output=True, check=True
    )
    assert done.stderr == b""
    text = re.sub(r"\s+", " ", done.stdout.decode())
    for command in ("fleetmem collect", "fleetmem run", "fleetmem config sample"):
        assert command in text
    assert "--health [HOST:]PORT Serve /healthz and /readyz; only `run` does." in text
    assert "-g, --statsd HOST[:PORT]" in text


@pytest.mark.slow
def test_what_it_is_made_of(dist: Path) -> None:
    """The list of a release's parts has each locked package with its version and its hashes."""
    parts = json.loads((dist / "fleetmem.cdx.json").read_text())
    assert parts["bomFormat"] == "CycloneDX"
    told = {f"{part['name']}=={part['version']}" for part in parts["components"]}
    locked = re.findall(r"^[\w.-]+==[^\s;]+", (REPOSITORY / "requirements" / "run.txt").read_text(), re.MULTILINE)
    assert told == {*locked}
    assert all(part["externalReferences"][0]["hashes"] for part in parts["components"])


@pytest.mark.slow
def test_release_notes(dist: Path) -> None:
    """They are the newest section of the changelog."""
    notes = (dist / "release-notes.md").read_text()
    sections = re.split(r"^(?=## )", (REPOSITORY / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert notes == sections[1]
    assert notes.startswith("## ")


@pytest.mark.slow
def test_what_a_tag_releases_is_checked(dist: Path, tmp_path: Path) -> None:
    """All files have the tag's version, and the changelog has it with a day; else nothing is published."""
    version = version_of(one(dist, "*.whl"))
    folder = shutil.copytree(dist, tmp_path / "dist")

    def check(tag: str) -> tuple[int, str]:
        command = [str(REPOSITORY / "scripts" / "check-release"), tag, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    notes = folder / "release-notes.md"
    notes.write_text(f"## {version} (2030-12-31)\n\n- New.\n")
    assert check(f"v{version}") == (0, "")
    assert "is v9.9.9 the tag of what is checked out?" in check("v9.9.9")[1]
    notes.write_text(f"## {version} (unreleased)\n\n- New.\n")
    assert check(f"v{version}")[0] == 1
    assert "CHANGELOG.md must be" in check(f"v{version}")[1]
    (folder / "fleetmem.cdx.json").write_text("")
    assert "has no fleetmem.cdx.json" in check(f"v{version}")[1]


@pytest.mark.slow
def test_the_version_is_the_tag(tmp_path: Path) -> None:
    """Of releases only; after one it says so; a shallow clone without tags, and a folder without git, have one, too."""
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", "--depth", "1", "--no-tags", f"file://{REPOSITORY}", clone)
    shutil.copy(REPOSITORY / "pyproject.toml", clone)  # as it is now, not as it was committed
    commit = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--allow-empty")
    run(*commit, "--all", "--message", "one", cwd=clone)

    def version(folder: Path) -> str:
        return run(sys.executable, "-W", "ignore", "-m", "hatchling", "version", cwd=folder).strip()

    assert re.fullmatch(r"\d+\.\d+\.\d+\.dev\d+\+g[0-9a-f]+", version(clone))
    run("git", "tag", "v9.8.7", cwd=clone)
    assert version(clone) == "9.8.7"
    run(*commit, "--message", "two", cwd=clone)
    run("git", "tag", "issue-5", cwd=clone)
    assert re.fullmatch(r"9\.8\.8\.dev1\+g[0-9a-f]+", version(clone))
    shutil.rmtree(clone / ".git")
    assert re.fullmatch(r"\d+\.\d+\.\d+\.dev0", version(clone))


@pytest.mark.slow
def test_the_image_is_built_from_what_docker_is_given(tmp_path: Path) -> None:
    """The files that Dockerfile.dockerignore lets through suffice for the wheel, with the version that is given."""
    lines = IMAGE_IGNORE.read_text().split("\n")
    assert "*" in lines
    for name in (line[1:] for line in lines if line.startswith("!")):
        source, target = REPOSITORY / name, tmp_path / "src" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, tmp_path / "src"),
        SETUPTOOLS_SCM_PRETEND_VERSION="3.2.1",
    )
    for name in ("build", "run"):
        assert f"/src/requirements/{name}.txt" in IMAGE.read_text()
        assert (tmp_path / "src" / "requirements" / f"{name}.txt").is_file()
    assert version_of(one(tmp_path, "*.whl")) == "3.2.1"
