"""Backends that go away and come back: nothing that can be kept is lost, nothing is hidden, nobody waits for them."""

import json
import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleetmem.sinks.formats import carbon_plain
from fleetmem.sinks.naming import FleetNames
from fleetmem.units import format_number

from .receivers import CarbonCache, TcpReceiver
from .servers import PATIENT, Cli, Running, Sshd, StatsD, by_host, missing, rss_bytes, started, wait_for

MIB = 1024 * 1024
MEASURES = ("rss_bytes", "vsz_bytes", "mem_percent")
_LOGIN_CYCLES = 5  # twenty logins at once share this machine with the hosts' side of them
HOSTS = "127.0.1.[1-3]"

Points = dict[tuple[str, int], float]


def points_of(*outputs: Path) -> Points:
    """Returns the points that follow from JSON outputs: by name and second, the last one of a second."""
    points: Points = {}
    names = FleetNames("fleetmem", [f"127.0.1.{number}" for number in (1, 2, 3)])
    lines = [line for output in outputs for line in output.read_text().splitlines()]
    for _ in range(2):  # first all names: two that fold to one both get a hash
        for line in lines:
            for host, outcome in by_host(line).items():
                for process in outcome["processes"]:
                    place = names.host(host).process(process["command"], process["pid"])
                    head, second = carbon_plain("fleetmem", place).head, int(outcome["taken_unix_seconds"])
                    for measure in MEASURES:
                        points[head + measure, second] = float(format_number(process[measure]))
    return points


def stored_points(carbon: CarbonCache) -> Points:
    """Returns what whisper holds of processes; sums of those that are not shown by themselves are left out."""
    names = re.compile(r"fleetmem\.process\.[^.]+\.(?!other\.)")
    stored = {name: points for name, points in carbon.points().items() if names.match(name)}
    return {(name, int(second)): value for name, points in stored.items() for second, value in points}


def said(running: Running, text: str) -> bool:
    """Whether a line of the log holds the text."""
    return any(text in str(line.get("message", "")) for line in running.logs())


def counters(path: Path) -> dict[str, float]:
    """Returns the collector's own counters, the last ones of a file."""
    lines = [line for line in path.read_text().splitlines() if line.startswith('{"collector"')]
    return dict(json.loads(lines[-1])["counters"])


def stop(running: Running) -> None:
    """Stops fleetmem as systemd does."""
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 0, running.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "seconds"), [("line", 6), ("pickle", 6), pytest.param("line", 60, marks=pytest.mark.long)]
)
def test_carbon_away_and_fleetmem_restarted(
    fleet: Sshd, carbon_cache: CarbonCache, cli: Cli, tmp_path: Path, protocol: str, seconds: int
) -> None:
    """Carbon stopped for a while, fleetmem restarted in between: whisper holds every point at its own time."""
    address = carbon_cache.line_address if protocol == "line" else carbon_cache.pickle_address
    outputs = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    options = ("-i", HOSTS, "-p", fleet.port, "-k", fleet.key, "--graphite", address, "--interval", 1)
    settings = {"FLEETMEM_GRAPHITE__PROTOCOL": protocol, "FLEETMEM_SHAPE__MAX_SERIES_PER_HOST": "0"}
    # For all processes of a busy machine carbon would make files for minutes.
    settings["FLEETMEM_SHAPE__INCLUDE_COMMANDS"] = "^(sshd|python)"
    with cli.run(*options, "-o", outputs[0], **settings) as running:
        wait_for("3 cycles", lambda: len(running.cycles()) >= 3)
        carbon_cache.stop()
        stopped_at = time.monotonic()
        wait_for("it is reported", lambda: said(running, "trying again"))
        wait_for("half of the time", lambda: time.monotonic() - stopped_at > seconds / 2)
        stop(running)
        assert said(running, "points wait on disk for the next start")
    with cli.run(*options, "-o", outputs[1], **settings) as running:
        wait_for("the other half", lambda: time.monotonic() - stopped_at > seconds)
        wait_for("cycles go on", lambda: len(running.cycles()) >= seconds / 2 - 2)
        carbon_cache.start()
        wait_for("it is said that carbon is back", lambda: said(running, "answers again"))
        stop(running)
        assert not said(running, "points wait on disk for the next start")
    expected = points_of(*outputs)
    assert len({second for _name, second in expected}) >= seconds
    missing_points: Points = {}

    def is_stored() -> bool:
        stored = stored_points(carbon_cache)
        missing_points.clear()
        missing_points.update({key: value for key, value in expected.items() if stored.get(key) != value})
        return not missing_points

    wait_for("whisper has all", is_stored)
    assert set(stored_points(carbon_cache)) == set(expected), "nothing else is there"
    assert carbon_cache.bad_lines_seen == 0


