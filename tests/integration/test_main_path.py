"""How much code one sample goes through: counted in a real one, not in a table of the documentation."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

import fleetmem
from fleetmem import config
from fleetmem.model import Sample
from fleetmem.wiring.fleet import build_fleet

from .servers import Cli, wait_for

SOURCE = str(Path(fleetmem.__file__).parent)
READERS = {1: "/probe/parse.py", 2: "/probe/dialogue.py"}
MOST_FUNCTIONS = 60
MOST_MODULES = 14
"""A newcomer who follows one value reads no more than that. A change that needs more makes the path longer for all."""


@pytest.fixture
def simulator(cli: Cli, tmp_path: Path) -> Iterator[Path]:
    """The configuration of a host with 50 processes, some of which change between two samples."""
    with cli.start("lab", "simulate", "--dir", tmp_path / "fleet", "--hosts", 1, "--processes", 50) as running:
        wait_for("the simulator listens", lambda: "Ctrl-C ends it" in running.stdout)
        yield tmp_path / "fleet" / "fleetmem.toml"


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_second_sample_goes_through_few_functions(simulator: Path, protocol: int) -> None:
    """From the request until StatsD's lines are in the queue; what has no name of its own is part of what it is in."""
    seen: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(SOURCE) and not code.co_name.startswith("<"):
            seen.add((code.co_filename.removeprefix(SOURCE), code.co_name))

    async def main() -> None:
        fleet = build_fleet(
            config.load(simulator, {"statsd": {"server": [f"127.0.0.1:{port}"]}, "probe": {"protocol": protocol}}),
            lambda _path: None,
        )
        host = fleet.hosts[0]
        assert isinstance(await fleet.collector.sample(host), Sample)
        await asyncio.sleep(0.2)  # the end of the login
        sys.setprofile(note)
        outcome = await fleet.collector.sample(host)
        sys.setprofile(None)
        assert isinstance(outcome, Sample)
        await fleet.collector.close()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        port = statsd.getsockname()[1]
        asyncio.run(main())
    functions, modules = sorted(seen), {module for module, _name in seen}
    assert {"/collector.py", "/connect/link.py", READERS[protocol], "/shape/shaper.py", "/sinks/series.py"} <= modules
    assert len(functions) <= MOST_FUNCTIONS, functions
    assert len(modules) <= MOST_MODULES, sorted(modules)
