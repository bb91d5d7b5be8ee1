"""Graphite's render API: what it stores, read back."""

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from fleetmem.errors import LabError, UsageError, reason_of

_BATCH = 100  # Django refuses a form of more than 1000 fields, and a long one holds up its only thread
_TIMEOUT_SECONDS = 20.0
_DATE_SECONDS = 2.0  # HTTP tells the time in whole seconds
_NOTHING = urlencode({"target": "fleetmem", "from": "-1min", "format": "json", "noCache": 1})

Series = list["Datapoint"]
"""In the order of time, without gaps."""


class Datapoint(NamedTuple):
    """A stored value and the start of its whisper step."""

    value: float
    unix_seconds: int


class Graphite:
    """Graphite's web server.

    Attributes:
        url: where it is, without a slash at the end.
    """

    def __init__(self, url: str, certificate: Path | None = None) -> None:
        """For the server at a URL; nothing is connected yet.

        Args:
            url: http:// or https://, with a port and a path where it has them.
            certificate: the one and only that a server at https:// may show, whatever name it is for: a certificate
                that was made on the server for itself. None for any that the system trusts.

        Raises:
            UsageError: it is no such URL, or the certificate cannot be read.
        """
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(self.url)
            self._place = parts.hostname or "", parts.port
        except ValueError as error:
            raise UsageError(f"{url}: {error}; expected http://HOST:PORT") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url}: expected http://HOST:PORT or https://HOST:PORT")
        self._path = parts.path
        self._tls = _tls(certificate) if parts.scheme == "https" else None

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
        _answer, text = self._post("/render", urlencode(query, doseq=True))
        for each in json.loads(text):
            yield each["target"], [Datapoint(value, at) for value, at in each["datapoints"] if value is not None]

    def clock_ahead_seconds(self) -> float:
        """Returns how much the server's clock is ahead of ours, 0 where it cannot be told from equal.

        Raises:
            LabError: it does not answer.
        """
        before = time.time()
        text = self._post("/render", _NOTHING)[0].getheader("Date") or ""
        try:
            ahead = parsedate_to_datetime(text).timestamp() - (before + time.time()) / 2
        except ValueError:  # none, or none that can be read
            return 0.0
        return ahead if abs(ahead) > _DATE_SECONDS else 0.0

    def _post(self, path: str, form: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self._connection()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            connection.request("POST", f"{self._path}{path}", form, headers)
            answer = connection.getresponse()
            body = answer.read()
        except ssl.SSLCertVerificationError as error:
            raise LabError(f"Graphite at {self.url} shows a certificate that is not to be trusted: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            raise LabError(f"Graphite at {self.url} does not answer: {error!r}") from error
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            text = body[:200].decode("utf-8", "replace")
            raise LabError(f"Graphite at {self.url} answers {answer.status} {answer.reason}: {text}")
        return answer, body

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._place
        if self._tls:
            return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_SECONDS, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)


def _tls(certificate: Path | None) -> ssl.SSLContext:
    if certificate is None:
        return ssl.create_default_context()
    try:
        context = ssl.create_default_context(cafile=str(certificate))
    except OSError as error:  # ssl.SSLError, too, is one
        raise UsageError(f"certificate {certificate}: {reason_of(error)}") from error
    context.check_hostname = False  # nothing but this very certificate is trusted
    return context
