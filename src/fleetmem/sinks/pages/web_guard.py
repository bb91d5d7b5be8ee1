"""Who may read a page: the web configuration in force, with its certificates read again when they change.

As the exporter toolkit does, so that a renewed certificate or another password needs no reload. It blocks: the server
asks in a thread.
"""

import logging
import ssl
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fleetmem.errors import ConfigError, reason_of
from fleetmem.runtime import bounded_file
from fleetmem.sinks.pages.http_request import Refusal
from fleetmem.sinks.pages.web_config import ClientAuth, TlsServer, WebConfig, read_web_config

log = logging.getLogger(__name__)

_LIMIT_BYTES = 1 << 20
_AGAIN_SECONDS = 5.0
_VERIFY = {
    ClientAuth.NONE: ssl.CERT_NONE,
    ClientAuth.IF_GIVEN: ssl.CERT_OPTIONAL,
    ClientAuth.REQUIRED: ssl.CERT_REQUIRED,
}

_Stamp = tuple[tuple[int, int, int, int] | None, ...]


class WebGuard(NamedTuple):
    """What holds for a connection. Never changes.

    Attributes:
        config: where it is from.
        context: for TLS; None for plain HTTP.
    """

    config: WebConfig
    context: ssl.SSLContext | None

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Returns whether a client may come in with its certificate, as `getpeercert` returns it: verified."""
        wanted = self.config.tls.client_allowed_sans if self.config.tls else ()
        if not wanted:
            return True
        names: Sequence[tuple[str, str]] = (certificate or {}).get("subjectAltName", ())
        return any(value in wanted for _kind, value in names)


class WebGuardFiles:
    """Keeps the guard that a web configuration describes, and makes it again when one of its files has changed.

    A file that is wrong is logged once, and the guard before stays. So does it where the new one would let in who was
    kept out: a file that is half written must not open the page. That takes a reload. What was refused is read again
    after some seconds, too: a file that it names may have come.

    Args:
        path: of the web configuration.

    Attributes:
        is_latest: whether what the files say is in force.
        refused: how often somebody was refused.

    Raises:
        ConfigError: it is wrong, or a file that it names.
    """

    def __init__(self, path: Path) -> None:
        self.is_latest = True
        self.refused: Counter[Refusal] = Counter()
        self._path = path
        self._stamp = _stamp([path])
        self._guard = make_guard(path)
        self._stamp = _stamp(self._files())
        self._problem = ""
        self._again_at = 0.0

    @property
    def locks(self) -> tuple[bool, ...]:
        """What keeps somebody out now, see `WebConfig.locks`."""
        return self._guard.config.locks

    @property
    def has_tls(self) -> bool:
        """Whether the page is served with TLS."""
        return self._guard.context is not None

    def current(self) -> WebGuard:
        """Returns the guard that the files describe now. It blocks."""
        stamp = _stamp(self._files())
        if stamp == self._stamp and (self.is_latest or time.monotonic() < self._again_at):
            return self._guard
        try:
            guard = make_guard(self._path)
            if any(old and not new for old, new in zip(self._guard.config.locks, guard.config.locks, strict=True)):
                text = "it lets in who is kept out now; that takes a reload"
                raise ConfigError(f"prometheus.web_config: {self._path}: {text}")
        except ConfigError as error:
            self._refuse(stamp, str(error))
            return self._guard
        self._guard, self.is_latest, self._problem = guard, True, ""
        self._stamp = _stamp(self._files())
        log.info("web configuration, with its certificate, is in force", extra={"path": str(self._path)})
        return guard

    def _refuse(self, stamp: _Stamp, problem: str) -> None:
        if (stamp, problem) != (self._stamp, self._problem):
            log.error("%s; the one before stays in force", problem)
        self._stamp, self._problem, self.is_latest = stamp, problem, False
        self._again_at = time.monotonic() + _AGAIN_SECONDS

    def _files(self) -> list[Path]:
        tls = self._guard.config.tls
        named = [tls.cert_file, tls.key_file, tls.client_ca_file] if tls else []
        return [self._path, *(path for path in named if path)]


def make_guard(path: Path) -> WebGuard:
    """Returns the guard that a web configuration describes. It blocks.

    Raises:
        ConfigError: it is wrong, or a file that it names.
    """
    config = read_web_config(path)
    return WebGuard(config, _context(path, config.tls) if config.tls else None)


def _context(path: Path, tls: TlsServer) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = tls.min_version.number, tls.max_version.number
    context.num_tickets = 0  # each answer ends its connection, and nobody comes back with one
    context.options |= ssl.OP_NO_RENEGOTIATION
    if tls.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    for file in (tls.cert_file, tls.key_file, tls.client_ca_file):
        if file:
            _look_at(path, file)
    try:
        if tls.openssl_suites:
            context.set_ciphers(tls.openssl_suites)
        context.load_cert_chain(tls.cert_file, tls.key_file, _refuse_to_ask)
    except (OSError, ValueError) as error:
        raise ConfigError(f"prometheus.web_config: {path}: {_reason(tls, error)}") from error
    if tls.client_ca_file:
        try:
            context.load_verify_locations(tls.client_ca_file)
        except OSError as error:
            text = f"{tls.client_ca_file} holds no certificates in PEM"
            raise ConfigError(f"prometheus.web_config: {path}: {text}") from error
        context.verify_mode = _VERIFY[tls.client_auth_type]
    return context


def _look_at(path: Path, file: Path) -> None:
    """Raises ConfigError where a file cannot be read: OpenSSL does not say which one."""
    try:
        bounded_file.read_bytes(file, _LIMIT_BYTES)
    except OSError as error:
        raise ConfigError(f"prometheus.web_config: {path}: {file}: {reason_of(error)}") from error
    except ValueError as error:  # a NUL in it
        raise ConfigError(f"prometheus.web_config: {path}: {str(file)!r} is no path") from error


def _refuse_to_ask() -> str:
    raise ValueError("the key has a passphrase, which nobody can type here: take it off (openssl pkey)")


def _reason(tls: TlsServer, error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"{tls.key_file} is not the key of {tls.cert_file}"
        return f"{tls.cert_file} and {tls.key_file} are no certificate and key in PEM"
    return f"{tls.key_file}: {error}"


def _stamp(paths: Sequence[Path]) -> _Stamp:
    """Returns what changes when one of the files does, and when one is a link to another file than before."""
    return tuple(map(_stamp_of, paths))


def _stamp_of(path: Path) -> tuple[int, int, int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
