"""What the answers of hosts mean."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from fleetmem.doctor.findings import Check, Finding, Severity
from fleetmem.doctor.hosts import ClockReading, Examination, ExamLimits, ReachFlags, judge_hosts
from fleetmem.errors import Cause, HostError, Kind, Stage
from fleetmem.model import HostMemory
from fleetmem.probe.facts import HostFacts
from fleetmem.probe.script import ProbeKind

LIMITS = ExamLimits(interval_seconds=10, command_timeout_seconds=5, login_timeout_seconds=5)
ACCESS = ReachFlags(
    name="web01",
    address="web01.example.com",
    port=22,
    user="ubuntu",
    key_path=Path("/home/o/.ssh/id_ed25519"),
    known_hosts_path=Path("/home/o/.ssh/known_hosts"),
    known_hosts_entry="web01.example.com",
    jump="",
    runs_by_sudo=False,
)
FACTS = HostFacts(
    login_shell="/bin/bash",
    awk="/usr/bin/awk",
    awk_kind="mawk",
    kernel="5.15.0-1",
    system="ubuntu",
    uid=1000,
    sees_init=True,
    has_pressure=True,
    proc_options=("rw", "relatime"),
    unix_seconds=1_000_000,
)
MEMORY = HostMemory(2**30, 2**29, 2**20, 2**20, 0, "boot")
WELL = Examination(
    access=ACCESS,
    wanted_kind=ProbeKind.STATUS,
    kind=ProbeKind.STATUS,
    facts=FACTS,
    clock=ClockReading(1_000_000, 1_000_000.4, 1_000_000.6),
    memory=MEMORY,
    processes=150,
    has_anon=True,
    sample_seconds=0.02,
    round_trip_seconds=0.001,
    cost_seconds=0.004,
)


def judge(*examinations: Examination) -> list[Finding]:
    """Returns all findings."""
    return judge_hosts(examinations, LIMITS)


def the_fault(examination: Examination) -> Finding:
    """Returns the one finding that is not well."""
    (found,) = [finding for finding in judge(examination) if finding.severity is not Severity.OK]
    assert found.why
    assert found.mend
    return found


def of(check: Check, examination: Examination) -> Finding:
    """Returns the finding of a check."""
    (found,) = [finding for finding in judge(examination) if finding.check is check]
    return found


def failed(kind: Kind, stage: Stage, message: str = "it says so") -> Examination:
    """Returns the examination of a host that was not reached."""
    return Examination(ACCESS, ProbeKind.STATUS, error=HostError(stage, kind, message))


def test_a_host_that_is_well() -> None:
    """Everything that was looked at is told, and nothing is to be mended."""
    findings = judge(WELL)
    assert {finding.severity for finding in findings} == {Severity.OK}
    assert len({finding.check for finding in findings}) == len(findings) == 13
    assert not any(finding.mend or finding.why for finding in findings)


@pytest.mark.parametrize(
    ("kind", "stage", "check", "mend", "works"),
    [
        (Kind.UNRESOLVABLE, Stage.RESOLVE, Check.HOST_ADDRESS, "getent hosts web01.example.com", 0),
        (Kind.UNREACHABLE, Stage.CONNECT, Check.HOST_CONNECTION, "ssh -v ubuntu@web01.example.com true", 1),
        (Kind.CONNECT_TIMEOUT, Stage.CONNECT, Check.HOST_CONNECTION, "fleetmem doctor -i web01 -J USER@JUMP_HOST", 1),
        (
            Kind.HOST_KEY_CHANGED,
            Stage.LOGIN,
            Check.HOST_KEY,
            "ssh-keygen -R web01.example.com -f /home/o/.ssh/known_hosts",
            2,
        ),
        (Kind.HOST_KEY_UNKNOWN, Stage.LOGIN, Check.HOST_KEY, "ssh-keyscan -p 22 web01.example.com >>/home/o/", 2),
        (Kind.AUTH_FAILED, Stage.LOGIN, Check.HOST_LOGIN, "fleetmem probe --authorized-keys /home/o/.ssh/id_ed", 3),
        (Kind.AGENT_UNAVAILABLE, Stage.LOGIN, Check.HOST_LOGIN, "ssh-add -l ", 3),
        (Kind.LOGIN_TIMEOUT, Stage.LOGIN, Check.HOST_LOGIN, "ssh -v ubuntu@web01.example.com true", 3),
        (Kind.DISCONNECTED, Stage.LOGIN, Check.HOST_LOGIN, "ssh -v ubuntu@web01.example.com true", 3),
        (Kind.DISCONNECTED, Stage.COMMAND, Check.HOST_PROBE, "ssh -v ubuntu@web01.example.com true", 4),
        (Kind.COMMAND_TIMEOUT, Stage.COMMAND, Check.HOST_PROBE, "time ssh ubuntu@web01.example.com true", 4),
        (Kind.COMMAND_MISSING, Stage.COMMAND, Check.HOST_PROBE, "ssh ubuntu@web01.example.com 'command -v sh awk'", 4),
        (Kind.COMMAND_FAILED, Stage.COMMAND, Check.HOST_PROBE, "ssh ubuntu@web01.example.com '/bin/sh -c true'", 4),
        (
            Kind.SUDO_REFUSED,
            Stage.COMMAND,
            Check.HOST_PROBE,
            "fleetmem probe --sudoers ubuntu   # put that into /etc/",
            4,
        ),
        (Kind.BAD_FRAME, Stage.PARSE, Check.HOST_PROBE, "fleetmem probe --authorized-keys /home/o/.ssh/id_ed", 4),
    ],
)
def test_a_failure_is_told_where_it_happened(kind: Kind, stage: Stage, check: Check, mend: str, works: int) -> None:
    """What comes before worked; what comes after is not told; the mend is a command with the host's own values."""
    examination = failed(kind, stage)
    fault = the_fault(examination)
    assert (fault.check, fault.severity, fault.subject, fault.what) == (check, Severity.PROBLEM, "web01", "it says so")
    assert fault.mend.startswith(mend)
    assert len(judge(examination)) == works + 1


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_failure_has_a_mend(kind: Kind) -> None:
    """None is left without reason and command."""
    the_fault(failed(kind, Stage.COMMAND))


