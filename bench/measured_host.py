"""A host to measure: sshd on a free port, a number of processes, and all the CPU that sampling it costs.

How the CPU of a host is taken. The script part of this file is the host's first process, which inherits every process
that sshd leaves behind (subreaper.py); after sshd has been stopped and every child waited for, it knows the CPU of all
of them: sshd, its sessions, login shells, probes, grep, awk, ps.

Its error. The kernel adds up run time in nanoseconds and the sum of user and system time is that, whatever the clock
tick; so there is no 10 ms step as in /proc/PID/stat. Starting sshd and logging in is in it: callers subtract a run
without samples. What the kernel does for the loopback device is charged to whoever sends, so some of the host's work on
incoming packets counts as the client's and the other way round. The CPU of kernel threads is not in it.
"""

import argparse
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from subreaper import NAMESPACE, can_have_own_pids, cpu_of_children_seconds, inherit_orphans, reap_orphans

_PROCESS_SECONDS = "3600"  # if everything else fails, they end by themselves
_START_SECONDS = 10.0
_STOP_SECONDS = 20.0
_PRIVILEGE_SEPARATION = Path("/run/sshd")  # compiled into Debian's sshd, which will not start as root without it

# HOME: what this user's .bashrc does would be counted for every login and channel otherwise.
_SSHD_CONFIG = """\
Port {port}
ListenAddress 0.0.0.0
AllowUsers {user}@127.0.0.0/8
HostKey {folder}/host_key
AuthorizedKeysFile {key}.pub
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 300
MaxSessions 100
SetEnv HOME={folder}
"""


class MeasuredHost:
    """Starts a host and asks it. A context manager: everything has ended when it is left.

    Attributes:
        port: of sshd, on every address of 127.0.0.0/8.
        user: who may log in.
        key: private key (ed25519) that may.
        has_own_pids: whether only the host's own processes are seen on it.
    """

    def __init__(self, folder: Path, processes: int, key: Path | None = None) -> None:
        """Makes keys and starts the processes; sshd runs between `start` and `stop`.

        Args:
            folder: empty, for keys, configuration and log.
            processes: idle ones to start, beside sshd and what sampling starts.
            key: of the client, where there is one already.
        """
        self.port = _free_port()
        self.user = getpass.getuser()
        self.key = key or make_key(folder / "client_key")
        self.has_own_pids = can_have_own_pids()
        make_key(folder / "host_key")
        config = _SSHD_CONFIG.format(port=self.port, user=self.user, folder=folder, key=self.key)
        (folder / "sshd_config").write_text(config, encoding="utf-8")
        self._process = subprocess.Popen(
            [*(NAMESPACE if self.has_own_pids else ()), sys.executable, __file__, str(folder), str(processes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "MeasuredHost":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=_STOP_SECONDS)
            return
        self._process.kill()

    def _ask(self, request: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"the measured host failed at {request!r}; see above")
        return answer

    def start(self) -> None:
        """Starts sshd and waits until it answers."""
        self._ask("start")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self) -> float:
        """Stops sshd; returns the CPU seconds of everything that ran since `start` apart from the idle processes.

        Every client has to be disconnected.
        """
        return float(self._ask("stop"))

    def flags(self, hosts: list[str], known_hosts: Path) -> dict[str, Any]:
        """Returns fleetmem's configuration for this host under several addresses, as `config.load` and JSON take it."""
        patient = dict.fromkeys(("connect_timeout_seconds", "login_timeout_seconds", "command_timeout_seconds"), 60)
        ssh = {"user": self.user, "port": self.port, "key": [str(self.key)], "known_hosts": str(known_hosts)}
        return {"inventory": {"hosts": hosts}, "ssh": ssh | patient}


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make_key(path: Path) -> Path:
    """Makes an ed25519 key pair; returns where the private one is."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


class _Machine:
    """The host's side."""

    def __init__(self, folder: Path, processes: int) -> None:
        self._folder = folder
        self._sshd: subprocess.Popen[bytes] | None = None
        self._cpu_before_seconds = 0.0
        inherit_orphans()
        self._idle = [subprocess.Popen(["sleep", _PROCESS_SECONDS]) for _ in range(processes)]

    def start(self) -> str:
        """Starts sshd."""
        if os.getuid() == 0:
            _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        log = self._folder / "sshd.log"
        command = [_find_sshd(), "-D", "-f", str(self._folder / "sshd_config"), "-E", str(log)]
        self._cpu_before_seconds = cpu_of_children_seconds()
        self._sshd = subprocess.Popen(command)
        return "started"

    def stop(self) -> str:
        """Stops sshd, waits for all that it left behind, returns its CPU seconds."""
        assert self._sshd is not None
        self._sshd.terminate()
        self._sshd.wait()
        reap_orphans([process.pid for process in self._idle], _STOP_SECONDS)
        return repr(cpu_of_children_seconds() - self._cpu_before_seconds)

    def end(self) -> None:
        """Ends everything."""
        if self._sshd and self._sshd.poll() is None:
            self._sshd.terminate()
        for process in self._idle:
            process.terminate()
        for process in self._idle:
            process.wait()


def _find_sshd() -> str:
    tools = os.environ.get("FLEETMEM_TOOLS", "")
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", f"{tools}/root/usr/sbin"]
    found = shutil.which("sshd", path=os.pathsep.join(folders))
    if not found:
        raise FileNotFoundError("sshd is not installed: scripts/install-test-tools FOLDER gets it")
    return str(Path(found).resolve())  # it insists on an absolute path


def main() -> None:
    """Answers `start` and `stop` until standard input ends, then ends everything it started."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("processes", type=int)
    given = parser.parse_args()
    machine = _Machine(given.folder, given.processes)
    try:
        for line in sys.stdin:
            print(machine.start() if line.strip() == "start" else machine.stop(), flush=True)
    finally:
        machine.end()


if __name__ == "__main__":
    main()
