"""The lines of many rows in one piece: a row that did not change keeps its part of it. Pure.

Thousands of hosts each have a hundred rows and more. Between two samples only their text and a few numbers per row are
kept, and no object for any of them.
"""

import re
from array import array
from collections.abc import Callable, Iterable
from itertools import accumulate
from operator import itemgetter
from sys import intern
from typing import NamedTuple

from fleetmem.model import PROCESS_MEASURES
from fleetmem.process_table import NEW, Changes, RowKeys
from fleetmem.sinks.formats import Wrap
from fleetmem.sinks.naming import Place

# No name, number or format holds one of these.
_COMMAND, _PID = "\1", "\2"
_CODES = "".join(map(chr, range(0x0E, 0x20)))
_VARIABLE = re.compile(rf"({_COMMAND}|{_PID}|%s)")


Write = Callable[[list[int]], list[bytes]]
"""Makes the lines of the rows at some places; empty where there is no row any more."""


class Ended(NamedTuple):
    """What became of a host's series.

    Attributes:
        gone: lines of rows whose names are there no more, as they were written last.
        new: lines of rows whose names were not there before.
    """

    gone: bytes = b""
    new: bytes = b""


class RowLines:
    """The lines of the rows of one host and level.

    Attributes:
        text: all lines, in the order of the rows.
        keys: of the rows.
    """

    __slots__ = ("_lengths", "keys", "text")

    def __init__(self) -> None:
        # It stays where it is in memory. New text each time left holes of its size: four tenths of all memory.
        self.text = bytearray()
        self.keys = RowKeys()
        self._lengths = array("H")  # of the lines of each row, in bytes; each line fits a datagram

    def __len__(self) -> int:
        return len(self._lengths)

    def update(self, keys: RowKeys, changes: Changes, write: Write) -> Ended:
        """Takes the rows of the next sample; returns what became of the series.

        Args:
            keys: of its rows.
            changes: from these rows to those.
            write: makes the lines of the rows at some places.
        """
        if not changes.runs and not changes.gone:
            self.keys = keys
            return Ended()
        ends = [0, *accumulate(self._lengths)]
        gone = b"".join([self.text[ends[place] : ends[place + 1]] for place in changes.gone])
        replace = self._replace if changes.is_in_place else self._put_together
        written = replace(changes, ends, write)
        self.keys = keys
        return Ended(gone, b"".join([written[place] for place in changes.new]))

    def _replace(self, changes: Changes, ends: list[int], write: Write) -> dict[int, bytes]:
        """Writes the lines of what has changed in the place of the old ones; returns them by place."""
        written = _written(changes, write)
        if written and (more := max(written) + 1 - len(self._lengths)) > 0:
            self._lengths.frombytes(bytes(more * self._lengths.itemsize))
            ends += [ends[-1]] * more
        for place in reversed(written):  # from the end on: the other ends stay where they are
            lines = written[place]
            self.text[ends[place] : ends[place + 1]] = lines
            self._lengths[place] = len(lines)
        return written

    def _put_together(self, changes: Changes, ends: list[int], write: Write) -> dict[int, bytes]:
        """Writes all lines again, of old parts and new ones; returns the new ones by place."""
        parts: list[bytes | bytearray] = []
        lengths = array("H")
        written = _written(changes, write)
        for begin, end in changes.runs:
            if begin == NEW:
                lines = written[end]
                parts.append(lines)
                lengths.append(len(lines))
            else:
                parts.append(self.text[ends[begin] : ends[end]])
                lengths += self._lengths[begin:end]
        self.text[:] = b"".join(parts)
        self._lengths = lengths
        return written


def _written(changes: Changes, write: Write) -> dict[int, bytes]:
    places = [place for begin, place in changes.runs if begin == NEW]
    return dict(zip(places, write(places), strict=True))


class ProcessLines:
    """Writes the lines of processes, short: each text that is the same in all of them is one byte, until they are sent.

    They are a third as long, whatever the host's name. The beginning of a process's
    lines follows the end of the lines before, so both are one text: fewer texts have to be replaced.

    Args:
        place: of a process, by the name of its command and its pid.
        wrap: the format.
        measures: those that each process has.

    Attributes:
        measures: those that each process has.
    """

    __slots__ = ("_first", "_order", "_template", "_texts", "measures")

    def __init__(
        self,
        place: Callable[[str, str], Place],
        wrap: Callable[[Place], Wrap],
        measures: tuple[str, ...] = PROCESS_MEASURES,
    ) -> None:
        self.measures = measures
        first, *parts = _VARIABLE.split(wrap(place(_COMMAND, _PID)).template(measures))
        if parts:  # else there are no measures
            parts[-1] += first
        self._first = first.encode("ascii")
        same = dict.fromkeys(part for part in parts if len(part) > 1 and not _VARIABLE.fullmatch(part))
        codes = dict(zip(same, _CODES, strict=False))
        template = "".join([codes.get(part, part) for part in parts])
        # Where name, pid and values stand, in the order of the line: one `%` for a row.
        values = iter(range(2, 2 + len(measures)))
        of_all = {_COMMAND: 0, _PID: 1}
        marks = _VARIABLE.findall(template)
        order = [of_all[mark] if mark in of_all else next(values) for mark in marks]
        self._order = itemgetter(*order) if order else lambda _row: ()
        self._template = intern(_VARIABLE.sub("%s", template))
        # The longest last, so that the others have less to go through.
        self._texts = tuple((codes[text].encode("ascii"), text.encode("ascii")) for text in sorted(codes, key=len))

    def short(self, rows: Iterable[tuple[object, ...] | None]) -> list[bytes]:
        """Returns the lines of processes, short.

        Args:
            rows: name of the command, pid, and values of the measures; None for what has no lines.
        """
        template, order = self._template, self._order
        return [b"" if row is None else (template % order(row)).encode("ascii") for row in rows]

    def full(self, lines: bytes | bytearray) -> bytes:
        """Returns lines as they are to be sent."""
        if not lines:
            return b""
        for code, text in self._texts:
            lines = lines.replace(code, text)
        return self._first + lines[: len(lines) - len(self._first)]
