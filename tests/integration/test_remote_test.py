"""`make remote-test` against hosts on this machine and the Graphite host's own files; `lab check` against the lab."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleetmem.lab.directory import Directory
from fleetmem.lab.state import read_state

from .aws import Checkout
from .graphite_host import GraphiteHost
from .servers import TOOLS, USER, Cli, Sshd, missing, sshd

HOSTS = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
STEP_SECONDS = 2

_MODULE = """\
resource "terraform_data" "host" {}

output "graphite_host" { value = "fleetmem-graphite" }
output "graphite_url" { value = "%(graphite_url)s" }
output "grafana_url" { value = "https://127.0.0.1:3000" }
output "statsd_endpoint" { value = "%(statsd)s" }
output "inventory" { value = jsondecode(%(inventory)s) }
output "ssh_config" {
  value = "Host fleetmem-graphite\\n    HostName 127.0.0.1\\n    Port %(port)s\\n    User %(user)s\\n"
}
"""


@contextmanager
def _deployed(folder: Path, graphite_url: str, statsd: str) -> Iterator[tuple[Checkout, Sshd]]:
    """A deployment whose hosts, all of them, are this machine: Terraform has nothing but the outputs."""
    checkout = Checkout(folder / "checkout")
    checkout.make()
    programs = folder / "programs"
    programs.mkdir()
    # There is none here. On a host it says when the first boot is over.
    (programs / "cloud-init").write_text('#!/bin/sh\n[ "$*" = "status --wait" ] && echo "status: done"\n')
    (programs / "cloud-init").chmod(0o755)
    key = (checkout.folder / ".deploy" / "key.pub").read_text()
    with sshd(folder / "sshd", public_keys=[key], options=f"SetEnv PATH={programs}:/usr/bin:/bin") as server:
        hosts = [
            {"name": f"web{number}", "address": address, "port": server.port, "user": USER, "groups": ["target"]}
            for number, address in enumerate(HOSTS, 1)
        ]
        for path in checkout.module.glob("*.tf*"):
            path.unlink()
        values = {"graphite_url": graphite_url, "statsd": statsd, "port": server.port, "user": USER}
        text = _MODULE % (values | {"inventory": json.dumps(json.dumps(hosts))})
        (checkout.module / "main.tf").write_text(text)
        checkout.init()
        checkout.terraform("apply", "-input=false", "-auto-approve", "-no-color")
        programs = checkout.folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "fleetmem").symlink_to(Path(sys.executable).with_name("fleetmem"))
        yield checkout, server


def _aws(checkout: Checkout, command: str, answer: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return checkout.run("scripts/aws", command, answer=answer, **env)


@pytest.mark.slow
def test_remote_test_passes_with_the_graphite_hosts_own_files(tmp_path: Path) -> None:
    """By the script that `make remote-test` runs: dashboards copied, certificate fetched, series read back over TLS."""
    host = GraphiteHost(tmp_path / "host", STEP_SECONDS)
    host.bootstrap()
    with (
        host.serving() as (_carbon, statsd, proxy),
        _deployed(tmp_path, proxy.url, statsd.address) as (checkout, _sshd),
    ):
        dashboards = checkout.folder / "deploy" / "grafana" / "graphite"
        dashboards.mkdir(exist_ok=True)
        (dashboards / "new.json").write_text("{}")
        env = {"GRAPHITE_HOME": str(host.home), "FLEETMEM_RUN__INTERVAL_SECONDS": str(STEP_SECONDS)}
        env |= {f"FLEETMEM_SSH__{limit}_TIMEOUT_SECONDS": "60" for limit in ("CONNECT", "COMMAND")}
        done = _aws(checkout, "test", **env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "PASSED"
        assert {path.name for path in (host.home / "dashboards").iterdir()} == {
            path.name for path in dashboards.iterdir()
        }
        certificate = (host.home / "tls" / "certificate.pem").read_text()
        assert (checkout.folder / ".deploy" / "graphite.pem").read_text() == certificate


def test_what_keeps_the_script_from_the_graphite_host_is_told(tmp_path: Path) -> None:
    """A host that is not there, one with another key than before; and nothing is destroyed without a yes."""
    with _deployed(tmp_path, "https://127.0.0.1:9", "127.0.0.1:9") as (checkout, server):
        made = checkout.folder / ".deploy"
        other = (tmp_path / "sshd" / "user_key.pub").read_text().split()[:2]
        (made / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {' '.join(other)}\n")
        done = _aws(checkout, "test", WAIT_SECONDS="60")
        assert done.returncode == 1
        assert "has another key than before" in done.stderr
        server.stop()
        done = _aws(checkout, "test", WAIT_SECONDS="0")
        assert done.returncode == 1
        assert "Connection refused" in done.stderr
        assert "operator_cidrs" in done.stderr
        for answer in ("n\n", "", "yes, later\n"):
            done = _aws(checkout, "destroy", answer)
            assert (done.returncode, done.stderr) == (1, "nothing was changed\n")
        assert checkout.terraform("state", "list") == "terraform_data.host\n"
        assert _aws(checkout, "destroy", "y\n").returncode == 0
        assert checkout.terraform("state", "list") == ""
        done = _aws(checkout, "test")
        assert (done.returncode, done.stderr) == (1, "nothing is deployed: make deploy\n")


@pytest.mark.long
def test_the_same_check_passes_against_the_lab(tmp_path: Path, cli: Cli) -> None:
    """And fails when a host does not answer, or when nothing arrives."""
    folder = tmp_path / "lab"
    folder.mkdir()
    if not (TOOLS / "graphite-venv").is_dir():
        missing("carbon")
    (folder / "graphite-venv").symlink_to(TOOLS / "graphite-venv")
    try:
        assert cli("lab", "up", "--dir", folder, "--hosts", 2, "--interval", 1).status == 0
        state = read_state(Directory(folder).state)
        assert state
        assert state.graphite_url
        options = ("lab", "check", "-c", folder / "fleetmem.toml", "--graphite-url", state.graphite_url)
        result = cli(*options, seconds=120, FLEETMEM_SSH__CONNECT_TIMEOUT_SECONDS="1")
        assert result.status == 0, result.stdout + result.stderr
        assert result.stdout.endswith("PASSED\n")
        result = cli(*options, "--cycles", 1, seconds=120, FLEETMEM_INVENTORY__HOSTS="127.0.1.1,127.0.1.99")
        assert result.status == 1
        assert "127.0.1.99: unreachable" in result.stdout
        assert result.stdout.endswith("FAILED\n")
    finally:
        assert cli("lab", "down", "--dir", folder).status == 0
    result = cli(*options, "--wait", 0)
    assert result.status == 1
    assert "does not answer" in result.stderr
