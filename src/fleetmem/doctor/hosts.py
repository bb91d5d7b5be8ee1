"""What the answers of a host mean. Pure."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from fleetmem.connect.target import entry_name
from fleetmem.doctor.findings import Check, Finding, Severity
from fleetmem.errors import Cause, HostError, Kind, Stage
from fleetmem.model import MORE_MEASURES, PROCESS_MEASURES, HostMemory
from fleetmem.probe import script
from fleetmem.probe.facts import HostFacts
from fleetmem.probe.script import ProbeKind

CLOCK_SECONDS = 2.0
"""A difference of clocks that is reported. Hosts send whole seconds, so half a second is uncertain."""

_CLOCKS_FOR_A_MAJORITY = 3
_COST_SHARE = 0.01
_LATE_SHARE = 0.5
_HIDING = frozenset(f"hidepid={value}" for value in ("1", "2", "4", "noaccess", "invisible", "ptraceable"))

_AWK_BY_SYSTEM = {
    "debian": "apt-get install -y mawk",
    "ubuntu": "apt-get install -y mawk",
    "raspbian": "apt-get install -y mawk",
    "alpine": "apk add gawk",
    "arch": "pacman -S --noconfirm gawk",
    "opensuse-leap": "zypper install -y gawk",
    "opensuse-tumbleweed": "zypper install -y gawk",
    "sles": "zypper install -y gawk",
}
_AWK_ELSEWHERE = "dnf install -y gawk"

_CHECKS = {
    Kind.UNRESOLVABLE: Check.HOST_ADDRESS,
    Kind.UNREACHABLE: Check.HOST_CONNECTION,
    Kind.CONNECT_TIMEOUT: Check.HOST_CONNECTION,
    Kind.HOST_KEY_UNKNOWN: Check.HOST_KEY,
    Kind.HOST_KEY_CHANGED: Check.HOST_KEY,
    Kind.AUTH_FAILED: Check.HOST_LOGIN,
    Kind.AGENT_UNAVAILABLE: Check.HOST_LOGIN,
    Kind.LOGIN_TIMEOUT: Check.HOST_LOGIN,
}
_STEPS = (Check.HOST_ADDRESS, Check.HOST_CONNECTION, Check.HOST_KEY, Check.HOST_LOGIN, Check.HOST_PROBE)
"""What has to work, in this order; whatever comes before the one that failed did work."""

_WELL = {
    Check.HOST_ADDRESS: "the name resolves, or is an address",
    Check.HOST_CONNECTION: "the SSH port accepts connections",
    Check.HOST_KEY: "the host key is accepted",
}

_WHY = {
    Kind.UNRESOLVABLE: "no address, so no connection: the host is missing in every cycle",
    Kind.UNREACHABLE: "the host is missing in every cycle; it is down, sshd is not on that port, or there is no route",
    Kind.CONNECT_TIMEOUT: "packets are dropped on the way: a firewall, or a network that only a jump host reaches",
    Kind.HOST_KEY_UNKNOWN: "with host_keys = strict nobody is logged in to whose key is not known",
    Kind.HOST_KEY_CHANGED: "rebuilt, or somebody is in between: the host is left out until you know. Compare the new "
    "key with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on its console before you remove the old one",
    Kind.AUTH_FAILED: "the host is missing in every cycle, and sshd 9.8 and later shut out who fails often",
    Kind.AGENT_UNAVAILABLE: "the ssh agent on this machine signs nothing: no host that needs one of its keys has data",
    Kind.LOGIN_TIMEOUT: "it accepts connections and finishes no login: overloaded, slow DNS or PAM, or no SSH server",
    Kind.COMMAND_TIMEOUT: "the host is slow to answer, or hangs; its samples fail",
    Kind.COMMAND_MISSING: "the probe is a shell script and one awk; without them the host has no data",
    Kind.COMMAND_FAILED: "the account is logged in and its command does not run: the host has no data",
    Kind.SUDO_REFUSED: "the probe was to run with sudo, which refused: the host has no data",
    Kind.BAD_FRAME: "what answers is not the probe of this version; an old one in a forced command, perhaps",
    Kind.DISCONNECTED: "the host, or something in between, closed the connection; sshd's log there says why",
    Kind.INTERNAL: "a bug in fleetmem, not in the host: it has no data until that is fixed",
}

_WHY_BY_CAUSE = {
    Cause.NO_KEY: "fleetmem logs in by key alone, and there is none: no -k, none in an agent, none in ~/.ssh",
    Cause.MORE_METHODS: "fleetmem logs in by key alone, and sshd there wants more than that (AuthenticationMethods)",
    Cause.NO_KEYS_TAKEN: "fleetmem logs in by key alone, and sshd there lists other ways in only",
    Cause.ALGORITHMS: "the SSH server is old, or its policy is strict: no login comes about",
    Cause.OTHER_OUTPUT: "a start-up file, a menu or a forced command runs in place of the probe: the host has no data",
    Cause.TERMINAL: "a terminal repeats what is sent and changes what is printed: the host has no data",
    Cause.KILLED: "the kernel was out of memory, or a limit or a person ended it: its samples fail",
}

_KEEP_FROM = 'Does its line there have from="..."? Then add --from with the same'


@dataclass(frozen=True, slots=True)
class ReachFlags:
    """How a host is reached, as configuration and command line say: what goes into commands that fix.

    Attributes:
        name: the host's, in the inventory.
        address: what is connected to.
        port: TCP port.
        user: login name.
        key_path: private key that is used; the first one where several are tried.
        known_hosts_path: where its key is looked up.
        known_hosts_entry: under which name there.
        jump: as `-J` has it, empty for none.
        runs_by_sudo: whether the probe is run as root.
        proxy_command: whose standard input and output are the connection, empty for none.
        protocol: that the probe is to speak.
    """

    name: str
    address: str
    port: int
    user: str
    key_path: Path
    known_hosts_path: Path
    known_hosts_entry: str
    jump: str
    runs_by_sudo: bool
    proxy_command: str = ""
    protocol: int = script.USUAL

    def ssh(self, command: str, *options: str) -> str:
        """Returns the line that runs a command there."""
        words = ["ssh", *options, *self._flags(), f"{self.user}@{self.address}"]
        return f"{shlex.join(words)} {shlex.quote(command)}"

    def let_in(self) -> str:
        """Returns the line that lets the key in for the probe alone: one that is to be limited stays so."""
        append = "umask 077; mkdir -p .ssh; cat >>.ssh/authorized_keys"
        return f"{self._authorized_keys()} | {self.ssh(append)}   # by password or another key. {_KEEP_FROM}"

    @property
    def public_key(self) -> str:
        """Path of the public key that is used."""
        return f"{self.key_path}.pub"

    def forced_command(self) -> str:
        """Returns the line that prints what limits the key to the probe of this version."""
        return f"{self._authorized_keys()}   # put that line into authorized_keys there, for the old one. {_KEEP_FROM}"

    def sudoers(self) -> str:
        """Returns the line that prints what lets the account run the probe as root."""
        return shlex.join(["fleetmem", "probe", "--sudoers", self.user, *self._protocol()])

    def record_host_key(self) -> str:
        """Returns the line that records the host's key under the name that it is looked up by."""
        path = str(self.known_hosts_path)
        is_plain = self.known_hosts_entry == entry_name(self.address, self.port)
        if is_plain and not self.is_behind_others:
            return f"ssh-keyscan -p {self.port} {shlex.quote(self.address)} >>{shlex.quote(path)}"
        alias = () if is_plain else ("-o", f"HostKeyAlias={self.known_hosts_entry}")
        return f"{self.ssh('true', '-o', f'UserKnownHostsFile={path}', *alias)}   # shows the key, asks, and records it"

    @property
    def is_behind_others(self) -> bool:
        """Whether there is something on the way: jump hosts, or a ProxyCommand."""
        return bool(self.jump or self.proxy_command)

    def _authorized_keys(self) -> str:
        sudo = ["--sudo"] if self.runs_by_sudo else []
        return shlex.join(["fleetmem", "probe", "--authorized-keys", self.public_key, *sudo, *self._protocol()])

    def _protocol(self) -> list[str]:
        return ["--protocol", str(self.protocol)] if self.protocol != script.USUAL else []

    def _flags(self) -> list[str]:
        port = ["-p", str(self.port)] if self.port != 22 else []
        jump = ["-J", self.jump] if self.jump else []
        return [*port, *jump, *(["-o", f"ProxyCommand={self.proxy_command}"] if self.proxy_command else [])]


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The host's clock, and ours before and after.

    Attributes:
        unix_seconds: the host's, in whole seconds.
        asked_unix_seconds: ours when it was asked.
        answered_unix_seconds: ours when the answer was there.
    """

    unix_seconds: int
    asked_unix_seconds: float
    answered_unix_seconds: float

    @property
    def ahead_seconds(self) -> float:
        """How far the host is ahead of us, taken in the middle of the round trip."""
        return self.unix_seconds + 0.5 - (self.asked_unix_seconds + self.answered_unix_seconds) / 2

    @property
    def doubt_seconds(self) -> float:
        """How wrong that may be."""
        return 0.5 + (self.answered_unix_seconds - self.asked_unix_seconds) / 2


@dataclass(frozen=True, slots=True)
class Examination:
    """What a host answered; None where it did not get so far.

    Attributes:
        access: how it is reached.
        wanted_kind: of the probe, as configured.
        kind: of the probe, which works; None where none does.
        error: why the wanted kind does not work, or why there is no login.
        facts: what it tells of itself.
        has_old_probe: whether what runs there is of an earlier version.
        clock: its clock.
        memory: of its sample.
        processes: in its sample.
        has_anon: whether the kernel tells anonymous memory.
        sample_seconds: from asking for a sample to its end, connected already.
        round_trip_seconds: the shortest one.
        cost_seconds: of its CPU that a sample takes.
    """

    access: ReachFlags
    wanted_kind: ProbeKind
    kind: ProbeKind | None = None
    error: HostError | None = None
    facts: HostFacts | None = None
    has_old_probe: bool = False
    clock: ClockReading | None = None
    memory: HostMemory | None = None
    processes: int = 0
    has_anon: bool = False
    sample_seconds: float | None = None
    round_trip_seconds: float | None = None
    cost_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ExamLimits:
    """What configuration allows.

    Attributes:
        interval_seconds: between two samples of a host.
        command_timeout_seconds: for one sample.
        login_timeout_seconds: for a login.
        measures: series of each process.
    """

    interval_seconds: float
    command_timeout_seconds: float
    login_timeout_seconds: float
    measures: tuple[str, ...] = PROCESS_MEASURES


def judge_hosts(examinations: Sequence[Examination], limits: ExamLimits) -> list[Finding]:
    """Returns the findings about all hosts, and that about our own clock where most of them agree against it."""
    ours_ahead_seconds = _common_difference([each.clock for each in examinations if each.clock])
    findings = [finding for each in examinations for finding in _judge(each, limits, ours_ahead_seconds)]
    if ours_ahead_seconds:
        findings.append(_our_clock(ours_ahead_seconds))
    return findings


def _judge(about: Examination, limits: ExamLimits, ours_ahead_seconds: float) -> Iterator[Finding]:
    yield from _judge_steps(about, limits)
    if about.facts:
        yield from _judge_facts(about, about.facts)
    if about.clock:
        yield _judge_clock(about, about.clock, ours_ahead_seconds)
    yield from _judge_sample(about, limits)
    if about.kind and about.processes:
        yield from _judge_measures(about, about.kind, limits.measures)


def _ok(about: Examination, check: Check, what: str, value: float | None = None, unit: str = "") -> Finding:
    return Finding(check, Severity.OK, about.access.name, what, value=value, unit=unit)


def _judge_steps(about: Examination, limits: ExamLimits) -> Iterator[Finding]:
    failed = _failed_step(about)
    for step in _STEPS:
        if step is failed:
            break
        if step in _WELL:
            yield _ok(about, step, _WELL[step])
        elif step is Check.HOST_LOGIN:
            yield _ok(about, step, f"logs in as {about.access.user}{_uid(about)}")
        elif about.kind:
            yield _judge_kind(about, about.kind)
    if about.error and not about.kind:
        yield _failure(about, about.error, failed or Check.HOST_PROBE, limits)
    if about.has_old_probe:
        yield Finding(
            Check.HOST_PROBE,
            Severity.WARNING,
            about.access.name,
            "the probe there is an older one",
            "it works, but sends all rows each time and may not answer the doctor; "
            "a forced command or a sudoers rule allows the version that it was made with",
            about.access.forced_command(),
        )


def _uid(about: Examination) -> str:
    return f", uid {about.facts.uid}" if about.facts and about.facts.uid is not None else ""


def _failed_step(about: Examination) -> Check | None:
    """Returns the step that stopped us."""
    if about.kind or not about.error:
        return None
    if about.error.kind is Kind.DISCONNECTED and about.error.stage is Stage.LOGIN:
        return Check.HOST_LOGIN
    return _CHECKS.get(about.error.kind, Check.HOST_PROBE)


def _judge_kind(about: Examination, kind: ProbeKind) -> Finding:
    if not about.error:
        return _ok(about, Check.HOST_PROBE, f"the probe works, kind {kind}")
    return Finding(
        Check.HOST_PROBE,
        Severity.PROBLEM,
        about.access.name,
        f"the probe does not work with kind {about.wanted_kind}, and does with {kind}: {about.error.message}",
        "the host has no data as it is configured",
        f'--probe {kind}   # or in the configuration: [probe] kind = "{kind}"',
    )


def _failure(about: Examination, error: HostError, check: Check, limits: ExamLimits) -> Finding:
    is_awk = error.kind is Kind.COMMAND_MISSING and about.facts is not None and not about.facts.awk
    what = "awk is missing" if is_awk else error.message
    if is_awk:
        mend = _install_awk(about)
    elif error.message.startswith("jump host "):  # the failure is that one's, and ssh says which when there are several
        mend = about.access.ssh("true", "-v")
    else:
        mend = _mend_cause(about.access, error.cause) or _mend(about.access, error.kind, limits)
    check = Check.HOST_AWK if is_awk else check
    why = _WHY_BY_CAUSE.get(error.cause, _WHY[error.kind]) if error.cause else _WHY[error.kind]
    return Finding(check, Severity.PROBLEM, about.access.name, what, why, mend)


def _mend_cause(access: ReachFlags, cause: Cause | None) -> str | None:
    """Returns the fix for a cause that more than the kind of failure proves."""
    account = f"`Match User {access.user}` in sshd_config there"
    match cause:
        case Cause.NO_KEY:
            return "-k KEY   # or `ssh-add KEY`; `ssh-keygen -t ed25519` makes one"
        case Cause.MORE_METHODS:
            return f"AuthenticationMethods publickey   # under {account}"
        case Cause.NO_KEYS_TAKEN:
            return f"PubkeyAuthentication yes   # under {account}, and no AuthenticationMethods without publickey"
        case Cause.ALGORITHMS:
            return f"{access.ssh('true', '-vv')}   # shows what both offer; the setting goes into ~/.ssh/config"
        case Cause.OTHER_OUTPUT | Cause.TERMINAL:
            return f"{access.ssh('/bin/sh -c true')}   # must print nothing; see start-up files, ForceCommand, command="
        case Cause.KILLED:
            return access.ssh("dmesg | tail; ulimit -a")
        case _:
            return None


def _install_awk(about: Examination) -> str:
    system = (about.facts.system if about.facts else None) or ""
    return about.access.ssh(f"sudo {_AWK_BY_SYSTEM.get(system, _AWK_ELSEWHERE)}", "-t")


def _mend(access: ReachFlags, kind: Kind, limits: ExamLimits) -> str:
    name, path = shlex.quote(access.known_hosts_entry), shlex.quote(str(access.known_hosts_path))
    match kind:
        case Kind.UNRESOLVABLE:
            return f"getent hosts {shlex.quote(access.address)}   # then fix DNS, /etc/hosts or the inventory"
        case Kind.CONNECT_TIMEOUT:
            if access.is_behind_others:
                return access.ssh("true", "-v")
            return f"fleetmem doctor -i {shlex.quote(access.name)} -J USER@JUMP_HOST   # if there is one to go through"
        case Kind.HOST_KEY_CHANGED:
            return f"ssh-keygen -R {name} -f {path}"
        case Kind.HOST_KEY_UNKNOWN:
            return access.record_host_key()
        case Kind.AUTH_FAILED:
            return access.let_in()
        case Kind.AGENT_UNAVAILABLE:
            return "ssh-add -l   # if it lists no keys either, start the agent again; or log in with a key file: -k KEY"
        case Kind.LOGIN_TIMEOUT:
            longer = f"--connect-timeout {3 * limits.login_timeout_seconds:g}"
            return f"{access.ssh('true', '-v')}   # shows where it waits; as a first help: {longer}"
        case Kind.COMMAND_TIMEOUT:
            longer = f"--command-timeout {3 * limits.command_timeout_seconds:g}"
            return f"time {access.ssh('true')}   # slow, too? look at the login shell's start-up files; or {longer}"
        case Kind.COMMAND_MISSING:
            return access.ssh("command -v sh awk")
        case Kind.BAD_FRAME:
            return access.forced_command()
        case Kind.SUDO_REFUSED:
            return f"{access.sudoers()}   # put that into /etc/sudoers.d/fleetmem there"
        case Kind.UNREACHABLE | Kind.DISCONNECTED:
            return access.ssh("true", "-v")
        case _:
            return access.ssh("/bin/sh -c true")


def _judge_facts(about: Examination, facts: HostFacts) -> Iterator[Finding]:
    if facts.login_shell:
        yield _ok(about, Check.HOST_SHELL, f"the login shell is {facts.login_shell}")
    if facts.awk:
        yield _ok(about, Check.HOST_AWK, f"awk is {facts.awk_kind or 'there'}")
    if facts.kernel and about.memory:
        yield _judge_kernel(about, facts, about.memory)
    if about.memory and about.memory.total_bytes is None:
        yield _no_meminfo(about)
    yield from _judge_hidepid(about, facts)


def _judge_kernel(about: Examination, facts: HostFacts, memory: HostMemory) -> Finding:
    offers = {
        "MemAvailable": memory.available_bytes is not None,
        "anonymous memory per process": about.has_anon,
        "OOM kills": memory.oom_kills_total is not None,
        "swap": bool(memory.swap_total_bytes),
        "memory pressure (PSI)": facts.has_pressure,
    }
    if about.kind is ProbeKind.PS:
        del offers["anonymous memory per process"]  # ps does not show it, whatever the kernel has
    has = ", ".join(name for name, is_there in offers.items() if is_there)
    lacks = ", ".join(name for name, is_there in offers.items() if not is_there)
    return _ok(about, Check.HOST_KERNEL, f"Linux {facts.kernel} has {has or 'nothing'}; it has no {lacks or '-'}")


def _judge_measures(about: Examination, kind: ProbeKind, measures: Sequence[str]) -> Iterator[Finding]:
    """Yields a warning where series that are configured will not be there."""
    is_ps = kind is ProbeKind.PS
    known = () if is_ps else MORE_MEASURES if about.has_anon else ("peak_rss_bytes", "swap_bytes")
    lacks = [measure for measure in measures if measure in MORE_MEASURES and measure not in known]
    if not lacks:
        return
    yield Finding(
        Check.HOST_KERNEL,
        Severity.WARNING,
        about.access.name,
        f"shape.measures asks for {', '.join(lacks)}, which this host does not have",
        f"{'`ps` does not show it' if is_ps else 'its kernel is older than Linux 4.5'}: the host has no such series",
        "--probe status   # where /proc can be read" if is_ps else "leave it out of shape.measures, or a newer kernel",
    )


def _no_meminfo(about: Examination) -> Finding:
    return Finding(
        Check.HOST_KERNEL,
        Severity.WARNING,
        about.access.name,
        "/proc/meminfo is empty, or cannot be read",
        "nobody knows how much memory the host has: no totals, and no percentages of its processes",
        f"{about.access.ssh('cat /proc/meminfo; grep /proc /proc/mounts')}   # subset=pid? a container?",
    )


def _judge_hidepid(about: Examination, facts: HostFacts) -> Iterator[Finding]:
    is_hiding = bool(_HIDING.intersection(facts.proc_options or ()))
    if facts.sees_init:
        what = "hidepid is set, and we are let through" if is_hiding else "all processes can be seen"
        yield _ok(about, Check.HOST_HIDEPID, what)
        return
    user = about.access.user
    command = (
        "sudo groupadd -f --system proc && "
        f"sudo usermod -aG proc {shlex.quote(user)} && "
        "sudo mount -o remount,hidepid=2,gid=$(getent group proc | cut -d: -f3) /proc"
    )
    finding = Finding(
        Check.HOST_HIDEPID,
        Severity.PROBLEM,
        about.access.name,
        f"hidepid hides the processes of all but {user}",
        "all others are missing, without any error: sums are far too low",
        f"{about.access.ssh(command, '-t')}   # and the same options for /proc in its /etc/fstab; or --sudo, and there "
        f"in /etc/sudoers.d what `{about.access.sudoers()}` prints",
        about.processes,
        "processes seen",
    )
    if is_hiding:
        yield finding
    elif about.kind:
        mend = about.access.ssh("ls -l /proc/1/status; grep /proc /proc/mounts; id")
        what = "process 1 cannot be read, nor those of others, perhaps"
        yield replace(finding, severity=Severity.WARNING, what=what, mend=mend)


def _judge_clock(about: Examination, clock: ClockReading, ours_ahead_seconds: float) -> Finding:
    ahead_seconds = clock.ahead_seconds + ours_ahead_seconds
    difference = round(ahead_seconds, 1)
    if abs(ahead_seconds) <= CLOCK_SECONDS + clock.doubt_seconds:
        return _ok(about, Check.HOST_CLOCK, "the clock is right", difference, "s")
    direction = "ahead" if ahead_seconds > 0 else "behind"
    return Finding(
        Check.HOST_CLOCK,
        Severity.WARNING,
        about.access.name,
        f"the clock is {direction}",
        "samples have this machine's time, so graphs are right; the host's logs, of an OOM kill say, do not fit them",
        about.access.ssh("sudo timedatectl set-ntp true", "-t") + "   # or chronyc makestep",
        abs(difference),
        "s",
    )


def _common_difference(clocks: Sequence[ClockReading]) -> float:
    """Returns how far our clock is ahead of what most hosts say, 0 where it is right, or too few say anything."""
    if len(clocks) < _CLOCKS_FOR_A_MAJORITY:
        return 0.0
    middle = -median(clock.ahead_seconds for clock in clocks)
    agreeing = [clock for clock in clocks if abs(clock.ahead_seconds + middle) <= CLOCK_SECONDS + clock.doubt_seconds]
    doubt = median(clock.doubt_seconds for clock in clocks)
    return middle if abs(middle) > CLOCK_SECONDS + doubt and len(agreeing) * 2 > len(clocks) else 0.0


def _our_clock(ahead_seconds: float) -> Finding:
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return Finding(
        Check.MACHINE_CLOCK,
        Severity.WARNING,
        "this machine",
        f"the clock is {direction} that of most hosts",
        "points carry this machine's time: graphs are shifted, and what is too late for Graphite is dropped",
        "sudo timedatectl set-ntp true   # or chronyc makestep",
        round(abs(ahead_seconds), 1),
        "s",
    )


def _judge_sample(about: Examination, limits: ExamLimits) -> Iterator[Finding]:
    if about.round_trip_seconds is not None:
        yield _ok(about, Check.HOST_ROUND_TRIP, "round trip", round(about.round_trip_seconds * 1000, 2), "ms")
    if about.sample_seconds is not None:
        yield _judge_duration(about, about.sample_seconds, limits)
    if about.cost_seconds is not None:
        yield _judge_cost(about, about.cost_seconds, limits)


def _judge_duration(about: Examination, seconds: float, limits: ExamLimits) -> Finding:
    well = _ok(about, Check.HOST_SAMPLE, "a sample takes", round(seconds * 1000, 1), "ms")
    if seconds <= _LATE_SHARE * limits.command_timeout_seconds:
        return well
    return replace(
        well,
        severity=Severity.WARNING,
        what=f"a sample takes more than half of its limit of {limits.command_timeout_seconds:g} s",
        why="a host under load will fail it, just when its memory is of interest",
        mend=f"--command-timeout {4 * seconds:.0f}   # or in the configuration: [ssh] command_timeout_seconds",
    )


def _judge_cost(about: Examination, seconds: float, limits: ExamLimits) -> Finding:
    well = _ok(about, Check.HOST_COST, "a sample costs host CPU", round(seconds * 1000, 2), "ms")
    share = seconds / limits.interval_seconds
    if share <= _COST_SHARE:
        return well
    longer_seconds = seconds / _COST_SHARE
    return replace(
        well,
        severity=Severity.NOTE,
        what=f"a sample costs more than {_COST_SHARE:.0%} of a core at an interval of {limits.interval_seconds:g} s",
        why=f"{about.processes} processes are read each time",
        mend=f"--interval {longer_seconds:.0f}   # and the same step in StatsD and Graphite",
    )
