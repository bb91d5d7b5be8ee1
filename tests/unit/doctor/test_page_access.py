"""The page of metrics, as the doctor finds it."""

import time
from pathlib import Path

import bcrypt
import pytest

from fleetmem.config import Prometheus
from fleetmem.doctor.findings import Check, Finding, Severity
from fleetmem.doctor.page_access import judge_page, look_at_page
from unit.sinks.pages.certificates import Authority

# With this salt, not one by chance: it is part of tests' names, which must be alike in all processes of pytest.
_HASH = bcrypt.hashpw(b"x", b"$2b$04$" + b"a" * 21 + b"e").decode()
_TLS = "tls_server_config: {cert_file: page.crt, key_file: page.key}\n"
_USERS = f"basic_auth_users: {{a: {_HASH}}}\n"


def findings(folder: Path, listen: str | None, text: str | None, days: float = 30.0) -> list[Finding]:
    """Returns what the doctor says of a page."""
    path = folder / "web.yml"
    Authority(folder).issue(folder, "page", days)
    if text is not None:
        path.write_text(text)
        path.chmod(0o600)
    section = Prometheus(listen=listen, web_config=path if text is not None else None)
    found = [*judge_page(look_at_page(section), time.time())]
    assert {finding.check for finding in found} <= {Check.MACHINE_PAGE}
    assert all(bool(finding.why) == bool(finding.mend) == (finding.severity is not Severity.OK) for finding in found)
    return found


@pytest.mark.parametrize(
    ("listen", "text", "days", "severity", "what"),
    [
        ("9877", None, 30, Severity.OK, "from this machine alone"),
        ("localhost:9877", None, 30, Severity.OK, "from this machine alone"),
        ("[::1]:9877", None, 30, Severity.OK, "from this machine alone"),
        ("0.0.0.0:9877", None, 30, Severity.NOTE, "without TLS and without a password"),
        ("[::]:9877", _TLS, 30, Severity.NOTE, "with TLS, but without a password"),
        ("0.0.0.0:9877", _USERS, 30, Severity.OK, "without TLS, a password"),
        ("0.0.0.0:9877", _TLS + _USERS, 30, Severity.OK, "with TLS, a password"),
        ("0.0.0.0:9877", _TLS + _USERS, -1, Severity.PROBLEM, "page.crt has expired"),
        ("0.0.0.0:9877", _TLS + _USERS, 3.2, Severity.WARNING, "page.crt expires in 3 days"),
        ("9877", "nonsense: 1", 30, Severity.PROBLEM, "nonsense: no such key"),
        (
            "9877",
            "tls_server_config: {cert_file: none, key_file: page.key}",
            30,
            Severity.PROBLEM,
            "none: no such file",
        ),
    ],
)
def test_a_page(listen: str, text: str | None, days: float, severity: Severity, what: str, tmp_path: Path) -> None:
    """Who may read it, and what is wrong with its files."""
    (found,) = findings(tmp_path, listen, text, days)
    assert (found.severity, what in found.what) == (severity, True), found.what


def test_no_page(tmp_path: Path) -> None:
    """There is nothing to say."""
    assert findings(tmp_path, None, None) == []


def test_secrets_that_all_may_read(tmp_path: Path) -> None:
    """Hashes and the key."""
    assert len(findings(tmp_path, "9877", _TLS + _USERS)) == 1
    for name in ("web.yml", "page.key"):
        (tmp_path / name).chmod(0o644)
    page = look_at_page(Prometheus(listen="9877", web_config=tmp_path / "web.yml"))
    found = [*judge_page(page, time.time())]
    assert [finding.severity for finding in found] == [Severity.WARNING] * 2
    assert [finding.mend.split()[2] for finding in found] == [str(tmp_path / "page.key"), str(tmp_path / "web.yml")]
