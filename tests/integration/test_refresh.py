"""`fleetmem run` follows its inventory: hosts come, go and change, and nothing that breaks there breaks the fleet."""

import json
import signal
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from .receivers import UdpReceiver
from .servers import Cli, Running, Sshd, StatsD, descendants, started, wait_for

REFRESH = {"FLEETMEM_INVENTORY__REFRESH_SECONDS": "0.2"}


def write(path: Path, *numbers: int, **more: Any) -> None:
    """Writes the inventory whole; `more` is said of the last host."""
    hosts: list[dict[str, Any]] = [{"name": f"h{number}", "address": f"127.0.1.{number}"} for number in numbers]
    hosts[-1] |= more
    _put(path, json.dumps(hosts))


def _put(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An inventory of three hosts."""
    path = tmp_path / "hosts.json"
    write(path, 1, 2, 3)
    return path


def latest(running: Running, host: str) -> dict[str, Any]:
    """Returns the last outcome of a host, nothing where there is none."""
    return (running.outcomes_of(host) or [{}])[-1]


def told(running: Running, level: str) -> list[str]:
    """Returns what was told about the inventory."""
    return [
        line["message"] for line in running.logs() if line["level"] == level and line["message"].startswith("inventory")
    ]


def steps(running: Running, host: str, start: int = 0) -> list[float]:
    """Returns the times between the samples of a host."""
    taken = [outcome["taken_unix_seconds"] for outcome in running.outcomes_of(host)[start:]]
    return [after - before for before, after in pairwise(taken)]


def failures(running: Running) -> list[dict[str, Any]]:
    """Returns the outcomes that are none."""
    return [outcome for outcome in running.outcomes() if not outcome["ok"]]


def test_hosts_come_go_and_change(path: Path, sshd: Sshd, statsd: StatsD, cli: Cli) -> None:
    """Those that stay keep connection, slot and series, also under other labels; those that go have theirs ended."""
    options = ("--inventory", path, "-p", sshd.port, "-k", sshd.key, "-g", statsd.address, "-o", "-")
    with cli.run(*options, "--interval", 0.5, **REFRESH) as running:
        wait_for("all answer", lambda: all(latest(running, f"h{number}").get("ok") for number in (1, 2, 3)))
        before = sshd.probes()
        write(path, 1, 2, 4)
        wait_for("the new one answers", lambda: latest(running, "h4").get("ok"))
        wait_for("the probe of the one that is gone ended", lambda: len(sshd.probes()) == 3)
        assert sshd.logins_total == 4, "a host that stayed was logged in to again"
        assert len(sshd.probes() & before) == 2
        wait_for("its series end", lambda: statsd.gauges().get("fleetmem.host.h3.up") == 0)
        write(path, 1, 2, 4, labels={"env": "prod"}, groups=["web"])
        wait_for("labels are there", lambda: latest(running, "h4").get("labels") == {"env": "prod"})
        assert latest(running, "h4")["groups"] == ["web"]
        count = len(running.outcomes_of("h1"))
        wait_for("it goes on", lambda: len(running.outcomes_of("h1")) >= count + 3)
        assert sshd.logins_total == 4
        assert not failures(running)
        assert statistics.median(steps(running, "h1", 1)) < 0.75
        assert told(running, "info") == [
            "inventory taken: 3 hosts, 1 are new, 1 are gone",
            "inventory taken: 3 hosts, 0 are new, 0 are gone",
        ]
        counters = {name.rpartition(".")[2]: value for name, value in statsd.gauges().items() if ".collector." in name}
        assert (counters["inventory_hosts"], counters["inventory_failures_total"]) == (3, 0)


def test_odd_entries_hold_up_neither_arrivals_nor_departures(path: Path, fleet: Sshd, statsd: StatsD, cli: Cli) -> None:
    """Hosts come and go beside entries that are no hosts; each of these is logged once, and counted."""
    options = ("--inventory", f"json:{path}", "-p", fleet.port, "-k", fleet.key)
    with cli.run(*options, "-g", statsd.address, "-o", "-", "--interval", 0.3, **REFRESH) as running:
        wait_for("all answer", lambda: all(latest(running, f"h{number}").get("ok") for number in (1, 2, 3)))
        odd = [{"name": "web 01 (prod)"}, {"name": "db/primary"}, {"name": "h5", "port": "ssh"}, 7]
        _put(path, json.dumps([{"name": f"h{number}", "address": f"127.0.1.{number}"} for number in (1, 2, 4)] + odd))
        wait_for("the new one answers", lambda: latest(running, "h4").get("ok"))
        wait_for("they are counted", lambda: counted(statsd, "inventory_entries_left_out") == 4)
        assert counted(statsd, "inventory_hosts") == 3
        assert counted(statsd, "inventory_stale") == 0
        time.sleep(1)  # some refreshes more
        lines = [line for line in told(running, "warning") if "left out" in line]
        assert len(lines) == 4, lines
        assert all(f"{path}: host {number}" in line for number, line in enumerate(lines, 4)), lines
        assert not failures(running)


@pytest.mark.parametrize("broken", ["not json", "[]", "gone", '[{"name": "h9"}, {"name": "h9", "address": "x"}]'])
def test_an_inventory_that_breaks_keeps_the_fleet(
    broken: str, path: Path, fleet: Sshd, statsd: StatsD, cli: Cli
) -> None:
    """It is said once, and counted; what comes after it is taken again."""
    options = ("-i", "127.0.1.9", "--inventory", f"json:{path}", "-p", fleet.port, "-k", fleet.key)
    with cli.run(*options, "-g", statsd.address, "-o", "-", "--interval", 0.3, **REFRESH) as running:
        wait_for("all answer", lambda: all(latest(running, f"h{number}").get("ok") for number in (1, 2, 3)))
        if broken == "gone":
            path.unlink()
        else:
            _put(path, broken)
        wait_for("it is told", lambda: told(running, "warning"))
        wait_for("it is counted", lambda: counted(statsd, "inventory_failures_total") >= 3)
        assert counted(statsd, "inventory_stale") == 1
        assert counted(statsd, "inventory_hosts") == 4
        count = len(running.outcomes())
        wait_for("sampling goes on", lambda: len(running.outcomes()) >= count + 8)
        assert {outcome["host"] for outcome in running.outcomes()[count:]} == {"127.0.1.9", "h1", "h2", "h3"}
        assert len(told(running, "warning")) == 1, told(running, "warning")
        assert "the hosts that it had stay" in told(running, "warning")[0]
        write(path, 1, 2, 3, 4)
        wait_for("the new host answers", lambda: latest(running, "h4").get("ok"))
        wait_for("nothing is stale", lambda: counted(statsd, "inventory_stale") == 0)
        assert not failures(running)


def counted(statsd: StatsD, measure: str) -> float:
    """Returns one of the collector's own counters, -1 where there is none yet."""
    found = [value for name, value in statsd.gauges().items() if name.endswith(f".{measure}")]
    return found[0] if found else -1


def test_a_slow_inventory_delays_no_host_and_no_stop(path: Path, fleet: Sshd, cli: Cli, tmp_path: Path) -> None:
    """While a program hangs, samples are on time, also over SIGHUP; SIGTERM ends both, it and its children."""
    program, hang = tmp_path / "program", tmp_path / "hang"
    program.write_text(f"#!/bin/sh\n[ -e {hang} ] && sleep 60\nexec cat {path}\n")
    program.chmod(0o755)
    options = ("--inventory", f"command:{program}", "-p", fleet.port, "-k", fleet.key, "-o", "-")
    with cli.run(*options, "--interval", 0.3, **REFRESH) as running:
        wait_for("all answer", lambda: all(latest(running, f"h{number}").get("ok") for number in (1, 2, 3)))
        hang.touch()
        sleeping = wait_for("the program hangs", lambda: _sleeping(running.pid))
        count = len(running.outcomes_of("h1"))
        running.signal(signal.SIGHUP)
        wait_for("10 samples", lambda: len(running.outcomes_of("h1")) >= count + 10)
        assert statistics.median(steps(running, "h1", count)) < 0.45
        assert _sleeping(running.pid) >= sleeping, "the one that hangs was started again"
        assert not failures(running)
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 0
        wait_for("the program is gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in sleeping))


def _sleeping(pid: int) -> set[int]:
    """Returns the processes below one that sleep."""
    return {child for child in descendants(pid) if _command(child).startswith("sleep")}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def test_an_inventory_that_fails_at_the_start_is_an_error(cli: Cli, tmp_path: Path) -> None:
    """There is no earlier one: exit status 2, and what to do."""
    result = cli("run", "--inventory", f"json:{tmp_path}/nowhere.json", "-g", "127.0.0.1:1")
    assert result.status == 2
    assert "nowhere.json: no such file" in result.stderr


def test_labels_as_tags_change_with_the_inventory(path: Path, fleet: Sshd, cli: Cli) -> None:
    """Series under the old tags end, every one of them, those under the new ones begin."""
    options = ("--inventory", path, "-p", fleet.port, "-k", fleet.key)
    tags = {"FLEETMEM_STATSD__DIALECT": "influx", "FLEETMEM_INVENTORY__TAGS": "env,role"}
    write(path, 1, labels={"env": "test"})
    with (
        started(UdpReceiver()) as statsd,
        cli.run(*options, "-g", statsd.address, "--interval", 0.3, **REFRESH, **tags) as running,
    ):
        wait_for("tagged series", lambda: "fleetmem.host.up,host=h1,env=test:1|g" in statsd.lines())
        write(path, 1, labels={"env": "prod", "role": "web"})
        wait_for("the new ones", lambda: "fleetmem.host.up,host=h1,env=prod,role=web:1|g" in statsd.lines())
        ended = {line.rpartition(":")[0] for line in statsd.lines() if "env=test:0|" in line}
        assert ended == {line.rpartition(":")[0] for line in statsd.lines() if "env=test:" in line}
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 0
