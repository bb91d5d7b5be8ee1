"""The page of metrics: who may read it, and whether its certificate is good."""

import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

from fleetmem.config import Prometheus
from fleetmem.doctor.findings import Check, Finding, Severity
from fleetmem.errors import ConfigError
from fleetmem.sinks.transports.endpoints import host_port
from fleetmem.wiring.outputs import web_guard

_DAY_SECONDS = 86_400.0
_SOON_DAYS = 14


@dataclass(frozen=True, slots=True)
class PageAccess:
    """What is known of the page.

    Attributes:
        address: where it is served.
        is_local: whether only this machine can connect.
        error: why the web configuration cannot be used.
        locks: see `WebConfig.locks`; all False without one.
        certificate: its file, None without TLS.
        ends_unix_seconds: when the certificate expires; None where nobody can tell.
        secrets_of_all: files with secrets that every account here may read.
    """

    address: str
    is_local: bool
    error: str = ""
    locks: tuple[bool, ...] = ()
    certificate: Path | None = None
    ends_unix_seconds: float | None = None
    secrets_of_all: tuple[Path, ...] = ()


def look_at_page(section: Prometheus) -> PageAccess | None:
    """Returns what is known of the page, None where there is none. Files are read."""
    listen = section.address()
    if listen is None:
        return None
    address, is_local = host_port(*listen), _is_local(listen[0])
    try:
        guard = web_guard(section)
    except ConfigError as error:
        return PageAccess(address, is_local, str(error))
    if guard is None or section.web_config is None:
        return PageAccess(address, is_local)
    tls = guard.config.tls
    secrets = [tls.key_file] if tls else []
    secrets += [section.web_config.expanduser()] if guard.config.users else []
    return PageAccess(
        address,
        is_local,
        locks=guard.config.locks,
        certificate=tls.cert_file if tls else None,
        ends_unix_seconds=_end_of(tls.cert_file) if tls else None,
        secrets_of_all=tuple(path for path in secrets if path.stat().st_mode & stat.S_IROTH),
    )


def _is_local(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def _end_of(certificate: Path) -> float | None:
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
        return min(each.not_valid_after_utc.timestamp() for each in chain)
    except (OSError, ValueError):  # OpenSSL could read it, and it may have changed since
        return None


def judge_page(page: PageAccess | None, now_unix_seconds: float) -> Iterator[Finding]:
    """Yields the findings about the page. Pure."""
    if page is None:
        return
    if page.error:
        yield _finding(
            page,
            Severity.PROBLEM,
            page.error,
            "`run` does not start, and a reload is refused",
            "fleetmem config check   # after you have corrected the file",
        )
        return
    faults = [*_judge_certificate(page, now_unix_seconds), *_judge_secrets(page), *_judge_openness(page)]
    yield from faults or [_finding(page, Severity.OK, _described(page))]


def _judge_certificate(page: PageAccess, now_unix_seconds: float) -> Iterator[Finding]:
    if page.ends_unix_seconds is None:
        return
    days = (page.ends_unix_seconds - now_unix_seconds) / _DAY_SECONDS
    mend = "renew it; fleetmem reads it again by itself"
    if days < 0:
        what, why = f"the certificate {page.certificate} has expired", "Prometheus refuses it: it scrapes nothing"
        yield _finding(page, Severity.PROBLEM, what, why, mend)
    elif days < _SOON_DAYS:
        what = f"the certificate {page.certificate} expires in {days:.0f} days"
        yield _finding(page, Severity.WARNING, what, "Prometheus will refuse it, and scrape nothing", mend)


def _judge_secrets(page: PageAccess) -> Iterator[Finding]:
    for path in page.secrets_of_all:
        yield _finding(
            page,
            Severity.WARNING,
            f"{path} can be read by every account of this machine",
            "it holds a private key, or hashes whose passwords can be guessed elsewhere",
            f"chmod o-r {shlex.quote(str(path))}   # fleetmem's own account must still be able to read it",
        )


def _judge_openness(page: PageAccess) -> Iterator[Finding]:
    if page.is_local or any(page.locks[1:]):
        return
    who = "with TLS, but without a password" if page.locks and page.locks[0] else "without TLS and without a password"
    yield _finding(
        page,
        Severity.NOTE,
        f"the metrics can be read {who}",
        "everyone who can connect reads the names of hosts and processes",
        'prometheus.web_config = "/etc/fleetmem/web.yml"   # or listen on 127.0.0.1; or a firewall',
    )


def _described(page: PageAccess) -> str:
    if not any(page.locks):
        return "the metrics can be read from this machine alone"
    has_tls, wants_certificate, _names, has_users = page.locks
    parts = ["with TLS" if has_tls else "without TLS"]
    parts += ["a client certificate"] if wants_certificate else []
    parts += ["a password"] if has_users else []
    return f"the metrics can be read {', '.join(parts)}"


def _finding(page: PageAccess, severity: Severity, what: str, why: str = "", mend: str = "") -> Finding:
    return Finding(Check.MACHINE_PAGE, severity, page.address, what, why, mend)
