import asyncio
import pickle
import socket

from fleetmem.engine.channel import Channel, Progress, WorkerRequest
from fleetmem.model import Detail, Sample
from fleetmem.process_table import ProcessTable
from fleetmem.shape.limits import Limits
from unit.builders import failure, orders, process, sample


def test_messages_arrive_in_order() -> None:
    """Whatever is sent comes out as it went in, one after the other; then the end of the other side."""
    messages = [orders(), WorkerRequest.STOP, failure(), Progress.READY, b"x" * 3_000_000, Progress.STOPPED]

    async def main() -> None:
        left, right = socket.socketpair()
        sender, receiver = await Channel.open(left), await Channel.open(right)

        async def receive() -> list[object]:
            return [message async for message in _all(receiver)]

        receiving = asyncio.create_task(receive())
        assert all(sender.send(message) for message in messages)
        await sender.close()
        assert await receiving == messages
        assert not sender.send(WorkerRequest.REPORT)
        await receiver.close()

    asyncio.run(main())


async def _all(channel: Channel):  # type: ignore[no-untyped-def] # an async generator of anything
    while (message := await channel.receive()) is not None:
        yield message


def test_a_message_that_breaks_off_is_the_end() -> None:
    """A worker that was killed in the middle of one leaves half of it."""

    async def main() -> None:
        left, right = socket.socketpair()
        receiver = await Channel.open(right)
        left.sendall(b"\0\0\1\0half")
        left.close()
        assert await receiver.receive() is None
        await receiver.close()

    asyncio.run(main())


def test_a_passphrase_is_not_shown() -> None:
    """Orders may end up in a traceback."""
    assert "horse" not in repr(orders())


def test_an_outcome_for_another_process() -> None:
    """It is the same there, rows and all, and as compact as columns of numbers are."""
    both = Limits(detail=frozenset(Detail), top=3)
    for shaped in (
        sample(),
        sample(process(1, "é\udcff"), process(2, ""), process(3)),
        sample(process(1), limits=both),
    ):
        assert pickle.loads(pickle.dumps(shaped)) == shaped  # noqa: S301 - our own
    many = sample(*[process(pid, f"p{pid % 12}", pid * 4096, pid * 8192) for pid in range(1, 151)])
    assert isinstance(many.shaped.processes, ProcessTable) or len(many.shaped.processes) == 150
    data = pickle.dumps(many, pickle.HIGHEST_PROTOCOL)
    there: Sample = pickle.loads(data)  # noqa: S301 - our own
    assert tuple(there.shaped.processes) == tuple(many.shaped.processes)
    assert len(data) < 70 * 150
