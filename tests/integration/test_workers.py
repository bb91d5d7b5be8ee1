"""`fleetmem run --workers`: several processes sample one fleet, and it looks like one."""

import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fleetmem.lab.simulator import address_of
from fleetmem.rendezvous import shard_of

from .receivers import UdpReceiver
from .servers import (
    Cli,
    Running,
    descendants,
    environment,
    free_port,
    is_alive,
    make_key,
    parents,
    process_state,
    sshd,
    started,
    wait_for,
)
from .terminal import on_terminal
from .test_service import get

HOSTS, PROCESSES = 120, 10
INTERVAL_SECONDS = 1.5
KILLED_INTERVAL_SECONDS = 3.0
"""A process takes half a second of CPU to start, and as long to log in to its hosts again."""
NAMES = [address_of(number) for number in range(HOSTS)]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A simulated fleet whose processes stay; its configuration, and what it counts in the end."""
    folder = tmp_path_factory.mktemp("simulator")
    size = ("--hosts", HOSTS, "--processes", PROCESSES, "--churn", 0)
    with Cli(folder).start("lab", "simulate", "--dir", folder / "fleet", *size) as running:
        wait_for("the simulator listens", lambda: "Ctrl-C ends it" in running.stdout)
        yield folder / "fleet" / "fleetmem.toml"
        running.signal(signal.SIGTERM)
        assert running.wait(10) == 0
        assert re.search(r" 0 requests while .* 0 connections beside another one$", running.stdout, re.MULTILINE)


@contextmanager
def run(cli: Cli, config: Path, workers: int, *arguments: object) -> Iterator[Running]:
    """Runs a collector with so many workers."""
    options = ("-c", config, "--workers", workers, "--interval", INTERVAL_SECONDS)
    with cli.run(*options, *arguments) as running:
        yield running


def workers_of(pid: int) -> list[int]:
    """Returns the worker processes of a collector."""
    children = [child for child, parent in parents().items() if parent == pid and is_alive(child)]
    return [child for child in children if b"fleetmem.engine.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


def hosts_in_the_log(running: Running) -> list[int]:
    """Returns how many hosts each worker has, as the log tells it at the start."""
    found = re.search(r"in \d+ workers with ([\d, ]+) hosts", running.stderr)
    return list(map(int, found[1].split(", "))) if found else []


def stop(running: Running) -> dict[str, Any]:
    """Stops a collector as a service manager does; returns its last log line."""
    running.signal(signal.SIGTERM)
    assert running.wait(5) == 0
    return running.logs()[-1]


def test_two_workers_look_like_one(simulator: Path, cli: Cli) -> None:
    """The same series as from one process, the own counters once, and every datagram sent is received."""
    names: list[set[str]] = []
    for workers in (1, 2):
        with started(UdpReceiver()) as receiver, run(cli, simulator, workers, "-g", receiver.address) as running:
            wait_for("all hosts", lambda: sum(name.endswith(".up") for name in receiver.gauges()) == HOSTS)
            wait_for("three cycles", lambda: len(running.cycles()) > 2)
            assert len(workers_of(running.pid)) == (0 if workers == 1 else workers)
            last = stop(running)
            assert last["statsd_datagrams_sent"] == wait_for_datagrams(receiver, last["statsd_datagrams_sent"])
            assert receiver.drops == 0
            names.append(set(receiver.gauges()))
            lines = receiver.lines()
        cycles = running.cycles()
        own = [line for line in lines if re.match(r"fleetmem\.collector\.\w+\.hosts_up:", line)]
        assert len(cycles) <= len(own) <= len(cycles) + 1
        assert sum(".workers:" in line and line.endswith(f":{workers}|g") for line in lines) == len(own)
    assert names[0] == names[1]
    assert len(hosts_in_the_log(running)) == 2
    assert sum(hosts_in_the_log(running)) == HOSTS
    assert min(hosts_in_the_log(running)) > HOSTS // 4


def wait_for_datagrams(receiver: UdpReceiver, sent: int) -> int:
    """Returns how many datagrams have come, when those that were sent should have."""
    wait_for("all is read", lambda: len(receiver.datagrams) + receiver.drops >= sent)
    return len(receiver.datagrams) + receiver.drops


def test_a_worker_that_is_killed(simulator: Path, cli: Cli) -> None:
    """Its hosts are back within two intervals, none is sampled twice in a cycle, the others notice nothing.

    On a machine that is busy they are back as soon as they were there after the start.
    """
    port, begun_seconds = free_port(), time.monotonic()
    with run(cli, simulator, 2, "-o", "-", "--health", port, "--interval", KILLED_INTERVAL_SECONDS) as running:
        wait_for("all hosts", lambda: len({line["host"] for line in running.outcomes()}) == HOSTS)
        start_seconds = time.monotonic() - begun_seconds
        steady_unix_seconds, cycles = time.time(), len(running.cycles())
        wait_for("a whole cycle more", lambda: len(running.cycles()) > cycles + 1)
        time.sleep(KILLED_INTERVAL_SECONDS / 2)  # in the middle of the next
        victim = workers_of(running.pid)[0]
        killed_unix_seconds = time.time()
        os.kill(victim, signal.SIGKILL)
        cycles = len(running.cycles())
        wait_for("three cycles more", lambda: len(running.cycles()) >= cycles + 3)
        told = get(port, "/healthz")[1]["workers"]
        assert sorted(worker["restarts"] for worker in told) == [0, 1]
        assert {worker["pid"] for worker in told} == set(workers_of(running.pid))
        assert victim not in {worker["pid"] for worker in told}
        stop(running)
        taken: dict[str, list[float]] = {name: [] for name in NAMES}
        for outcome in running.outcomes():
            assert outcome["ok"]
            if outcome["taken_unix_seconds"] > steady_unix_seconds:
                taken[outcome["host"]].append(outcome["taken_unix_seconds"])
    slots = {
        name: [int((at - times[0]) / KILLED_INTERVAL_SECONDS + 0.2) for at in times] for name, times in taken.items()
    }
    twice = {name: taken[name] for name, numbers in slots.items() if len(set(numbers)) < len(numbers)}
    assert not twice, "sampled twice in a cycle"
    (error,) = [line for line in running.logs() if line["level"] == "error"]
    told_of = re.fullmatch(r"worker ([12]) was killed by SIGKILL; it is started again at once", error["message"])
    assert told_of
    assert error["pid"] == victim
    its = {name for name in NAMES if shard_of(f"worker {name}", 2) == int(told_of[1]) - 1}
    assert error["hosts"] == len(its)
    back = {name: min(at for at in taken[name] if at > killed_unix_seconds) for name in its}
    assert max(back.values()) - killed_unix_seconds <= max(2 * KILLED_INTERVAL_SECONDS, start_seconds)
    holes = [name for name in its if slots[name] != list(range(len(slots[name])))]
    assert holes
    assert sum(cycle["missed"] for cycle in running.cycles()) >= len(holes)
    steps = [after - before for name in set(NAMES) - its for before, after in pairwise(taken[name])]
    assert abs(statistics.median(steps) - KILLED_INTERVAL_SECONDS) < 0.1
    assert max(steps) < 2 * KILLED_INTERVAL_SECONDS


def test_nothing_outlives_the_main_process(simulator: Path, cli: Cli) -> None:
    """Killed in the middle of its work, it takes its workers along, also one that hangs, and their connections."""
    with run(cli, simulator, 3, "-o", "/dev/null") as running:
        wait_for("a cycle", running.cycles)
        workers = workers_of(running.pid)
        assert len(workers) == 3
        os.kill(workers[0], signal.SIGSTOP)  # one of them would not notice
        running.signal(signal.SIGKILL)
        wait_for("they are gone", lambda: not any(map(is_alive, workers)), 2)


def test_ctrl_c_reaches_the_whole_group(simulator: Path, cli: Cli, tmp_path: Path) -> None:
    """A terminal signals all processes: workers leave it to the main one, which stops with all that it has."""
    output, log = tmp_path / "out.jsonl", tmp_path / "log"
    with started(UdpReceiver()) as receiver, log.open("wb") as stderr:
        options = ("--workers", 2, "--interval", INTERVAL_SECONDS, "-g", receiver.address, "-o", output)
        process = subprocess.Popen(
            cli.command("run", "-c", simulator, *options),
            env=environment(cli.home),
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            wait_for("hosts are sampled", lambda: output.exists() and output.read_text().count("\n") > HOSTS)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(5) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        sent = int(re.findall(r"statsd_datagrams_sent=(\d+)", log.read_text())[-1])
        wait_for("all is read", lambda: len(receiver.datagrams) + receiver.drops == sent)
    told = log.read_text()
    assert "Traceback" not in told
    assert " ERROR " not in told
    assert all(line.endswith("}") for line in output.read_text().splitlines())


def test_a_reload(simulator: Path, cli: Cli, tmp_path: Path) -> None:
    """New hosts are sampled, those that are gone are not; what is invalid changes nothing, in no worker."""
    hosts, config = tmp_path / "hosts", tmp_path / "config.toml"
    theirs = simulator.parent / "hosts.txt"
    good = simulator.read_text().replace(str(theirs), str(hosts))
    specs = [line for line in theirs.read_text().splitlines() if not line.startswith("#")]
    hosts.write_text("\n".join(specs[:40]))
    config.write_text(good + "[run]\nworkers = 2\n")
    with cli.run("-c", config, "-o", "-", "--interval", 0.5) as running:
        wait_for("40 hosts", lambda: len({line["host"] for line in running.outcomes()}) == 40)
        config.write_text(good + "[nonsense]\n")
        running.signal(signal.SIGHUP)
        wait_for("it is refused", lambda: "configuration not taken, the old one stays" in running.stderr)
        config.write_text(good + "[run]\nworkers = 3\n")
        hosts.write_text("\n".join(specs[20:60]))
        before = workers_of(running.pid)
        running.signal(signal.SIGHUP)
        wait_for("it is taken", lambda: "configuration taken: 40 hosts" in running.stderr)
        count = len(running.outcomes())
        wait_for("60 hosts in all", lambda: len({line["host"] for line in running.outcomes()}) == 60)
        wait_for("a whole cycle", lambda: len(running.outcomes()) > count + 80)
        assert {line["host"] for line in running.outcomes()[count + 20 :]} == set(NAMES[20:60])
        assert workers_of(running.pid) == before
        assert running.stderr.count("run.workers needs a restart") == 1
        stop(running)
    assert all(line["ok"] for line in running.outcomes())


def test_one_page_for_prometheus(simulator: Path, cli: Cli) -> None:
    """All hosts are on the one page, with their processes as one process would show them, and the counters once."""
    port = free_port()
    with run(cli, simulator, 2, "--prometheus", port) as running:
        page = wait_for("all hosts", lambda: text if (text := scrape(port)).count("\nfleetmem_up{") == HOSTS else "")
        assert page.count("\nfleetmem_process_rss_bytes{") == HOSTS * PROCESSES
        assert f'fleetmem_process_mem_ratio{{host="{NAMES[7]}",command="redis-server",pid="302"}}' in page
        wait_for("the own counters", lambda: "fleetmem_collector_workers{" in scrape(port))
        text = scrape(port)
        assert text.count("\nfleetmem_collector_hosts_up{") == text.count("\nfleetmem_build_info{") == 1
        assert 'version="' in text
        began = re.findall(r'^process_start_time_seconds(\{worker="\d"\})? ', text, re.MULTILINE)
        assert began == ["", '{worker="1"}', '{worker="2"}']
        assert "\nfleetmem_collector_config_last_reload_successful{" in text
        stop(running)


def scrape(port: int) -> str:
    """Returns what Prometheus gets."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except ConnectionRefusedError:
        return ""
    finally:
        connection.close()


