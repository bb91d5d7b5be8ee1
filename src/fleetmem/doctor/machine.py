"""This machine: whether it holds the fleet, and can keep what it has to keep."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetmem.connect.choice import TRIED
from fleetmem.connect.ssh_settings import HostKeyPolicy
from fleetmem.doctor.findings import Check, Finding, Severity
from fleetmem.inventory.listing import LoginPart
from fleetmem.units import format_size

_THIS = "this machine"
_ENTRIES_SHOWN = 20
_LOGIN_FLAGS = {LoginPart.USER: "-u", LoginPart.KEY: "-k", LoginPart.JUMP: "-J"}


@dataclass(frozen=True, slots=True)
class Folder:
    """Where something is to be kept.

    Attributes:
        path: of the file or folder.
        is_writable: whether we may write there, or make it.
        free_bytes: of its disk.
    """

    path: Path
    is_writable: bool
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Overruled:
    """Hosts of which an inventory says something else than flags or configuration do; the inventory counts.

    Attributes:
        login: what it is about.
        hosts: how many.
        says: what the inventory says of the first of them.
        wanted: what flags or configuration say of that one.
    """

    login: LoginPart
    hosts: int
    says: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine has.

    Attributes:
        hosts: of the fleet.
        files_allowed: open files at most, as far as we can raise that (RLIMIT_NOFILE).
        files_needed: with all hosts connected.
        policy: about host keys.
        known_hosts: where they are recorded.
        spool: where points wait for Graphite, None where none do.
        spool_max_bytes: how many may.
        sinks: how many places data goes to.
        plugins: names of those of them that plug-ins are for.
        left_out: entries of the inventories that are no hosts: where each one stands, and why.
        overruled: what inventories say of logins, where settings say something else that does not count.
        asyncssh_fault: what of the SSH library is not as fleetmem knows it; None where all is.
    """

    hosts: int
    files_allowed: int
    files_needed: int
    policy: HostKeyPolicy
    known_hosts: Folder
    spool: Folder | None
    spool_max_bytes: int
    sinks: int
    plugins: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    overruled: tuple[Overruled, ...] = ()
    asyncssh_fault: str | None = None


