"""Lines of points, per receiver. Pure.

A line is `head + measure + middle + value + tail`; head, middle and tail are the same for all measures of a place.
"""

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from fleetmem.sinks.naming import Place

_TIME_PLACE = b"\0"  # no name and no number holds one
_GAUGE_VALUE = re.compile(rb":[0-9.]+\|g")


class Wrap(NamedTuple):
    """What stands around measure and value in the lines of a place."""

    head: str
    middle: str
    tail: str

    def template(self, measures: Iterable[str]) -> str:
        """Returns lines for these measures, with a `%s` for each value."""
        return "".join(f"{self.head}{measure}{self.middle}%s{self.tail}" for measure in measures)


Format = Callable[[str, Place], Wrap]
"""From prefix and place to what stands around measure and value."""


class Dialect(StrEnum):
    """How StatsD lines carry host, command and pid: in the name, or as tags beside it."""

    PLAIN = "plain"
    DOGSTATSD = "dogstatsd"
    INFLUX = "influx"
    GRAPHITE = "graphite"


def statsd_plain(prefix: str, place: Place) -> Wrap:
    """Returns `prefix.process.web01.nginx.7.rss_bytes:1|g`: every StatsD server reads it; nothing after the `g`."""
    return Wrap(f"{_path(prefix, place)}.", ":", "|g\n")


def statsd_dogstatsd(prefix: str, place: Place) -> Wrap:
    """Returns `prefix.process.rss_bytes:1|g|#host:web01,command:nginx,pid:7`, for the Datadog agent and its like."""
    return Wrap(f"{prefix}.{place.family}.", ":", f"|g|#{_tags(place, ':', ',')}\n")


def statsd_influx(prefix: str, place: Place) -> Wrap:
    """Returns `prefix.process.rss_bytes,host=web01,command=nginx,pid=7:1|g`, for Telegraf."""
    return Wrap(f"{prefix}.{place.family}.", f",{_tags(place, '=', ',')}:", "|g\n")


def statsd_graphite(prefix: str, place: Place) -> Wrap:
    """Returns `prefix.process.rss_bytes;host=web01;command=nginx;pid=7:1|g`, for Node's StatsD."""
    return Wrap(f"{prefix}.{place.family}.", f";{_tags(place, '=', ';')}:", "|g\n")


def carbon_plain(prefix: str, place: Place) -> Wrap:
    """Returns carbon's plaintext line, `prefix.process.web01.nginx.7.rss_bytes 1 <time>`: see `with_time`."""
    return Wrap(f"{_path(prefix, place)}.", " ", " \0\n")


def carbon_tagged(prefix: str, place: Place) -> Wrap:
    """Returns the same with Graphite's tags: `prefix.process.rss_bytes;host=web01;command=nginx;pid=7 1 <time>`."""
    return Wrap(f"{prefix}.{place.family}.", f";{_tags(place, '=', ';')} ", " \0\n")


STATSD: dict[Dialect, Format] = {
    Dialect.PLAIN: statsd_plain,
    Dialect.DOGSTATSD: statsd_dogstatsd,
    Dialect.INFLUX: statsd_influx,
    Dialect.GRAPHITE: statsd_graphite,
}


def statsd_zeros(text: bytes) -> bytes:
    """Returns StatsD's lines with 0 for each value."""
    return _GAUGE_VALUE.sub(b":0|g", text)


def _path(prefix: str, place: Place) -> str:
    return ".".join((prefix, place.family, *(value for _label, value in place.labels)))


def _tags(place: Place, is_sign: str, separator: str) -> str:
    return separator.join(f"{label}{is_sign}{value}" for label, value in (*place.labels, *place.tags))


def with_time(text: bytes, unix_seconds: float) -> bytes:
    """Returns carbon's lines with their time, whole seconds as whisper stores them."""
    return text.replace(_TIME_PLACE, b"%d" % unix_seconds)


def cut_lines(text: bytes, max_bytes: int) -> list[bytes]:
    """Returns the text in pieces of whole lines, each as long as fits `max_bytes`.

    Raises:
        ValueError: one line alone is longer. Names of at most 127 bytes keep a line below 200, tags included.
    """
    pieces: list[bytes] = []
    start, length = 0, len(text)
    while start < length:
        end = length if length - start <= max_bytes else text.rfind(b"\n", start, start + max_bytes) + 1
        if end <= start:
            raise ValueError(f"a line is longer than {max_bytes} bytes: {text[start : start + 60]!r}...")
        pieces.append(text[start:end])
        start = end
    return pieces
