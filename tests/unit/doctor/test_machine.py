"""What this machine has, and what that means."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fleetmem.connect.ssh_settings import HostKeyPolicy
from fleetmem.doctor.findings import Check, Finding, Severity
from fleetmem.doctor.machine import Folder, Machine, judge_machine, look_at

WELL = Machine(
    hosts=50,
    files_allowed=1024,
    files_needed=114,
    policy=HostKeyPolicy.ACCEPT_NEW,
    known_hosts=Folder(Path("/h/.ssh/known_hosts"), is_writable=True, free_bytes=2**40),
    spool=Folder(Path("/s/graphite.spool"), is_writable=True, free_bytes=2**40),
    spool_max_bytes=2**30,
    sinks=1,
)


def the_fault(machine: Machine) -> Finding:
    """Returns the one finding that is not well."""
    (found,) = [finding for finding in judge_machine(machine) if finding.severity is not Severity.OK]
    assert found.why
    assert found.mend
    return found


def test_a_machine_that_is_well() -> None:
    """Each thing is told once."""
    findings = judge_machine(WELL)
    assert [(finding.check, finding.severity) for finding in findings] == [
        (Check.MACHINE_ASYNCSSH, Severity.OK),
        (Check.MACHINE_FILES, Severity.OK),
        (Check.MACHINE_HOST_KEYS, Severity.OK),
        (Check.MACHINE_KNOWN_HOSTS, Severity.OK),
        (Check.MACHINE_SPOOL, Severity.OK),
    ]


def test_another_ssh_library() -> None:
    """What differs is told, what that costs, and what to install."""
    fault = the_fault(replace(WELL, asyncssh_fault="asyncssh 9.9 is not as fleetmem knows it (no X)"))
    assert (fault.check, fault.severity) == (Check.MACHINE_ASYNCSSH, Severity.WARNING)
    assert fault.what == "asyncssh 9.9 is not as fleetmem knows it (no X)"
    assert "plain connections" in fault.why
    assert fault.mend.startswith("python3 -m pip install 'asyncssh>=")


def test_too_few_files() -> None:
    """How many hosts fit is told."""
    fault = the_fault(replace(WELL, hosts=10_000, files_allowed=1024, files_needed=10_064))
    assert fault.what == "1024 open files are allowed, 10000 hosts need 10064"
    assert "no more than 960 hosts fit" in fault.why
    assert fault.mend.startswith("ulimit -n 10064 ")


def test_host_keys_that_are_not_checked() -> None:
    """Loud; whether known_hosts can be written makes no difference then."""
    folder = replace(WELL.known_hosts, is_writable=False)
    fault = the_fault(replace(WELL, policy=HostKeyPolicy.INSECURE, known_hosts=folder))
    assert (fault.check, fault.severity) == (Check.MACHINE_HOST_KEYS, Severity.WARNING)


def test_known_hosts_that_cannot_be_written() -> None:
    """Only where new keys are to be recorded."""
    folder = replace(WELL.known_hosts, is_writable=False)
    assert the_fault(replace(WELL, known_hosts=folder)).check is Check.MACHINE_KNOWN_HOSTS
    strict = judge_machine(replace(WELL, known_hosts=folder, policy=HostKeyPolicy.STRICT))
    assert all(finding.severity is Severity.OK for finding in strict)


def test_the_spool() -> None:
    """One that cannot be written stops `run`; one that does not fit is worth a note; none is nothing to tell."""
    spool = WELL.spool
    assert spool
    assert the_fault(replace(WELL, spool=replace(spool, is_writable=False))).severity is Severity.PROBLEM
    full = the_fault(replace(WELL, spool=replace(spool, free_bytes=2**20)))
    assert (full.severity, full.what) == (
        Severity.NOTE,
        "the disk of the spool has 1.0 MiB left, the spool may take 1.0 GiB",
    )
    assert Check.MACHINE_SPOOL not in {finding.check for finding in judge_machine(replace(WELL, spool=None))}


def test_data_that_goes_nowhere() -> None:
    """A note: `collect` prints it."""
    fault = the_fault(replace(WELL, sinks=0))
    assert (fault.check, fault.severity) == (Check.MACHINE_OUTPUT, Severity.NOTE)


def test_a_sink_of_ones_own_is_named() -> None:
    """A note for each: what it writes to cannot be checked."""
    fault = the_fault(replace(WELL, plugins=("mine",)))
    assert (fault.check, fault.severity, fault.subject) == (Check.MACHINE_PLUGIN, Severity.NOTE, "sinks.mine")


def test_looking_at_a_place_leaves_nothing_there(tmp_path: Path) -> None:
    """What is not there yet is judged by the folder that it would be made in."""
    before = list(tmp_path.iterdir())
    folder = look_at(tmp_path / "a" / "b" / "c")
    assert folder.is_writable
    assert folder.free_bytes > 0
    assert list(tmp_path.iterdir()) == before


def test_a_place_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    """However writable that file is."""
    (tmp_path / "file").write_text("")
    assert look_at(tmp_path / "file").is_writable
    assert not look_at(tmp_path / "file" / "x").is_writable


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_rights_cannot_be_written(tmp_path: Path) -> None:
    """Nor made."""
    tmp_path.chmod(0o500)
    assert not look_at(tmp_path / "x").is_writable


def test_entries_that_are_left_out() -> None:
    """A warning for each of the first 20, one for the rest."""
    about = replace(WELL, left_out=tuple(f"hosts, line {number}: odd" for number in range(30)))
    found = [finding for finding in judge_machine(about) if finding.check is Check.MACHINE_INVENTORY]
    assert [finding.severity for finding in found] == [Severity.WARNING] * 21
    assert found[0].what == "hosts, line 0: odd"
    assert found[-1].what == "10 more entries are left out"
