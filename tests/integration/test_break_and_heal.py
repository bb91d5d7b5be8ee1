"""One thing of our own side breaks for a time and heals: 3 cycles later everything is as it was."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from . import breaking
from .breaking import HOSTS, INTERVAL_SECONDS, LIMIT_SECONDS, Resource, Scene
from .servers import wait_for

BREAK_SECONDS = 6.0
STOP_SECONDS = 5.0
MORE_DESCRIPTORS = 3
MORE_THREADS = 3
# What was begun before it healed may take its limits, of connecting, login and command; then there are 3 cycles.
HEAL_SECONDS = 3 * LIMIT_SECONDS + 3 * INTERVAL_SECONDS

CHECKED = [(breaking.InventoryProgram, "hangs"), (breaking.Descriptors, "")]
"""What `make check` breaks; an agent is broken there by test_agent.py, what a reload reads by test_own_side.py."""

LONG: list[tuple[type[Resource], str]] = [
    (breaking.SshAgent, ""),
    *((breaking.KeyFile, mode) for mode in ("fifo", "removed", "endless", "garbage")),
    *((breaking.ReloadedFile, mode) for mode in ("fifo", "removed", "endless", "garbage", "folder")),
    *((breaking.SshConfiguration, mode) for mode in ("fifo", "removed", "endless", "garbage")),
    *((breaking.KnownHosts, mode) for mode in ("locked", "fifo", "endless")),
    *((breaking.InventoryProgram, mode) for mode in ("garbage", "endless")),
    *((breaking.InventoryServer, mode) for mode in ("hangs", "drips", "500")),
    (breaking.NameServer, ""),
    (breaking.Threads, ""),
    (breaking.WallClock, ""),
    (breaking.Disk, ""),
]
"""What the long run breaks, too."""


def case(kind: type[Resource], mode: str, *marks: pytest.MarkDecorator) -> Any:
    """Returns a parameter of the test."""
    return pytest.param(kind, mode, id=f"{kind.__name__}-{mode}".removesuffix("-"), marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode"),
    [case(kind, mode) for kind, mode in CHECKED] + [case(kind, mode, pytest.mark.long) for kind, mode in LONG],
)
def test_what_breaks_and_heals_leaves_all_as_before(kind: type[Resource], mode: str, tmp_path: Path) -> None:
    """Other hosts keep their outcomes, no slot is lost without being counted, and SIGTERM ends it in time."""
    with breaking.folder_for(kind, tmp_path) as folder, breaking.scene(folder) as scene, kind(scene, mode) as broken:
        with scene.run() as running:
            wait_for("all answer", lambda: all_answer(scene, 0))
            wait_for("it is healthy", scene.is_healthy)
            sleep_cycles(2)
            before = (scene.descriptors(), scene.threads())
            broken.break_()
            check_others(scene, broken)
            broken.heal()
            mark = len(scene.statsd.datagrams)
            wait_for("all answer again", lambda: all_answer(scene, mark), HEAL_SECONDS)
            check_as_before(scene, *before)
            broken.break_()
            sleep_cycles(2)
            running.signal(signal.SIGTERM)
            assert running.wait(STOP_SECONDS) == 0, running.stderr[-2000:]
        if broken.is_file_written:
            check_slots(scene)
        broken.check()


def sleep_cycles(cycles: float) -> None:
    """Lets some cycles pass."""
    time.sleep(cycles * INTERVAL_SECONDS)


def all_answer(scene: Scene, mark: int) -> bool:
    """Whether the last outcome of each host from a datagram on is good."""
    return all(outcomes and outcomes[-1] for outcomes in scene.ups(mark).values())


def check_others(scene: Scene, broken: Resource) -> None:
    """Checks that each host that needs not what is broken has a good outcome in each cycle meanwhile."""
    mark, until = len(scene.statsd.datagrams), time.monotonic() + BREAK_SECONDS
    while time.monotonic() < until:
        assert scene.is_healthy() or not broken.is_page_up
        sleep_cycles(0.5)
    outcomes = scene.ups(mark)
    for number, host in enumerate(scene.hosts):
        if number not in broken.dependents:
            found = outcomes[str(host["name"])]
            assert len(found) >= BREAK_SECONDS / INTERVAL_SECONDS - 1, (host, found)
            assert all(found), (host, found)


def check_as_before(scene: Scene, descriptors: int, threads: int) -> None:
    """Checks that it does what it did, with as much as it took before."""
    mark = len(scene.statsd.datagrams)
    sleep_cycles(3)
    outcomes = scene.ups(mark)
    assert len(outcomes) == HOSTS
    for host, found in outcomes.items():
        assert len(found) >= 2, (host, found)
        assert all(found), (host, found)
    assert scene.is_healthy()
    for what, count, most in (
        ("descriptors", scene.descriptors, descriptors + MORE_DESCRIPTORS),
        ("threads", scene.threads, threads + MORE_THREADS),
    ):  # a busy machine takes its time for what is under way
        wait_for(f"{most} {what} at most", lambda count=count, most=most: count() <= most)  # type: ignore[misc]


def check_slots(scene: Scene) -> None:
    """Checks that each slot has come to an outcome, or is counted as missed."""
    written = scene.written()
    outcomes = 0
    counters: dict[str, float] = {}
    for line in written:
        if "collector" in line:
            counters = line["counters"]
        else:
            outcomes += 1
    assert counters["slots_total"] == outcomes + counters["cycles_missed_total"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_slots_are_outcomes_and_misses_to_the_end(workers: int, tmp_path: Path) -> None:
    """Also those of the cycle that the end of the run cuts short, whoever sampled them."""
    with breaking.scene(tmp_path) as scene:
        scene.set("run", workers=workers)
        with scene.run() as running:
            wait_for("all answer", lambda: all_answer(scene, 0))
            sleep_cycles(2.5)
            running.signal(signal.SIGTERM)
            assert running.wait(STOP_SECONDS) == 0, running.stderr[-2000:]
        check_slots(scene)
