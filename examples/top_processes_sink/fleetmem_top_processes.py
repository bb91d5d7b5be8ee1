"""Sends the biggest processes of each host as a line of JSON to a socket: an example of a sink of one's own."""

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest

from fleetmem.sinks.plugin import Outcome, Sample, SecretFile, SinkError, SinkWriter, WriterKind

_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Section:
    """The biggest processes of each host, as lines of JSON."""

    server: str
    """HOST:PORT, or the path of a UNIX socket"""
    top: int = 10
    """processes of each host"""
    token_file: SecretFile | None = None
    """sent as the first line of a connection, where it is set"""


class TopProcesses(SinkWriter):
    """Writes to one connection, which is opened with the first write and again after each failure."""

    def __init__(self, section: Section) -> None:
        self.address = section.server
        self._section = section
        self._socket: socket.socket | None = None

    def write(self, outcomes: Sequence[Outcome]) -> int:
        """Sends a line for each host that answered."""
        text = b"".join(self._line(outcome) for outcome in outcomes if isinstance(outcome, Sample))
        try:
            self._socket = self._socket or self._connect()
            self._socket.sendall(text)
        except OSError as error:
            self.close()
            raise SinkError(f"{self.address}: {error}") from error
        return len(text)

    def close(self) -> None:
        """Ends the connection."""
        if self._socket:
            self._socket.close()
        self._socket = None

    def _line(self, sample: Sample) -> bytes:
        biggest = nlargest(self._section.top, sample.shaped.processes, key=lambda process: process.rss_bytes)
        rows = [{"pid": row.pid, "command": row.command, "rss_bytes": row.rss_bytes} for row in biggest]
        return json.dumps({"host": sample.host.name, "at": sample.slot_unix_seconds, "top": rows}).encode() + b"\n"

    def _connect(self) -> socket.socket:
        host, colon, port = self.address.rpartition(":")
        if colon:
            connection = socket.create_connection((host, int(port)), _TIMEOUT_SECONDS)
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_TIMEOUT_SECONDS)
            connection.connect(self.address)
        if self._section.token_file:
            connection.sendall(self._section.token_file.value.encode() + b"\n")
        return connection


KIND = WriterKind(Section, TopProcesses)
