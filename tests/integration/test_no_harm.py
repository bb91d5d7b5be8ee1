"""Nothing of fleetmem outlives it on a host, and no host ever has two samples in flight."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .hostile import HostileHosts
from .servers import Cli, Running, Sshd, StatsD, descendants, is_alive, wait_for

HOSTS = "127.0.1.[1-10]"


def run_until_sampled(running: Running, sshd: Sshd, hosts: int) -> None:
    """Waits until every host has its probe and a cycle is over."""
    wait_for("every host has its probe", lambda: len(sshd.probes()) == hosts, 15)
    wait_for("a cycle is over", running.cycles, 15)


def test_nothing_runs_on_any_host_after_sigkill(sshd: Sshd, statsd: StatsD, cli: Cli) -> None:
    """2 s after SIGKILL of the collector no process that sshd started for it is left, on any of 10 hosts."""
    options = ("-i", HOSTS, "-p", sshd.port, "-k", sshd.key, "-g", statsd.address, "--interval", 0.5)
    with cli.run(*options) as running:
        run_until_sampled(running, sshd, 10)
        started = descendants(sshd.pid)
        assert len(started) >= 20  # a session and a probe for each host
        running.signal(signal.SIGKILL)
        wait_for("nothing is left", lambda: not any(map(is_alive, started | descendants(sshd.pid))), 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_runs_on_any_host_after_an_orderly_stop(
    number: signal.Signals, sshd: Sshd, statsd: StatsD, cli: Cli
) -> None:
    """SIGTERM and SIGINT end the collector with status 0 within 5 s, with nothing left on the hosts."""
    options = ("-i", HOSTS, "-p", sshd.port, "-k", sshd.key, "-g", statsd.address, "--interval", 0.5)
    with cli.run(*options) as running:
        run_until_sampled(running, sshd, 10)
        started = descendants(sshd.pid)
        running.signal(number)
        assert running.wait(5) == 0
        messages = [line["message"] for line in running.logs()]
        assert "stopping" in messages
        assert messages[-1] == "stopped"
        wait_for("nothing is left", lambda: not any(map(is_alive, started | descendants(sshd.pid))), 2)


def test_a_frozen_collector_gets_no_work_done_for_it(sshd: Sshd, statsd: StatsD, cli: Cli) -> None:
    """A collector that does not ask costs a host nothing: the probes wait, and none of them starts a process."""
    options = ("-i", HOSTS, "-p", sshd.port, "-k", sshd.key, "-g", statsd.address, "--interval", 0.5)
    with cli.run(*options) as running:
        run_until_sampled(running, sshd, 10)
        running.signal(signal.SIGSTOP)
        wait_for(
            "no sample is under way", lambda: len(descendants(sshd.pid)) == len(idle := sshd.probes()) * 2 and idle
        )
        before = {pid: cpu_ticks(pid) for pid in sshd.probes()}
        assert not wait_briefly_for(lambda: {pid: cpu_ticks(pid) for pid in sshd.probes()} != before)
        running.signal(signal.SIGCONT)
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 0


def cpu_ticks(pid: int) -> tuple[int, ...]:
    """Returns the CPU time that a process and its ended children used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return tuple(int(field) for field in fields[11:15])


def wait_briefly_for(happened: Callable[[], bool]) -> bool:
    """Whether something that must not happen does so within a second and a half."""
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_a_slow_host_never_has_two_samples_in_flight(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """A host that takes 6 s for a sample gets one request at a time, and its late frame is no fresh one."""
    host = hostile.start("slow")
    with cli.run(*("-i", host, "-k", fleet.key, "-o", "-", "--interval", 1, "--command-timeout", 1)) as running:
        wait_for("it was asked a third time", lambda: hostile.counts(host)["requests"] >= 3, 30)
        outcomes = running.outcomes()
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 0
    counts = hostile.counts(host)
    assert counts["most_in_flight"] == 1
    assert counts["logins"] == 1, "a slow host is not logged in to again"
    assert {outcome["error"]["kind"] for outcome in outcomes} == {"command_timeout"}
    messages = [outcome["error"]["message"] for outcome in outcomes]
    assert any("still at work" in message for message in messages), messages


@pytest.mark.slow
def test_a_frame_that_comes_late_is_not_taken_for_a_fresh_one(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """When a slow host is quick again, what it tells is the answer to the request of that cycle."""
    host = hostile.start("slow_once")
    with cli.run(*("-i", host, "-k", fleet.key, "-o", "-", "--interval", 0.5, "--command-timeout", 0.5)) as running:
        good = wait_for("it answers", lambda: [line for line in running.outcomes() if line["ok"]][:2], 15)
    assert hostile.counts(host)["most_in_flight"] == 1
    # Its processes are named after the request that they answer: the late one, of request 1, is not shown.
    assert good[0]["processes"][0]["command"] == "request-2"


@pytest.mark.slow
def test_a_host_that_hangs_for_good_is_asked_once(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """A probe that never answers holds one request, cycle after cycle, and the others are not delayed by it."""
    host = hostile.start("never_answer")
    good = "127.0.1.1"
    with cli.run(
        *("-i", f"{host},{good}:{fleet.port}", "-k", fleet.key, "-o", "-"),
        *("--interval", 0.5, "--command-timeout", 0.5),
    ) as running:
        wait_for("it failed 8 times", lambda: len(running.outcomes_of(host)) >= 8, 15)
        others = running.outcomes_of(f"{good}:{fleet.port}")
    assert hostile.counts(host)["most_in_flight"] == 1
    assert hostile.counts(host)["requests"] == 1
    assert len(others) >= 7
    assert all(outcome["ok"] for outcome in others)
    warnings = [line for line in running.logs() if line["level"] == "warning"]
    assert len(warnings) == 1, warnings
    assert warnings[0]["kind"] == "command_timeout"


def test_the_probe_holds_no_file_of_the_host(sshd: Sshd, statsd: StatsD, cli: Cli) -> None:
    """A running probe has no file open but its pipes, and stands in no folder that could not be unmounted."""
    options = ("-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, "-g", statsd.address, "--interval", 0.5)
    with cli.run(*options) as running:
        run_until_sampled(running, sshd, 1)
        (probe,) = sshd.probes()
        files = [str(Path(f"/proc/{probe}/fd/{number}").readlink()) for number in (0, 1, 2)]
        assert all(name.startswith(("pipe:", "socket:")) for name in files), files
        assert Path(f"/proc/{probe}/cwd").readlink() == Path("/proc")
