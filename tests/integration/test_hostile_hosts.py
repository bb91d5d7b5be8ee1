"""Hosts that are after the collector, beside good ones: what they may cost, and what they get to say."""

import csv
import re
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from .hostile import CRAFTED, HostileHosts
from .servers import Cli, Running, Sshd, StatsD, wait_for
from .terminal import on_terminal

GOOD_HOSTS = 10
PEAK_RSS_BYTES = 160 * 1024 * 1024  # 65 MiB without hostile hosts
SLOWEST_SECONDS = (
    5.0  # of a good host, its login among them: the limit that hosts have by default; 0.2 when all is quiet
)

LIMITS = ("--connect-timeout", 180, "--command-timeout", 180)  # on a busy machine a flood is slow to cost much

BEFORE_LOGIN = {
    "endless_banner": "disconnected",
    "endless_banner_line": "disconnected",
    "huge_first_packet": "disconnected",
    "bombard_key_exchange": "bad_frame",
    "banners_without_end": "bad_frame",
    "compressed_bomb": "disconnected",
}
PACKETS = {
    "bombard_with_ignored": "bad_frame",
    "bombard_with_debug": "bad_frame",
    "bombard_with_bytes": "bad_frame",
    "garbage": "disconnected",
    "huge_packet": "disconnected",
}
QUESTIONS = {
    "bombard_with_requests": "bad_frame",
    "bombard_with_channels": "bad_frame",
    "storm_of_keys": "bad_frame",
}
FRAMES = {
    "flood": "bad_frame",
    "flood_in_frame": "bad_frame",
    "flood_stderr": "bad_frame",
    "ten_million_processes": "bad_frame",
    "too_many_processes": "bad_frame",
    "last_words": "disconnected",
}


def peak_rss_bytes(running: Running) -> int:
    """Returns the highest resident memory of the collector so far."""
    match = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{running.pid}/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1]) * 1024


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize(
    "kinds", [BEFORE_LOGIN, PACKETS, QUESTIONS, FRAMES], ids=["before login", "packets", "questions", "frames"]
)
def test_hostile_hosts_cost_little_and_delay_nobody(
    kinds: dict[str, str], hostile: HostileHosts, fleet: Sshd, cli: Cli
) -> None:
    """All at once: each fails with its kind, no good host fails or is late, memory is bounded, a stop takes 5 s."""
    behaviours = {hostile.start(behaviour): behaviour for behaviour in kinds}
    good = [f"127.0.1.{number}:{fleet.port}" for number in range(1, GOOD_HOSTS + 1)]
    with cli.run("-i", ",".join([*good, *behaviours]), "-k", fleet.key, "-o", "-", "--interval", 1, *LIMITS) as running:

        def failed() -> bool:
            return {line["host"] for line in running.outcomes() if line["host"] in behaviours} == set(behaviours)

        wait_for("each hostile host has failed", failed, 180)
        seen = len(running.outcomes())
        wait_for("two more cycles", lambda: len(running.outcomes()) >= seen + 2 * GOOD_HOSTS)
        assert peak_rss_bytes(running) < PEAK_RSS_BYTES
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 0
    outcomes = running.outcomes()
    bad = {behaviours[line["host"]]: line["error"]["kind"] for line in outcomes if line["host"] in behaviours}
    assert bad == kinds
    of_good = [line for line in outcomes if line["host"] not in behaviours]
    assert {line["host"] for line in of_good} == set(good)
    assert all(line["ok"] for line in of_good)
    assert max(line["collect_seconds"] for line in of_good) < SLOWEST_SECONDS


