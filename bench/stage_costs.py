"""What the stages after the connection cost: a recorded frame of a host, taken through each of them on its own.

CPU of one process (time.process_time), the median over many frames. In each frame a given share of rows differs from
the frame before, other rows every time.
"""

import socket
import time
from collections.abc import Iterator
from statistics import median

from fleetmem.model import Host, Sample
from fleetmem.probe.frame import FrameReader
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import ProbeKind
from fleetmem.shape.limits import Limits, shape
from fleetmem.sinks import formats
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.series import HostSeries, Retire
from fleetmem.sinks.udp import MAX_DATAGRAM_BYTES

_FRAMES = 300
_PACKET_BYTES = 32_768  # the largest SSH packet; what a session is given at once
_RSS_FIELD = 4  # of a P line


def stage_ms(frame: bytes, host: Host, changed_share: float) -> dict[str, float]:
    """Returns the CPU of each stage in ms per frame."""
    reader, parser = FrameReader(), SnapshotParser(ProbeKind.STATUS)
    series = HostSeries(FleetNames("fleetmem", [host.name]).host(host.name), formats.statsd, Retire.ZERO)
    request_id = int(frame.split(b"\n", 1)[0].rsplit(b" ", 1)[1])
    laps: dict[str, list[float]] = {
        name: [] for name in ("frame", "parse", "shape", "series and format", "cut", "send")
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, _connected_to(receiver) as sender:
        for text in _variants(frame, changed_share):
            times = [time.process_time()]
            read = _read(reader, request_id, text)
            times.append(time.process_time())
            snapshot = parser.parse(read)
            times.append(time.process_time())
            shaped = shape(snapshot, Limits())
            times.append(time.process_time())
            points = series.update(Sample(host, 0.0, 0.01, len(read), shaped))
            times.append(time.process_time())
            datagrams = formats.cut_lines(points.text, MAX_DATAGRAM_BYTES)
            times.append(time.process_time())
            for datagram in datagrams:
                sender.send(datagram)
            times.append(time.process_time())
            for name, begun, ended in zip(laps, times, times[1:], strict=False):
                laps[name].append((ended - begun) * 1000)
            _empty(receiver)
    return {name: median(values[1:]) for name, values in laps.items()}


def _variants(frame: bytes, changed_share: float) -> Iterator[bytes]:
    """Yields the frame again and again, each time with the given share of its rows changed."""
    lines = frame.split(b"\n")
    rows = [number for number, line in enumerate(lines) if line.startswith(b"P ")]
    changed = round(len(rows) * changed_share)
    for round_ in range(_FRAMES):
        for turn in range(changed):
            number = rows[(round_ * changed + turn) % len(rows)]
            fields = lines[number].split(b" ")
            fields[_RSS_FIELD] = b"%d" % (int(fields[_RSS_FIELD]) + 4)
            lines[number] = b" ".join(fields)
        yield b"\n".join(lines)


def _read(reader: FrameReader, request_id: int, text: bytes) -> bytes:
    reader.expect(request_id)
    for start in range(0, len(text), _PACKET_BYTES):
        frame = reader.feed(text[start : start + _PACKET_BYTES])
        if frame is not None:
            return frame
    raise AssertionError("the recorded frame is not whole")


def _connected_to(receiver: socket.socket) -> socket.socket:
    receiver.bind(("127.0.0.1", 0))
    receiver.setblocking(False)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname())
    return sender


def _empty(receiver: socket.socket) -> None:
    try:
        while True:
            receiver.recv(65_536)
    except BlockingIOError:
        return
