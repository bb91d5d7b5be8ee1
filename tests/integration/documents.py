"""The commands of README, docs and examples, and a place where they can be run as they stand.

A block of commands is a fenced block of the language `sh`. All blocks of a page run one after the other, in one folder.
"""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

# Not run: each needs an account, a daemon or a cluster that a test does not have. At most 15.
NOT_RUNNABLE = {
    "fleetmem run --inventory ec2:": "AWS",
    "docker compose ": "Docker",
    "docker build ": "Docker",
    "docker push ": "Docker",
    "kubectl ": "Kubernetes",
    "curl http://127.0.0.1:9877/": "Kubernetes: behind its port-forward",
}
PAGES_NOT_RUNNABLE = {"docs/how-to/aws.md": "AWS"}

# Run by another test in the same words or nearly so: the beginning of the command, and the test.
RUN_ELSEWHERE = {
    "ansible-playbook ": "tests/integration/test_ansible_role.py",
    "pip install .": "tests/integration/test_packaging.py",
    "pip install ./examples/": "tests/integration/test_own_sink.py",
    "pipx install ": "tests/integration/test_packaging.py",
    "curl --cacert ": "tests/integration/test_web_config.py",
    "man -l ": "tests/integration/test_packaging.py",
    "python bench/peers.py": "tests/integration/test_peers.py",
    "python bench/compare.py": "tests/unit/bench",
    "python bench/plots.py": "tests/unit/bench",
    "python bench/carbon_end.py": "tests/integration/test_plan.py",
}


@dataclass(frozen=True)
class Block:
    """Commands of a page that stand together.

    Attributes:
        line: number of the first one in the page.
        text: all of them, as they stand.
    """

    line: int
    text: str


def pages() -> list[str]:
    """Returns the paths of all documents, below the repository."""
    found = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "examples").rglob("*.md")]
    return sorted(path.relative_to(REPOSITORY).as_posix() for path in found)


def languages(page: str) -> list[tuple[int, str]]:
    """Returns the number of the line and the language of each fenced block of a page."""
    found, is_open = [], False
    for number, line in enumerate((REPOSITORY / page).read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            if not is_open:
                found.append((number, line.strip().removeprefix("```")))
            is_open = not is_open
    return found


def blocks(page: str) -> list[Block]:
    """Returns a page's blocks of commands."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [
        Block(text[: match.start(1)].count("\n") + 1, textwrap.dedent(match[1]))
        for match in re.finditer(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    ]


def without_comment(line: str) -> str:
    """Returns a line without the comment behind its command."""
    return re.sub(r"\s+# .*$", "", line).strip()


def _is_run_here(line: str) -> bool:
    command = without_comment(line)
    return not any(command.startswith(begin) for begin in (*NOT_RUNNABLE, *RUN_ELSEWHERE))


def runnable(block: Block) -> str:
    """Returns the commands of a block that are run, each of the others as `:`."""
    return "\n".join(line if _is_run_here(line) else ":" for line in block.text.splitlines())


def inline_commands() -> Iterator[tuple[str, str]]:
    """Yields the pages and the words of each `fleetmem ...` within a sentence or a table."""
    for page in pages():
        text = re.sub(r"^ *```.*?^ *```", "", (REPOSITORY / page).read_text(), flags=re.DOTALL | re.MULTILINE)
        for match in re.finditer(r"`(?:/\S*/)?fleetmem ([a-z][^`]*)`", text):
            yield page, match[1]


@dataclass(frozen=True)
class Place:
    """A folder in which the commands of a page run.

    Attributes:
        folder: where they run; its `bin` is first in PATH, its `home` the home.
        words: what is written in the documents, and what stands for it here.
    """

    folder: Path
    words: Mapping[str, str]

    def run(self, block: Block) -> "subprocess.CompletedProcess[str]":
        """Runs a block in bash, which ends with the first command that fails."""
        script = runnable(block)
        for written, here in self.words.items():
            script = re.sub(written, here, script)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("FLEETMEM_", "XDG_"))}
        environment |= {
            "HOME": str(self.folder / "home"),
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "FLEETMEM_RUN__INTERVAL_SECONDS": "1",
            "TOKEN": "token",
            "EDITOR": "true",
            "COLUMNS": "200",
        }
        return subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def add_program(self, name: str, script: str) -> None:
        """Puts a script into `bin`, in the place of the program of that name."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}", encoding="utf-8")
        path.chmod(0o755)


def fleetmem_until_it_works(statsd: str) -> str:
    """Returns a script in the place of `fleetmem`.

    `run` is stopped after a cycle without a failure, the doctor may find something, and a lab has only hosts.

    Args:
        statsd: address of the StatsD of such a lab.
    """
    python = shlex.quote(sys.executable)
    return f"""
case "$1 ${{2:-}}" in
run\\ *)
    log=$(mktemp)
    {python} -m fleetmem "$@" 2>"$log" &
    for _ in $(seq 300); do
        grep -qE '[1-9][0-9]* hosts (ok|answered), 0 failed' "$log" && break
        kill -0 $! || break
        sleep 0.1
    done
    kill -TERM $!
    status=0
    wait $! || status=$?
    cat "$log" >&2
    grep -qE '[1-9][0-9]* hosts (ok|answered), 0 failed' "$log" && exit $status
    echo 'no cycle without a failure' >&2
    exit 1
    ;;
doctor\\ *)
    status=0
    {python} -m fleetmem "$@" || status=$?
    [ $status -eq 0 ] || [ $status -eq 1 ] || [ $status -eq 4 ] # findings: they are what it is for
    ;;
'lab up')
    {python} -m fleetmem "$@" --hosts-only --hosts 2
    printf '\n[statsd]\nserver = "{statsd}"\n' >>.lab/fleetmem.toml
    ;;
*) exec {python} -m fleetmem "$@" ;;
esac
"""
