"""Findings: what was looked at, what was found, why it matters, and what fixes it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from fleetmem.inventory.folding import natural_order
from fleetmem.runtime.exit_status import ExitStatus


class Severity(StrEnum):
    """How bad it is, worst first."""

    PROBLEM = "problem"
    """data is missing or false"""
    WARNING = "warning"
    """it works, and will hurt"""
    NOTE = "note"
    """worth knowing"""
    OK = "ok"


class Check(StrEnum):
    """What is looked at. The names are a contract, `docs/reference/doctor.md` says what each is about."""

    HOST_ADDRESS = "host.address"
    HOST_CONNECTION = "host.connection"
    HOST_KEY = "host.key"
    HOST_LOGIN = "host.login"
    HOST_SHELL = "host.shell"
    HOST_PROBE = "host.probe"
    HOST_AWK = "host.awk"
    HOST_KERNEL = "host.kernel"
    HOST_HIDEPID = "host.hidepid"
    HOST_CLOCK = "host.clock"
    HOST_ROUND_TRIP = "host.round_trip"
    HOST_SAMPLE = "host.sample"
    HOST_COST = "host.cost"
    MACHINE_CLOCK = "machine.clock"
    MACHINE_ASYNCSSH = "machine.asyncssh"
    MACHINE_FILES = "machine.files"
    MACHINE_HOST_KEYS = "machine.host_keys"
    MACHINE_KNOWN_HOSTS = "machine.known_hosts"
    MACHINE_SPOOL = "machine.spool"
    MACHINE_INVENTORY = "machine.inventory"
    MACHINE_ACCOUNT = "machine.account"
    MACHINE_OUTPUT = "machine.output"
    MACHINE_PAGE = "machine.page"
    MACHINE_PLUGIN = "machine.plugin"
    STATSD_SERVER = "statsd.server"
    STATSD_MANAGEMENT = "statsd.management"
    STATSD_CANARY = "statsd.canary"
    STATSD_FLUSH = "statsd.flush"
    STATSD_STICKY = "statsd.sticky"
    CARBON_SERVER = "carbon.server"
    GRAPHITE_WEB = "graphite.web"
    GRAPHITE_CANARY = "graphite.canary"
    GRAPHITE_RETENTION = "graphite.retention"
    GRAPHITE_AGGREGATION = "graphite.aggregation"
    GRAPHITE_CREATIONS = "graphite.creations"

    @property
    def area(self) -> str:
        """host, machine, statsd, carbon or graphite."""
        return self.value.partition(".")[0]


_PIPELINE = ("statsd", "carbon", "graphite")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what.
        severity: how bad it is.
        subject: a host's name, `this machine`, or the address of a part of the pipeline.
        what: what was found; the same words for all subjects that have the same, so that they can be shown together.
        why: why it matters; empty for what is well.
        mend: what to run or set; empty where nothing is to be done.
        value: the number in it, where there is one.
        unit: of the value.
    """

    check: Check
    severity: Severity
    subject: str
    what: str
    why: str = ""
    mend: str = ""
    value: float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """Findings that say the same of several subjects."""

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """What they say."""
        return self.findings[0]

    @property
    def subjects(self) -> list[str]:
        """Of whom, in natural order."""
        return natural_order(finding.subject for finding in self.findings)

    @property
    def values(self) -> list[float]:
        """Their numbers, lowest first."""
        return sorted(finding.value for finding in self.findings if finding.value is not None)


def fold(findings: Iterable[Finding]) -> list[FindingGroup]:
    """Returns equal findings together: worst first, then in the order of `Check`, then the most subjects first."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.check, finding.what), []).append(finding)
    severities, checks = list(Severity), list(Check)
    ordered = sorted(
        groups.items(),
        key=lambda item: (severities.index(item[1][0].severity), checks.index(item[1][0].check), -len(item[1])),
    )
    return [FindingGroup(tuple(group)) for _key, group in ordered]


def exit_status(findings: Iterable[Finding], *, has_answer: bool) -> int:
    """Returns what the command ends with.

    Args:
        findings: all of them.
        has_answer: whether at least one host can be sampled.
    """
    worst = {(finding.check.area, finding.severity) for finding in findings}
    if any((area, Severity.PROBLEM) in worst for area in _PIPELINE):
        return ExitStatus.SINK
    if not has_answer:
        return ExitStatus.NONE_ANSWERED
    if any(severity in (Severity.PROBLEM, Severity.WARNING) for _area, severity in worst):
        return ExitStatus.FAILED
    return ExitStatus.OK
