"""What fleetmem leaves on the collector and where it sends to: the commands of docs/how-to/remove.md remove it."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from . import documents
from .documents import Place
from .receivers import CarbonCache, Prometheus
from .servers import Cli, Sshd, StatsD, environment, free_port, started, wait_for

PAGE = "docs/how-to/remove.md"
HOSTS = ["127.0.1.1", "127.0.1.2"]


class PrometheusThatDeletes(Prometheus):
    """One with the API that deletes series."""

    def _prepare(self) -> list[str]:
        return [*super()._prepare(), "--web.enable-admin-api"]


@contextmanager
def grafana() -> Iterator[tuple[int, set[str]]]:
    """Serves the two requests of Grafana's API that add and delete a dashboard; yields its port, and their uids."""
    uids: set[str] = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            uids.add(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["dashboard"]["uid"])
            self._answer(200)

        def do_DELETE(self) -> None:
            uid = self.path.removeprefix("/api/dashboards/uid/")
            self._answer(200 if uid in uids else 404)
            uids.discard(uid)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Prints nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, uids
        server.shutdown()


def block_with(page: str, word: str) -> documents.Block:
    """Returns the only block of commands of a page that has a word."""
    (block,) = (block for block in documents.blocks(page) if word in block.text)
    return block


def files(folder: Path) -> set[str]:
    """Returns all paths below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.slow
def test_nothing_is_left_of_a_collector(
    tmp_path: Path, fleet: Sshd, statsd: StatsD, carbon_cache: CarbonCache, cli: Cli
) -> None:
    """It had each output, wrote known hosts, state and completion; the commands of the page leave none of it."""
    home, port = cli.home, free_port()
    for folder in (".ssh", ".config", ".cache", ".local/state", ".bash_completions"):
        (home / folder).mkdir(parents=True, mode=0o700)
    (tmp_path / "hosts.txt").write_text("".join(f"{host}\n" for host in HOSTS))
    before = files(home)
    with ExitStack() as stack:
        prometheus = stack.enter_context(started(PrometheusThatDeletes(tmp_path / "prometheus", f"127.0.0.1:{port}")))
        grafana_port, uids = stack.enter_context(grafana())
        place = Place(
            tmp_path,
            {
                r"telnet://127\.0\.0\.1:8126": f"telnet://127.0.0.1:{statsd.management_port}",
                r"/opt/graphite/storage/whisper": str(carbon_cache.whisper),
                r"http://127\.0\.0\.1:9090": f"http://127.0.0.1:{prometheus.port}",
                r"https://grafana\.example\.com": f"http://127.0.0.1:{grafana_port}",
                r'"\$host"': f'"[$host]:{fleet.port}"',
            },
        )
        place.add_program("fleetmem", f'exec {sys.executable} -m fleetmem "$@"\n')
        make_leftovers(cli, fleet, statsd, carbon_cache, prometheus, port)
        assert place.run(documents.Block(1, "fleetmem dashboards -o dashboards")).returncode == 0
        done = place.run(block_with("docs/how-to/dashboards.md", "api/dashboards/db"))
        assert done.returncode == 0, done.stderr
        assert len(uids) == 4
        carbon_cache.stop()  # it has written all that it holds
        left = files(home) - before
        assert {".ssh/known_hosts", ".ssh/fleetmem", ".bash_completions/fleetmem.sh"} <= left
        assert any(path.startswith(".local/state/fleetmem/") for path in left)
        assert statsd.gauges()
        assert prometheus.points('{__name__=~"fleetmem_.*"}')
        assert (carbon_cache.whisper / "fleetmem").is_dir()

        for block in documents.blocks(PAGE):
            if "userdel" not in block.text:  # tests/integration/test_ansible_role.py
                done = place.run(block)
                assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"

        assert files(home) - before <= {".ssh/known_hosts", ".bashrc"}
        assert (home / ".ssh/known_hosts").read_text() == ""
        assert "fleetmem" in (home / ".bashrc").read_text(), "the line that the page names"
        assert statsd.gauges() == {}
        assert not list(carbon_cache.whisper.rglob("*fleetmem*"))
        assert prometheus.points('{__name__=~"fleetmem_.*"}') == []
        assert uids == set()
        assert not (tmp_path / "dashboards").exists()


def make_leftovers(
    cli: Cli, fleet: Sshd, statsd: StatsD, carbon_cache: CarbonCache, prometheus: Prometheus, port: int
) -> None:
    """Runs fleetmem with all that it can write to, until everything has arrived."""
    configuration = cli.home / ".config" / "fleetmem" / "config.toml"
    configuration.parent.mkdir()
    configuration.write_text(f"[inventory]\nhosts = {json.dumps(HOSTS)}\n[ssh]\nport = {fleet.port}\n")
    for suffix in ("", ".pub"):
        (cli.home / ".ssh" / f"fleetmem{suffix}").write_text(Path(f"{fleet.key}{suffix}").read_text())
    (cli.home / ".ssh" / "fleetmem").chmod(0o600)
    servers = ("-g", statsd.address, "--graphite", carbon_cache.line_address, "--prometheus", port)
    with cli.run("-k", cli.home / ".ssh" / "fleetmem", *servers, "--interval", 1) as running:
        wait_for("StatsD has gauges", statsd.gauges)
        wait_for("carbon has files", lambda: any(name.startswith("fleetmem.") for name in carbon_cache.names()))
        wait_for("Prometheus has series", lambda: prometheus.query('{__name__=~"fleetmem_.*"}'))
        running.signal(signal.SIGTERM)
        assert running.wait(60) == 0, running.stderr
    shell = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    program = Path(sys.executable).parent / "fleetmem"
    subprocess.run(
        [program, "--install-completion", "bash"], env=environment(cli.home) | shell, check=True, stdout=subprocess.PIPE
    )
    assert os.access(cli.home / ".bash_completions" / "fleetmem.sh", os.R_OK)