@pytest.mark.parametrize("kind", [Kind.AUTH_FAILED, Kind.CONNECT_TIMEOUT, Kind.HOST_KEY_CHANGED])
def test_a_jump_host_that_fails(kind: Kind) -> None:
    """Nothing of the host behind it is to be mended."""
    examination = failed(kind, Stage.LOGIN, "jump host ops@bastion: no")
    examination = replace(examination, access=replace(ACCESS, jump="ops@bastion"))
    assert the_fault(examination).mend == "ssh -v -J ops@bastion ubuntu@web01.example.com true"


def test_commands_have_what_it_takes_to_get_there() -> None:
    """Port and jump host are in them, and nothing in a name is special to a shell."""
    access = replace(ACCESS, port=2222, jump="ops@bastion", key_path=Path("/k e y"), known_hosts_path=Path("/a b"))
    examination = replace(failed(Kind.UNREACHABLE, Stage.CONNECT), access=access)
    assert the_fault(examination).mend == "ssh -v -p 2222 -J ops@bastion ubuntu@web01.example.com true"
    examination = replace(failed(Kind.AUTH_FAILED, Stage.LOGIN), access=access)
    command, ssh = (shlex.split(part) for part in the_fault(examination).mend.partition("   #")[0].split(" | "))
    assert command == ["fleetmem", "probe", "--authorized-keys", "/k e y.pub"]
    assert ssh[:-1] == ["ssh", "-p", "2222", "-J", "ops@bastion", "ubuntu@web01.example.com"]
    examination = replace(failed(Kind.HOST_KEY_CHANGED, Stage.LOGIN), access=access)
    assert shlex.split(the_fault(examination).mend)[-1] == "/a b"


def test_a_key_is_let_in_for_the_probe_alone() -> None:
    """A refused key may be a limited one: what lets it in limits it, keeps sudo, and reminds of `from=`."""
    access = replace(ACCESS, runs_by_sudo=True)
    mend = the_fault(replace(failed(Kind.AUTH_FAILED, Stage.LOGIN), access=access)).mend
    assert "ssh-copy-id" not in mend
    assert "--authorized-keys /home/o/.ssh/id_ed25519.pub --sudo | ssh ubuntu@web01.example.com" in mend
    assert "--from" in mend
    for examination in (replace(WELL, has_old_probe=True), failed(Kind.BAD_FRAME, Stage.PARSE)):
        assert "--from" in the_fault(examination).mend


