"""What is left of a connection that has ended: nothing, and that at once, without the garbage collector."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from fleetmem import config
from fleetmem.connect.backoff import NotTriedError
from fleetmem.connect.breaker import WithheldError
from fleetmem.connect.choice import best_connector
from fleetmem.connect.client import Client
from fleetmem.connect.guard import Guard
from fleetmem.connect.link import ProbeChannel
from fleetmem.errors import HostError, Kind, Stage
from fleetmem.lab.directory import Directory
from fleetmem.lab.simulated_host import Fault, SimulationPlan
from fleetmem.lab.simulator import Simulator
from fleetmem.model import Failure
from fleetmem.wiring.fleet import build_fleet

pytestmark = pytest.mark.slow

_KINDS = (asyncssh.SSHClientConnection, Guard, ProbeChannel, Client)


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    best_connector()  # its check makes a few connections, once in a process
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _left() -> list[str]:
    return [type(found).__name__ for found in gc.get_objects() if isinstance(found, _KINDS)]


@pytest.mark.parametrize("fault", [None, Fault.REFUSING, Fault.DROPPING, Fault.FLOODING])
def test_an_ended_connection_leaves_nothing(fault: Fault | None, tmp_path: Path) -> None:
    """However it ends. The link remembers why, but none of the frames and buffers that were there then."""

    async def main() -> None:
        async with Simulator(Directory(tmp_path), SimulationPlan(1, 5, 0.1, 1, {fault: 1.0} if fault else {})):
            fleet = build_fleet(config.load(Directory(tmp_path).config, {}), lambda _key: None)
            (host,) = fleet.hosts
            for _ in range(4):  # that is when a host that drops does so
                outcome = await fleet.collector.sample(host)
            assert isinstance(outcome, Failure) == (fault is not None)
            if fault is None:
                assert len(_left()) == len(_KINDS)
                await fleet.collector.forget(host)
            async with asyncio.timeout(5):
                while _left():  # noqa: ASYNC110 - nothing tells that an object has gone
                    await asyncio.sleep(0.01)

    asyncio.run(main())


@pytest.mark.parametrize("class_", [HostError, NotTriedError, WithheldError])
def test_a_bare_error(class_: type[HostError]) -> None:
    """It is the same and says the same, and leads to no frame: a host that was not tried still has no backoff."""
    with pytest.raises(HostError) as caught:
        raise class_(Stage.LOGIN, Kind.DISCONNECTED, "gone") from OSError()
    assert caught.value.__traceback__
    bare = caught.value.bare()
    assert type(bare) is class_
    assert (bare.stage, bare.kind, bare.message) == (Stage.LOGIN, Kind.DISCONNECTED, "gone")
    assert (bare.__traceback__, bare.__cause__, bare.__context__) == (None, None, None)
