"""A UDP socket that is read by a process of its own, and how many datagrams came.

Run as a script it is that process: it prints its port, then answers each line on its standard input with
`<datagrams> <bytes>` so far and the values that it last got of the collector's own counters, as JSON, and ends when its
standard input ends.
"""

import json
import selectors
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_LARGEST_DATAGRAM_BYTES = 65_536
_BUFFER_BYTES = 64 * 1024 * 1024  # or what the system allows: `ps` sends all at once, fleetmem paces itself
_SO_RCVBUFFORCE = 33  # of Linux; root may pass by net.core.rmem_max
_SETTLE_SECONDS = 0.2
# It looks that often, and never waits for a datagram: the kernel would charge its wake-up to the sender, which is on
# the same machine here.
_NAP_SECONDS = 0.005


class Received(NamedTuple):
    """What came since the counter was started: datagrams, and the last values of the collector's own counters."""

    datagrams: int
    payload_bytes: int
    counters: dict[str, float]


class DatagramCounter:
    """The other side: starts the process, asks it, ends it.

    Attributes:
        process: that counts.
        port: UDP port on 127.0.0.1.
    """

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C on the terminal is not for it
        )
        self.port = int(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def received(self) -> Received:
        """Returns what came so far."""
        assert self.process.stdin is not None
        time.sleep(_SETTLE_SECONDS)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        datagrams, payload_bytes, counters = self._answer().split(" ", 2)
        return Received(int(datagrams), int(payload_bytes), json.loads(counters))

    @property
    def dropped(self) -> int:
        """How many datagrams the kernel had no room for; proc_net_udp(5) has them in the last column."""
        rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
        return sum(int(row[-1]) for row in rows if row[1].endswith(f":{self.port:04X}"))

    def close(self) -> None:
        """Ends the process."""
        with suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=5)
            return
        self.process.kill()


def _counters(datagram: bytes) -> dict[str, float]:
    """Returns the collector's own counters in a datagram: `late_p99_seconds`, say, and `statsd.points_sent_total`."""
    lines = [line.partition(b":") for line in datagram.splitlines() if b".collector." in line]
    return {
        name.partition(b".collector.")[2].partition(b".")[2].decode(): float(rest.partition(b"|")[0])
        for name, _, rest in lines
    }


def main() -> None:
    """Counts until standard input ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, selectors.DefaultSelector() as selector:
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print(sock.getsockname()[1], flush=True)
        datagrams = payload_bytes = 0
        counters: dict[str, float] = {}
        while True:
            time.sleep(_NAP_SECONDS)
            ready = [key.fileobj for key, _events in selector.select(0)]
            with suppress(BlockingIOError):
                while True:
                    datagram = sock.recv(_LARGEST_DATAGRAM_BYTES)
                    payload_bytes += len(datagram)
                    datagrams += 1
                    if b".collector." in datagram:
                        counters |= _counters(datagram)
            if sys.stdin in ready:
                if not sys.stdin.readline():
                    return
                print(datagrams, payload_bytes, json.dumps(counters), flush=True)


if __name__ == "__main__":
    main()
