"""The units of deploy/systemd, under a real systemd with everything that they forbid the service."""

import base64
import http.client
import re
import ssl
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from unit.sinks.pages.certificates import Authority

from .servers import USER, Sshd, free_port, started, wait_for
from .systemd import Systemd


@pytest.fixture
def systemd(fleet: Sshd, tmp_path: Path) -> Iterator[Systemd]:
    """A systemd whose /etc/fleetmem has the key of the fleet."""
    with started(Systemd(tmp_path / "systemd")) as server:
        (server.configuration / "ssh_key").write_text(fleet.key.read_text())
        (server.configuration / "ssh_key").chmod(0o600)
        yield server


def write(systemd: Systemd, fleet: Sshd, name: str, hosts: str) -> None:
    """Writes a configuration."""
    text = f'[inventory]\nhosts = ["{hosts}"]\n[ssh]\nuser = "{USER}"\nport = {fleet.port}\n'
    text += '[run]\ninterval_seconds = 0.5\n[file]\npath = "~/memory.jsonl"\n'
    (systemd.configuration / f"{name}.toml").write_text(text)


def is_sampling(systemd: Systemd, unit: str) -> bool:
    """Whether the last thing that a service told is a cycle that came to something."""
    return bool(re.match(r"[1-9]\d* of \d+ hosts answered, 0 failed, ", systemd.show(unit, "StatusText")))


@pytest.mark.slow
def test_the_service(systemd: Systemd, fleet: Sshd) -> None:
    """It starts in its sandbox, is ready, samples with the key that it was lent, reloads twice, and stops."""
    systemd.override("fleetmem")
    write(systemd, fleet, "config", "127.0.1.[1-3]")
    systemd.systemctl("start", "fleetmem")  # ends when it is ready
    wait_for("a cycle", lambda: is_sampling(systemd, "fleetmem"))
    status = systemd.process_status("fleetmem")
    assert "0" not in status["Uid"].split()
    assert (status["NoNewPrivs"], int(status["CapBnd"], 16), status["Seccomp"]) == ("1", 0, "2")
    state = "/var/lib/private/fleetmem"
    wait_for("3 hosts", lambda: systemd.read(f"{state}/.ssh/known_hosts").count(fleet.host_public_key) == 3)
    wait_for("what it writes", lambda: '"ok":true' in systemd.read(f"{state}/memory.jsonl"))

    write(systemd, fleet, "config", "127.0.1.[1-2]")
    systemd.systemctl("reload", "fleetmem")
    wait_for("the new one", lambda: "configuration taken: 2 hosts" in systemd.log_of("fleetmem"))
    (systemd.configuration / "config.toml").write_text("[nonsense]\n")
    systemd.systemctl("reload", "fleetmem")
    wait_for("the old one", lambda: "configuration not taken" in systemd.log_of("fleetmem"))
    wait_for("it goes on", lambda: is_sampling(systemd, "fleetmem"))
    assert systemd.show("fleetmem", "ActiveState") == "active"
    assert systemd.show("fleetmem", "NRestarts") == "0"

    systemd.systemctl("stop", "fleetmem")
    assert systemd.show("fleetmem", "Result") == "success"
    assert systemd.show("fleetmem", "ExecMainStatus") == "0"
    assert "Traceback" not in systemd.log_of("fleetmem")


@pytest.mark.slow
def test_a_guarded_page(systemd: Systemd, fleet: Sshd) -> None:
    """The drop-in of the docs: systemd lends the service its web configuration, certificate and key."""
    docs = (Path(__file__).parents[2] / "docs/how-to/protect-metrics.md").read_text(encoding="utf-8")
    example = textwrap.dedent(docs.partition("```yaml\n")[2].partition("```")[0])
    drop_in = docs.partition("```text\n[Service]\n")[2].partition("```")[0].splitlines()
    port = free_port()
    systemd.override("fleetmem", *drop_in, f"Environment=FLEETMEM_PROMETHEUS__LISTEN={port}")
    write(systemd, fleet, "config", "127.0.1.1")
    (systemd.configuration / "web.yml").write_text(example)
    authority = Authority(systemd.configuration)
    authority.issue(systemd.configuration, "page")
    for name in ("web.yml", "page.key", "page.crt"):
        (systemd.configuration / name).chmod(0o600)
    systemd.systemctl("start", "fleetmem")
    context = ssl.create_default_context(cafile=authority.path)
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)

    def status(password: str) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
        with closing(connection):
            given = base64.b64encode(f"prometheus:{password}".encode()).decode()
            connection.request("GET", "/metrics", headers={"Authorization": f"Basic {given}"})
            return connection.getresponse().status

    assert (status("wrong"), status("password")) == (401, 200)


@pytest.mark.slow
def test_the_watchdog_of_one_of_several(systemd: Systemd, fleet: Sshd) -> None:
    """Two collectors on a machine; one of them halts: it is started anew, the other does not notice."""
    for name, lines in (("a", ()), ("b", ("WatchdogSec=2", "RestartSec=0.1"))):
        systemd.override(f"fleetmem@{name}", *lines)
        write(systemd, fleet, name, "127.0.1.[1-2]")
    systemd.systemctl("start", "fleetmem@a", "fleetmem@b")
    before = systemd.show("fleetmem@b", "MainPID")
    systemd.systemctl("kill", "--signal", "SIGSTOP", "fleetmem@b")
    wait_for("it is started anew", lambda: systemd.show("fleetmem@b", "NRestarts") != "0")
    wait_for("it works", lambda: is_sampling(systemd, "fleetmem@b"))
    assert systemd.show("fleetmem@b", "MainPID") != before
    assert systemd.show("fleetmem@a", "NRestarts") == "0"


@pytest.mark.slow
def test_a_wrong_configuration_is_not_tried_again(systemd: Systemd) -> None:
    """It would be wrong the next time, too; the log says what is."""
    systemd.override("fleetmem", "RestartSec=0.1")
    (systemd.configuration / "config.toml").write_text("[nonsense]\n")
    with pytest.raises(AssertionError):
        systemd.systemctl("start", "fleetmem")
    assert systemd.show("fleetmem", "ExecMainStatus") == "2"
    assert systemd.show("fleetmem", "ActiveState") == "failed"
    assert "nonsense: no such key" in systemd.log_of("fleetmem")
