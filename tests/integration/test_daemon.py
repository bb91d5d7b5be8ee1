"""`fleetmem run`: on time, through failures of hosts and of StatsD, reloads and stops."""

import signal
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from . import servers
from .hostile import HostileHosts, refused
from .servers import Cli, Running, Sshd, StatsD, free_port, parents, rss_bytes, wait_for

LATE_MS = 50.0
MIB = 1024 * 1024
HOSTS = [f"127.0.1.{number}" for number in range(1, 20)]
LONGEST_REFUSED_WAIT_SECONDS = 15 * 1.25  # one backoff after a refused connection, stretched by a quarter at most


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Sshd]:
    """The sshd of one more host, which may go away alone."""
    with servers.sshd(tmp_path / "own") as server:
        yield server


def failures(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the outcomes that are none."""
    return [outcome for outcome in outcomes if not outcome["ok"]]


def check_on_time(running: Running, hosts: list[str], warm_up: int) -> None:
    """Checks the median lateness: as the log tells it, and as the times of the samples show it."""
    late_ms = [cycle["median_delay_ms"] for cycle in running.cycles()[warm_up:]]
    assert statistics.median(late_ms) <= LATE_MS, late_ms
    steps = []
    for host in hosts:
        taken = [outcome["taken_unix_seconds"] for outcome in running.outcomes_of(host)[warm_up:]]
        steps += [abs(after - before - 1) * 1000 for before, after in pairwise(taken)]
    assert statistics.median(steps) <= LATE_MS


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize("cycles", [15, pytest.param(60, marks=pytest.mark.long)])
def test_many_cycles_with_a_host_that_restarts(
    cycles: int, fleet: Sshd, own: Sshd, statsd: StatsD, cli: Cli, tmp_path: Path
) -> None:
    """Cycles of 1 s over 20 hosts: on time, one host back within one backoff, memory of the collector steady."""
    returning = f"127.0.1.20:{own.port}"
    keys = ("-k", fleet.key, "-k", own.key)
    with cli.run(
        *("-i", ",".join([*HOSTS, returning]), "-p", fleet.port, *keys, "-g", statsd.address, "-o", "-"),
        *("--interval", 1),
    ) as running:
        wait_for("4 cycles", lambda: len(running.cycles()) >= 4)
        own.stop()
        wait_for("the attempt to connect is refused", lambda: _is_refused(running, returning))
        own.start()
        back_by = time.monotonic() + LONGEST_REFUSED_WAIT_SECONDS + 1 + 0.5
        count = len(running.outcomes_of(returning))
        wait_for("10 cycles", lambda: len(running.cycles()) >= 10)
        warm_bytes = rss_bytes(running.pid)
        wait_for(
            "the host is back",
            lambda: any(outcome["ok"] for outcome in running.outcomes_of(returning)[count:]),
            back_by - time.monotonic(),
        )
        wait_for("all cycles", lambda: len(running.cycles()) >= cycles, cycles + 10)
        assert rss_bytes(running.pid) - warm_bytes < 3 * MIB
        assert running.outcomes_of(returning)[-1]["ok"]
        assert not [outcome for host in HOSTS for outcome in failures(running.outcomes_of(host))]
        check_on_time(running, HOSTS, warm_up=2)
        warnings = [line for line in running.logs() if line.get("host") == returning]
        # One line for each change: the connection dropped, then refused, then it answers.
        assert [line.get("kind", "back") for line in warnings] == ["disconnected", "unreachable", "back"]
        up = f"fleetmem.host.127_0_1_20_{own.port}.up"  # it may have come back just now
        wait_for("StatsD has it", lambda: statsd.gauges()[up] == 1)
        assert statsd.bad_lines_seen == 0


def _is_refused(running: Running, host: str) -> bool:
    last = running.outcomes_of(host)[-1]
    return not last["ok"] and bool(last["error"]["kind"] == "unreachable")


def test_repeated_failures_of_a_host_are_logged_once(fleet: Sshd, cli: Cli) -> None:
    """A host that is down is one line in the log, and its outcome is told every cycle all the same."""
    down = refused()
    with cli.run("-i", f"127.0.1.1:{fleet.port},{down}", "-k", fleet.key, "-o", "-", "--interval", 0.3) as running:
        wait_for("6 failures", lambda: len(running.outcomes_of(down)) >= 6)
        about = [line for line in running.logs() if line.get("host") == down]
        assert len(about) == 1, about
        assert about[0]["level"] == "warning"
        assert about[0]["kind"] == "unreachable"
        assert {outcome["error"]["kind"] for outcome in running.outcomes_of(down)} == {"unreachable"}
        assert all("time" in line and line["time"].endswith("Z") for line in running.logs())


# --- reload ----------------------------------------------------------------------------------------------------------


def write_hosts(path: Path, *numbers: int) -> None:
    """Writes a hosts file as an editor does: whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text("# hosts\n" + "".join(f"127.0.1.{number}\n" for number in numbers))
    new.replace(path)


def test_reload_takes_added_hosts_and_ends_removed_ones(sshd: Sshd, statsd: StatsD, cli: Cli, tmp_path: Path) -> None:
    """SIGHUP with another hosts file: kept hosts keep their connection, a removed one has its series ended."""
    hosts = tmp_path / "hosts.txt"
    write_hosts(hosts, 1, 2, 3, 4)
    options = ("-i", f"@{hosts}", "-p", sshd.port, "-k", sshd.key, "-g", statsd.address, "--interval", 0.5)
    with cli.run(*options, "-o", "-") as running:
        wait_for("all are up", lambda: all(statsd.gauges().get(up(number)) == 1 for number in (1, 2, 3, 4)))
        wait_for("probes", lambda: len(sshd.probes()) == 4)
        before = sshd.probes()
        assert sshd.logins_total == 4
        write_hosts(hosts, 1, 2, 3, 5)
        running.signal(signal.SIGHUP)
        wait_for("the added one is up", lambda: statsd.gauges().get(up(5)) == 1)
        assert sshd.logins_total == 5, "kept hosts were logged in to again"
        wait_for("the probe of the removed one is gone", lambda: len(sshd.probes()) == 4)
        assert len(sshd.probes() & before) == 3

        def live_series_of_removed() -> list[str]:
            ours = ("fleetmem.process.127_0_1_4.", "fleetmem.host.127_0_1_4.")
            return [name for name, value in statsd.gauges().items() if name.startswith(ours) and value]

        wait_for("its series have ended", lambda: not live_series_of_removed())
        assert not failures(running.outcomes())
        count = len(running.outcomes())
        wait_for("sampling goes on", lambda: len(running.outcomes()) >= count + 8)
        assert not [outcome for outcome in running.outcomes()[count:] if outcome["host"] == "127.0.1.4"]
        assert not live_series_of_removed()


def up(number: int) -> str:
    """Returns the gauge that says whether a host answers."""
    return f"fleetmem.host.127_0_1_{number}.up"


@pytest.mark.parametrize("what", ["configuration", "hosts file", "hosts file gone"])
def test_reload_of_something_invalid_keeps_the_old(what: str, fleet: Sshd, cli: Cli, tmp_path: Path) -> None:
    """SIGHUP with a wrong configuration logs one error that names what is wrong, and sampling goes on as before."""
    hosts, config = tmp_path / "hosts.txt", tmp_path / "config.toml"
    write_hosts(hosts, 1, 2)
    config.write_text('[shape]\ndetail = "process"\n')
    options = ("-c", config, "-i", f"@{hosts}", "-p", fleet.port, "-k", fleet.key, "-o", "-", "--interval", 0.3)
    with cli.run(*options) as running:
        wait_for("a cycle", running.cycles)
        if what == "configuration":
            config.write_text('[shape]\ndetial = "process"\n')
            named = "shape.detial"
        elif what == "hosts file":
            hosts.write_text("# 127.0.1.1\nweb[1-\n")  # none is left
            named = "hosts.txt, line 2"
        else:
            hosts.unlink()
            named = "hosts.txt: no such file"
        running.signal(signal.SIGHUP)
        errors = wait_for("an error", lambda: [line for line in running.logs() if line["level"] == "error"])
        assert len(errors) == 1
        assert named in errors[0]["message"].lower()
        assert "the old one stays" in errors[0]["message"]
        count, both = len(running.outcomes()), {"127.0.1.1", "127.0.1.2"}
        wait_for("sampling goes on", lambda: {each["host"] for each in running.outcomes()[count + 2 :]} == both)
        assert not failures(running.outcomes())


@pytest.mark.slow
def test_reload_at_any_moment_leaves_one_probe_on_each_host(sshd: Sshd, cli: Cli, tmp_path: Path) -> None:
    """Reloads during logins and samples lose no connection: in the end each host has one session and one probe."""
    hosts = tmp_path / "hosts.txt"
    write_hosts(hosts, *range(1, 21))
    with cli.run("-i", f"@{hosts}", "-p", sshd.port, "-k", sshd.key, "-o", "-", "--interval", 0.5) as running:
        wait_for("the first login", lambda: sshd.logins_total)
        for reload in range(1, 13):
            running.signal(signal.SIGHUP)
            wait_for("it is taken", lambda reload=reload: running.stderr.count("configuration taken") >= reload)  # type: ignore[misc]
        count = len(running.outcomes())
        wait_for("all answer", lambda: len({line["host"] for line in running.outcomes()[count:] if line["ok"]}) == 20)
        wait_for("one probe on each host", lambda: len(sshd.probes()) == 20)
        assert connections(sshd) == 20
        assert not failures(running.outcomes())


def connections(server: Sshd) -> int:
    """Returns how many connections an sshd has: each is one child of the listener."""
    return list(parents().values()).count(server.pid)


# --- StatsD ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_statsd_that_goes_away_and_comes_back_is_logged_once_each(fleet: Sshd, statsd: StatsD, cli: Cli) -> None:
    """While StatsD is away hosts are sampled on; one line tells that it went, one that it is back, and values flow."""
    options = ("-i", "127.0.1.[1-5]", "-p", fleet.port, "-k", fleet.key, "-g", statsd.address, "-o", "-")
    with cli.run(*options, "--interval", 1) as running:
        wait_for("values", statsd.gauges)
        statsd.stop()
        wait_for("it is noticed", lambda: about_statsd(running))
        cycles = len(running.cycles())
        wait_for("14 cycles without it", lambda: len(running.cycles()) >= cycles + 14)
        assert len(about_statsd(running)) == 1, about_statsd(running)
        assert statsd.address in about_statsd(running)[0]
        statsd.start()
        wait_for("values again", lambda: all(statsd.gauges().get(up(number)) == 1 for number in range(1, 6)))
        wait_for("its return is logged", lambda: len(about_statsd(running)) >= 2)
        cycles = len(running.cycles())
        wait_for("4 more cycles", lambda: len(running.cycles()) >= cycles + 4)
        assert len(about_statsd(running)) == 2, about_statsd(running)
        assert "answers again" in about_statsd(running)[1]
        assert not failures(running.outcomes())
        check_nothing_missed(running)
        stem = "fleetmem.collector."
        dropped = [
            value for name, value in statsd.gauges().items() if name.startswith(stem) and "points_dropped" in name
        ]
        assert dropped
        assert max(dropped) > 0


@pytest.mark.slow
def test_one_small_host_does_not_make_a_dead_statsd_look_alive(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """With one datagram a cycle, and refusals that show a cycle later, StatsD is told to be away once and not back."""
    host = hostile.start("not_utf8")
    dead = free_port()
    with cli.run("-i", host, "-k", fleet.key, "-g", f"127.0.0.1:{dead}", "--interval", 2.2) as running:
        wait_for("5 cycles", lambda: len(running.cycles()) >= 5)
        assert len(about_statsd(running)) == 1, about_statsd(running)


def about_statsd(running: Running) -> list[str]:
    """Returns the messages about StatsD."""
    return [line["message"] for line in running.logs() if line["logger"].startswith("fleetmem.sinks")]


def check_nothing_missed(running: Running) -> None:
    """Checks that no slot was skipped after the logins: phases are hashes, and hosts that are close log in together."""
    assert not sum(cycle["missed"] for cycle in running.cycles()[3:])


# --- stopping --------------------------------------------------------------------------------------------------------


def test_a_stop_does_not_wait_for_what_does_not_answer(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """With a dead StatsD, a silent host and one in the middle of its login, SIGTERM still ends it within 5 s."""
    silent, half = hostile.start("never_answer"), hostile.start("stop_in_key_exchange")
    specs = f"127.0.1.1:{fleet.port},{silent},{half}"
    dead = free_port()
    with cli.run("-i", specs, "-k", fleet.key, "-g", f"127.0.0.1:{dead}", "--interval", 1) as running:
        wait_for("the silent one is asked", lambda: hostile.counts(silent)["requests"])
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 0


def test_a_signal_that_comes_twice_at_once_is_one(fleet: Sshd, cli: Cli) -> None:
    """`timeout` signals its child and its child's group, which is the child once more: the stop is an orderly one."""
    dead = free_port()
    options = ("-i", f"127.0.1.1:{fleet.port}", "-k", fleet.key, "-g", f"127.0.0.1:{dead}", "--interval", 0.5)
    with cli.run(*options) as running:
        wait_for("StatsD is found dead", lambda: about_statsd(running))
        running.signal(signal.SIGTERM)
        time.sleep(0.02)
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 0


def test_a_second_sigint_forces(fleet: Sshd, cli: Cli) -> None:
    """While a stop still tries to deliver to a dead StatsD, a second Ctrl-C ends it at once with status 130."""
    dead = free_port()
    options = ("-i", f"127.0.1.1:{fleet.port}", "-k", fleet.key, "-g", f"127.0.0.1:{dead}", "--interval", 0.5)
    with cli.run(*options) as running:
        wait_for("StatsD is found dead", lambda: about_statsd(running))
        running.signal(signal.SIGINT)
        wait_for("it is stopping", lambda: "stopping" in running.stderr)
        time.sleep(0.2)
        running.signal(signal.SIGINT)
        assert running.wait(1) == 130
        assert "at once" in running.logs()[-1]["message"]


def test_a_full_disk_does_not_stop_the_collection(fleet: Sshd, statsd: StatsD, cli: Cli) -> None:
    """When the output file cannot be written any more, that is one error in the log, and StatsD gets its values."""
    options = ("-i", f"127.0.1.1:{fleet.port}", "-k", fleet.key, "-g", statsd.address, "-o", "/dev/full")
    with cli.run(*options, "--interval", 0.3) as running:
        wait_for("5 cycles", lambda: len(running.cycles()) >= 5)
        errors = [line for line in running.logs() if line["level"] == "error"]
        assert len(errors) == 1, errors
        assert "no space left on device" in errors[0]["message"]
        assert errors[0]["path"] == "/dev/full"
        assert statsd.gauges()[f"fleetmem.host.127_0_1_1_{fleet.port}.up"] == 1
        running.signal(signal.SIGTERM)
        running.wait(5)
