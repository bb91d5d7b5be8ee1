"""The Graphite host's own files, read by the programs that read them there."""

import configparser
import json
import re
import socket
import stat
import subprocess
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from .graphite_host import GRAPHITE_FILES, STEP_SECONDS, DeployedStatsD, GraphiteHost, rules
from .receivers import CarbonCache
from .servers import REPOSITORY, TOOLS, started, wait_for

SHORT = [[10, 2160], [60, 4320]]
LONG = [[10, 2160], [60, 10080], [600, 52560]]
SERIES = {
    "stats.gauges.fleetmem.process.web01.nginx.7.rss_bytes": (SHORT, "max", 0),
    "fleetmem.process.web01.nginx.7.mem_percent": (SHORT, "max", 0),
    "stats.gauges.fleetmem.command.web01.nginx.procs": (LONG, "max", 0),
    "fleetmem.command.web01.other.rss_bytes": (LONG, "max", 0),
    "stats.gauges.fleetmem.host.web01.up": (LONG, "max", 0),
    "fleetmem.collector.ops1.points_sent_total": (LONG, "max", 0),
    "stats.gauges.other.fleetmem.process.a": ([[10, 2160], [60, 10080]], "average", 0.3),
    "stats.statsd.packets_received.count": ([[10, 2160], [60, 10080]], "sum", 0),
}
"""How each series is to be kept: points of so many seconds, aggregation, xFilesFactor."""

_INFO = """\
import json, sys, whisper
info = whisper.info(sys.argv[1])
archives = [[each["secondsPerPoint"], each["points"]] for each in info["archives"]]
json.dump([archives, info["aggregationMethod"], round(info["xFilesFactor"], 3)], sys.stdout)
"""


def _info(carbon: CarbonCache, name: str) -> Any:
    """Returns what whisper says of a series' file."""
    path = carbon.folder / "graphite" / "storage" / "whisper" / f"{name.replace('.', '/')}.wsp"
    python = str(TOOLS / "graphite-venv" / "bin" / "python")
    done = subprocess.run([python, "-P", "-c", _INFO, str(path)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _send(carbon: CarbonCache, names: Sequence[str]) -> None:
    now = int(time.time())
    with socket.create_connection(("127.0.0.1", carbon.line_port), timeout=10) as connection:
        connection.sendall("".join(f"{name} 1 {now}\n" for name in names).encode())


def test_carbon_keeps_series_as_the_files_say_and_takes_a_fleet_at_once(tmp_path: Path) -> None:
    """Pids short, the rest of fleetmem's long, all by their maximum; 3,000 new series within seconds."""
    many = [f"fleetmem.process.web{host:02}.x.{pid}.rss_bytes" for host in range(30) for pid in range(100)]
    with started(CarbonCache(tmp_path / "carbon", rules())) as carbon:
        _send(carbon, [*SERIES, *many])
        wait_for("all series have their file", lambda: carbon.names() >= {*SERIES, *many})
        for name, (archives, method, factor) in SERIES.items():
            assert _info(carbon, name) == [archives, method, factor], name


@pytest.mark.slow
def test_statsd_forgets_what_nobody_sends_any_more(tmp_path: Path) -> None:
    """A gauge that was sent once is stored for three flushes, one that is sent on all the time."""
    with (
        started(CarbonCache(tmp_path / "carbon")) as carbon,
        started(DeployedStatsD(tmp_path / "statsd", carbon.line_port, flush_seconds=1)) as statsd,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.connect(("127.0.0.1", statsd.port))
        client.send(b"once:5|g\n")

        def points() -> dict[str, int]:
            client.send(b"always:7|g\n")
            return {name: len(found) for name, found in carbon.points().items()}

        wait_for("six flushes", lambda: points().get("stats.gauges.always", 0) >= 6)
        assert points()["stats.gauges.once"] == 3


def test_the_bootstrap_makes_secrets_once_and_for_root_only(tmp_path: Path) -> None:
    """Long, different, not readable by others; a second run changes nothing, and starts the containers again."""
    host = GraphiteHost(tmp_path, STEP_SECONDS)
    asked = host.bootstrap()
    assert asked[0] == "systemctl enable --now fleetmem-prune.timer"
    assert asked[1].startswith("docker compose up --detach --wait")
    secret = ("graphite.env", "grafana.env", "tls/key.pem")
    before = {name: (host.home / name).read_text() for name in secret}
    assert re.fullmatch(r"GRAPHITE_SECRET_KEY=[0-9a-f]{64}\n", before["graphite.env"])
    assert re.fullmatch(r"GF_SECURITY_ADMIN_PASSWORD=[0-9a-f]{64}\n", before["grafana.env"])
    assert before["graphite.env"][-20:] != before["grafana.env"][-20:]
    modes = {name: stat.S_IMODE((host.home / name).stat().st_mode) for name in (*secret, "tls")}
    assert modes == dict.fromkeys(secret, 0o600) | {"tls": 0o700}
    assert stat.S_IMODE((host.home / "certificate.pem").stat().st_mode) == 0o644
    host.bootstrap()
    assert {name: (host.home / name).read_text() for name in secret} == before


def test_the_documents_show_the_files() -> None:
    """What docs/how-to/graphite.md says to write is what the files have."""
    text = (REPOSITORY / "docs" / "how-to" / "graphite.md").read_text()
    blocks = re.findall(r"^## (\S+\.conf)\n.*?```ini\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _block in blocks] == ["storage-schemas.conf", "storage-aggregation.conf"]
    for name, block in blocks:
        shown, written = configparser.ConfigParser(), configparser.ConfigParser()
        shown.read_string(block)
        written.read(GRAPHITE_FILES / name)
        assert shown.sections()
        for section in shown.sections():
            assert dict(shown[section]) == dict(written[section])


def test_interval_and_names_are_the_same_everywhere() -> None:
    """StatsD, statsite and Telegraf flush as often as the finest step is long, and give the same names."""
    statsite = configparser.ConfigParser(comment_prefixes=";")
    statsite.read(REPOSITORY / "deploy" / "statsite.conf")
    telegraf = tomllib.loads((REPOSITORY / "deploy" / "telegraf.conf").read_text())
    assert "flushInterval: 10000," in (GRAPHITE_FILES / "udp.js").read_text()
    assert statsite["statsite"]["flush_interval"] == str(STEP_SECONDS)
    assert telegraf["agent"]["interval"] == telegraf["agent"]["flush_interval"] == f"{STEP_SECONDS}s"
    assert statsite["statsite"]["gauges_prefix"] == "stats.gauges."
    (graphite,) = telegraf["outputs"]["graphite"]
    assert (graphite["prefix"], graphite["template"]) == ("stats.gauges", "measurement.field")
    for schemas in re.findall(r"^retentions = (.*)", rules().schemas, re.MULTILINE):
        assert schemas.startswith(f"{STEP_SECONDS}s:")


def test_statsites_stream_becomes_carbons_lines() -> None:
    """The command in statsite.conf turns what statsite writes into what carbon reads."""
    statsite = configparser.ConfigParser(comment_prefixes=";", interpolation=None)
    statsite.read(REPOSITORY / "deploy" / "statsite.conf")
    command, _, receiver = statsite["statsite"]["stream_cmd"].partition(" | ")
    assert receiver.endswith("127.0.0.1 2003")
    done = subprocess.run(["/bin/sh", "-c", command], input=b"a.b|1.500000|17\n", stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"a.b 1.500000 17\n"