@pytest.mark.parametrize(("jump", "proxy_command"), [("ops@bastion", ""), ("", "nc -X 5 -x p:1 web01 22")])
def test_a_host_behind_others(jump: str, proxy_command: str) -> None:
    """No other jump host is proposed; its key is recorded through the one there is, under the name it is known by."""
    access = replace(ACCESS, known_hosts_entry="an alias", jump=jump, proxy_command=proxy_command)
    silent = the_fault(replace(failed(Kind.CONNECT_TIMEOUT, Stage.CONNECT), access=access)).mend
    assert "USER@JUMP_HOST" not in silent
    unknown = the_fault(replace(failed(Kind.HOST_KEY_UNKNOWN, Stage.LOGIN), access=access)).mend
    assert "ssh-keyscan" not in unknown
    for mend in (silent, unknown):
        words = shlex.split(mend.partition("   #")[0])
        assert (jump or f"ProxyCommand={proxy_command}") in words
    assert "HostKeyAlias=an alias" in shlex.split(unknown.partition("   #")[0])


@pytest.mark.parametrize(
    ("cause", "mend"),
    [
        (Cause.NO_KEY, "-k KEY"),
        (Cause.MORE_METHODS, "AuthenticationMethods publickey "),
        (Cause.NO_KEYS_TAKEN, "PubkeyAuthentication yes "),
        (Cause.ALGORITHMS, "ssh -vv ubuntu@web01.example.com true "),
        (Cause.OTHER_OUTPUT, "ssh ubuntu@web01.example.com '/bin/sh -c true' "),
        (Cause.TERMINAL, "ssh ubuntu@web01.example.com '/bin/sh -c true' "),
        (Cause.KILLED, "ssh ubuntu@web01.example.com 'dmesg "),
        (Cause.HOST_SAID, "ssh -v ubuntu@web01.example.com true"),
    ],
)
def test_what_there_is_evidence_for_is_mended(cause: Cause, mend: str) -> None:
    """The kind alone would have another command, for what it mostly is."""
    error = HostError(Stage.LOGIN, Kind.DISCONNECTED, "it says so", cause)
    fault = the_fault(Examination(ACCESS, ProbeKind.STATUS, error=error))
    assert fault.mend.startswith(mend)


@pytest.mark.parametrize(
    ("system", "command"),
    [
        ("ubuntu", "sudo apt-get install -y mawk"),
        ("rhel", "sudo dnf install -y gawk"),
        ("alpine", "sudo apk add gawk"),
        (None, "sudo dnf install -y gawk"),
        ("x'; rm -rf /; '", "sudo dnf install -y gawk"),
    ],
)
def test_awk_is_missing(system: str | None, command: str) -> None:
    """It is installed as that system does it; a host's words are in no command."""
    facts = replace(FACTS, awk=None, awk_kind=None, system=system)
    fault = the_fault(replace(failed(Kind.COMMAND_MISSING, Stage.COMMAND), facts=facts))
    assert (fault.check, fault.what) == (Check.HOST_AWK, "awk is missing")
    assert fault.mend == f"ssh -t ubuntu@web01.example.com '{command}'"


def test_a_kind_that_works_beside_the_one_that_does_not() -> None:
    """Told with the flag that takes it."""
    error = HostError(Stage.COMMAND, Kind.COMMAND_FAILED, "no process could be read with status")
    fault = the_fault(replace(WELL, kind=ProbeKind.PS, error=error))
    assert (fault.check, fault.severity) == (Check.HOST_PROBE, Severity.PROBLEM)
    assert (
        fault.what == "the probe does not work with kind status, and does with ps: no process could be read with status"
    )
    assert fault.mend.startswith("--probe ps   # ")


def test_an_old_probe() -> None:
    """Sampled, without facts."""
    fault = the_fault(replace(WELL, facts=None, clock=None, cost_seconds=None, has_old_probe=True))
    assert fault.severity is Severity.WARNING
    assert fault.mend.startswith("fleetmem probe --authorized-keys /home/o/.ssh/id_ed25519.pub")


