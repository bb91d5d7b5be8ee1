"""Graphite's web API: what it stores, read back. It blocks: call it in a thread where others must not wait."""

import base64
import http.client
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlencode, urlsplit

from fleetmem.errors import GraphiteError

_BATCH = 100  # Django refuses a form of more than 1000 fields, and a long one holds up its only thread
_TIMEOUT_SECONDS = 20.0
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Datapoint(NamedTuple):
    """A stored value, None for a gap, and the start of its whisper step."""

    value: float | None
    unix_seconds: int


class GraphiteWeb:
    """A graphite-web, or what answers like one.

    Attributes:
        url: where it is, without user and password.
    """

    def __init__(self, url: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        """For `http://host`, `https://user:password@host/below/here`.

        Raises:
            ValueError: that is no such address.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not http://HOST[:PORT] or https://HOST[:PORT]")
        place = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._place = f"{place}:{parts.port}" if parts.port else place
        self._is_encrypted = parts.scheme == "https"
        self._path = parts.path.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._headers: dict[str, str] = {}
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self.url = f"{parts.scheme}://{self._place}{self._path}"

    def render(self, targets: Sequence[str], since_unix_seconds: float) -> dict[str, list[Datapoint]]:
        """Returns what is stored under names since a time, gaps included; a name that is not there is left out.

        Raises:
            GraphiteError: Graphite does not answer, or with an error.
        """
        batches = (targets[start : start + _BATCH] for start in range(0, len(targets), _BATCH))
        return dict(each for batch in batches for each in self._query(batch, since_unix_seconds))

    def _query(self, targets: Sequence[str], since_unix_seconds: float) -> Iterator[tuple[str, list[Datapoint]]]:
        # Without noCache it repeats its answers for a minute.
        query = {"target": targets, "from": int(since_unix_seconds), "format": "json", "noCache": 1}
        for each in self._ask("POST", "/render", urlencode(query, doseq=True), _FORM):
            yield each["target"], [Datapoint(value, at) for value, at in each["datapoints"]]

    def expand(self, pattern: str) -> list[str]:
        """Returns the names of the series that a pattern fits, `*` within a part of the name.

        Raises:
            GraphiteError: Graphite does not answer, or with an error.
        """
        query = urlencode({"query": pattern, "leavesOnly": 1})
        return [str(name) for name in self._ask("GET", f"/metrics/expand?{query}")["results"]]

    def _ask(self, method: str, path: str, form: str | None = None, headers: dict[str, str] | None = None) -> Any:
        make = http.client.HTTPSConnection if self._is_encrypted else http.client.HTTPConnection
        connection = make(self._place, timeout=self._timeout_seconds)
        try:
            connection.request(method, self._path + path, form, self._headers | (headers or {}))
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise GraphiteError(f"Graphite at {self.url} does not answer: {error!r}") from error
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            text = body[:200].decode("utf-8", "replace")
            raise GraphiteError(f"Graphite at {self.url} answers {answer.status} {answer.reason}: {text}")
        try:
            return json.loads(body)
        except ValueError as error:
            raise GraphiteError(f"Graphite at {self.url} answers something else than JSON: {body[:80]!r}") from error
