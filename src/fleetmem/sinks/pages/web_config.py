"""The web configuration of Prometheus' exporter toolkit: TLS and passwords of a page, in a file of its own.

The format is that of node_exporter and Prometheus itself, so one file may serve all. A key that fleetmem does not know
or cannot honour is an error: who writes it relies on it.
"""

import re
import ssl
from collections.abc import Hashable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from fleetmem.errors import ConfigError, reason_of
from fleetmem.runtime import bounded_file
from fleetmem.safe_text import printable

_LIMIT_BYTES = 1 << 20
_HASH = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_COSTS = range(4, 17)
"""Of bcrypt: 2^16 rounds take seconds, 2^31 days."""

_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_TOKEN = re.compile(r".(?:.|<[a-z ]+>).")
"""What may be quoted of a file: a character, or what it stands for. Names of aliases and tags may be passwords."""

_HEADERS = {
    "Content-Security-Policy": r"[ -~]+",
    "Strict-Transport-Security": r"[ -~]+",
    "X-Content-Type-Options": r"nosniff",
    "X-Frame-Options": r"deny|sameorigin",
    "X-XSS-Protection": r"[ -~]+",
}

# Names of Go, which the format has, and of OpenSSL. Those of TLS 1.3 cannot be chosen, in Go neither.
_SUITES = {
    f"TLS_ECDHE_{kind}_WITH_{suite}": f"ECDHE-{kind}-{name}"
    for kind in ("ECDSA", "RSA")
    for suite, name in {
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305": "CHACHA20-POLY1305",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
    }.items()
}


class ClientAuth(StrEnum):
    """What is asked of a client's certificate."""

    NONE = "NoClientCert"
    IF_GIVEN = "VerifyClientCertIfGiven"
    REQUIRED = "RequireAndVerifyClientCert"


class TlsVersion(StrEnum):
    """A version of TLS; older ones are broken."""

    TLS12 = "TLS12"
    TLS13 = "TLS13"

    @property
    def number(self) -> ssl.TLSVersion:
        """As OpenSSL counts."""
        return ssl.TLSVersion.TLSv1_2 if self is TlsVersion.TLS12 else ssl.TLSVersion.TLSv1_3


def _check_client_auth(value: object) -> object:
    if value in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
        raise ValueError(f"takes certificates that nobody has verified; use {ClientAuth.REQUIRED} with client_ca_file")
    return value


def _check_http2(value: object) -> object:
    if value is not False:
        raise ValueError("the page is served with HTTP/1 only: leave the key out, or say false")
    return value


