"""What the stages after the connection cost: a recorded frame of a host, taken through each of them on its own.

CPU of one process (time.process_time), the median over many frames. In each frame a given share of rows differs from
the frame before, other rows every time.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import TypeVar

from fleetmem.model import Host, Sample
from fleetmem.probe.frame import FrameReader
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import ProbeKind
from fleetmem.shape.budget import HostBudget, SeriesPool
from fleetmem.shape.limits import Limits
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks import formats
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.series import Retire, SeriesEncoding
from fleetmem.sinks.transports.udp import MAX_DATAGRAM_BYTES

_FRAMES = 300
_PACKET_BYTES = 32_768  # the largest SSH packet; what a session is given at once
_SERIES_ROOM = 10_000  # the default
_RSS_FIELD = 4  # of a P line

_T = TypeVar("_T")


class _Laps:
    """CPU of each stage, frame by frame, in ms."""

    def __init__(self) -> None:
        self._laps_ms: dict[str, list[float]] = {}

    def lap(self, name: str, work: Callable[[], _T]) -> _T:
        """Does the work of a stage and notes its CPU."""
        begun = time.process_time()
        result = work()
        self._laps_ms.setdefault(name, []).append((time.process_time() - begun) * 1000)
        return result

    def medians(self) -> dict[str, float]:
        """Returns the median of each stage, without the first frame, in which everything is new."""
        return {name: median(values[1:]) for name, values in self._laps_ms.items()}


def stage_ms(frame: bytes, host: Host, changed_share: float) -> dict[str, float]:
    """Returns the CPU of each stage in ms per frame."""
    reader, parser = FrameReader(), SnapshotParser(ProbeKind.STATUS)
    shaper = Shaper(host, Limits(), HostBudget(_SERIES_ROOM, SeriesPool()))
    series = SeriesEncoding(formats.statsd_plain, Retire.ZERO).host(FleetNames("fleetmem", [host.name]), host)
    request_id = int(frame.split(b"\n", 1)[0].rsplit(b" ", 1)[1])
    laps = _Laps()
    for variant in _variants(frame, changed_share):
        laps.lap("frame", partial(_read, reader, request_id, variant))
        snapshot = laps.lap("parse", partial(parser.parse, variant))
        shaped = laps.lap("shape", partial(shaper.shape, snapshot, 0.0))
        sample = Sample(host, 0.0, 0.01, len(variant), shaped, slot_unix_seconds=0.0)
        text = laps.lap("series and format", partial(series.update, sample)).text
        laps.lap("cut", partial(formats.cut_lines, text, MAX_DATAGRAM_BYTES))
    return laps.medians()


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


def _read(reader: FrameReader, request_id: int, text: bytes) -> None:
    reader.expect(request_id)
    for start in range(0, len(text), _PACKET_BYTES):
        if reader.feed(text[start : start + _PACKET_BYTES]) == text:
            return
    raise AssertionError("the recorded frame is not whole")
