"""What series cost in Graphite's database. Pure.

Whisper's file is a header of 16 bytes, 12 for each archive, and 12 for each point that an archive has room for
(whisper.py of graphite-project: metadataFormat, archiveInfoFormat, pointFormat). It has its full size from the
first point on.
"""

import itertools
import re
from dataclasses import dataclass

_HEADER_BYTES = 16
_ARCHIVE_BYTES = 12
_POINT_BYTES = 12
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_ARCHIVE = re.compile(r"(\d+)([smhdwy]?)(?:[a-z]*):(\d+)([smhdwy]?)(?:[a-z]*)")


@dataclass(frozen=True, slots=True)
class Archive:
    """One resolution of a file: a point every `step_seconds`, so many of them."""

    step_seconds: int
    points: int


@dataclass(frozen=True, slots=True)
class Retention:
    """The archives of a file, finest first."""

    archives: tuple[Archive, ...]

    @property
    def file_bytes(self) -> int:
        """Size of one series on disk."""
        points = sum(archive.points for archive in self.archives)
        return _HEADER_BYTES + _ARCHIVE_BYTES * len(self.archives) + _POINT_BYTES * points

    @property
    def step_seconds(self) -> int:
        """The finest step: what the interval should be."""
        return self.archives[0].step_seconds


def parse_retention(text: str) -> Retention:
    """Returns what `10s:6h,60s:7d,10m:1y` says, as storage-schemas.conf has it; a bare number on the right is points.

    Raises:
        ValueError: it is no retention that carbon takes.
    """
    archives = []
    for part in text.replace(" ", "").split(","):
        match = _ARCHIVE.fullmatch(part)
        if not match:
            raise ValueError(f"{part!r} is not STEP:PERIOD as in 10s:6h,60s:7d,10m:1y")
        step_seconds = int(match[1]) * _UNIT_SECONDS[match[2] or "s"]
        period = int(match[3])
        if step_seconds == 0 or period == 0:
            raise ValueError(f"{part!r}: step and period are more than 0")
        points = period * _UNIT_SECONDS[match[4]] // step_seconds if match[4] else period
        if points == 0:
            raise ValueError(f"{part!r}: the period is shorter than the step")
        archives.append(Archive(step_seconds, points))
    archives.sort(key=lambda archive: archive.step_seconds)
    for finer, coarser in itertools.pairwise(archives):
        # whisper.py validateArchiveList: steps divide each other, the coarser covers more time, and a point of it is
        # made of as many as the finer one has at most.
        if coarser.step_seconds == finer.step_seconds:
            raise ValueError(f"the step of {finer.step_seconds} s is there twice")
        if coarser.step_seconds % finer.step_seconds:
            raise ValueError(f"{coarser.step_seconds} s is not a multiple of {finer.step_seconds} s")
        if coarser.step_seconds * coarser.points <= finer.step_seconds * finer.points:
            raise ValueError(f"the archive of {coarser.step_seconds} s covers no more time than the finer one")
        if finer.step_seconds * finer.points < coarser.step_seconds:
            raise ValueError(
                f"{finer.points} points of {finer.step_seconds} s are not enough for {coarser.step_seconds} s"
            )
    return Retention(tuple(archives))
