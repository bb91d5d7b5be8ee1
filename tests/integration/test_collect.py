"""One cycle over 50 hosts of a real sshd into a real StatsD."""

import re
from pathlib import Path

from fleetmem.sinks.formats import statsd_plain
from fleetmem.sinks.naming import FleetNames
from fleetmem.units import format_number

from .servers import PATIENT, Cli, Sshd, StatsD, by_host, wait_for

LEGAL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
MEASURES = ("rss_bytes", "vsz_bytes", "mem_percent")


def process_gauges(outcomes: dict[str, dict[str, object]]) -> dict[str, float]:
    """Returns the process gauges that follow from a JSON output."""
    fleet = FleetNames("fleetmem", outcomes)
    gauges = {}
    for host, outcome in outcomes.items():
        processes = outcome["processes"]
        assert isinstance(processes, list)
        names = fleet.host(host)
        for process in processes:  # first all of them: two that fold to one name both get a hash
            names.process(process["command"], process["pid"])
        for process in processes:
            stem = statsd_plain("fleetmem", names.process(process["command"], process["pid"])).head
            for measure in MEASURES:
                gauges[stem + measure] = float(format_number(process[measure]))
    return gauges


def test_statsd_holds_exactly_the_processes_of_the_json_output(
    fleet: Sshd, statsd: StatsD, cli: Cli, tmp_path: Path
) -> None:
    """50 hosts: every process of the JSON output is a gauge in StatsD with its value, and there is no other."""
    output = tmp_path / "memory.jsonl"
    result = cli(
        *("collect", "-i", "127.0.1.[1-50]", "-p", fleet.port, "-k", fleet.key, *PATIENT),
        *("-g", statsd.address, "--format", "jsonl", "-o", output),
        *("--connect-timeout", 30, "--command-timeout", 30),  # all 50 hosts are this one machine
    )
    assert result.status == 0, result.stderr
    outcomes = by_host(output.read_text())
    assert set(outcomes) == {f"127.0.1.{number}" for number in range(1, 51)}
    assert all(outcome["ok"] for outcome in outcomes.values())

    expected = process_gauges(outcomes)
    assert len(expected) >= 50 * 3 * len(MEASURES)

    def held() -> dict[str, float]:
        return {name: value for name, value in statsd.gauges().items() if name.startswith("fleetmem.process.")}

    wait_for("StatsD has read everything", lambda: len(held()) >= len(expected))
    assert held() == expected
    assert statsd.bad_lines_seen == 0


def test_statsd_holds_the_memory_of_each_host(fleet: Sshd, statsd: StatsD, cli: Cli) -> None:
    """The gauges of a host are those of the JSON output, and every name is legal everywhere."""
    result = cli(
        *("collect", "-i", "127.0.1.[1-3]", "-p", fleet.port, "-k", fleet.key, *PATIENT),
        *("-g", statsd.address, "--format", "jsonl"),
    )
    assert result.status == 0, result.stderr
    for host, outcome in result.by_host().items():
        stem = f"fleetmem.host.{host.replace('.', '_')}."
        expected = {f"{stem}mem_{key}": float(outcome["memory"][key]) for key in ("total_bytes", "available_bytes")}
        expected |= {f"{stem}{key}": float(outcome["memory"][key]) for key in ("swap_total_bytes", "swap_free_bytes")}
        expected |= {f"{stem}processes": len(outcome["processes"]), f"{stem}up": 1}
        expected |= {f"{stem}collect_seconds": outcome["collect_seconds"]}
        expected |= {f"{stem}oom_kills_total": float(outcome["memory"]["oom_kills_total"])}

        def held(stem: str = stem) -> dict[str, float]:
            return {name: value for name, value in statsd.gauges().items() if name.startswith(stem)}

        wait_for("StatsD has read the host", lambda held=held, expected=expected: len(held()) >= len(expected))  # type: ignore[misc]
        assert held() == expected
    assert all(LEGAL_NAME.fullmatch(name) and len(name) <= 127 for name in statsd.gauges())


def test_summary_counts_hosts_points_and_datagrams(fleet: Sshd, statsd: StatsD, cli: Cli) -> None:
    """The summary line tells the points that StatsD received, in how many datagrams."""
    result = cli("collect", "-i", "127.0.1.[1-5]", "-p", fleet.port, "-k", fleet.key, *PATIENT, "-g", statsd.address)
    assert result.status == 0, result.stderr
    match = re.search(
        r"5 of 5 hosts answered, ([\d,]+) processes, .* ([\d,]+) points in (\d+) datagrams to (\S+),", result.stderr
    )
    assert match, result.stderr
    processes, points = (int(number.replace(",", "")) for number in match.groups()[:2])
    assert match[4] == statsd.address
    assert points == processes * len(MEASURES) + 5 * 8
    assert wait_for("StatsD has read everything", lambda: len(statsd.gauges()) >= points)
    assert len(statsd.gauges()) == points


def test_each_host_is_asked_over_one_login(sshd: Sshd, cli: Cli) -> None:
    """A collect logs in once per host, and leaves no session and no probe behind."""
    result = cli("collect", "-i", "127.0.1.[1-10]", "-p", sshd.port, "-k", sshd.key, *PATIENT, "--format", "jsonl")
    assert result.status == 0, result.stderr
    assert sshd.logins_total == 10
    wait_for("no probe is left", lambda: not sshd.probes(), 2)


def test_new_host_keys_are_recorded_once_for_each_host(fleet: Sshd, cli: Cli) -> None:
    """The policy accept-new writes each host's key to known_hosts as ssh does; strict is content with it then."""
    options = ("-i", "127.0.1.[1-5]", "-p", fleet.port, "-k", fleet.key, *PATIENT, "-q", "--format", "jsonl")
    assert cli("collect", *options).status == 0
    known = (cli.home / ".ssh" / "known_hosts").read_text().splitlines()
    assert sorted(known) == [f"[127.0.1.{number}]:{fleet.port} {fleet.host_public_key}" for number in range(1, 6)]
    assert cli("collect", *options, "--host-keys", "strict").status == 0