@pytest.mark.slow
@pytest.mark.timing
def test_statsd_over_tcp_stopped_and_started(fleet: Sshd, statsd: StatsD, cli: Cli) -> None:
    """Reported within a cycle, running again by itself; StatsD holds the values of the last cycle."""
    options = ("-i", HOSTS, "-p", fleet.port, "-k", fleet.key, "-g", f"tcp://{statsd.tcp_address}", "--interval", 1)
    with cli.run(*options, "-o", "-") as running:
        wait_for("gauges", lambda: "fleetmem.host.127_0_1_3.up" in statsd.gauges())
        statsd.stop()
        wait_for("it is reported", lambda: said(running, "trying again"), 1.5)
        cycles = len(running.cycles())
        wait_for("cycles go on", lambda: len(running.cycles()) >= cycles + 4)
        assert not [outcome for outcome in running.outcomes() if not outcome["ok"]]
        statsd.start()
        wait_for("gauges again", lambda: "fleetmem.host.127_0_1_3.up" in statsd.gauges(), 8)
        wait_for("it is said", lambda: said(running, "answers again"), 8)
        assert statsd.bad_lines_seen == 0
        stop(running)
        assert statsd.gauges()["fleetmem.host.127_0_1_3.up"] == 1, "StatsD lives on: the connection ended in order"


@pytest.mark.slow
@pytest.mark.timing
def test_a_stuck_backend_delays_nothing(fleet: Sshd, statsd: StatsD, cli: Cli, tmp_path: Path) -> None:
    """A server that accepts and never reads: cycles on time, memory flat, drops counted, the other sink complete."""
    with started(TcpReceiver(0, buffer_bytes=4096)) as stuck:
        # As many rows whatever runs on this machine, of which each host shows every process.
        options = ("-i", "127.0.1.[1-20]", "-p", fleet.port, "-k", fleet.key, "--interval", 1, "--top", 100, "-o", "-")
        sinks = ("-g", f"{statsd.address},tcp://{stuck.address}", "--graphite", stuck.address)
        own = tmp_path / "own.jsonl"  # of two StatsD servers either may be the one that gets the counters
        settings = {"FLEETMEM_GRAPHITE__SPOOL": "false", "FLEETMEM_FILE__PATH": str(own)}
        with cli.run(*options, *sinks, **settings) as running:
            wait_for("it is reported", lambda: said(running, "took nothing for 5 s"))
            wait_for("8 cycles", lambda: len(running.cycles()) >= 8)
            warm_bytes = rss_bytes(running.pid)
            wait_for("12 cycles", lambda: len(running.cycles()) >= 12)
            cycles = running.cycles()[_LOGIN_CYCLES:]
            assert statistics.median(cycle["median_delay_ms"] for cycle in cycles) < 50
            assert sum(cycle["missed"] for cycle in cycles) == 0, [cycle["missed"] for cycle in running.cycles()]
            # Carbon's points keep their time, and wait in memory without a spool: up to 64 MiB of text, which these do
            # not come near.
            assert rss_bytes(running.pid) - warm_bytes < 16 * MIB
            wait_for("drops are counted", lambda: counters(own)["statsd_2.points_dropped_late_total"] > 0)
            assert counters(own)["statsd_2.queue_age_seconds"] < 12
            assert counters(own)["statsd.points_dropped_late_total"] == 0
            stop(running)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own, that is soon full."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        missing("a file system of one's own (mount, as root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_under_the_spool(fleet: Sshd, statsd: StatsD, cli: Cli, tmp_path: Path) -> None:
    """It is reported once, collection and the other sink go on, and points wait in memory."""
    with small_disk(tmp_path / "small", 512 * 1024) as folder, started(TcpReceiver()) as receiver:
        address = receiver.address
        receiver.stop()
        options = ("-i", "127.0.1.[1-10]", "-p", fleet.port, "-k", fleet.key, *PATIENT, "--interval", 0.5, "-o", "-")
        sinks = ("-g", statsd.address, "--graphite", address)
        with cli.run(*options, *sinks, FLEETMEM_GRAPHITE__SPOOL_DIR=str(folder)) as running:
            wait_for("it is reported", lambda: said(running, "points wait in memory"))
            cycles = len(running.cycles())
            wait_for("cycles go on", lambda: len(running.cycles()) >= cycles + 6)
            assert not [outcome for outcome in running.outcomes() if not outcome["ok"]]
            reports = [line for line in running.logs() if "points wait in memory" in str(line.get("message", ""))]
            assert len(reports) == 1
            # A backlog is cleared in four seconds: on a machine with many processes the first cycle makes one.
            wait_for("the other sink goes on", lambda: statsd.gauges().get("fleetmem.host.127_0_1_10.up") == 1)
            stop(running)