def _check_suites(suites: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [suite for suite in suites if suite not in _SUITES]:
        raise ValueError(f"not supported: {', '.join(unknown)}; there is {', '.join(_SUITES)}")
    return suites


def _check_hash(text: str) -> str:
    match = _HASH.fullmatch(text)
    if not match or int(match[1]) not in _COSTS:
        lowest, highest = _COSTS[0], _COSTS[-1]
        raise ValueError(f"not a bcrypt hash of cost {lowest} to {highest}; `htpasswd -nBC 10 NAME` makes one")
    return text


def _check_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if name not in _HEADERS:
            raise ValueError(f"not supported: {name}; there is {', '.join(_HEADERS)}")
        if not re.fullmatch(_HEADERS[name], value):
            raise ValueError(f"not a value of {name}")
    return headers


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class TlsServer(_Table):
    """`tls_server_config`: the certificate, and what clients are to have. Paths are relative to the file's folder."""

    cert_file: Path
    key_file: Path
    client_auth_type: Annotated[ClientAuth, BeforeValidator(_check_client_auth)] = ClientAuth.NONE
    client_ca_file: Path | None = None
    client_allowed_sans: tuple[str, ...] = ()
    min_version: TlsVersion = TlsVersion.TLS12
    max_version: TlsVersion = TlsVersion.TLS13
    cipher_suites: Annotated[tuple[str, ...], AfterValidator(_check_suites)] = ()
    prefer_server_cipher_suites: bool = True

    @model_validator(mode="after")
    def _check(self) -> "TlsServer":
        is_asked = self.client_auth_type is not ClientAuth.NONE
        if is_asked and not self.client_ca_file:
            raise ValueError(f"client_auth_type {self.client_auth_type} needs client_ca_file")
        if self.client_ca_file and not is_asked:
            raise ValueError(f"client_ca_file needs client_auth_type: {ClientAuth.REQUIRED}, say")
        if self.client_allowed_sans and self.client_auth_type is not ClientAuth.REQUIRED:
            raise ValueError(f"client_allowed_sans needs client_auth_type: {ClientAuth.REQUIRED}")
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        return self

    @property
    def openssl_suites(self) -> str:
        """The cipher suites as OpenSSL calls them; empty for its own."""
        return ":".join(dict.fromkeys(_SUITES[suite] for suite in self.cipher_suites))


class _HttpServerTable(_Table):
    http2: Annotated[bool, BeforeValidator(_check_http2)] = False
    headers: Annotated[dict[str, str], AfterValidator(_check_headers)] = Field(default_factory=dict)


class WebConfig(_Table):
    """The file.

    Attributes:
        tls: None for plain HTTP.
        http: headers of each answer.
        users: bcrypt hashes by user name; everybody may read the page where there are none.
    """

    tls: TlsServer | None = Field(default=None, alias="tls_server_config")
    http: _HttpServerTable = Field(default_factory=_HttpServerTable, alias="http_server_config")
    users: dict[str, Annotated[str, AfterValidator(_check_hash)]] = Field(
        default_factory=dict, alias="basic_auth_users"
    )

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that each answer has beside its own."""
        return self.http.headers

    @property
    def locks(self) -> tuple[bool, ...]:
        """What keeps somebody out: TLS, a certificate of the client, names in it, a password."""
        tls = self.tls
        wants_certificate = tls is not None and tls.client_auth_type is ClientAuth.REQUIRED
        return tls is not None, wants_certificate, bool(tls and tls.client_allowed_sans), bool(self.users)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a key that is there twice: the first one, a user say, would be gone without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _value in node.value]
        for key in keys:
            if keys.count(key) > 1:
                text = f"the key {_key_name(key)} is there twice"
                raise yaml.constructor.ConstructorError(None, None, text, node.start_mark)
        return dict(super().construct_mapping(node, deep))


def read_web_config(path: Path) -> WebConfig:
    """Returns the web configuration that a file holds. It blocks.

    Raises:
        ConfigError: it cannot be read or is wrong. The message has no hash, nor a password that stands in its place.
    """
    try:
        text = bounded_file.read_text(path, _LIMIT_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise _error(path, reason_of(error)) from error
    given = _parse(path, text)
    try:
        config = WebConfig.model_validate({} if given is None else given)
    except ValidationError as error:
        raise _error(path, "; ".join(map(_explain, error.errors(include_input=False)))) from None
    if not config.tls and not config.users:
        raise _error(path, "neither tls_server_config nor basic_auth_users is in it; leave prometheus.web_config out")
    return config if not config.tls else config.model_copy(update={"tls": _absolute(config.tls, path.parent)})


def _parse(path: Path, text: str) -> object:
    """Returns what a text in YAML means. Raises ConfigError; errors of YAML quote lines, and those hold secrets."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise _error(path, _where(error)) from None
    except RecursionError:
        raise _error(path, "lists or tables without end") from None
    except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError):  # PyYAML, of `!!int x`, 2024-13-45
        raise _error(path, "a value is not what its YAML tag says, or no date; put it in quotes") from None


def _absolute(tls: TlsServer, folder: Path) -> TlsServer:
    """Returns the same with paths that do not depend on where fleetmem was started."""
    paths = {name: getattr(tls, name) for name in ("cert_file", "key_file", "client_ca_file")}
    return tls.model_copy(update={name: folder / path.expanduser() for name, path in paths.items() if path})


def _error(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"prometheus.web_config: {path}: {reason}")


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark else ""
    problem = getattr(error, "problem", None) or "not YAML"
    return line + _QUOTED.sub(lambda quoted: quoted[0] if _TOKEN.fullmatch(quoted[0]) else "...", problem)


def _key_name(key: object) -> str:
    """Returns a key for a message; a hash may stand where a user should."""
    return "..." if str(key).startswith("$") else printable(str(key))


def _explain(problem: Any) -> str:
    key = ".".join(map(_key_name, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{key}: no such key, or not supported"
    if problem["type"] == "missing":
        return f"{key}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}" if key else message
