"""Findings: what is told first, what is told together, and what the command ends with."""

import pytest

from fleetmem.doctor.findings import Check, Finding, Severity, exit_status, fold

OK, NOTE, WARNING, PROBLEM = Severity.OK, Severity.NOTE, Severity.WARNING, Severity.PROBLEM


def finding(check: Check, severity: Severity, subject: str = "web01", what: str = "so", value: float = 1.0) -> Finding:
    """Returns a finding."""
    return Finding(check, severity, subject, what, value=value)


def test_equal_findings_are_told_together() -> None:
    """The same words about several hosts are one group, with the numbers of all."""
    groups = fold([finding(Check.HOST_CLOCK, OK, f"web{number:02d}", value=number) for number in (3, 1, 2)])
    assert [(group.subjects, group.values) for group in groups] == [(["web01", "web02", "web03"], [1, 2, 3])]


def test_what_differs_is_told_apart() -> None:
    """Another check, severity or wording is another group."""
    groups = fold(
        [
            finding(Check.HOST_CLOCK, OK),
            finding(Check.HOST_CLOCK, WARNING),
            finding(Check.HOST_COST, OK),
            finding(Check.HOST_COST, OK, what="else"),
        ]
    )
    assert len(groups) == 4


def test_worst_first() -> None:
    """Then in the order in which things are looked at, then the most hosts."""
    few = [finding(Check.HOST_LOGIN, PROBLEM, what="few")]
    many = [finding(Check.HOST_LOGIN, PROBLEM, f"db{number}", "many") for number in range(2)]
    rest = [finding(Check.STATSD_STICKY, WARNING), finding(Check.HOST_ADDRESS, OK), finding(Check.HOST_CLOCK, NOTE)]
    earlier = [finding(Check.HOST_ADDRESS, PROBLEM)]
    said = [(group.first.severity, group.first.check, group.first.what) for group in fold(rest + few + many + earlier)]
    assert said == [
        (PROBLEM, Check.HOST_ADDRESS, "so"),
        (PROBLEM, Check.HOST_LOGIN, "many"),
        (PROBLEM, Check.HOST_LOGIN, "few"),
        (WARNING, Check.STATSD_STICKY, "so"),
        (NOTE, Check.HOST_CLOCK, "so"),
        (OK, Check.HOST_ADDRESS, "so"),
    ]


@pytest.mark.parametrize(
    ("severities", "has_answer", "status"),
    [
        ([], True, 0),
        ([(Check.HOST_COST, OK), (Check.STATSD_STICKY, NOTE)], True, 0),
        ([(Check.HOST_CLOCK, WARNING)], True, 1),
        ([(Check.STATSD_STICKY, WARNING)], True, 1),
        ([(Check.HOST_LOGIN, PROBLEM)], True, 1),
        ([(Check.MACHINE_FILES, PROBLEM)], True, 1),
        ([(Check.HOST_LOGIN, PROBLEM)], False, 3),
        ([(Check.STATSD_SERVER, PROBLEM)], True, 4),
        ([(Check.GRAPHITE_CANARY, PROBLEM), (Check.HOST_LOGIN, PROBLEM)], False, 4),
        ([(Check.CARBON_SERVER, PROBLEM)], True, 4),
    ],
)
def test_exit_status(severities: list[tuple[Check, Severity]], has_answer: bool, status: int) -> None:
    """As that of `collect`: 4 before 3 before 1."""
    findings = [finding(check, severity) for check, severity in severities]
    assert exit_status(findings, has_answer=has_answer) == status
