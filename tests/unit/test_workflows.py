"""What runs on GitHub and before a commit: what it calls is there, it covers what it promises, its linters pass."""

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
TARGETS = {
    name
    for line in re.findall(r"^([a-z][a-z -]*):(?!=)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for name in line.split()
}


def jobs(name: str) -> dict[str, Any]:
    """Returns the jobs of a workflow."""
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / ".github" / "workflows" / f"{name}.yml").read_text())["jobs"]
    return found


def commands(path: Path) -> list[str]:
    """Returns what a workflow runs."""
    steps = [step for job in jobs(path.stem).values() for step in job.get("steps", ())]
    return [step["run"] for step in steps if "run" in step]


def shard(text: str) -> subprocess.CompletedProcess[str]:
    """Asks for the modules of a shard."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "shard.py"), text]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_there_is(path: Path) -> None:
    """Each command is a target of the Makefile, which people run as well, or a script; a step has one command."""
    for command in commands(path):
        target = re.search(r"\bmake ([a-z-]+)", command)
        script = re.match(r"scripts/[a-z-]+", command)
        assert not target or target[1] in TARGETS, command
        assert not script or (REPOSITORY / script[0]).is_file(), command


def test_every_python_is_tried() -> None:
    """Those that pyproject.toml names, and the first one that it allows."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    tried = set(jobs("ci")["unit"]["strategy"]["matrix"]["python"])
    named = {found[1] for each in project["classifiers"] if (found := re.search(r":: (3\.\d+)$", each))}
    assert named <= tried
    assert project["requires-python"].removeprefix(">=") in tried


@pytest.mark.parametrize("count", [1, 4, 7])
def test_shards_run_each_module_once(count: int) -> None:
    """Whatever their number, they are all modules, none twice, and of about one size."""
    shards = [shard(f"{number}/{count}").stdout.split() for number in range(1, count + 1)]
    found = Counter(module for each in shards for module in each)
    modules = (REPOSITORY / "tests" / "integration").glob("test_*.py")
    assert found == Counter(str(module.relative_to(REPOSITORY)) for module in modules)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_ci_has_all_shards() -> None:
    """No shard is missing from the jobs, so no module is."""
    tried = jobs("ci")["integration"]["strategy"]["matrix"]["shard"]
    assert tried == [f"{number}/{len(tried)}" for number in range(1, len(tried) + 1)]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "4", "", "1/1000"])
def test_no_such_shard(text: str) -> None:
    """It is an error: pytest without modules would run all."""
    done = shard(text)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a shard" in done.stderr


def zizmor(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the linter of `make lint-workflows` that looks for what is unsafe."""
    program = str(Path(sys.executable).parent / "zizmor")
    command = [program, "--offline", "--persona", "pedantic", "--no-progress", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nothing_unsafe() -> None:
    """Zizmor finds nothing in `.github/`."""
    done = zizmor(REPOSITORY / ".github")
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_what_is_unsafe(tmp_path: Path) -> None:
    """The check is one: a title that becomes part of a command, and foreign code that gets our rights."""
    workflow = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text()
    unsafe = workflow.replace("run: make lint\n", "run: echo ${{ github.event.pull_request.title }}\n", 1)
    unsafe = unsafe.replace("  pull_request:\n", "  pull_request_target:\n", 1)
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "ci.yml").write_text(unsafe)
    printed = zizmor(tmp_path).stdout
    assert "template-injection" in printed
    assert "dangerous-triggers" in printed


def test_hooks_before_a_commit_run_what_is_installed() -> None:
    """Each hook's tool is one that `make setup` installs: nothing is fetched from elsewhere."""
    (repository,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        program = Path(hook["entry"].split()[0])
        assert program.parent == Path(".venv/bin")
        assert (Path(sys.executable).parent / program.name).is_file()
        assert hook["language"] == "system"
