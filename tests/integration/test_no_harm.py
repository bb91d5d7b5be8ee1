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
    wait_for("every host has its probe", lambda: len(sshd.probes()) == hosts)
    wait_for("a cycle is over", running.cycles)


def wait_for_more_cycles(running: Running, count: int) -> None:
    """Waits until so many more cycles are over."""
    seen = len(running.cycles())
    wait_for("more cycles", lambda: len(running.cycles()) >= seen + count)


@pytest.mark.timing
def test_nothing_runs_on_any_host_after_sigkill(sshd: Sshd, statsd: StatsD, cli: Cli) -> None:
    """2 s after SIGKILL of the collector no process that sshd started for it is left, on any of 10 hosts."""
    options = ("-i", HOSTS, "-p", sshd.port, "-k", sshd.key, "-g", statsd.address, "--interval", 0.5)
    with cli.run(*options) as running:
        run_until_sampled(running, sshd, 10)
        # A session and the probe's four processes for each host.
        wait_for("all are there", lambda: len(descendants(sshd.pid)) >= 50)
        started = descendants(sshd.pid)
        running.signal(signal.SIGKILL)
        wait_for("nothing is left", lambda: not any(map(is_alive, started | descendants(sshd.pid))), 2)


@pytest.mark.timing
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


@pytest.mark.timing
def test_a_frozen_collector_gets_no_work_done_for_it(sshd: Sshd, statsd: StatsD, cli: Cli) -> None:
    """A collector that does not ask costs a host nothing: the probes wait, and none of them starts a process."""
    options = ("-i", HOSTS, "-p", sshd.port, "-k", sshd.key, "-g", statsd.address, "--interval", 0.5)
    with cli.run(*options) as running:
        run_until_sampled(running, sshd, 10)
        running.signal(signal.SIGSTOP)
        time.sleep(0.5)
        before = {pid: work(pid) for pid in descendants(sshd.pid)}
        assert len(before) >= 50
        assert not wait_briefly_for(lambda: {pid: work(pid) for pid in descendants(sshd.pid)} != before)
        running.signal(signal.SIGCONT)
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 0


def work(pid: int) -> tuple[int, ...]:
    """Returns the page faults and the CPU time of a process and its ended children so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return tuple(int(field) for field in fields[7:15])


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
        wait_for("it was asked a third time", lambda: hostile.counts(host)["requests"] >= 3)
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
        good = wait_for("it answers", lambda: [line for line in running.outcomes() if line["ok"]][:2])
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
        *("--interval", 0.5, "--command-timeout", 5),  # the other one may be slow, beside other tests
    ) as running:
        wait_for("it failed 6 times", lambda: len(running.outcomes_of(host)) >= 6)
        wait_for("the other one is sampled", lambda: len(running.outcomes_of(f"{good}:{fleet.port}")) >= 7)
        others = running.outcomes_of(f"{good}:{fleet.port}")
    assert hostile.counts(host)["most_in_flight"] == 1
    assert hostile.counts(host)["requests"] == 1
    assert all(outcome["ok"] for outcome in others)
    warnings = [line for line in running.logs() if line["level"] == "warning"]
    assert len(warnings) == 1, warnings
    assert warnings[0]["kind"] == "command_timeout"


@pytest.mark.slow
def test_a_host_that_ends_its_output_at_work_is_left_alone(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """It may still be at work on the sample, and gets no other one a second later."""
    host = hostile.start("end_output_at_work")
    with cli.run(*("-i", host, "-k", fleet.key, "-o", "-", "--interval", 1)) as running:
        wait_for("it failed 6 times", lambda: len(running.outcomes()) >= 6)
        counts = hostile.counts(host)
    assert (counts["most_in_flight"], counts["requests"]) == (1, 1)


def test_a_sample_starts_no_process_on_a_host(sshd: Sshd, statsd: StatsD, cli: Cli) -> None:
    """Cycle after cycle the same few processes do all the work."""
    options = ("-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, "-g", statsd.address, "--interval", 0.5)
    with cli.run(*options) as running:
        run_until_sampled(running, sshd, 1)
        (probe,) = sshd.probes()
        for _ in range(5):  # a process that ends while mawk reads it takes awk with it
            before = descendants(probe)
            faults = {pid: work(pid)[1] for pid in before}
            wait_for_more_cycles(running, 2)
            after = descendants(probe)
            if after == before:
                break
        assert after == before
        assert {pid: work(pid)[1] for pid in after} == faults


@pytest.mark.slow
def test_a_probe_that_breaks_off_is_asked_again_in_the_same_cycle(hostile: HostileHosts, fleet: Sshd, cli: Cli) -> None:
    """A process that goes away under awk costs no sample, and no connection."""
    host = hostile.start("break_off_twice")
    with cli.run("-i", host, "-k", fleet.key, "-o", "-", "--interval", 0.5) as running:
        outcomes = wait_for("two cycles", lambda: (lines := running.outcomes())[1:] and lines)
    assert [outcome["ok"] for outcome in outcomes[:2]] == [True, True]
    assert outcomes[0]["processes"][0]["command"] == "request-3"
    assert hostile.counts(host)["logins"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "kind", "tries", "status"),
    [("break_off_for_ever", "command_failed", 3, 2), ("break_off_without_awk", "command_missing", 1, 127)],
)
def test_a_probe_that_breaks_off_for_ever(
    hostile: HostileHosts, fleet: Sshd, cli: Cli, behaviour: str, kind: str, tries: int, status: int
) -> None:
    """A host gets no more than three requests in a cycle, whatever it says, and one where awk is missing."""
    host = hostile.start(behaviour)
    with cli.run("-i", host, "-k", fleet.key, "-o", "-", "--interval", 0.5) as running:
        wait_for("three cycles", lambda: len(running.outcomes()) >= 3)
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 0
        outcomes = running.outcomes()
    assert {(outcome["error"]["kind"], outcome["error"]["message"]) for outcome in outcomes} == {
        (kind, f"awk ended with status {status}")
    }
    assert hostile.counts(host)["requests"] <= tries * (len(outcomes) + 1)
    assert hostile.counts(host)["requests"] >= tries * len(outcomes)
    assert hostile.counts(host)["logins"] == 1, "the connection is not at fault"


def test_the_probe_holds_no_file_of_the_host(sshd: Sshd, statsd: StatsD, cli: Cli) -> None:
    """A running probe has no file open but its pipes, and stands in no folder that could not be unmounted."""
    options = ("-i", "127.0.1.1", "-p", sshd.port, "-k", sshd.key, "-g", statsd.address, "--interval", 0.5)
    with cli.run(*options) as running:
        run_until_sampled(running, sshd, 1)
        (probe,) = sshd.probes()
        for pid in descendants(probe) | {probe}:
            files = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (0, 1, 2)]
            assert all(name.startswith(("pipe:", "socket:")) for name in files), files
            assert Path(f"/proc/{pid}/cwd").readlink() == Path("/proc")
