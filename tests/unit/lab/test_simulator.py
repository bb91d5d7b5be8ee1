"""What the simulated fleet notices of a collector that asks too much, with clients of the tests' own."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from fleetmem.lab.directory import Directory
from fleetmem.lab.simulated_host import Fault, SimulationPlan
from fleetmem.lab.simulator import Simulator, address_of

_PS = "ps -eo pid=,rss=,vsz=,pmem=,comm="
_REQUEST = b"sample %d status user\n"


@asynccontextmanager
async def _probe(
    simulator: Simulator, folder: Path, number: int = 0, command: str = "# fleetmem probe"
) -> AsyncIterator["asyncssh.SSHClientProcess[Any]"]:
    """A connection with a probe in it."""
    lab = Directory(folder)
    async with (
        asyncssh.connect(
            address_of(number),
            simulator.port,
            username="fleetmem",
            client_keys=[str(lab.key)],
            known_hosts=str(lab.known_hosts),
        ) as connection,
        connection.create_process(command, encoding=None) as probe,
    ):
        yield probe


async def _sample(probe: "asyncssh.SSHClientProcess[Any]", request_id: int) -> None:
    probe.stdin.write(_REQUEST % request_id)
    await probe.stdout.readuntil(b"END %d 0 5\n" % request_id)


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - counters tell nobody that they changed
            await asyncio.sleep(0.01)


def test_one_connection_per_host_is_right(tmp_path: Path) -> None:
    """Two hosts, samples one after the other, and one of them connected again: nothing is counted."""

    async def main() -> None:
        async with Simulator(Directory(tmp_path), SimulationPlan(2, 5, 0.1, 1, {})) as simulator:
            async with _probe(simulator, tmp_path, 0) as one, _probe(simulator, tmp_path, 1) as other:
                for request_id in range(1, 4):
                    await _sample(one, request_id)
                    await _sample(other, request_id)
            await _until(lambda: simulator.connections == 0)
            async with _probe(simulator, tmp_path, 0) as one:
                await _sample(one, 1)
            assert (simulator.frames_total, simulator.logins_total) == (7, 3)
            assert (simulator.doubles_total, simulator.crowds_total) == (0, 0)

    asyncio.run(main())


def test_a_second_connection_is_noticed(tmp_path: Path) -> None:
    """It is counted, although neither of the two is asked anything."""

    async def main() -> None:
        async with Simulator(Directory(tmp_path), SimulationPlan(1, 5, 0.1, 1, {})) as simulator:
            async with _probe(simulator, tmp_path), _probe(simulator, tmp_path):
                await _until(lambda: simulator.connections == 2)
            assert (simulator.doubles_total, simulator.crowds_total) == (0, 1)

    asyncio.run(main())


def test_a_request_too_many_is_noticed(tmp_path: Path) -> None:
    """A host that is at work must not be asked: not on the same connection, and not on another one."""

    async def main() -> None:
        async with (
            Simulator(Directory(tmp_path), SimulationPlan(1, 5, 0.1, 1, {Fault.SILENT: 1.0})) as simulator,
            _probe(simulator, tmp_path) as one,
            _probe(simulator, tmp_path) as other,
        ):
            one.stdin.write(_REQUEST % 1)
            one.stdin.write(_REQUEST % 2)
            await _until(lambda: simulator.doubles_total == 1)
            other.stdin.write(_REQUEST % 1)
            await _until(lambda: simulator.doubles_total == 2)

    asyncio.run(main())


def test_a_collector_that_leaves_as_the_answer_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the end of a channel and the time of its answer come at once: the answer is left out."""
    monkeypatch.setattr("fleetmem.lab.simulator._SLOW_SECONDS", 0.1)
    bugs: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context))
        async with (
            Simulator(Directory(tmp_path), SimulationPlan(1, 5, 0.1, 1, {Fault.SLOW: 1.0})) as simulator,
            _probe(simulator, tmp_path) as probe,
        ):
            probe.stdin.write(_REQUEST % 1)
            await asyncio.sleep(0.05)
            probe.channel.close()
            time.sleep(0.2)  # noqa: ASYNC251 - no core for the loop
            await _until(lambda: simulator.connections == 0)
            assert simulator.frames_total == 0

    asyncio.run(main())
    assert not bugs


def test_ps_is_answered_and_nothing_else(tmp_path: Path) -> None:
    """Also in a shell, as parallel-ssh asks for it: one answer, and the command has ended; others are refused."""

    async def main() -> None:
        async with Simulator(Directory(tmp_path), SimulationPlan(1, 5, 0.1, 1, {})) as simulator:
            for command in (_PS, f"$SHELL -c '{_PS}'"):
                async with _probe(simulator, tmp_path, command=command) as ps:
                    done = await ps.wait()
                assert isinstance(done.stdout, bytes)
                assert (done.exit_status, done.stdout.count(b"\n")) == (0, 5)
            with pytest.raises(asyncssh.ChannelOpenError):
                async with _probe(simulator, tmp_path, command="ps aux"):
                    pass

    asyncio.run(main())


def test_nobody_else_reaches_it(tmp_path: Path) -> None:
    """It listens on loopback only: an address of another device is not answered."""

    async def run() -> bytes:
        async with Simulator(Directory(tmp_path), SimulationPlan(1, 5, 0.1, 1, {})) as simulator:
            assert simulator._listener
            return simulator._listener.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)

    assert asyncio.run(run()).rstrip(b"\0") == b"lo"
