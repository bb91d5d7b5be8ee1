"""Where Graphite's step is the interval each step has a point: points carry the times of their slots."""

import asyncio
import random
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fleetmem.config import load
from fleetmem.connect.link import ProbeAnswer
from fleetmem.lab.graphite import RETENTION, lab_rules
from fleetmem.sampling.sampler import Sampler
from fleetmem.sampling.schedule import Grid
from fleetmem.wiring.fleet import build_fleet

from .receivers import CarbonCache
from .servers import started, wait_for
from .virtual_time import VirtualClock, run_in_virtual_time

HOSTS = 20
CYCLES = 500
DELAYS = 0.3
"""Of an interval: the longest that a host takes to answer."""
LATE_SECONDS = 0.02
"""By which the loop may be late, as on a busy machine."""
DRIFT = 1e-4
"""Of the wall clock, as a bad crystal has it."""

SENT = (b".up", b".rss_bytes")
"""What goes on to carbon: the others have the same times."""

FRAME = b"BEGIN fleetmem/1 1\nM 1000 500 0 0\nK 0 b\nP 1 0 8 4 4 4 0 init\nEND 1 0 1\n"


class Answering:
    """The link to a host that answers now sooner and now later."""

    connects_total = 1

    def __init__(self, dice: random.Random, longest_seconds: float) -> None:
        self._dice = dice
        self._longest_seconds = longest_seconds

    async def ask(self, make_request: Callable[[int], bytes], _make_first: Callable[[int], bytes]) -> ProbeAnswer:
        """Returns always the same."""
        make_request(1)
        await asyncio.sleep(self._dice.random() * self._longest_seconds)
        asked_unix_seconds = time.time()
        await asyncio.sleep(self._dice.random() * self._longest_seconds)
        return ProbeAnswer(asked_unix_seconds, FRAME)

    async def close(self) -> None:
        """Has nothing to close."""


class Keeping:
    """A transport that keeps what it is given: what a clock that jumps sends, a real server could not follow."""

    address = "kept"
    batch_bytes = 65_536
    refuses_late = False

    def __init__(self) -> None:
        self.text = bytearray()
        self.datagrams_total = self.bytes_total = 0

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Keeps it."""
        self.text += text

    async def flush(self) -> None:
        """Has nothing on its way."""

    def unconfirmed(self) -> list[bytes]:
        """Returns nothing: all is here."""
        return []

    async def close(self) -> None:
        """Has nothing to close."""


def lines_of_run(interval_seconds: int, patch: pytest.MonkeyPatch) -> bytes:
    """Returns what `run` sends to carbon in more than `CYCLES` cycles that end now: two of the series of each host."""
    dice = random.Random(14)  # noqa: S311 - delays
    kept = Keeping()
    clock = VirtualClock(time.time() - (CYCLES + 10) * interval_seconds, DRIFT)
    patch.setattr("fleetmem.wiring.fleet._make_link", lambda *_, **__: Answering(dice, DELAYS / 2 * interval_seconds))
    patch.setattr("fleetmem.wiring.outputs.graphite_transport", lambda *_: kept)
    settings = load(
        None,
        {
            "inventory": {"hosts": [f"127.0.0.[1-{HOSTS}]"]},
            "graphite": {"server": "127.0.0.1:9", "spool": False},
            "run": {"interval_seconds": interval_seconds},
            "ssh": {"config_file": "none"},
        },
    )
    fleet = build_fleet(settings, lambda _path: None)

    async def run() -> None:
        grid = Grid.of(interval_seconds, fleet.hosts)
        sampler = Sampler(fleet, grid, now=clock.monotonic, wall=clock.unix, is_strict=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(sampler.run())
            await asyncio.sleep((CYCLES + 9) * interval_seconds)
            await sampler.stop()

    run_in_virtual_time(run(), clock, patch, dice, LATE_SECONDS)
    return b"".join(line for line in kept.text.splitlines(keepends=True) if line.split()[0].endswith(SENT))


@pytest.mark.slow
@pytest.mark.parametrize("interval_seconds", [10, 2, 1])
def test_no_step_is_empty_where_it_is_the_interval(
    interval_seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 steps in whisper's files: none is empty, however late hosts are asked and answer."""
    text = lines_of_run(interval_seconds, monkeypatch)
    rules = lab_rules(interval_seconds)
    rules = replace(rules, schemas=rules.schemas.replace(f":{RETENTION}", ":6h"))
    with started(CarbonCache(tmp_path, rules)) as carbon:
        with socket.create_connection(("127.0.0.1", carbon.line_port)) as connection:
            connection.sendall(text)
        wait_for("carbon has written all", lambda: has_last(carbon, text))
        steps = empty = 0
        for name, points in carbon.points().items():
            found = {int(seconds) for seconds, _value in points}
            wanted = range(min(found), max(found) + 1, interval_seconds)
            assert len(wanted) >= CYCLES, name
            steps += len(wanted)
            empty += sum(second not in found for second in wanted)
    assert steps >= len(SENT) * HOSTS * CYCLES
    assert empty == 0, f"{empty} of {steps} steps are empty"


def has_last(carbon: CarbonCache, text: bytes) -> bool:
    """Whether the last point of each series is in its file."""
    last = {}
    for line in text.decode().splitlines():
        name, _value, seconds = line.split()
        last[name] = float(seconds)
    stored = carbon.points()
    return all(stored.get(name) and stored[name][-1][0] > seconds - 10 for name, seconds in last.items())