def look_at(path: Path) -> Folder:
    """Returns what can be kept at a path, which need not be there; nothing is written."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    is_writable = os.access(place, os.W_OK) and (place == path or place.is_dir())
    about = os.statvfs(place)
    return Folder(path, is_writable, about.f_bavail * about.f_frsize)


def judge_machine(about: Machine) -> list[Finding]:
    """Returns the findings about this machine. Pure."""
    return [
        _judge_asyncssh(about),
        _judge_files(about),
        *_judge_keys(about),
        *_judge_spool(about),
        *_judge_entries(about),
        *_judge_accounts(about),
        *_judge_output(about),
    ]


def _ok(check: Check, what: str) -> Finding:
    return Finding(check, Severity.OK, _THIS, what)


def _from_home(path: Path) -> str:
    """Returns a path as people write it: short, with `~` for the home directory."""
    try:
        home = Path.home()
    except RuntimeError:  # a user that the system does not know
        return str(path)
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _judge_asyncssh(about: Machine) -> Finding:
    if about.asyncssh_fault is None:
        return _ok(Check.MACHINE_ASYNCSSH, "the SSH library is one that fleetmem was tried with")
    return Finding(
        Check.MACHINE_ASYNCSSH,
        Severity.WARNING,
        _THIS,
        about.asyncssh_fault,
        "hosts are sampled over plain connections, which cost more round trips, CPU and memory",
        f"python3 -m pip install {shlex.quote(TRIED)}   # where fleetmem is installed",
    )


def _judge_files(about: Machine) -> Finding:
    if about.files_allowed >= about.files_needed:
        return _ok(Check.MACHINE_FILES, "the limit of open files holds the fleet")
    room = max(0, about.files_allowed - (about.files_needed - about.hosts))
    return Finding(
        Check.MACHINE_FILES,
        Severity.PROBLEM,
        _THIS,
        f"{about.files_allowed} open files are allowed, {about.hosts} hosts need {about.files_needed}",
        f"`run` keeps a connection to each host; no more than {room} hosts fit, the rest fails in every cycle",
        f"ulimit -n {about.files_needed}   # in the shell that starts it, as root or with limits.conf(5); "
        f"LimitNOFILE={about.files_needed} in its systemd unit",
    )


def _judge_keys(about: Machine) -> Iterator[Finding]:
    if about.policy is HostKeyPolicy.INSECURE:
        yield Finding(
            Check.MACHINE_HOST_KEYS,
            Severity.WARNING,
            _THIS,
            "host keys are not checked",
            "whoever is in between can pose as any host, and receives all that the real one would",
            "--host-keys accept-new   # or in the configuration: [ssh] host_keys",
        )
        return
    yield _ok(Check.MACHINE_HOST_KEYS, f"host keys are checked, {about.policy}")
    path = about.known_hosts.path
    if about.policy is not HostKeyPolicy.ACCEPT_NEW:
        return
    if about.known_hosts.is_writable:
        yield _ok(Check.MACHINE_KNOWN_HOSTS, f"new host keys can be recorded in {_from_home(path)}")
        return
    yield Finding(
        Check.MACHINE_KNOWN_HOSTS,
        Severity.WARNING,
        _THIS,
        f"{path} cannot be written",
        "new host keys are not recorded: whatever key comes after the next start is accepted again",
        f"chown $(id -un) {shlex.quote(str(path))}   # as root; or set ssh.known_hosts to a file of your own",
    )


def _judge_spool(about: Machine) -> Iterator[Finding]:
    spool = about.spool
    if spool is None:
        return
    folder = shlex.quote(str(spool.path.parent))
    if not spool.is_writable:
        yield Finding(
            Check.MACHINE_SPOOL,
            Severity.PROBLEM,
            _THIS,
            f"the spool {spool.path} cannot be written",
            "`run` does not start: there would be nowhere for points to wait while carbon is away",
            f"install -d -o $(id -un) {folder}   # as root; or set graphite.spool_dir",
        )
    elif spool.free_bytes < about.spool_max_bytes:
        yield Finding(
            Check.MACHINE_SPOOL,
            Severity.NOTE,
            _THIS,
            f"the disk of the spool has {format_size(spool.free_bytes)} left, the spool may take "
            f"{format_size(about.spool_max_bytes)}",
            "on a full disk points wait in memory, 64 MiB of them at the most",
            f"df -h {folder}   # make room, or set graphite.spool_max_size",
        )
    else:
        yield _ok(Check.MACHINE_SPOOL, f"points can wait in {spool.path}")


def _judge_entries(about: Machine) -> Iterator[Finding]:
    shown = about.left_out[:_ENTRIES_SHOWN]
    rest = len(about.left_out) - len(shown)
    for what in (*shown, *([f"{rest} more entries are left out"] if rest else ())):
        yield Finding(
            Check.MACHINE_INVENTORY,
            Severity.WARNING,
            _THIS,
            what,
            "this entry of an inventory is left out: nobody samples that host",
            "fleetmem hosts   # with the same flags, after you have corrected the entry",
        )


def _judge_accounts(about: Machine) -> Iterator[Finding]:
    for over in about.overruled:
        flag = _LOGIN_FLAGS[over.login]
        yield Finding(
            Check.MACHINE_ACCOUNT,
            Severity.NOTE,
            _THIS,
            f"{over.hosts} hosts: {over.login} is the inventory's, {over.says}, not {over.wanted} of {flag}, "
            f"ssh.{over.login} or [[overrides]]",
            "an inventory counts more than flags and the configuration, unless it is ignored",
            f'--inventory-ignore {over.login}   # or in the configuration: [inventory] ignore = ["{over.login}"]',
        )


def _judge_output(about: Machine) -> Iterator[Finding]:
    for name in about.plugins:
        yield Finding(
            Check.MACHINE_PLUGIN,
            Severity.NOTE,
            f"sinks.{name}",
            "the plug-in is installed and takes its section; nothing was sent through it",
            "only the plug-in knows what it writes to",
            f"fleetmem run, then look at the counters collector.*.{name}.failing and points_sent_total",
        )
    if about.sinks:
        return
    yield Finding(
        Check.MACHINE_OUTPUT,
        Severity.NOTE,
        _THIS,
        "data goes nowhere",
        "`collect` prints it, `run` does not start; the pipeline cannot be checked",
        "-g STATSD_HOST   # or --graphite CARBON_HOST, --prometheus PORT, or a file in the configuration",
    )
