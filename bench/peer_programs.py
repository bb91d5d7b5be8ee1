"""What `peers.py` measures: fleetmem, and what people use instead; each as its documentation says it is fast.

Every one of them has to bring home pid, RSS, VSZ, memory percent and name of each process of each host. fleetmem by
its probe, the others by `PS`. fleetmem writes JSON lines, in bytes; the programs with a library do so in one form, and
print the text as it comes in the other; the rest print it as it comes. All keep their connections as far as they can,
accept unknown host keys (parallel-ssh checks none), and are at 64 hosts at once, the default of fleetmem and of clush.

OpenSSH 9's own choice of a key exchange, sntrup761x25519, resists quantum computers and is most of what a login costs
its client. The libraries, fleetmem's among them, do not know it and agree on curve25519 with such a host; so there is
OpenSSH with curve25519, too.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, Protocol

from fleetmem.lab.simulator import PS
from ps_rows import FORMS

_HERE = Path(__file__).parent
_SCRIPTS = Path(sys.executable).parent
_AT_ONCE = 64
_PS_ROW = re.compile(
    rb"^(?:[\w.]+: ?)?\s*(\d+)\s+\d+\s+\d+\s+[\d.]+\s", re.MULTILINE
)  # with its host before it, or not


@dataclass(frozen=True, slots=True)
class Task:
    """What a program has to do.

    Attributes:
        hosts: addresses.
        port: of sshd.
        user: to log in as.
        key: private key.
        folder: for whatever it keeps: empty at the start.
        cycles: how often to sample every host.
        interval_seconds: between two cycles, for a program that has an interval.
    """

    hosts: list[str]
    port: int
    user: str
    key: Path
    folder: Path
    cycles: int
    interval_seconds: float

    @property
    def hosts_file(self) -> Path:
        """All hosts, one on each line."""
        path = self.folder / "hosts"
        path.write_text("\n".join(self.hosts) + "\n", encoding="ascii")
        return path

    @property
    def output(self) -> Path:
        """What a program prints on standard output, or writes."""
        return self.folder / "output"

    @property
    def known_hosts(self) -> Path:
        """Host keys."""
        return self.folder / "known_hosts"

    @property
    def at_once(self) -> int:
        """Hosts at the same time."""
        return min(_AT_ONCE, len(self.hosts))


class Gathered(NamedTuple):
    """What came home.

    Attributes:
        samples: of all hosts and cycles.
        rows: processes in all of them.
        answers_seconds: how long each host took to answer, one after the other; none where a program does not tell.
    """

    samples: int
    rows: int
    answers_seconds: Sequence[float] = ()


class Program(Protocol):
    """One of those that are measured.

    Attributes:
        name: what people call it.
        cycles: of two runs of which the difference is that many warm cycles; of 1 it is the cold run.
        least_more_cycles: of the second run, however many hosts there are.
        writes_json: whether its samples can be counted whatever the hosts' processes are.
    """

    name: str
    cycles: tuple[int, int]
    least_more_cycles: int
    writes_json: bool

    def version(self) -> str:
        """Returns what it says of itself.

        Raises:
            OSError, PackageNotFoundError: it is not installed.
        """

    def commands(self, task: Task) -> list[list[str]]:
        """Returns what to run, one after the other."""

    def environment(self, task: Task) -> dict[str, str]:
        """Returns the environment of each of them."""

    def stop_at_lines(self, task: Task) -> int:
        """Returns how many lines of output end a command; 0 where it ends by itself."""

    def gathered(self, task: Task) -> Gathered:
        """Returns what came home."""


class _PsProgram:
    """What those that run `PS` have in common."""

    cycles = (1, 4)
    least_more_cycles = 1
    writes_json = False

    def environment(self, task: Task) -> dict[str, str]:
        """Returns an environment without an agent, and with a home of its own."""
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("SSH_", "ANSIBLE_", "FLEETMEM_"))
        }
        return kept | {"HOME": str(task.folder), "LC_ALL": "C.UTF-8"}

    def stop_at_lines(self, _task: Task) -> int:
        """Ends nothing."""
        return 0

    def gathered(self, task: Task) -> Gathered:
        """Counts rows; a sample has one pid 1."""
        pids = _PS_ROW.findall(task.output.read_bytes())
        return Gathered(pids.count(b"1"), len(pids))


def _read_json_lines(path: Path) -> Gathered:
    outcomes = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    samples = [outcome for outcome in outcomes if outcome["ok"]]
    rows = sum(outcome["process_count"] for outcome in samples)
    return Gathered(
        len(samples), rows, [sample["collect_seconds"] for sample in samples if "collect_seconds" in sample]
    )


class Fleetmem(_PsProgram):
    """`fleetmem collect` once, or `fleetmem run` for as many intervals; both write JSON lines to a file."""

    name = "fleetmem"
    cycles = (5, 15)  # of `run`, which spreads the logins over the first one
    least_more_cycles = 5  # it is ended by the number of lines, which is not exact
    writes_json = True

    def version(self) -> str:
        """Returns the version of the package."""
        return f"fleetmem {metadata.version('fleetmem')}"

    def commands(self, task: Task) -> list[list[str]]:
        """Returns one command."""
        flags = ["-i", f"@{task.hosts_file}", "-u", task.user, "-k", str(task.key), "-p", str(task.port)]
        flags += ["-o", str(task.output), "--connect-timeout", "60", "--command-timeout", "60", "-q"]
        fleetmem = str(_SCRIPTS / "fleetmem")
        if task.cycles == 1:
            return [[fleetmem, "collect", *flags]]
        return [[fleetmem, "run", *flags, "--interval", f"{task.interval_seconds:g}"]]

    def stop_at_lines(self, task: Task) -> int:
        """Ends `run`: each sample is a line."""
        return 0 if task.cycles == 1 else task.cycles * len(task.hosts)

    def environment(self, task: Task) -> dict[str, str]:
        """Adds where host keys are kept."""
        return super().environment(task) | {"FLEETMEM_SSH__KNOWN_HOSTS": str(task.known_hosts)}

    def gathered(self, task: Task) -> Gathered:
        """Reads the JSON lines."""
        return _read_json_lines(task.output)


class _Library(_PsProgram):
    """A program of ours with a library: one command for all cycles.

    Args:
        form: what it makes of the text: the same JSON lines as fleetmem, or nothing.
    """

    cycles = (1, 11)
    _package: str
    _script: str

    def __init__(self, form: str) -> None:
        self.name = f"{self._package}, {form}"
        self.writes_json = form != "text"
        self._form = form

    def version(self) -> str:
        """Returns the version of the package."""
        return f"{self._package} {metadata.version(self._package)}"

    def commands(self, task: Task) -> list[list[str]]:
        """Returns one command for all cycles."""
        command = [sys.executable, str(_HERE / self._script), "--hosts", str(task.hosts_file)]
        command += ["--port", str(task.port), "--user", task.user, "--key", str(task.key), "--form", self._form]
        return [[*command, "--at-once", str(task.at_once), "--cycles", str(task.cycles), PS]]

    def gathered(self, task: Task) -> Gathered:
        """Counts rows in either form."""
        return super().gathered(task) if self._form == "text" else _read_json_lines(task.output)


class Paramiko(_Library):
    """A pool of threads."""

    _package = "paramiko"
    _script = "paramiko_pool.py"


class ParallelSsh(_Library):
    """The client of the package."""

    _package = "parallel-ssh"
    _script = "parallel_ssh.py"


def _ssh_options(task: Task) -> list[str]:
    """Returns options of OpenSSH's client: connections that stay, and nothing of this machine's configuration."""
    return [
        *("-F", "none", "-i", str(task.key), "-p", str(task.port), "-l", task.user),
        *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "LogLevel=ERROR"),
        *("-o", f"UserKnownHostsFile={task.known_hosts}", "-o", "ConnectTimeout=60"),
        *("-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={task.folder}/m-%h"),
    ]


class Ansible(_PsProgram):
    """`ansible all -m raw`: its quickest module, which needs no Python on the hosts."""

    name = "ansible"
    cycles = (1, 2)  # they take long

    def version(self) -> str:
        """Returns the version of the package."""
        return f"ansible-core {metadata.version('ansible-core')}"

    def commands(self, task: Task) -> list[list[str]]:
        """Returns one command for each cycle: the connections stay in OpenSSH's masters."""
        command = [str(_SCRIPTS / "ansible"), "all", "-i", str(task.hosts_file), "-m", "raw", "-a", PS]
        return [[*command, "-f", str(task.at_once)]] * task.cycles

    def environment(self, task: Task) -> dict[str, str]:
        """Adds its settings. Its documentation recommends pipelining, by which `raw` has nothing to gain."""
        options = _ssh_options(task)
        return super().environment(task) | {
            "ANSIBLE_HOME": str(task.folder / "ansible"),
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_SSH_ARGS": shlex.join(options),
            "ANSIBLE_SSH_CONTROL_PATH": f"{task.folder}/m-%%h",
            "ANSIBLE_HOST_KEY_CHECKING": "False",  # else it lets one host at a time record its key
            "ANSIBLE_TIMEOUT": "60",
            "ANSIBLE_NOCOLOR": "1",
        }


