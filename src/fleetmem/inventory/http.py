"""One GET with limits: on time, on size, and on where a redirect may lead."""

import base64
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request

from fleetmem.errors import InventoryError, reason_of

MAX_ANSWER_BYTES = 64 * 1024**2

_CHUNK_BYTES = 65_536


def fetch(url: str, timeout_seconds: float) -> bytes:
    """Returns what a server answers. User and password in the URL go along as basic authentication.

    Args:
        url: http or https.
        timeout_seconds: for each step, and for the whole answer once it comes.

    Raises:
        InventoryError: there is no good answer.
    """
    until = time.monotonic() + timeout_seconds
    try:
        with _opener().open(_request(url), timeout=timeout_seconds) as response:
            answer = bytearray()
            while chunk := response.read1(_CHUNK_BYTES):
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise InventoryError(f"{url}: answers more than {MAX_ANSWER_BYTES // 1024**2} MiB")
                if time.monotonic() > until:
                    raise TimeoutError
            return bytes(answer)
    except urllib.error.HTTPError as error:
        error.close()
        raise InventoryError(f"{url}: answers {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise InventoryError(f"{url}: no answer within {timeout_seconds:g} s") from error
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, TimeoutError):
            raise InventoryError(f"{url}: no answer within {timeout_seconds:g} s") from error
        raise InventoryError(f"{url}: {reason_of(reason) if isinstance(reason, Exception) else reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InventoryError(f"{url}: {reason_of(error) or type(error).__name__}") from error


def _opener() -> urllib.request.OpenerDirector:
    """Returns what follows redirects to http and https only: neither to files nor to FTP, as urllib's own does."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _request(url: str) -> urllib.request.Request:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InventoryError(f"{url}: expected http://HOST/PATH or https://HOST/PATH")
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    request = urllib.request.Request(bare, headers={"Accept": "application/json", "User-Agent": "fleetmem"})  # noqa: S310
    if parts.username is not None:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        encoded = base64.b64encode(login.encode()).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {encoded}")  # a redirect may lead to somebody else
    return request
