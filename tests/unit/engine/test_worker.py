import asyncio
import gc
import logging
import socket

import pytest

from fleetmem.engine.channel import Channel, Progress, WorkerRequest
from fleetmem.engine.worker import _work
from unit.builders import orders


def test_a_worker_keeps_its_collections_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first orders on: a full garbage collection of thousands of connections takes a second otherwise."""
    callbacks: list[object] = []
    monkeypatch.setattr(gc, "callbacks", callbacks)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    async def main() -> None:
        main_sock, worker_sock = socket.socketpair()
        channel = await Channel.open(main_sock)
        working = asyncio.create_task(_work(worker_sock))
        channel.send(orders())
        async with asyncio.timeout(10):
            assert await channel.receive() is Progress.READY
            channel.send(WorkerRequest.STOP)
            assert await working == 0
        await channel.close()

    asyncio.run(main())
    assert [type(callback).__module__ for callback in callbacks] == ["fleetmem.runtime.garbage"]
