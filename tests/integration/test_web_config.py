"""The page of metrics behind TLS and a password, scraped by a real Prometheus, through what changes while it runs."""

import signal
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest

from unit.sinks.pages.certificates import Authority

from .receivers import Prometheus
from .servers import Cli, Sshd, free_port, wait_for

_TLS = "tls_server_config: {cert_file: page.crt, key_file: page.key}\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that has issued the certificate of the page, in page.crt and page.key."""
    authority = Authority(tmp_path)
    authority.issue(tmp_path, "page")
    return authority


@pytest.mark.slow
def test_a_guarded_page(
    fleet: Sshd, cli: Cli, tmp_path: Path, authority: Authority, prometheus: Callable[..., Prometheus]
) -> None:
    """TLS and password, a wrong password, an expired and a renewed certificate, wrong files, and TLS taken away."""
    port = free_port()
    target = f"127.0.0.1:{port}"
    web, config = tmp_path / "web.yml", tmp_path / "fleetmem.toml"
    users = f'basic_auth_users: {{ann: "{bcrypt.hashpw(b"right", bcrypt.gensalt(10)).decode()}"}}\n'
    web.write_text(_TLS + users)
    text = f'[inventory]\nhosts = ["127.0.1.1:{fleet.port}"]\n[ssh]\nkey = ["{fleet.key}"]\n'
    text += f'[run]\ninterval_seconds = 0.5\n[prometheus]\nlisten = "{target}"\n'
    guarded = f'{text}web_config = "{web}"\n'
    config.write_text(guarded)
    with cli.run("-c", config) as running:
        wait_for("it listens", lambda: f"https://{target}/metrics" in running.stderr)
        access = {"scheme": "https", "tls_config": {"ca_file": str(authority.path)}}
        good = prometheus(target, **access, basic_auth={"username": "ann", "password": "right"})

        def value(expression: str) -> float | None:
            found = good.query(expression)
            return found[0].value if found else None

        wait_for("it is scraped", lambda: value("fleetmem_up") == 1)
        (build,) = good.query("fleetmem_build_info")
        assert build.labels.keys() >= {"version", "python", "asyncssh"}
        assert value("process_open_fds < process_max_fds")
        assert value("fleetmem_collector_config_last_reload_successful") == 1

        bad = prometheus(target, **access, basic_auth={"username": "ann", "password": "wrong"}, name="bad")
        wait_for("it is refused", lambda: "401 Unauthorized" in bad.targets()[target].last_error)
        assert bad.query("up")[0].value == 0
        wait_for("it is counted", lambda: value('fleetmem_web_requests_refused_total{reason="password"}'))
        assert "a wrong user or password, from 127.0.0.1" in running.stderr

        web.write_text(f"{_TLS}basic_auth_users: {{ann: half-a-ha")
        wait_for("it is reported", lambda: value("fleetmem_web_config_last_reload_successful") == 0)
        assert "the one before stays in force" in running.stderr
        assert "half-a-ha" not in running.stderr
        web.write_text(_TLS + users)
        wait_for("it is healed", lambda: value("fleetmem_web_config_last_reload_successful") == 1)
        assert "configuration taken" not in running.stderr

        authority.issue(tmp_path, "page", days=-1.0)
        wait_for("it is refused by", lambda: "certificate has expired" in good.targets()[target].last_error)
        authority.issue(tmp_path, "page")
        wait_for("it is scraped again", lambda: good.targets()[target].health == "up")

        web.write_text("tls_server_config: {cert_flie: x}\n")
        running.signal(signal.SIGHUP)
        wait_for("it is refused", lambda: "configuration not taken" in running.stderr)
        assert "no such key" in running.stderr
        wait_for("it is told", lambda: value("fleetmem_collector_config_last_reload_successful") == 0)
        assert good.targets()[target].health == "up"

        web.write_text(_TLS + users)
        running.signal(signal.SIGHUP)
        wait_for("it is taken", lambda: "configuration taken" in running.stderr)
        wait_for("it is told", lambda: value("fleetmem_collector_config_last_reload_successful") == 1)

        config.write_text(text)
        running.signal(signal.SIGHUP)
        wait_for("it is plain", lambda: f"http://{target}/metrics" in running.stderr)
        wait_for("it is not scraped", lambda: good.targets()[target].health == "down")


@pytest.mark.parametrize("command", ["run", "config check"])
def test_a_wrong_file_at_the_start(cli: Cli, fleet: Sshd, tmp_path: Path, command: str) -> None:
    """It is said at once, with the key, and without a hash."""
    web = tmp_path / "web.yml"
    web.write_text("basic_auth_users: {ann: secret}\n")
    hosts = ("-i", f"127.0.1.1:{fleet.port}", "-k", fleet.key, "--prometheus", free_port())
    done = cli(*command.split(), *hosts, FLEETMEM_PROMETHEUS__WEB_CONFIG=str(web))
    assert done.status == 2
    assert "basic_auth_users.ann: not a bcrypt hash" in done.stderr
    assert "secret" not in done.stderr
