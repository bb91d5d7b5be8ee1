"""A real systemd, as pid 1 of namespaces of its own: it runs our units as a machine does, sandbox and all."""

import os
import secrets
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

from .servers import REPOSITORY, Server, missing, parents, wait_for

# Bare targets, which units want; what this machine itself has to start is out of sight.
_TARGETS = ("basic", "sysinit", "shutdown", "network-online", "test")

# $1: a folder for what is to be seen of it; $2: base of Python; $3: its packages; $4: the repository.
# In mounts of its own: nothing outside sees any of it, and nothing is left when its last process ends.
_START = r"""
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p "$1/etc" "$1/work" "$1/opt"
mount -t tmpfs tmpfs "$1/work"
mkdir "$1/work/upper" "$1/work/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/work/upper,workdir=$1/work/work" /etc
mkdir -p /etc/fleetmem /etc/systemd/system
mount --bind "$1/etc" /etc/fleetmem
mount -t tmpfs tmpfs /etc/systemd/system
mount --bind "$1/opt" /opt
mkdir -p /opt/python /opt/packages /opt/src /opt/fleetmem/bin
mount --bind "$2" /opt/python
mount --bind "$3" /opt/packages
mount --bind "$4/src" /opt/src
cat >/opt/fleetmem/bin/fleetmem <<'EOF'
#!/bin/sh
# Its own library, as where it was built may be out of sight here: another Python's has the same name.
LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/src:/opt/packages exec /opt/python/bin/python3 -m fleetmem "$@"
EOF
chmod 755 /opt/fleetmem/bin/fleetmem
mount --bind "$1/units" /usr/lib/systemd/system
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mount --bind "$1/console" /dev/console
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared / # its helpers make mounts that it has to see
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=test.target --log-target=console
"""
_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--kill-child")


class Systemd(Server):
    """A machine that runs our units and nothing else; its network is that of this machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.configuration = folder / "etc"
        self._units = folder / "units"
        self._cgroup = _unified_cgroups() / f"fleetmem-test-{secrets.token_hex(4)}"
        self._pid_1 = 0

    def _prepare(self) -> list[str]:
        if os.geteuid() != 0 or not Path("/lib/systemd/systemd").exists():
            missing("a systemd to start, and root to do so,")
        if subprocess.run([*_UNSHARE, "true"], check=False).returncode != 0:
            missing("a kernel that gives namespaces")
        for path in (self.configuration, self._units, self._cgroup):
            path.mkdir()
        (self.folder / "console").touch()
        for name in _TARGETS:
            (self._units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        for unit in (REPOSITORY / "deploy" / "systemd").glob("*.service"):
            (self._units / unit.name).write_text(unit.read_text())
        # In a group of its own before the namespace is made, whose root that is then: nothing of it is left in ours.
        enter = f'echo $$ >{self._cgroup}/cgroup.procs && exec "$@"'
        arguments = map(str, (self.folder, sys.base_prefix, sysconfig.get_path("purelib"), REPOSITORY))
        return ["/bin/sh", "-c", enter, "sh", *_UNSHARE, "/bin/sh", "-euc", _START, "sh", *arguments]

    def _is_up(self) -> bool:
        self._pid_1 = next((child for child, parent in parents().items() if parent == self.pid), 0)
        return bool(self._pid_1) and self._run("systemctl", "is-system-running").stdout.strip() == "running"

    def log(self) -> str:
        """Returns what it wrote so far."""
        return super().log() + (self.folder / "console").read_text(errors="replace")

    def stop(self) -> None:
        """Ends it with all that it has started: with pid 1 the kernel ends its whole namespace."""
        if self._pid_1:
            os.kill(self._pid_1, signal.SIGKILL)
        super().stop()
        for group in sorted(self._cgroup.glob("**/"), reverse=True):
            wait_for(f"{group} is empty", lambda group=group: _is_removed(group))  # type: ignore[misc]

    def override(self, unit: str, *lines: str) -> None:
        """Adds a drop-in with lines of [Service]. Its log goes to a file, see `log_of`."""
        folder = self._units / f"{unit}.service.d"
        folder.mkdir()
        log = self._log_path(unit)
        log.touch()
        (folder / "test.conf").write_text("\n".join(["[Service]", f"StandardError=append:{log}", *lines, ""]))

    def systemctl(self, *arguments: str) -> str:
        """Runs systemctl there; returns what it prints. Fails the test where it fails."""
        done = self._run("systemctl", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr + self.log()
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """Returns a property of a unit."""
        return self.systemctl("show", "--value", "--property", name, unit).strip()

    def process_status(self, unit: str) -> dict[str, str]:
        """Returns the lines of /proc/PID/status of a service's main process."""
        text = self._run("cat", f"/proc/{self.show(unit, 'MainPID')}/status").stdout
        return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}

    def read(self, path: str) -> str:
        """Returns the text of a file there, "" where there is none."""
        return self._run("cat", path).stdout

    def log_of(self, unit: str) -> str:
        """Returns what a service wrote to stderr."""
        return self._log_path(unit).read_text()

    def _log_path(self, unit: str) -> Path:
        return self.folder / f"{unit}.log"

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = ("nsenter", "--target", str(self._pid_1), "--mount", "--pid", "--cgroup", "--")
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60, check=False)


def _is_removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _unified_cgroups() -> Path:
    """Returns where this machine has cgroups of version 2; skips the test where it has none."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return Path(next((mount[1] for mount in mounts if mount[2] == "cgroup2"), None) or missing("cgroups of version 2"))
