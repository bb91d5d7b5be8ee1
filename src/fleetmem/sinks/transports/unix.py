"""Datagrams to a StatsD agent on this machine, over a Unix socket."""

import errno
import socket
from pathlib import Path

from fleetmem.errors import SinkError, reason_of
from fleetmem.sinks.transports.datagrams import DatagramTransport, Peer

MAX_DATAGRAM_BYTES = 8192
"""What DogStatsD reads at once unless told otherwise; the other agents read more."""

_ADVICE = {
    errno.ENOENT: "no such file; start the agent that makes it, or correct the path",
    errno.ECONNREFUSED: "connection refused; the agent that made it has ended, start it again",
    errno.EACCES: "permission denied; put fleetmem's user into the group that may write to it",
    errno.EPROTOTYPE: "it is not a datagram socket; configure the agent for datagrams (unixgram)",
}


class UnixTransport(DatagramTransport):
    """Sends text to a Unix datagram socket.

    Nothing is lost on the way: a receiver whose queue is full holds up the sender, and one that ended refuses.
    """

    def __init__(self, path: Path, max_datagram_bytes: int = MAX_DATAGRAM_BYTES) -> None:
        super().__init__(f"unix://{path}", max_datagram_bytes, None)
        self._path = path

    async def flush(self) -> None:
        """Has nothing to do: what was sent is in the receiver's queue."""

    async def _look_up(self) -> Peer:
        about = self._path.stat()
        return Peer(socket.AF_UNIX, 0, str(self._path), (about.st_dev, about.st_ino))

    def _explain(self, error: OSError) -> str:
        return _ADVICE.get(error.errno or 0) or f"{reason_of(error)}; check the path and the agent behind it"

    def _failed(self, error: OSError) -> SinkError:
        self._disconnect()  # a receiver that was started again is another one, by the same name
        return super()._failed(error)