def test_a_worker_that_hangs_is_no_health(simulator: Path, cli: Cli) -> None:
    """While one of two does nothing the whole is not alive, and is again with it; a stop ends it all the same."""
    port, limits = free_port(), ("--connect-timeout", 0.5, "--command-timeout", 0.5)
    with run(cli, simulator, 2, "-o", "/dev/null", "--health", port, "--interval", 0.5, *limits) as running:
        wait_for("it is ready", lambda: "http://" in running.stderr and get(port, "/readyz")[0] == 200)
        hung = workers_of(running.pid)[0]
        os.kill(hung, signal.SIGSTOP)
        wait_for("it halts", lambda: process_state(hung) == "T")
        wait_for("it is noticed", lambda: get(port, "/healthz")[0] == 503)
        assert get(port, "/healthz")[1]["status"] == "stalled"
        os.kill(hung, signal.SIGCONT)
        wait_for("it is well again", lambda: get(port, "/healthz")[0] == 200)
        os.kill(hung, signal.SIGSTOP)
        running.signal(signal.SIGTERM)
        assert running.wait(6) == 0
        assert not is_alive(hung)


def test_a_passphrase_is_typed_once(cli: Cli, tmp_path: Path) -> None:
    """The main process asks for it and hands it on, where nobody sees it: no argument, no variable has it."""
    secret = "correct-horse"  # noqa: S105 - of a key that is made here
    key = make_key(tmp_path / "key", passphrase=secret)
    output = tmp_path / "out.jsonl"
    public = key.with_suffix(".pub").read_text()
    with sshd(tmp_path / "sshd", public_keys=[public]) as server:
        hosts = ("-i", "127.0.1.[1-6]", "-p", server.port, "-k", key)
        with on_terminal(cli, "run", *hosts, "--workers", 2, "--interval", 1, "-o", output) as terminal:
            terminal.expect("Passphrase")
            terminal.type(secret)
            wait_for("all answer", lambda: output.exists() and output.read_text().count('"ok":true') >= 6)
            started_pid = terminal.process.pid  # that of setsid, or what it has become
            collector = next(pid for pid in (started_pid, *descendants(started_pid)) if workers_of(pid))
            for worker in workers_of(collector):
                for file in ("cmdline", "environ"):
                    assert secret.encode() not in Path(f"/proc/{worker}/{file}").read_bytes()
            os.kill(collector, signal.SIGTERM)
            terminal.finish()
    assert terminal.status == 0
    assert terminal.screen.count("Passphrase") == 1


