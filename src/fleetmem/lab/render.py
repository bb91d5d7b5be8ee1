"""Graphite's render API: what it stores, read back."""

import http.client
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from fleetmem.errors import LabError

_BATCH = 100  # Django refuses a form of more than 1000 fields, and a long one holds up its only thread
_TIMEOUT_SECONDS = 20.0

Series = list["Datapoint"]
"""In the order of time, without gaps."""


class Datapoint(NamedTuple):
    """A stored value and the start of its whisper step."""

    value: float
    unix_seconds: int


class Graphite:
    """Graphite's web server at a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    def image_url(self, target: str) -> str:
        """Returns the address of a picture of series, to open in a browser."""
        query = urlencode({"target": target, "from": "-5min", "width": 1000, "height": 500}, safe="*")
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
        batches = (targets[start : start + _BATCH] for start in range(0, len(targets), _BATCH))
        found = (each for batch in batches for each in self._query(batch, since_unix_seconds))
        return {name: series for name, series in found if series}

    def _query(self, targets: Sequence[str], since_unix_seconds: float) -> Iterator[tuple[str, Series]]:
        # Without noCache it repeats its answers for a minute.
        query = {"target": targets, "from": int(since_unix_seconds), "format": "json", "noCache": 1}
        for each in json.loads(self._post("/render", urlencode(query, doseq=True))):
            yield each["target"], [Datapoint(value, at) for value, at in each["datapoints"] if value is not None]

    def _post(self, path: str, form: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request("POST", path, form, {"Content-Type": "application/x-www-form-urlencoded"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise LabError(f"Graphite at {self.url} does not answer: {error!r}") from error
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            text = body[:200].decode("utf-8", "replace")
            raise LabError(f"Graphite at {self.url} answers {answer.status} {answer.reason}: {text}")
        return body