class Clush(_PsProgram):
    """`clush` of ClusterShell, over OpenSSH with ControlPersist."""

    name = "clush"

    def version(self) -> str:
        """Returns the version of the package."""
        return f"ClusterShell {metadata.version('ClusterShell')}"

    def commands(self, task: Task) -> list[list[str]]:
        """Returns one command for each cycle."""
        command = [str(_SCRIPTS / "clush"), "--hostfile", str(task.hosts_file), "-f", str(task.at_once)]
        options = shlex.join(_ssh_options(task)).replace("%", "%%")
        return [[*command, "-t", "60", "-o", options, PS]] * task.cycles


class Xargs(_PsProgram):
    """`xargs -P` and OpenSSH with ControlPersist; a file for each host, or lines of several would mix.

    Args:
        key_exchange: to use instead of OpenSSH's own choice.
    """

    def __init__(self, key_exchange: str = "") -> None:
        self.name = f"ssh + xargs, {key_exchange}" if key_exchange else "ssh + xargs"
        self._options = [f"-oKexAlgorithms={key_exchange}"] if key_exchange else []

    def version(self) -> str:
        """Returns the version of OpenSSH."""
        return subprocess.run(["ssh", "-V"], check=True, stderr=subprocess.PIPE, text=True).stderr.split(",")[0]

    def commands(self, task: Task) -> list[list[str]]:
        """Returns one command for each cycle."""
        options = shlex.join([*self._options, *_ssh_options(task)])
        script = f'exec ssh {options} "$1" "{PS}" >>{task.folder}/from-"$1"'
        xargs = shutil.which("xargs") or "xargs"
        command = [xargs, "-a", str(task.hosts_file), "-P", str(task.at_once), "-I{}", "sh", "-c", script, "sh", "{}"]
        return [command] * task.cycles

    def gathered(self, task: Task) -> Gathered:
        """Puts the files together first."""
        task.output.write_bytes(b"".join(path.read_bytes() for path in task.folder.glob("from-*")))
        return super().gathered(task)


PROGRAMS: list[Program] = [
    Fleetmem(),
    *(library(form) for library in (Paramiko, ParallelSsh) for form in FORMS),
    Ansible(),
    Clush(),
    Xargs(),
    Xargs("curve25519-sha256"),
]
