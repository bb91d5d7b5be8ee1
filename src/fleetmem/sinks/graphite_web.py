"""Graphite's web API: what it stores, read back. It blocks: call it in a thread where others must not wait."""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlencode, urlsplit

from fleetmem.errors import GraphiteError, reason_of

_BATCH = 100  # Django refuses a form of more than 1000 fields, and a long one holds up its only thread
_TIMEOUT_SECONDS = 20.0
_DATE_SECONDS = 2.0  # HTTP tells the time in whole seconds
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

    def __init__(self, url: str, timeout_seconds: float = _TIMEOUT_SECONDS, *, certificate: Path | None = None) -> None:
        """For `http://host`, `https://user:password@host/below/here`.

        Args:
            url: where it is.
            timeout_seconds: for each answer.
            certificate: the only one that a server at https:// may show, whatever name it is for: one that it made for
                itself. None for any that the system trusts.

        Raises:
            ValueError: that is no such address, or no certificate.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not http://HOST[:PORT] or https://HOST[:PORT]")
        place = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._place = f"{place}:{parts.port}" if parts.port else place
        self._tls = _tls(certificate) if parts.scheme == "https" else None
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

    def clock_ahead_seconds(self) -> float:
        """Returns how much the server's clock is ahead of ours, 0 where the two may be equal.

        Raises:
            GraphiteError: Graphite does not answer, or with an error.
        """
        before = time.time()
        answer, _body = self._exchange("GET", "/metrics/expand?query=fleetmem", None, {})
        try:
            told = parsedate_to_datetime(answer.getheader("Date") or "").timestamp()
        except ValueError:  # none, or none that can be read
            return 0.0
        ahead = told - (before + time.time()) / 2
        return ahead if abs(ahead) > _DATE_SECONDS else 0.0

    def _ask(self, method: str, path: str, form: str | None = None, headers: dict[str, str] | None = None) -> Any:
        _answer, body = self._exchange(method, path, form, headers or {})
        try:
            return json.loads(body)
        except ValueError as error:
            raise GraphiteError(f"Graphite at {self.url} answers something else than JSON: {body[:80]!r}") from error

    def _exchange(
        self, method: str, path: str, form: str | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self._connection()
        try:
            connection.request(method, self._path + path, form, self._headers | headers)
            answer = connection.getresponse()
            body = answer.read()
        except ssl.SSLCertVerificationError as error:
            raise GraphiteError(
                f"Graphite at {self.url} shows a certificate that is not to be trusted: {error}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise GraphiteError(f"Graphite at {self.url} does not answer: {error!r}") from error
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            text = body[:200].decode("utf-8", "replace")
            raise GraphiteError(f"Graphite at {self.url} answers {answer.status} {answer.reason}: {text}")
        return answer, body

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection(self._place, timeout=self._timeout_seconds, context=self._tls)
        return http.client.HTTPConnection(self._place, timeout=self._timeout_seconds)


def _tls(certificate: Path | None) -> ssl.SSLContext:
    if certificate is None:
        return ssl.create_default_context()
    try:
        context = ssl.create_default_context(cafile=str(certificate))
    except ssl.SSLError as error:
        raise ValueError(f"{certificate} holds no certificate (PEM)") from error
    except OSError as error:
        raise ValueError(f"certificate {certificate}: {reason_of(error)}") from error
    context.check_hostname = False  # nothing but this very certificate is trusted
    return context
