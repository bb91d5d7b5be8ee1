"""A small StatsD for the lab: gauges only, to Graphite, with the rules and names of the Node one.

`python -m fleetmem.lab.statsd DESCRIPTOR CARBON_PORT FLUSH_SECONDS`, where the descriptor is a bound UDP socket. As
there, a gauge that is sent no more keeps its last value for ever, and metrics are called `stats.gauges.<name>`.
"""

import asyncio
import re
import signal
import socket
import sys
import time

LISTENING = "listening"
"""Printed when the server reads."""

RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
_SEND_TIMEOUT_SECONDS = 5.0

_BLANKS = re.compile(r"\s+")
_NOT_KEPT = re.compile(r"[^A-Za-z0-9_.;=-]")
_NUMBER = re.compile(r"([+-]?)(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


class Gauges:
    """What was received. Pure.

    Attributes:
        values: by name, as cleaned.
        packets_total: datagrams.
        metrics_total: values taken.
        bad_lines_total: values refused; everything that is no gauge, too.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.packets_total = 0
        self.metrics_total = 0
        self.bad_lines_total = 0

    def take(self, datagram: bytes) -> None:
        """Takes a datagram: one or more lines."""
        self.packets_total += 1
        for line in datagram.decode("utf-8", "replace").split("\n"):
            if line:
                self._take_line(line)

    def _take_line(self, line: str) -> None:
        name, *parts = line.strip().split(":")
        if not parts:
            self.bad_lines_total += 1
        for part in parts:
            self._take_value(clean_name(name), part)

    def _take_value(self, name: str, part: str) -> None:
        number, bar, kind = part.partition("|")
        match = _NUMBER.fullmatch(number)
        if not match or not bar or kind.strip() != "g":
            self.bad_lines_total += 1
            return
        self.metrics_total += 1
        is_delta = bool(match[1] and self.values.get(name))  # a sign on a gauge that is new or 0 sets it, there too
        self.values[name] = float(number) + (self.values[name] if is_delta else 0)

    def lines(self, unix_seconds: int) -> bytes:
        """Returns every gauge, and the server's own counters, in carbon's plaintext protocol."""
        own = {
            "packets_received_total": self.packets_total,
            "metrics_received_total": self.metrics_total,
            "bad_lines_seen_total": self.bad_lines_total,
            "gauges": len(self.values),
        }
        lines = [f"stats.gauges.{name} {_number(value)} {unix_seconds}\n" for name, value in self.values.items()]
        lines += [f"stats.statsd.{name} {value} {unix_seconds}\n" for name, value in own.items()]
        return "".join(lines).encode()


def clean_name(name: str) -> str:
    """Returns a name as the Node StatsD keeps it (its `keyNameSanitize`)."""
    return _NOT_KEPT.sub("", _BLANKS.sub("_", name).replace("/", "-"))


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._gauges.take(data)


async def serve(sock: socket.socket, carbon_port: int, flush_seconds: float) -> None:
    """Receives gauges and sends all of them to carbon each interval, until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    sock.setblocking(False)
    gauges = Gauges()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Receiver(gauges), sock=sock)
    flushing = asyncio.create_task(_flush_for_ever(gauges, carbon_port, flush_seconds))
    _log(LISTENING)
    await stopping.wait()
    flushing.cancel()
    transport.close()


async def _flush_for_ever(gauges: Gauges, carbon_port: int, flush_seconds: float) -> None:
    start = time.monotonic()
    for flush in range(1, 2**62):
        await asyncio.sleep(start + flush * flush_seconds - time.monotonic())
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_SECONDS):
                await _send(gauges.lines(int(time.time())), carbon_port)
        except OSError as error:  # gauges are kept: the next flush sends them
            _log(f"carbon at port {carbon_port}: {error!r}")


async def _send(text: bytes, carbon_port: int) -> None:
    """Sends lines over a new connection, as the Node StatsD does at each flush."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", carbon_port)
    try:
        writer.write(text)
        await writer.drain()
    finally:
        writer.close()
        await writer.wait_closed()


def _log(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - its log, which `up` reads


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as bound:
        asyncio.run(serve(bound, int(sys.argv[2]), float(sys.argv[3])))