def test_a_forced_command_for_root() -> None:
    """Where the probe is run by sudo, so is that of the new line."""
    examination = replace(WELL, has_old_probe=True, access=replace(ACCESS, runs_by_sudo=True))
    assert "--authorized-keys /home/o/.ssh/id_ed25519.pub --sudo   #" in the_fault(examination).mend


@pytest.mark.parametrize(
    ("examination", "command"),
    [
        (replace(WELL, has_old_probe=True), "--authorized-keys /home/o/.ssh/id_ed25519.pub --protocol 2   #"),
        (failed(Kind.SUDO_REFUSED, Stage.COMMAND), "--sudoers ubuntu --protocol 2   #"),
    ],
)
def test_a_line_for_another_protocol(examination: Examination, command: str) -> None:
    """The commands print the line of the protocol that is configured: that of the usual one would change nothing."""
    examination = replace(examination, access=replace(ACCESS, protocol=2))
    assert the_fault(examination).mend.startswith(f"fleetmem probe {command}")


def test_what_the_kernel_has() -> None:
    """Ubuntu 18.04 has no PSI; a kernel before 4.5 and 4.13 has less."""
    kernel = "Linux 4.15.0-213-generic has MemAvailable, anonymous memory per process, OOM kills, swap; it has no "
    facts = replace(FACTS, kernel="4.15.0-213-generic", has_pressure=False)
    assert of(Check.HOST_KERNEL, replace(WELL, facts=facts)).what == f"{kernel}memory pressure (PSI)"
    old = replace(WELL, memory=HostMemory(2**30, None, 0, 0, None, None), has_anon=False, facts=facts)
    assert of(Check.HOST_KERNEL, old).what.startswith(
        "Linux 4.15.0-213-generic has nothing; it has no MemAvailable, an"
    )
    assert "anonymous" not in of(Check.HOST_KERNEL, replace(old, kind=ProbeKind.PS)).what


@pytest.mark.parametrize(
    ("examination", "lacking"),
    [
        (WELL, None),
        (replace(WELL, has_anon=False), "asks for anon_bytes, which"),
        (replace(WELL, has_anon=False, kind=ProbeKind.PS), "asks for anon_bytes, swap_bytes, which"),
        (replace(WELL, has_anon=False, processes=0), None),
    ],
)
def test_measures_that_a_host_does_not_have(examination: Examination, lacking: str | None) -> None:
    """Who asks for series hears that they will not be there; nobody else does."""
    limits = replace(LIMITS, measures=("rss_bytes", "anon_bytes", "swap_bytes"))
    warnings = [each.what for each in judge_hosts([examination], limits) if each.severity is Severity.WARNING]
    assert [lacking is not None and lacking in what for what in warnings] == [True] * (lacking is not None)
    assert not [each for each in judge_hosts([examination], LIMITS) if "shape.measures" in each.what]


@pytest.mark.parametrize("option", ["hidepid=1", "hidepid=2", "hidepid=4", "hidepid=invisible", "hidepid=noaccess"])
def test_hidepid(option: str) -> None:
    """It hurts where process 1 cannot be read; the mend lets the account see it."""
    facts = replace(FACTS, sees_init=False, proc_options=("rw", option))
    fault = the_fault(replace(WELL, facts=facts, processes=3))
    assert (fault.check, fault.severity, fault.value) == (Check.HOST_HIDEPID, Severity.PROBLEM, 3)
    command = shlex.split(fault.mend.partition("   #")[0])[-1]
    assert "usermod -aG proc ubuntu && sudo mount -o remount,hidepid=2,gid=$(getent group proc" in command


def test_hidepid_that_lets_us_through() -> None:
    """By its gid=, or as root."""
    facts = replace(FACTS, proc_options=("rw", "gid=4", "hidepid=2"))
    assert of(Check.HOST_HIDEPID, replace(WELL, facts=facts)).what == "hidepid is set, and we are let through"


def test_processes_that_cannot_be_seen_for_another_reason() -> None:
    """A warning, as nobody knows how many there are."""
    fault = the_fault(replace(WELL, facts=replace(FACTS, sees_init=False)))
    assert (fault.check, fault.severity) == (Check.HOST_HIDEPID, Severity.WARNING)


# --- clocks ----------------------------------------------------------------------------------------------------------


