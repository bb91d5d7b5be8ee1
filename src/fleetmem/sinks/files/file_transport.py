"""Records to a file on disk, without waiting for the disk."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fleetmem.errors import SinkError, reason_of
from fleetmem.runtime.side_thread import SideThread, look_at_error
from fleetmem.runtime.stop_budget import CLOSE_SECONDS
from fleetmem.sinks.files.archive import Rotation
from fleetmem.sinks.files.record_file import RecordFile

_TIMEOUT_SECONDS = 5.0
# A batch is a trip to the thread and back, of which a busy machine has time for one or two in a second.
_BATCH_BYTES = 1024 * 1024


class FileTransport:
    """Appends text to a file.

    Args:
        path: of the file; its folder has to be there.
        header: what every file begins with.
        rotation: when another file is begun, and what becomes of the old one.

    Raises:
        UsageError: the compression needs a package that is not installed.

    Attributes:
        bytes_total: written, before compression and without headers.
    """

    def __init__(self, path: Path, header: bytes = b"", rotation: Rotation | None = None) -> None:
        self.address = str(path)
        self.datagrams_total = 0
        self.bytes_total = 0
        self.batch_bytes = _BATCH_BYTES
        self.refuses_late = False
        self._file = RecordFile(path, header, rotation or Rotation())
        self._thread = SideThread("file")
        self._under_way: tuple[asyncio.Future[None], bytes] | None = None
        self._written_late = b""

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Appends whole lines.

        Raises:
            SinkError: the disk is full, does not answer, or may not be written to. No half line stays in the file, and
                what was written nevertheless is not written again when the same text comes next.
        """
        del backlog_bytes
        await self._end_last_call()
        await self._call(partial(self._file.write, text.removeprefix(self._written_late)), text)
        self._written_late = b""
        self.bytes_total += len(text)

    async def flush(self) -> None:
        """Waits until the disk has it.

        Raises:
            SinkError: it does not.
        """
        await self._end_last_call()
        await self._call(self._file.flush, b"")

    def unconfirmed(self) -> list[bytes]:
        """Nothing is on its way: what was sent is in the file."""
        return []

    async def close(self) -> None:
        """Closes the file, unless the disk does not answer."""
        try:
            closing = self._thread.call(self._file.close)
        except OSError:  # there never was a thread, so nothing is open
            return
        self._thread.end()
        await asyncio.wait({closing}, timeout=CLOSE_SECONDS)

    async def _call(self, work: Callable[[], None], text: bytes) -> None:
        try:
            future = self._thread.call(work)
        except OSError as error:
            raise SinkError(f"file {self.address}: {reason_of(error)}") from error
        future.add_done_callback(look_at_error)
        self._under_way = future, text
        await self._wait(future)
        self._under_way = None
        future.result()

    async def _end_last_call(self) -> None:
        """Waits for a call that was not waited for to its end, and remembers what it wrote."""
        if self._under_way is None:
            return
        future, text = self._under_way
        await self._wait(future)
        self._under_way = None
        try:
            future.result()
        except SinkError:
            return  # said already, and what it is about is tried again
        self._written_late = text or self._written_late

    async def _wait(self, future: asyncio.Future[None]) -> None:
        done, _waiting = await asyncio.wait({future}, timeout=_TIMEOUT_SECONDS)
        if not done:  # a thread cannot be stopped: it goes on, and is asked about when there is more
            reason = f"the disk has not answered for {_TIMEOUT_SECONDS:g} s; is it away, or failing?"
            raise SinkError(f"file {self.address}: {reason}")