@pytest.mark.slow
def test_a_hostile_host_behind_a_jump_host_fails_alone(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """What it sends comes through the one connection that all share: the others behind it lose no sample."""
    behaviours = {hostile.start(behaviour): behaviour for behaviour in ("bombard_with_requests", "flood_stderr")}
    good = [f"127.0.1.{number}:{fleet.port}" for number in range(1, 6)]
    options = ("-k", fleet.key, "-J", f"127.0.3.1:{fleet.port}", "-o", "-", "--interval", 1, *LIMITS)
    with cli.run("-i", ",".join([*good, *behaviours]), *options) as running:

        def outcomes_of(hosts: Iterable[str]) -> list[dict[str, Any]]:
            return [line for line in running.outcomes() if line["host"] in hosts]

        wait_for("both have failed", lambda: {line["host"] for line in outcomes_of(behaviours)} == set(behaviours), 180)
        wait_for("the others are sampled again", lambda: len(outcomes_of(good)) >= 15)
        assert peak_rss_bytes(running) < PEAK_RSS_BYTES
    assert {line["error"]["kind"] for line in outcomes_of(behaviours)} == {"bad_frame"}
    assert all(line["ok"] for line in outcomes_of(good))


@pytest.mark.slow
def test_much_work_is_no_flood(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """A host with 20,000 processes that is asked three times a second does not use its allowance up."""
    host = hostile.start("many_processes")
    with cli.run("-i", host, "-k", fleet.key, "-o", "-", "--interval", 0.3, *LIMITS) as running:
        wait_for("ten samples", lambda: len(running.outcomes()) >= 10)
    assert all(line["ok"] for line in running.outcomes())
    assert hostile.counts(host)["logins"] == 1


# --- what they get to say --------------------------------------------------------------------------------------------


def rich_codes_left_out(screen: str) -> str:
    """Returns what a terminal got, without the codes that we write: colours and the line of the progress bar."""
    return re.sub(r"\x1b\[[\d;?]*[mKAhl]", "", screen)


def test_no_host_steers_the_terminal(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """Names, last words, debug messages, stderr: table, progress, failures and -vv logs show their numbers."""
    hosts = [hostile.start(behaviour) for behaviour in ("crafted_names", "last_words")]
    with on_terminal(cli, "collect", "-i", ",".join(hosts), "-k", fleet.key, "-vv", has_stdout=True) as terminal:
        terminal.finish()
    screen = rich_codes_left_out(terminal.screen).replace("\r\n", "\n").replace("\r", "")
    assert all(line.isprintable() for line in screen.split("\n")), [
        line for line in screen.split("\n") if not line.isprintable()
    ]
    assert r"\x1b[2J\x1b]0;mine\x07" in screen  # a name
    assert r"debug \x1b[2J" in screen
    assert r"disconnected: connection lost: bye \x1b[2J\x1b]0;mine\x07\x0afake line\x9b31m\u202e" in screen
    assert "[red]markup[/red]" in screen
    assert not any(line.startswith("fake line") for line in screen.split("\n"))


def test_no_name_forges_a_line(hostile: HostileHosts, fleet: Sshd, statsd: StatsD, cli: Cli) -> None:
    """Each process is three gauges of StatsD and one row of CSV, whatever its name; no cell is a formula."""
    host = hostile.start("crafted_names")
    result = cli("collect", "-i", host, "-k", fleet.key, "-g", statsd.address, "--format", "csv")
    assert result.status == 0, result.stderr
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [int(row["pid"]) for row in rows] == list(range(1, len(CRAFTED) + 1))
    assert all(cell.isprintable() for row in rows for cell in row.values())
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert r"\x3d1+cmd|'/C x'!A0" in {row["command"] for row in rows}
    wait_for("StatsD has all", lambda: sum(".process." in name for name in statsd.gauges()) >= 3 * len(CRAFTED))
    assert all(re.fullmatch(r"fleetmem\.[\w.]+", name) for name in statsd.gauges())
    assert sum(".process." in name for name in statsd.gauges()) == 3 * len(CRAFTED)
    assert statsd.bad_lines_seen == 0


def test_a_host_that_ends_its_output_and_stays(hostile: HostileHosts, cli: Cli) -> None:
    """It is reached anew: it gets requests over new connections, and none waits until its time is over."""
    host = hostile.start("end_output_and_stay")
    with cli.run("-i", host, "-k", hostile.key, "-o", "-", "--interval", 1, *LIMITS) as running:
        wait_for("three samples", lambda: sum(line["ok"] for line in running.outcomes()) >= 3)
        kinds = {line["error"]["kind"] for line in running.outcomes() if not line["ok"]}
        assert kinds <= {"disconnected"}
        assert hostile.counts(host)["logins"] >= 3


@pytest.mark.slow
@pytest.mark.timing
def test_frames_that_all_change_delay_nobody(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """Eight hosts with 65,000 rows that change each second: they are slowed down or fail, the others are on time."""
    evil = [hostile.start("all_rows_change") for _ in range(8)]
    good = [f"127.0.1.{number}:{fleet.port}" for number in range(1, 6)]
    with cli.run("-i", ",".join([*good, *evil]), "-k", fleet.key, "--interval", 1, "-o", "-", "--top", 20) as running:

        def of_good() -> list[dict[str, Any]]:
            return [line for line in running.outcomes() if line["host"] in good]

        wait_for("ten cycles of the good ones", lambda: len(of_good()) >= 10 * len(good))
        kinds = {line["error"]["kind"] for line in running.outcomes() if not line["ok"]}
    assert all(line["ok"] for line in of_good())
    assert max(line["collect_seconds"] for line in of_good()) < SLOWEST_SECONDS
    assert kinds <= {"bad_frame", "command_timeout"}
