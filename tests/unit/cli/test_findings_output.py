"""Findings, as people and programs see them."""

import io
import json
from dataclasses import replace

import pytest

from fleetmem.cli import findings_output as shown
from fleetmem.cli.output import ListFormat
from fleetmem.doctor.findings import Check, Finding, Severity

COST = Finding(Check.HOST_COST, Severity.OK, "", "a sample costs host CPU", unit="ms")


def table(*findings: Finding) -> str:
    """Returns what people see."""
    file = io.StringIO()
    shown.write(findings, file, ListFormat.TABLE)
    return file.getvalue()


@pytest.fixture(autouse=True)
def _has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the screen of the tests is."""
    monkeypatch.delenv("COLUMNS", raising=False)


def problem(host: str, mend: str = "do") -> Finding:
    """Returns a problem of a host."""
    return Finding(Check.HOST_AWK, Severity.PROBLEM, host, "awk is missing", "no data", mend)


def costs(*milliseconds: float) -> list[Finding]:
    """Returns findings about so many hosts."""
    return [Finding(COST.check, COST.severity, f"h{ms}", COST.what, value=ms, unit=COST.unit) for ms in milliseconds]


def test_one_host_that_is_not_well() -> None:
    """Three lines: what, why, how to mend it."""
    assert table(problem("web01")).splitlines() == [
        "problem  web01: awk is missing",
        "         why  no data",
        "         fix  do",
    ]


def test_many_hosts_are_named_in_short() -> None:
    """Their names are folded; one fix stands for all."""
    lines = table(*(problem(f"web{number}", f"ssh web{number}") for number in (*range(8), 10))).splitlines()
    assert lines[0] == "problem  9 hosts (web[0-7,10]): awk is missing"
    assert lines[2:] == ["         fix  ssh web0", "              the same for the others; --format jsonl lists each"]
    assert "others" not in table(problem("web0"), problem("web1"))


@pytest.mark.parametrize(
    ("milliseconds", "line"),
    [
        ([1.5], "ok       h1.5: a sample costs host CPU: 1.5 ms"),
        ([2.5, 1, 20], "ok       3 hosts: a sample costs host CPU: 1 to 20 ms, median 2.5"),
    ],
)
def test_numbers_of_many_hosts_are_a_range(milliseconds: list[float], line: str) -> None:
    """Lowest, highest, median."""
    assert table(*costs(*milliseconds)) == f"{line}\n"


def test_a_number_is_not_told_twice() -> None:
    """Where the words have it already."""
    finding = Finding(Check.STATSD_FLUSH, Severity.OK, "statsd:8125", "fits 10 s", value=10.0, unit="s")
    assert table(finding) == "ok       statsd:8125: fits 10 s\n"


def test_parts_of_the_pipeline_are_no_hosts() -> None:
    """They are told by their addresses."""
    findings = [Finding(Check.GRAPHITE_CANARY, Severity.OK, address, "read back") for address in ("a:1", "b:2")]
    assert table(*findings) == "ok       a:1, b:2: read back\n"


def test_commands_are_not_wrapped_in_a_pipe() -> None:
    """However long, a command can be copied from one line."""
    command = "ssh " + "x" * 500
    assert f"         fix  {command}\n" in table(problem("web01", command))


def test_findings_fit_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrapped between words, a command so that it can be copied, a setting as it is, and the remark below."""
    monkeypatch.setenv("COLUMNS", "60")
    remarks = "   # on carbon's machine, and then restart carbon-cache there"
    command = problem("web01", "sed -i 's/^A.*/B/' --expression=more /opt/graphite/conf/carbon.conf" + remarks)
    setting = problem("web02", "retentions = 10s:6h,60s:7d,10m:1y,1h:5y and some more words" + remarks)
    lines = table(
        command, replace(setting, what="the awk of this host cannot be resolved by anybody at all")
    ).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[2:5] == [
        "  fix  sed -i 's/^A.*/B/' --expression=more \\",
        "       /opt/graphite/conf/carbon.conf",
        "       # on carbon's machine, and then restart carbon-cache",
    ]
    assert lines[8:10] == ["  why  no data", "  fix  retentions = 10s:6h,60s:7d,10m:1y,1h:5y and some more"]
    assert "\\" not in "".join(lines[9:])


def test_what_a_host_says_steers_no_terminal() -> None:
    """Nor is it markup."""
    hostile = Finding(Check.HOST_SHELL, Severity.OK, "web01", "the login shell is \x1b[2J[red]x[/red]")
    assert table(hostile) == "ok       web01: the login shell is \\x1b[2J[red]x[/red]\n"


def test_json_lines() -> None:
    """All of a finding, one object each."""
    file = io.StringIO()
    shown.write([problem("web01"), *costs(1.5)], file, ListFormat.JSONL)
    first, second = map(json.loads, file.getvalue().splitlines())
    assert first == {
        "check": "host.awk",
        "severity": "problem",
        "subject": "web01",
        "what": "awk is missing",
        "why": "no data",
        "mend": "do",
        "value": None,
        "unit": "",
    }
    assert (second["value"], second["unit"]) == (1.5, "ms")


def test_the_last_line_counts_what_is_shown() -> None:
    """As many problems as there are above, and on how many hosts."""
    assert shown.count(costs(1)) == "0 problems, 0 warnings, 0 notes"
    assert shown.count([problem("a"), problem("b")]) == "1 problem on 2 hosts, 0 warnings, 0 notes"
    carbon = Finding(Check.CARBON_SERVER, Severity.PROBLEM, "c:1", "refused")
    note = Finding(Check.HOST_COST, Severity.NOTE, "a", "dear")
    assert shown.count([problem("a"), carbon, note]) == "2 problems, 1 of them on 1 host, 0 warnings, 1 note on 1 host"