@pytest.mark.slow
def test_the_slots_of_a_worker_that_is_stopped_are_missed(simulator: Path, cli: Cli, tmp_path: Path) -> None:
    """The count grows while it hangs. In the end outcomes and missed slots are all slots, and each outcome is one."""
    path = tmp_path / "records.jsonl"
    config = tmp_path / "file.toml"
    config.write_text(f'{simulator.read_text()}\n[file]\npath = "{path}"\nrotate_size = 0\n')

    def records() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def counters() -> dict[str, float]:
        told = [record["counters"] for record in records() if "collector" in record]
        return told[-1] if told else {"cycles_missed_total": 0, "slots_total": 0}

    with run(cli, config, 2) as running:
        wait_for("two cycles", lambda: counters()["slots_total"] >= 2 * HOSTS)
        victim = workers_of(running.pid)[0]
        os.kill(victim, signal.SIGSTOP)
        before = counters()["cycles_missed_total"]
        wait_for("they are missed", lambda: counters()["cycles_missed_total"] >= before + HOSTS)
        os.kill(victim, signal.SIGCONT)
        slots = counters()["slots_total"]
        wait_for("three cycles more", lambda: counters()["slots_total"] >= slots + 3 * HOSTS)
        stop(running)
    last = counters()
    outcomes = sum("host" in record for record in records())
    assert last["slots_total"] == outcomes + last["cycles_missed_total"]
