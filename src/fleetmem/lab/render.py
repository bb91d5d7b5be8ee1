"""What Graphite stores, as the lab reads it back: without gaps."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from fleetmem.errors import GraphiteError, LabError, UsageError
from fleetmem.sinks.graphite_web import GraphiteWeb

Series = list["RenderedPoint"]
"""In the order of time, without gaps."""


class RenderedPoint(NamedTuple):
    """A stored value and the start of its whisper step."""

    value: float
    unix_seconds: int


class GraphiteRender:
    """Graphite's web server.

    Attributes:
        url: where it is, without a slash at the end.
    """

    def __init__(self, url: str, certificate: Path | None = None) -> None:
        """For the server at a URL; nothing is connected yet.

        Args:
            url: http:// or https://, with a port and a path where it has them.
            certificate: as `GraphiteWeb` takes it.

        Raises:
            UsageError: it is no such URL, or the certificate cannot be read.
        """
        try:
            self._web = GraphiteWeb(url, certificate=certificate)
        except ValueError as error:
            raise UsageError(str(error)) from error
        self.url = self._web.url

    def image_url(self, target: str) -> str:
        """Returns the address of a picture of series, to open in a browser."""
        query = urlencode({"target": target, "from": "-5min"}, safe="*")
        return f"{self.url}/render?{query}"

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            self.fetch(["fleetmem"], since_unix_seconds=0)
        except LabError:
            return False
        return True

    def fetch(self, targets: Sequence[str], since_unix_seconds: float) -> dict[str, Series]:
        """Returns what is stored under names, newer than a time; a name without any is left out.

        Raises:
            LabError: Graphite does not answer, or with an error.
        """
        try:
            found = self._web.render(targets, since_unix_seconds)
        except GraphiteError as error:
            raise LabError(str(error)) from error
        stored = {
            name: [RenderedPoint(value, at) for value, at in series if value is not None]
            for name, series in found.items()
        }
        return {name: series for name, series in stored.items() if series}

    def clock_ahead_seconds(self) -> float:
        """Returns how much the server's clock is ahead of ours, 0 where the two may be equal.

        Raises:
            LabError: it does not answer.
        """
        try:
            return self._web.clock_ahead_seconds()
        except GraphiteError as error:
            raise LabError(str(error)) from error