def clock(ahead_seconds: float, round_trip_seconds: float = 0.2) -> ClockReading:
    """Returns the reading of a clock that is ahead by so much: read in the middle of the round trip."""
    asked = 1_000_000.5 - round_trip_seconds / 2 - ahead_seconds
    return ClockReading(1_000_000, asked, asked + round_trip_seconds)


def test_half_the_round_trip_is_taken_off() -> None:
    """A long way makes no clock wrong, only less certain."""
    assert clock(0, 4).ahead_seconds == pytest.approx(0)
    assert clock(0, 4).doubt_seconds == pytest.approx(2.5)
    assert clock(100, 4).ahead_seconds == pytest.approx(100)


@pytest.mark.parametrize(("ahead_seconds", "round_trip_seconds"), [(2, 0.1), (-2, 0.1), (4, 4), (-4, 4)])
def test_a_clock_that_may_be_right(ahead_seconds: float, round_trip_seconds: float) -> None:
    """What is within the doubt is no fault."""
    assert of(Check.HOST_CLOCK, replace(WELL, clock=clock(ahead_seconds, round_trip_seconds))).severity is Severity.OK


@pytest.mark.parametrize(("ahead_seconds", "what"), [(3, "the clock is ahead"), (-3600, "the clock is behind")])
def test_a_clock_that_is_wrong(ahead_seconds: float, what: str) -> None:
    """By how much is its value."""
    fault = the_fault(replace(WELL, clock=clock(ahead_seconds)))
    assert (fault.check, fault.what, fault.value) == (Check.HOST_CLOCK, what, abs(ahead_seconds))


def test_most_hosts_agree_against_us() -> None:
    """Then it is our clock; only a host that differs from the others, too, has a wrong one."""
    hosts = [
        replace(WELL, access=replace(ACCESS, name=f"web{number}"), clock=clock(ahead))
        for number, ahead in enumerate([60, 60.4, 59.8, 0])
    ]
    faults = [finding for finding in judge(*hosts) if finding.severity is not Severity.OK]
    assert [(fault.check, fault.subject, fault.what) for fault in faults] == [
        (Check.HOST_CLOCK, "web3", "the clock is behind"),
        (Check.MACHINE_CLOCK, "this machine", "the clock is behind that of most hosts"),
    ]
    assert faults[1].value == pytest.approx(60, abs=0.5)


def test_two_hosts_are_no_majority() -> None:
    """Nor are hosts that differ from each other."""
    for aheads in ([60, 60], [60, 600, 6000]):
        hosts = [replace(WELL, clock=clock(ahead)) for ahead in aheads]
        faults = [finding.check for finding in judge(*hosts) if finding.severity is not Severity.OK]
        assert faults == [Check.HOST_CLOCK] * len(aheads)


# --- samples ---------------------------------------------------------------------------------------------------------


def test_a_sample_that_is_nearly_too_late() -> None:
    """More than half of its limit is a warning."""
    assert of(Check.HOST_SAMPLE, replace(WELL, sample_seconds=2.4)).severity is Severity.OK
    fault = the_fault(replace(WELL, sample_seconds=2.6))
    assert (fault.check, fault.severity, fault.value) == (Check.HOST_SAMPLE, Severity.WARNING, 2600)
    assert fault.mend.startswith("--command-timeout 10 ")


def test_a_sample_that_costs_much() -> None:
    """More than a hundredth of a core is worth a note, with the interval at which it is less."""
    assert of(Check.HOST_COST, replace(WELL, cost_seconds=0.099)).severity is Severity.OK
    fault = the_fault(replace(WELL, cost_seconds=0.3))
    assert (fault.check, fault.severity, fault.value) == (Check.HOST_COST, Severity.NOTE, 300)
    assert fault.mend.startswith("--interval 30 ")


def test_a_host_that_hides_its_memory() -> None:
    """It is sampled, and the doctor says what is missing and where to look."""
    hidden = replace(WELL, memory=HostMemory(None, None, None, None, None, None))
    (fault,) = [finding for finding in judge(hidden) if finding.severity is Severity.WARNING]
    assert (fault.check, fault.what) == (Check.HOST_KERNEL, "/proc/meminfo is empty, or cannot be read")
    assert fault.mend.startswith("ssh ubuntu@web01.example.com 'cat /proc/meminfo; grep /proc /proc/mounts'")
