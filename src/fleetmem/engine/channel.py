"""Messages between the main process and a worker: pickles, each behind its length, over a pair of sockets.

Reading a pickle runs what is in it. So this is only ever between a process and the child that it started itself, over
sockets that have no name and that nobody else has.
"""

import asyncio
import pickle
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from fleetmem.sampling.sampler import SamplerSpec

MAX_WAITING_BYTES = 64 * 1024 * 1024

MAIN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those that are for the main process alone, also where the whole process group gets them."""

_LENGTH_BYTES = 4
_READ_AHEAD_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Orders:
    """To a worker: what to sample from now on.

    Attributes:
        spec: the fleet that it samples.
        forwards: whether the main process wants each outcome, for sinks of its own.
        passphrases: of keys that are encrypted.
        log_levels: by logger.
    """

    spec: SamplerSpec
    forwards: bool
    passphrases: Mapping[Path, str] = field(repr=False)
    log_levels: Mapping[str, int]


class WorkerRequest(Enum):
    """To a worker, beside `Orders` and, when it is ready, `Begin`."""

    REPORT = "report"
    """answered by a `Report`"""
    STOP = "stop"
    """answered by `Progress.STOPPED`, and when all is delivered by a last `Report`, and the end of the worker"""


class Settle(NamedTuple):
    """To a worker: report, with this cycle and all before it, whether all their slots are settled or not."""

    cycle: int


class Progress(Enum):
    """From a worker, beside outcomes, log lines and reports."""

    READY = "ready"
    """it can do what its orders say, and waits for `Begin`"""
    STOPPED = "stopped"
    """it samples no more, and its last outcome has been sent"""


class LogLine(NamedTuple):
    """From a worker: attributes of a `logging.LogRecord`."""

    attributes: dict[str, Any]


class Channel:
    """One end of it.

    Args:
        reader: from the other end.
        writer: to it.
        max_waiting_bytes: what may wait for the other side to read it; then nothing more is taken.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._max_waiting_bytes = max_waiting_bytes

    @classmethod
    async def open(cls, sock: socket.socket, max_waiting_bytes: int = MAX_WAITING_BYTES) -> "Channel":
        """Returns the end that a socket is."""
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_READ_AHEAD_BYTES)
        return cls(reader, writer, max_waiting_bytes)

    def send(self, message: object) -> bool:
        """Sends a message, which returns at once; False where it is not taken: nobody reads any more, or not enough."""
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size() > self._max_waiting_bytes:
            return False
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._writer.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        return True

    async def receive(self) -> object | None:
        """Returns the next message, None when the other side is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            data = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            return None
        message: object = pickle.loads(data)  # noqa: S301 - see above
        return message

    async def close(self) -> None:
        """Closes it when all is sent."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:  # the other side is gone
            return
